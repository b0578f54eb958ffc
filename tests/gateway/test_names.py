"""Names of models that callers make up: long ones are refused, and none of them is kept, logged or counted."""

import json
import logging
from typing import Any

import pytest

from tests.gateway.serving.test_sockets import PATHS, body, both, connected, read_to_end, request
from tests.gateway.upstream import Upstream
from tolmach.access.keys import Key, KeyRing, new_key
from tolmach.gateway.callers import Callers
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.server import serving
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.routing import targets as targets_module
from tolmach.routing.targets import Provider, Targets


def gateway(upstream: Upstream, callers: Callers | None = None) -> Gateway:
    site = Site(name="up", url=f"{upstream.url}/v1", protocol=create("openai"), api_key="key")
    return Gateway(Targets([Provider(name="up", site=site, access=Access(), models={"good": "good"})]), callers=callers)


async def asked(url: str, path: str, model: str, headers: str = "") -> tuple[int, dict[str, Any]]:
    async with connected(url) as (reader, writer):
        writer.write(request(path, body(path, model), f"Connection: close\r\n{headers}"))
        head, _, said = (await read_to_end(reader)).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(said)


@both
@pytest.mark.parametrize("path", [*PATHS, "/v1/messages/count_tokens", "/v1/embeddings"])
async def test_a_long_name_is_refused_and_stands_nowhere(
    interface: Any, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Upstream() as upstream:
        core = gateway(upstream)
        async with serving(core, interface=interface) as url:
            for model in ("up/" + "A" * 254, "B" * (1 << 20)):
                data = json.dumps({**json.loads(body(path, model)), "input": "Hm?"}).encode()
                async with connected(url) as (reader, writer):
                    writer.write(request(path, data, "Connection: close\r\n"))
                    said = await read_to_end(reader)
                assert said.startswith(b"HTTP/1.1 400"), said[:200]
                assert b"model: it has more than 256 characters" in said
                assert len(said) < 2000
        assert "AAAA" not in caplog.text
        assert "BBBB" not in caplog.text
        assert core.targets._found == {}
        assert b"AAAA" not in core.metrics.text()
        assert upstream.asked == {}


async def test_a_name_that_the_key_may_not_ask_for_is_not_looked_up() -> None:
    plain, key = new_key(bytes, "web")
    limited = Key(**{field: getattr(key, field) for field in key.__struct_fields__} | {"models": ("up/good",)})
    async with Upstream() as upstream:
        core = gateway(upstream, Callers(KeyRing([limited])))
        async with serving(core) as url:
            for model in ("up/other", "nowhere"):
                # The same for a model that there is and for one that there is not.
                assert (await asked(url, PATHS[0], model, f"Authorization: Bearer {plain}\r\n"))[0] == 404
            assert core.targets._found == {}
            assert (await asked(url, PATHS[0], "up/good", f"Authorization: Bearer {plain}\r\n"))[0] == 200


async def test_junk_names_do_not_push_out_those_that_are_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets_module, "_MOST_FOUND", 20)
    async with Upstream() as upstream:
        core = gateway(upstream)
        async with serving(core) as url:
            for number in range(50):
                await asked(url, PATHS[0], f"up/junk{number}")
            for name in ("up/good", "good"):
                assert (await asked(url, PATHS[0], name))[0] == 200
        text = core.metrics.text().decode()
        assert "junk" not in text
        assert 'tolmach_requests_total{status="200",surface="openai",target="up/good"} 2.0' in text
        assert 'tolmach_requests_total{status="200",surface="openai",target="other"} 50.0' in text
        assert len(core.targets._found) <= 20
        assert "up/good" in core.targets._found
