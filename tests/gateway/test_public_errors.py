"""What callers are shown of errors that are the operator's to mend."""

import sys
from pathlib import Path

import openai
import pytest

from tests.gateway.served import providers, served
from tolmach import transport
from tolmach.demo import Demo
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.server import serving
from tolmach.providers.base import Access
from tolmach.routing.targets import Provider, Targets


async def refused(url: str, model: str) -> openai.APIStatusError:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hello"}])
    return caught.value


async def test_the_command_for_a_missing_package_is_not_for_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.setattr(transport, "_shared", {})  # the one that another test has used would be at hand
    monkeypatch.setenv("TOLMACH_TRANSPORT", "aiohttp")
    async with served("rsgi") as (url, _, _):
        error = await refused(url, "openai/gpt-4o-mini")
    assert error.status_code == 500
    assert "the aiohttp transport needs the package aiohttp" in error.message
    assert "pip" not in error.message
    assert str(Path(__file__).parents[2]) not in error.message


async def test_a_session_that_cannot_be_opened_is_told_by_its_reason() -> None:
    async with Demo(delay=0) as demo:
        aichat = next(provider for provider in providers(demo) if provider.name == "Aichat")
        without = Provider(name="Aichat", site=aichat.site, access=Access(), models=aichat.models)
        async with serving(Gateway(Targets([without]))) as url:
            error = await refused(url, "Aichat/default")
    assert error.status_code == 502
    assert "cookies" in error.message
