"""The gateway on real sockets, over both server interfaces, asked by the openai package and by hand."""

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator
from typing import Any

import openai
import pytest
from openai.types import Model

from tests.gateway.served import MODELS, served
from tolmach.demo import Demo
from tolmach.gateway.core import Gateway
from tolmach.gateway.http import ServerLimits

QUESTION: list[Any] = [{"role": "user", "content": "What is the answer?"}]

Served = tuple[str, Demo, Gateway]


@pytest.fixture(params=["rsgi", "asgi"])
async def gateway(request: pytest.FixtureRequest) -> AsyncGenerator[Served, None]:
    async with served(request.param) as here:
        yield here


def client(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)


async def raw(
    url: str, method: str, path: str, body: bytes = b"", headers: str = ""
) -> tuple[int, dict[str, str], bytes]:
    """One request by hand; the connection is closed by the server's answer being read."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    )
    writer.write(head.encode() + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    first, _, rest = answer.partition(b"\r\n\r\n")
    lines = first.decode("latin-1").split("\r\n")
    named = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return int(lines[0].split()[1]), named, _dechunked(rest) if "transfer-encoding" in named else rest


def _dechunked(rest: bytes) -> bytes:
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        body, rest = body + rest[:length], rest[length + 2 :]
    return body


async def text_of(stream: Any) -> tuple[str, str | None]:
    text, reason = "", None
    async for chunk in stream:
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            reason = chunk.choices[0].finish_reason or reason
    return text, reason


@pytest.mark.parametrize("model", MODELS)
async def test_every_service_answers_streamed_and_whole(gateway: Served, model: str):
    url, _, _ = gateway
    async with client(url) as api:
        text, reason = await text_of(await api.chat.completions.create(model=model, messages=QUESTION, stream=True))
        whole = await api.chat.completions.create(model=model, messages=QUESTION)
    assert "What is the answer?" in text
    assert reason == "stop"
    assert "What is the answer?" in (whole.choices[0].message.content or "")
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    assert whole.usage.total_tokens > 0


async def test_usage_is_told_when_asked_for_and_estimates_are_marked(gateway: Served):
    url, _, _ = gateway
    async with client(url) as api:
        stream = await api.chat.completions.create(
            model="ChatGptt/gpt-4o", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
        usages = [chunk.usage async for chunk in stream if chunk.usage is not None]
    [usage] = usages
    assert usage.completion_tokens > 10
    assert usage.model_dump()["estimated"] is True


async def test_models(gateway: Served):
    url, _, _ = gateway
    async with client(url) as api:
        names = [model.id async for model in api.models.list()]
        assert {"gpt-4o", "Chatgpt4Online/gpt-4", "openai/gpt-4o-mini"} <= set(names)
        assert (await api.models.retrieve("Chatgpt4Online/gpt-4")).owned_by == "Chatgpt4Online"
        with pytest.raises(openai.NotFoundError):
            await api.models.retrieve("nothing/of-this")


async def test_models_have_the_shape_of_the_api(gateway: Served):
    url, _, _ = gateway
    status, _, data = await raw(url, "GET", "/v1/models")
    listed = json.loads(data)
    assert (status, listed["object"]) == (200, "list")
    rows = {Model.model_validate(row, strict=True).id: row for row in listed["data"]}
    assert len(rows) == len(listed["data"])
    for name in ("gpt-4o", "Chatgpt4Online/gpt-4"):
        status, _, data = await raw(url, "GET", f"/v1/models/{name}")
        assert (status, json.loads(data)) == (200, rows[name])
    status, _, data = await raw(url, "GET", "/v1/models/z")
    assert (status, json.loads(data)["error"]["code"]) == (404, "model_not_found")
    assert "'z'" in json.loads(data)["error"]["message"]


AUTHORISED = "Authorization: Bearer key\r\nContent-Type: application/json\r\n"


async def test_a_body_is_passed_on_losslessly_to_a_target_of_the_same_api(gateway: Served):
    url, demo, _ = gateway
    body = {"model": "openai/gpt-4o-mini", "messages": QUESTION, "metadata": {"kept": "1"}, "temperature": 0.25}
    through = await raw(url, "POST", "/v1/chat/completions", json.dumps(body).encode())
    own = json.dumps({**body, "model": "gpt-4o-mini"}).encode()
    direct = await raw(demo.url, "POST", "/v1/chat/completions", own, AUTHORISED)
    ours, theirs = json.loads(through[2]), json.loads(direct[2])
    for answer in (ours, theirs):
        answer.pop("id")
        answer.pop("created")
    assert (through[0], ours) == (200, theirs)


async def test_a_field_that_nobody_here_knows_is_the_targets_to_judge(gateway: Served):
    url, _, _ = gateway
    body = {"model": "openai/gpt-4o-mini", "messages": QUESTION, "a_new_field": [1, None]}
    status, _, answer = await raw(url, "POST", "/v1/chat/completions", json.dumps(body).encode())
    assert status == 400
    assert "a_new_field" in json.loads(answer)["error"]["message"]


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("nothing", openai.NotFoundError),
        ("openai/fault:401", openai.AuthenticationError),
        ("openai/fault:429-retry-after=9", openai.RateLimitError),
        ("openai/fault:500", openai.InternalServerError),
        ("openai/fault:reset", openai.InternalServerError),
        ("openai/fault:html", openai.InternalServerError),
        ("ChatGpt/fault:403-challenge", openai.APIStatusError),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_failures_before_the_answer_have_their_status(
    gateway: Served, model: str, error: type[openai.APIError], streamed: bool
):
    url, _, _ = gateway
    async with client(url) as api:

        async def ask() -> None:
            if streamed:
                await text_of(await api.chat.completions.create(model=model, messages=QUESTION, stream=True))
            else:
                await api.chat.completions.create(model=model, messages=QUESTION)

        with pytest.raises(error) as caught:
            await ask()
    if isinstance(caught.value, openai.RateLimitError):
        assert caught.value.response.headers["retry-after"] == "9"
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        ("openai/fault:{}", "cut=5"),
        ("openai/fault:{}", "malformed=5"),
        ("openai/fault:{}", "missing-end"),
        ("openai/fault:{}", "upstream-event=5"),
        ("openai/fault:{}", "big-event=10"),
        ("ChatGpt/fault:{}", "cut=5"),
        ("ChatGptt/gpt-4o", "cut=5"),
        ("ChatGptt/gpt-4o", "malformed=5"),
        ("Chatgpt4Online/gpt-4", "cut=5"),
        ("Chatgpt4Online/gpt-4", "missing-end"),
        ("aipkit/kit", "cut=5"),
        ("aipkit/kit", "upstream-event=5"),
    ],
)
async def test_a_broken_stream_ends_in_an_error_and_never_looks_finished(gateway: Served, model: str, fault: str):
    url, demo, _ = gateway
    question = f"[[fault:{fault}]] go on" if "{}" not in model else "go on"
    body = {
        "model": model.format(fault),
        "messages": [{"role": "user", "content": question}],
        "stream": True,
    }
    status, headers, answer = await raw(url, "POST", "/v1/chat/completions", json.dumps(body).encode())
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    # What was passed on is whole events, each of them JSON.
    events = [json.loads(line.removeprefix(b"data: ")) for line in _data_lines(answer)]
    assert "error" in events[-1]
    assert events[-1]["error"]["message"]
    assert b"[DONE]" not in answer
    if "missing-end" not in fault:
        reasons = [c.get("finish_reason") for e in events[:-1] for c in e.get("choices", ())]
        assert set(reasons) <= {None}
    await demo.log.wait_until(lambda log: log.requests[-1].ended)


def _data_lines(answer: bytes) -> list[bytes]:
    return [line for line in answer.split(b"\n") if line.startswith(b"data: ")]


async def test_request_ids_come_back_and_targets_are_named(gateway: Served):
    url, _, _ = gateway
    body = json.dumps({"model": "ChatGptt/gpt-4o", "messages": QUESTION}).encode()
    _, headers, _ = await raw(url, "POST", "/v1/chat/completions", body, "X-Request-Id: mine-17\r\n")
    assert headers["x-request-id"] == "mine-17"
    assert headers["x-tolmach-target"] == "ChatGptt/gpt-4o"
    assert headers["server-timing"].startswith("target;dur=")
    _, headers, _ = await raw(url, "POST", "/v1/chat/completions", body, "X-Request-Id: no good\tone\r\n")
    assert len(headers["x-request-id"]) == 32


async def test_what_a_target_cannot_honour_is_told_in_a_header(gateway: Served):
    url, _, _ = gateway
    body = json.dumps({"model": "ChatGptt/gpt-4o", "messages": QUESTION, "temperature": 0.3}).encode()
    status, headers, _ = await raw(url, "POST", "/v1/chat/completions", body)
    assert status == 200
    assert "temperature" in headers["x-tolmach-degraded"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[]", "object"),
        (b'{"messages": []}', "model"),
        (b'{"model": "ChatGptt/gpt-4o"}', "messages"),
        (b'{"model": "ChatGptt/gpt-4o", "messages": "hi"}', "messages"),
        (b'{"model": 7, "messages": []}', "model"),
        (b'{"model": "ChatGptt/gpt-4o", "messages": [' + b"[" * 100_000 + b"]}", "JSON"),
    ],
)
async def test_a_wrong_body_is_a_400_that_says_what_is_wrong(gateway: Served, body: bytes, says: str):
    url, _, _ = gateway
    status, _, answer = await raw(url, "POST", "/v1/chat/completions", body)
    assert status == 400
    assert says.lower() in json.loads(answer)["error"]["message"].lower()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/health/live", 200),
        ("GET", "/health/ready", 200),
        ("GET", "/metrics", 200),
    ],
)
async def test_other_paths(gateway: Served, method: str, path: str, status: int):
    url, _, _ = gateway
    assert (await raw(url, method, path))[0] == status


async def test_head_is_answered_where_get_is(gateway: Served):
    url, _, _ = gateway
    for path in ("/health/live", "/health/ready", "/v1/models", "/v1/models/openai%2Fgpt-4o-mini", "/openapi.json"):
        status, headers, body = await raw(url, "HEAD", path)
        assert (status, headers["content-type"], body) == (200, "application/json", b"")
    status, headers, body = await raw(url, "HEAD", "/v1/chat/completions")
    assert (status, headers["allow"], body) == (405, "POST", b"")
    status, headers, _ = await raw(url, "POST", "/v1/models")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


async def test_a_compressed_body_is_refused_by_its_encoding(gateway: Served):
    url, demo, _ = gateway
    body = json.dumps({"model": "openai/gpt-4o-mini", "messages": QUESTION}).encode()
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"):
        status, _, answer = await raw(url, "POST", path, gzip.compress(body), "Content-Encoding: gzip\r\n")
        assert (status, json.loads(answer)["error"]["type"]) == (415, "invalid_request_error")
        assert "Content-Encoding: gzip" in json.loads(answer)["error"]["message"]
    assert not demo.log.requests
    assert (await raw(url, "POST", "/v1/chat/completions", body, "Content-Encoding: Identity\r\n"))[0] == 200


@pytest.mark.parametrize("interface", ["rsgi", "asgi"])
async def test_a_body_over_the_limit_is_refused(interface: Any):
    async with served(interface, limits=ServerLimits(body_bytes=1000)) as (url, demo, _):
        body = json.dumps({"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "x" * 2000}]})
        status, _, answer = await raw(url, "POST", "/v1/chat/completions", body.encode())
        assert status == 413
        assert "1000 bytes" in json.loads(answer)["error"]["message"]
        assert not demo.log.requests


async def test_two_hundred_callers_at_once(gateway: Served):
    url, _, core = gateway
    async with client(url) as api:

        async def one(i: int) -> str:
            model = MODELS[i % len(MODELS)]
            text, _ = await text_of(
                await api.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": f"number {i}"}], stream=True
                )
            )
            return text

        texts = await asyncio.gather(*[one(i) for i in range(200)])
    assert all(f"number {i}" in text for i, text in enumerate(texts))
    assert b"tolmach_open_streams 0.0" in core.metrics.text()
