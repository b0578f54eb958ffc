"""Bodies and answers that go through where caller and target speak the same API, on both interfaces."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio

from tests.gateway.served import forget_failures, served
from tests.gateway.test_core import raw
from tests.protocols.driving import cases, load
from tests.transport.server import listening
from tolmach.demo import Demo
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.server import serving
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.routing.targets import Provider, Targets

pytestmark = pytest.mark.asyncio(loop_scope="module")

Served = tuple[str, Demo, Gateway]

PATHS = {"openai": "/v1/chat/completions", "responses": "/v1/responses", "anthropic": "/v1/messages"}
MODELS = {
    "openai": "openai/gpt-4o-mini",
    "responses": "responses/gpt-5-mini",
    "anthropic": "anthropic/claude-sonnet-4-5",
}
PROTOCOLS = {"openai": "openai", "responses": "openai-responses", "anthropic": "anthropic"}
ENDS = (b"[DONE]", b"message_stop", b"response.completed", b"response.incomplete")


def question(api: str, text: str = "hi", **fields: Any) -> dict[str, Any]:
    if api == "responses":
        return {"model": MODELS[api], "input": text, **fields}
    limit = {"max_tokens": 999} if api == "anthropic" else {}
    return {"model": MODELS[api], "messages": [{"role": "user", "content": text}], **limit, **fields}


def read_request(data: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return lines[0].split()[1], headers, body


class Replay:
    """An upstream that gives one answer, as it was recorded, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []
        self.asked: list[tuple[str, dict[str, str], bytes]] = []

    def gives(self, kind: str, pieces: Iterable[bytes], status: int = 200, **headers: str) -> None:
        self.status, self.pieces = status, list(pieces)
        self.headers = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readuntil(b"\r\n\r\n")
        length = int(read_request(data)[1].get("content-length", 0))
        self.asked.append(read_request(data + await reader.readexactly(length)))
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        writer.write(f"HTTP/1.1 {self.status} X\r\n{head}connection: close\r\n\r\n".encode())
        for piece in self.pieces:
            writer.write(piece)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def replaying(interface: Any) -> AsyncGenerator[tuple[str, Replay], None]:
    replay = Replay()
    async with listening(replay.answer) as port:
        providers = [
            Provider(
                name=name,
                site=Site(name=name, url=f"http://127.0.0.1:{port}/v1", protocol=create(protocol), api_key="secret"),
                access=Access(),
            )
            for name, protocol in PROTOCOLS.items()
        ]
        async with serving(Gateway(Targets(providers)), interface=interface) as url:
            yield url, replay


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["rsgi", "asgi"])
async def demo(request: pytest.FixtureRequest) -> AsyncGenerator[Served, None]:
    async with served(request.param, delay=0) as here:
        yield here


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["rsgi", "asgi"])
async def replay(request: pytest.FixtureRequest) -> AsyncGenerator[tuple[str, Replay], None]:
    async with replaying(request.param) as here:
        yield here


async def post(url: str, api: str, body: Any, headers: str = "", path: str = "") -> tuple[int, dict[str, str], bytes]:
    return await raw(url, "POST", PATHS[api] + path, json.dumps(body).encode(), headers)


def single(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


# Streams of events that nobody here knows

ODD = {
    "openai": b': OPENROUTER PROCESSING\n\ndata: {"id":"1","choices":[{"index":0,"delta":{"content":"a","x_citations":'
    b'[1]},"logprobs":{"content":[]}}],"new": 1e400}\n\nevent: extra\nid: 7\ndata:{"choices":[{"index":0,"delta":{},'
    b'"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    "anthropic": b'event: message_start\ndata: {"type": "message_start","message":{"id":"msg_1","usage":{"input_tokens"'
    b':3,"output_tokens":1,"server_tool_use":{"web_search_requests":1}}}}\n\nevent: content_block_start\ndata: {"type":'
    b'"content_block_start","index":0,"content_block":{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search",'
    b'"input":{}}}\n\nevent: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":'
    b'"signature_delta","signature":"c2lnbmVk"}}\n\nevent: content_block_delta\ndata: {"type":"content_block_delta",'
    b'"index":1,"delta":{"type":"citations_delta","citation":{"x":"\xd0\x9f"}}}\n\nevent: new_thing\ndata: {"type":'
    b'"new_thing","half":"\\ud83d"}\n\nevent: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":'
    b'"pause_turn"},"usage":{"output_tokens":9}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n',
    "responses": b'event: response.created\r\ndata: {"type":"response.created","response":{"id":"resp_1"}}\r\n\r\n'
    b'data: {"type":"response.web_search_call.searching","item_id":"ws_1","sequence_number":1}\n\ndata: {"type":'
    b'"response.new.delta","delta":{"b":[1,null]}}\n\ndata: {"type":"response.completed","response":{"id":"resp_1",'
    b'"status":"completed","output":[{"type":"reasoning","encrypted_content":"c2VjcmV0"}],"usage":{"input_tokens":2,'
    b'"output_tokens":3,"total_tokens":5}}}\n\n',
}


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("cut", ["whole", "bytes"])
async def test_streams_go_through_byte_for_byte(replay: tuple[str, Replay], api: str, cut: str):
    url, upstream = replay
    upstream.gives("text/event-stream; charset=utf-8", [ODD[api]] if cut == "whole" else single(ODD[api]))
    status, headers, answer = await post(url, api, question(api, stream=True))
    assert (status, answer) == (200, ODD[api])
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["x-tolmach-target"] == MODELS[api]


@pytest.mark.parametrize("api", PATHS)
async def test_bodies_go_through_with_another_model(replay: tuple[str, Replay], api: str):
    url, upstream = replay
    body = question(api, "Привет", stream=True, temperature=1e-7, new={"b": [1, None, 10**30]}, tools=[{"type": "x_1"}])
    if api == "openai":
        body["stream_options"] = {"include_usage": True}
    if api == "responses":
        body["previous_response_id"] = "resp_of_the_target"
    secrets = "Cookie: a=b\r\nAuthorization: Bearer callers\r\nX-Api-Key: callers\r\nX-Anything: x\r\n"
    versions = "Anthropic-Beta: one, two\r\nAnthropic-Version: 2023-01-01\r\n"
    upstream.gives("text/event-stream", [ODD[api]])
    status, _, _ = await post(url, api, body, secrets + versions)
    assert status == 200
    path, headers, sent = upstream.asked[-1]
    assert path == PATHS[api]
    assert json.loads(sent) == body | {"model": MODELS[api].partition("/")[2]}
    assert "callers" not in str(headers)
    assert headers.keys().isdisjoint({"cookie", "x-anything"})
    if api == "anthropic":
        assert headers["x-api-key"] == "secret"
        assert (headers["anthropic-beta"], headers["anthropic-version"]) == ("one,two", "2023-01-01")
    else:
        assert headers["authorization"] == "Bearer secret"
        assert headers.keys().isdisjoint({"anthropic-beta", "anthropic-version"})


async def test_a_listed_header_that_is_odd_does_not_go_along(replay: tuple[str, Replay]):
    url, upstream = replay
    before = len(upstream.asked)
    upstream.gives("text/event-stream", [ODD["anthropic"]])
    body = question("anthropic", stream=True)
    status, _, answer = await post(url, "anthropic", body, "Anthropic-Beta: \xe9\r\n")
    if status == 200:  # granian's RSGI does not show such a header at all
        assert "anthropic-beta" not in upstream.asked[-1][1]
    else:
        assert status == 400
        assert "anthropic-beta" in json.loads(answer)["error"]["message"]
        assert len(upstream.asked) == before
    status, _, answer = await post(url, "anthropic", body, f"Anthropic-Beta: {'x' * 3000}\r\n")
    assert status == 400
    assert "anthropic-beta" in json.loads(answer)["error"]["message"]


RECORDED = [
    pytest.param(api, case, id=f"{api}/{case}")
    for api, family in PROTOCOLS.items()
    for case in cases(family)
    if load(family, case)[0].head.status == 200
]


@pytest.mark.parametrize(("api", "case"), RECORDED)
async def test_recorded_answers(replay: tuple[str, Replay], api: str, case: str):
    url, upstream = replay
    (recorded,) = load(PROTOCOLS[api], case)
    streamed = recorded.head.content_type == "text/event-stream"
    upstream.gives(recorded.head.header("content-type") or "", recorded.chunks)
    asked = streamed and b'"prompt_tokens":' in recorded.body
    told: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    status, _, answer = await post(url, api, question(api, stream=streamed, **told))
    if case.startswith("error") and case != "error-empty":  # an answer without words goes through, too
        assert status >= 400 or b'"error"' in answer
        assert status >= 400 or not any(mark in answer for mark in ENDS)
        assert b"Traceback" not in answer
    else:
        assert status == 200
        if b"[DONE]" not in recorded.body:
            answer = answer.removesuffix(b"data: [DONE]\n\n")  # what callers wait for and the service left out
        assert recorded.body.startswith(answer)
        assert recorded.body[len(answer) :].strip() in (b"", b"data: [DONE]")


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
async def test_what_breaks_off_ends_in_an_error(replay: tuple[str, Replay], api: str, part: float):
    url, upstream = replay
    body = ODD[api][: int(len(ODD[api]) * part)]
    upstream.gives("text/event-stream", [body])
    status, _, answer = await post(url, api, question(api, stream=True))
    assert not any(mark in answer for mark in ENDS)
    if status == 200:
        last = [line for line in answer.split(b"\n") if line.startswith(b"data:")][-1]
        assert "error" in json.loads(last[5:])
    else:
        assert status == 502
        assert json.loads(answer)["error"]["message"]


# Where the answer has another form than was asked for


@pytest.mark.parametrize("api", PATHS)
async def test_one_object_for_a_stream_is_told_as_a_stream(replay: tuple[str, Replay], api: str):
    url, upstream = replay
    (recorded,) = load(PROTOCOLS[api], "json")
    upstream.gives("application/json", [recorded.body])
    status, headers, answer = await post(url, api, question(api, stream=True))
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert any(mark in answer for mark in ENDS)
    assert answer.count(b"data: ") > 2


@pytest.mark.parametrize("api", PATHS)
async def test_a_stream_for_one_object_is_told_as_one(replay: tuple[str, Replay], api: str):
    url, upstream = replay
    (recorded,) = load(PROTOCOLS[api], "stream")
    upstream.gives("text/event-stream", recorded.chunks)
    status, headers, answer = await post(url, api, question(api))
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert json.loads(answer)["usage"]
    upstream.gives("text/event-stream", [recorded.body[: len(recorded.body) // 2]])
    status, _, answer = await post(url, api, question(api))
    assert status == 502


# At the demo, which is as strict as the real ones


@pytest.mark.parametrize("api", PATHS)
async def test_a_field_that_nobody_here_knows_is_the_targets_to_judge(demo: Served, api: str):
    status, _, answer = await post(demo[0], api, question(api, a_new_field=[1, None]))
    assert status == 400
    assert "a_new_field" in json.loads(answer)["error"]["message"]


_BREAKING = ("cut=5", "malformed=5", "missing-end", "upstream-event=5", "upstream-cut=5", "big-event=10")


@pytest.mark.parametrize(
    ("api", "fault"),
    # In the OpenAI API the last chunk with a reason is an end as well; see the watch.
    [(api, fault) for api in PATHS for fault in _BREAKING if (api, fault) != ("openai", "missing-end")],
)
async def test_a_broken_stream_never_looks_finished(demo: Served, api: str, fault: str):
    status, _, answer = await post(demo[0], api, question(api, f"[[fault:{fault}]] hi", stream=True))
    assert status == 200
    events = [json.loads(line[6:]) for line in answer.split(b"\n") if line.startswith(b"data: ")]
    assert "error" in events[-1]
    assert not any(mark in answer for mark in ENDS)
    if api == "anthropic":
        assert events[-1]["type"] == "error"
        assert answer.rpartition(b"event: ")[2].startswith(b"error\n")
    elif api == "responses":
        assert events[-1]["type"] == "error"


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize(("fault", "status"), [("401", 401), ("429-retry-after=9", 429), ("500", 500), ("reset", 502)])
@pytest.mark.parametrize("stream", [False, True])
async def test_refusals_keep_their_status(demo: Served, api: str, fault: str, status: int, stream: bool):
    forget_failures(demo[2])
    got, headers, answer = await post(demo[0], api, question(api, f"[[fault:{fault}]] hi", stream=stream))
    assert got == status
    assert json.loads(answer)["error"]["message"]
    if status == 429:
        assert headers["retry-after"] == "9"


async def test_the_conversation_is_the_targets_own(demo: Served):
    async with openai.AsyncOpenAI(base_url=f"{demo[0]}/v1", api_key="any", max_retries=0) as api:
        first = await api.responses.create(model=MODELS["responses"], input="one")
        second = await api.responses.create(model=MODELS["responses"], input="two", previous_response_id=first.id)
        assert "hist=3" in second.output_text
        with pytest.raises(openai.BadRequestError, match="not found"):
            await api.responses.create(model=MODELS["responses"], input="two", previous_response_id="resp_no")


async def test_thinking_comes_with_its_signature_and_goes_back(demo: Served):
    async with anthropic.AsyncAnthropic(base_url=demo[0], api_key="any", max_retries=0) as api:
        thinking: Any = {"type": "enabled", "budget_tokens": 1024}
        messages: list[Any] = [{"role": "user", "content": "hi"}]
        async with api.messages.stream(
            model=MODELS["anthropic"], max_tokens=2000, messages=messages, thinking=thinking
        ) as stream:
            first: Any = await stream.get_final_message()
        assert first.content[0].signature == "ZGVtbw=="
        messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": "so?"}]
        again = await api.messages.create(
            model=MODELS["anthropic"], max_tokens=2000, messages=messages, thinking=thinking
        )
    assert again.stop_reason == "end_turn"


@pytest.mark.parametrize("target", ["anthropic", "openai"])
async def test_a_model_that_the_service_has_not_is_not_found(demo: Served, target: str):
    body = {"model": f"{target}/no-such", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    status, _, answer = await post(demo[0], "anthropic", body)
    assert (status, json.loads(answer)["error"]["type"]) == (404, "not_found_error")
    status, _, answer = await post(demo[0], "openai", body)
    assert (status, json.loads(answer)["error"]["type"]) == (404, "invalid_request_error")


async def test_tokens_are_counted_by_the_target_that_can(demo: Served):
    body = {"messages": [{"role": "user", "content": "How many?"}]}
    direct = await raw(
        demo[1].url,
        "POST",
        "/anthropic/v1/messages/count_tokens",
        json.dumps({"model": "claude-sonnet-4-5", **body}).encode(),
        "X-Api-Key: k\r\nAnthropic-Version: 2023-06-01\r\nContent-Type: application/json\r\n",
    )
    status, headers, answer = await post(
        demo[0], "anthropic", {"model": MODELS["anthropic"], **body}, path="/count_tokens"
    )
    assert (status, json.loads(answer)) == (200, json.loads(direct[2]))
    assert headers["x-tolmach-target"] == MODELS["anthropic"]
    status, _, answer = await post(demo[0], "anthropic", {"model": MODELS["openai"], **body}, path="/count_tokens")
    assert json.loads(answer)["estimated"] is True
    status, _, answer = await post(demo[0], "anthropic", {"model": "no/such", **body}, path="/count_tokens")
    assert (status, json.loads(answer)["error"]["type"]) == (404, "not_found_error")
    status, _, answer = await post(
        demo[0], "anthropic", {"model": MODELS["anthropic"], **body, "max_tokens": 1}, path="/count_tokens"
    )
    assert status == 400
    status, _, answer = await post(demo[0], "anthropic", {"messages": []}, path="/count_tokens")
    assert (status, json.loads(answer)["type"]) == (400, "error")


@pytest.mark.parametrize("api", PATHS)
async def test_tokens_are_counted_on_the_way(demo: Served, api: str):
    url, _, core = demo
    for stream in (False, True):
        before = core.metrics.text()
        fields: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream and api == "openai" else {}
        status, _, _ = await post(url, api, question(api, stream=stream, **fields))
        assert status == 200
        after = core.metrics.text()
        counted = [line for line in after.splitlines() if b"tokens" in line and MODELS[api].encode() in line]
        assert counted
        assert any(line not in before for line in counted)
