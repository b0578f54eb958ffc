"""The OpenAPI document is what the gateway does: random requests in its terms, and against them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.gateway.served import MODELS, served
from tolmach.gateway.openapi import document

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.filterwarnings("ignore")]

EXAMPLES = 20
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
OPERATIONS = [(method.upper(), path) for path, item in document()["paths"].items() for method in item]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url() -> AsyncGenerator[str, None]:
    async with served("rsgi", delay=0) as (url, _, _):
        yield url


def ask_at_random(url: str, method: str, path: str, mode: GenerationMode) -> list[int]:
    """The statuses of the answers. Raises what a check found."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operation = schema[path][method]
    statuses: list[int] = []

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        for asked in (case.body, case.query):
            if isinstance(asked, dict) and isinstance(asked.get("model"), str):
                # A name that leads somewhere, mostly: else all that comes is a 404.
                at = len(statuses) % (len(MODELS) + 1)
                asked["model"] = (*MODELS, asked["model"])[at]
        response = case.call_and_validate(checks=CHECKS)
        statuses.append(response.status_code)

    ask()
    return statuses


USER = {"role": "user", "content": "Hm?"}
QUESTIONS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [USER], "temperature": 0.5},
    "/v1/responses": {"input": "Hm?", "instructions": "Be kind."},
    "/v1/messages": {"messages": [USER], "max_tokens": 100},
    "/v1/messages/count_tokens": {"messages": [USER]},
}
STREAMED = ("/v1/chat/completions", "/v1/responses", "/v1/messages")


@pytest.mark.parametrize("path", QUESTIONS)
async def test_answers_have_their_documented_shape(url: str, path: str):
    def ask() -> set[int]:
        operation = schemathesis.openapi.from_url(f"{url}/openapi.json")[path]["POST"]
        statuses = set()
        for model in MODELS:
            for more in ({}, {"stream": True}) if path in STREAMED else ({},):
                case = operation.Case(body={"model": model, **QUESTIONS[path], **more}, media_type="application/json")
                statuses.add(case.call_and_validate(checks=CHECKS[:4]).status_code)
        return statuses

    assert await asyncio.to_thread(ask) == {200}


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_right_requests_have_documented_answers(url: str, method: str, path: str):
    statuses = await asyncio.to_thread(ask_at_random, url, method, path, GenerationMode.POSITIVE)
    assert statuses
    if method == "GET" and "{" not in path:
        assert 200 in statuses
        assert set(statuses) <= ({200, 404} if path == "/admin/explain" else {200})


@pytest.mark.parametrize("path", [path for method, path in OPERATIONS if method == "POST"])
async def test_wrong_requests_have_documented_refusals(url: str, path: str):
    statuses = await asyncio.to_thread(ask_at_random, url, "POST", path, GenerationMode.NEGATIVE)
    assert 400 in statuses


async def test_it_has_every_route(url: str):
    async with served("rsgi") as (_, _, core):
        routes = {(method, path) for method, path in core._routes}
    assert routes == set(OPERATIONS) - {("GET", "/v1/models/{id}")}
