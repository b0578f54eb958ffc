"""A model that has only text, the tools and the JSON that are asked of it, and what the caller gets."""

import itertools
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any

from tolmach.chat import ChatRequest, Delta, Done, Event, FinishReason, Message, Notice, ToolCallDelta
from tolmach.gateway.emulation.instructions import EMULATED, Emulation, answer, emulate

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 7}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "time"}}
TOOLS = [WEATHER, TIME]
NAMES = frozenset({"get_weather", "time"})
PERSON_SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
PERSON = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON_SCHEMA}}
NAMED = {"type": "function", "function": {"name": "time"}}
QUESTION = (Message("system", "Be kind."), Message("user", "How is it in Oslo?"))
OSLO = '[{"name": "get_weather", "arguments": {"city": "Oslo"}}]'
BLOCK = f"```tool_calls\n{OSLO}\n```"
CALLED = ("get_weather", {"city": "Oslo"})

Answer = str | Sequence[str | Event]


def emulated(messages: Sequence[Message] = QUESTION, what: frozenset[str] = EMULATED, **options: Any) -> Emulation:
    emulation = emulate(ChatRequest(messages=tuple(messages), model="m", options=options), what)
    assert emulation is not None
    return emulation


class Model:
    """A text-only service that gives these answers in turn; `asked` is what it was asked."""

    def __init__(self, *answers: Answer, reason: FinishReason = "stop") -> None:
        self.asked: list[ChatRequest] = []
        self._answers = list(answers)
        self._reason = reason

    async def __call__(self, turn: ChatRequest) -> AsyncGenerator[Event, None]:
        self.asked.append(turn)
        given = self._answers.pop(0)
        for piece in [given] if isinstance(given, str) else given:
            yield Delta(piece) if isinstance(piece, str) else piece
        yield Done(self._reason)


def numbered() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"call_{next(numbers)}"


async def told(model: Model, **options: Any) -> list[Event]:
    """The events that the caller gets, who offered the tools, behind those that say what is emulated."""
    return await behind_notices(answer(emulated(**{"tools": TOOLS, **options}), model, numbered()))


async def behind_notices(events: AsyncGenerator[Event, None]) -> list[Event]:
    got = [event async for event in events]
    told = [event for event in got if isinstance(event, Notice) and event.kind == "emulated"]
    assert told
    assert got[: len(told)] == told
    return got[len(told) :]


def text_of(events: Iterable[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def calls_of(events: Iterable[Event]) -> list[tuple[str | None, Any]]:
    return [(event.name, json.loads(event.arguments)) for event in events if isinstance(event, ToolCallDelta)]


def notices_of(events: Iterable[Event]) -> list[str]:
    return [event.kind for event in events if isinstance(event, Notice)]
