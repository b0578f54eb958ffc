"""The official APIs as the demo plays them, asked over real sockets: answers, faults, refusals."""

import json
from typing import Any, NamedTuple

import pytest

from tests.protocols.asking import events_of
from tests.protocols.driving import NOW_TOOL, STRICT_WEATHER, WEATHER, turn
from tolmach.chat import ChatRequest, Delta, Done, Reasoning, ToolCallDelta
from tolmach.demo import Demo
from tolmach.errors import (
    AuthError,
    BadRequest,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    TruncatedAnswer,
)
from tolmach.protocols.anthropic import Anthropic
from tolmach.protocols.base import Site
from tolmach.protocols.gemini import Gemini
from tolmach.protocols.ollama import Ollama
from tolmach.protocols.openai.responses import OpenAIResponses


class Api(NamedTuple):
    """A protocol and where the demo plays its service."""

    path: str
    protocol: Any
    tool: dict[str, Any] = WEATHER
    aloud: Any = None
    """The protocol with which the service thinks aloud; None where it does not."""
    aloud_options: dict[str, Any] | None = None
    """The options with which it does."""
    key: str = "any"
    shortest: int = 3
    """A limit of tokens that cuts any answer, and that the service takes."""

    def site(self, demo: Demo, protocol: Any = None, **options: Any) -> Site:
        settings = {"api_key": self.key, "default_model": "demo", **options}
        return Site(name="Api", url=demo.url + self.path, protocol=protocol or self.protocol, **settings)


APIS = {
    "anthropic": Api("/anthropic", Anthropic(), STRICT_WEATHER, Anthropic(), {"thinking": {"type": "adaptive"}}),
    "gemini": Api("/gemini", Gemini(), aloud=Gemini(thoughts=True)),
    "ollama": Api("/ollama", Ollama(), aloud=Ollama(), aloud_options={"reasoning_effort": "high"}, key=""),
    "responses": Api("/v1", OpenAIResponses(), STRICT_WEATHER, shortest=16),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", APIS)
async def test_the_demo_answers(name: str, stream: bool):
    api = APIS[name]
    async with Demo(delay=0) as demo:
        messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "Привет?"}]
        asked = turn(messages, stream=stream, **(api.aloud_options or {}))
        first, *rest = await events_of(api.site(demo, api.aloud), asked)
        if api.aloud is not None:
            assert isinstance(first, Reasoning)
            first = rest[0]
        assert isinstance(first, Delta)
        assert "hist=2" in first.text
        assert rest[-1] == Done()
        at = api.site(demo)
        events = await events_of(at, turn("use tools please", stream=stream, tools=[api.tool, NOW_TOOL]))
        calls = [event for event in events if isinstance(event, ToolCallDelta)]
        assert [call.name for call in calls if call.name] == ["weather", "now"]
        written = "".join(call.arguments for call in calls if call.index == 0)
        assert json.loads(written) == {"city": "Париж"}
        assert events[-1] == Done("tool_calls")
        assert (await events_of(at, turn("hi", stream=stream, max_tokens=api.shortest)))[-1] == Done("length")


FAULTS: dict[str, type[Exception]] = {
    "429-retry-after=3": RateLimited,
    "401": AuthError,
    "500": ProviderUnavailable,
    "upstream-error": ProviderUnavailable,
    "upstream-event": ProviderUnavailable,
    "upstream-cut": TruncatedAnswer,
    "missing-end": TruncatedAnswer,
    "empty": ProviderUnavailable,
}
FAULTS_OF_SOME: list[tuple[str, str, type[Exception]]] = [
    ("anthropic", "banned", Refused),
    ("gemini", "banned", Refused),
    ("responses", "banned", Refused),
    ("gemini", "malformed", RemoteProtocolError),
    ("ollama", "malformed", RemoteProtocolError),
]


@pytest.mark.parametrize(
    ("name", "fault", "kind"),
    [*((name, fault, kind) for name in APIS for fault, kind in FAULTS.items()), *FAULTS_OF_SOME],
)
async def test_faults_of_the_demo(name: str, fault: str, kind: type[Exception]):
    api = APIS[name]
    async with Demo(delay=0, faults={api.path: fault}) as demo:
        with pytest.raises(kind) as caught:
            await events_of(api.site(demo), turn("hi"))
        assert type(caught.value) is kind


CALL = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
UNANSWERED = turn(
    [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "user", "content": "?"},
    ]
)
"""A question behind a tool call that nothing answered."""
NO_PICTURE = {"type": "image_url", "image_url": "data:image/png;base64,***"}
OTHER = turn("hi", model="other")


@pytest.mark.parametrize(
    ("name", "asked", "complaint"),
    [
        ("anthropic", turn("hi", temperature=2), "temperature"),
        ("anthropic", OTHER, "model: other"),
        ("anthropic", UNANSWERED, "without `tool_result` blocks"),
        ("gemini", turn("hi", temperature=3), "temperature"),
        ("gemini", OTHER, "models/other is not found"),
        ("gemini", UNANSWERED, "number of function response parts"),
        ("ollama", turn("hi", temperature="hot"), "temperature"),
        ("ollama", OTHER, "model 'other' not found"),
        ("ollama", turn([{"role": "user", "content": [NO_PICTURE]}]), "base64"),
        ("responses", turn("hi", max_tokens=3), "max_output_tokens"),
        ("responses", OTHER, "`other` does not exist"),
        ("responses", UNANSWERED, "No tool output found for function call c"),
    ],
)
async def test_the_demo_refuses_what_the_api_refuses(name: str, asked: ChatRequest, complaint: str):
    async with Demo(delay=0) as demo:
        with pytest.raises(BadRequest, match=complaint):
            await events_of(APIS[name].site(demo), asked)


@pytest.mark.parametrize("name", ["anthropic", "gemini", "responses"])
async def test_the_demo_wants_a_key(name: str):
    async with Demo(delay=0) as demo:
        with pytest.raises(AuthError):
            await events_of(APIS[name].site(demo, api_key=""), turn("hi"))
