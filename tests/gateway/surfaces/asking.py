"""The surfaces under test: bodies in, answers out that the packages' strict models take, and the packages' clients."""

import json
from collections.abc import Iterable
from typing import Any

import anthropic
import httpx2
import openai
from anthropic.types import Message
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import BaseModel

from tolmach.chat import Delta, Done, Event, Notice, Reasoning, ToolCallDelta, Usage
from tolmach.errors import TolmachError
from tolmach.gateway.surfaces.anthropic import AnthropicSurface
from tolmach.gateway.surfaces.base import Asked, Label, Surface
from tolmach.gateway.surfaces.openai import OpenAISurface
from tolmach.gateway.surfaces.responses import ResponsesSurface

EVENT_STREAM = "text/event-stream"


class Bench:
    """A surface, the smallest question of its API, and the package's model of a whole answer."""

    def __init__(self, surface: Surface, hello: dict[str, Any], model: type[BaseModel], **streaming: Any) -> None:
        self.surface = surface
        self.hello = hello
        self.label = Label(id="0123456789abcdef01234567", created=1_700_000_000, model=hello["model"], provider="site")
        self._model = model
        self._streaming = streaming

    def asked(self, **fields: Any) -> Asked:
        """The question, with these fields too."""
        return self.surface.parse(json.dumps({**self.hello, **fields}).encode())

    def streamed(self, events: Iterable[Event], error: TolmachError | None = None, **fields: Any) -> bytes:
        """The answer as a stream, which ends in `error` if there is one."""
        encoder = self.surface.stream(self.asked(**self._streaming, **fields), self.label)
        data = encoder.open() + b"".join(map(encoder.feed, events))
        return data if error is None else data + encoder.fail(error)

    def whole(self, events: Iterable[Event], **fields: Any) -> dict[str, Any]:
        """The answer in one piece; the package's model takes it as it stands."""
        value: dict[str, Any] = json.loads(self.surface.whole(self.asked(**fields), list(events), self.label))
        self._model.model_validate(value, strict=True)
        return value


_HELLO = [{"role": "user", "content": "Hello"}]

ANTHROPIC = Bench(AnthropicSurface(), {"model": "claude-x", "max_tokens": 100, "messages": _HELLO}, Message)
OPENAI = Bench(OpenAISurface(), {"model": "gpt-x", "messages": _HELLO}, ChatCompletion, stream=True)
RESPONSES = Bench(ResponsesSurface(), {"model": "gpt-x", "input": "Hello"}, Response)


def parsed(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Name and fields of each event of a stream, by the plainest reading of server-sent events."""
    found = []
    assert data.endswith(b"\n\n")
    for block in data.decode().split("\n\n")[:-1]:
        name, payload = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(payload.removeprefix("data: "))))
    return found


def _replying(data: bytes, status: int, kind: str) -> httpx2.Client:
    """A transport of the packages that answers everything with these bytes."""
    return httpx2.Client(
        transport=httpx2.MockTransport(
            lambda request: httpx2.Response(status, content=data, headers={"content-type": kind})
        )
    )


def anthropic_client(data: bytes, status: int = 200, kind: str = EVENT_STREAM) -> anthropic.Anthropic:
    """The anthropic package's client, whose every question gets these bytes."""
    http = _replying(data, status, kind)
    return anthropic.Anthropic(api_key="k", base_url="http://gateway", max_retries=0, http_client=http)


def openai_client(data: bytes, status: int = 200, kind: str = EVENT_STREAM) -> openai.OpenAI:
    """The openai package's client, whose every question gets these bytes."""
    http = _replying(data, status, kind)
    return openai.OpenAI(api_key="k", base_url="http://gateway/v1", max_retries=0, http_client=http)


def parallel(counted: Usage) -> list[Event]:
    """An answer with a text and two tool calls, the first of them in pieces."""
    return [
        Delta("Looking it up"),
        ToolCallDelta(0, "call_a", "weather", ""),
        ToolCallDelta(0, arguments='{"city": '),
        ToolCallDelta(0, arguments='"Oslo"}'),
        ToolCallDelta(1, "call_b", "time", '{"zone": "CET"}'),
        counted,
        Done("tool_calls"),
    ]


@st.composite
def interleaved(draw: st.DrawFn) -> tuple[dict[int, str], list[Event]]:
    """Tool calls by index, call N being `idN` of `fN`; and their pieces, mixed, of which the first name their call."""
    calls = {index: json.dumps({"n": index, "text": "}{" * index}) for index in range(draw(st.integers(1, 3)))}
    left = {}
    for index, text in calls.items():
        at = draw(st.integers(0, len(text)))
        left[index] = [text[:at], text[at:]]
    events: list[Event] = []
    begun: set[int] = set()
    while any(left.values()):
        index = draw(st.sampled_from([i for i, pieces in left.items() if pieces]))
        name = None if index in begun else f"f{index}"
        begun.add(index)
        events.append(ToolCallDelta(index, f"id{index}" if name else None, name, left[index].pop(0)))
    return calls, [*events, Done("tool_calls")]


def happenings(calls: st.SearchStrategy[ToolCallDelta]) -> st.SearchStrategy[list[Event]]:
    """What may come before the end of an answer, with these pieces of tool calls."""
    some_text = st.text(st.characters(codec="utf-8"), min_size=1)
    return st.lists(
        st.one_of(
            st.builds(Delta, some_text),
            st.builds(Reasoning, some_text),
            calls,
            st.builds(Usage, st.integers(0, 9), st.integers(0, 9), st.integers(0, 18)),
            st.builds(Notice, st.sampled_from(["warning", "refusal"]), st.text(st.characters(codec="utf-8"))),
        ),
        max_size=12,
    )
