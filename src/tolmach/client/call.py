"""One call of a client made ready: what is asked of whom, and how its answer is labelled."""

import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from tolmach.chat import ChatRequest, Conversation, Done, Event
from tolmach.client.completions import Attempted, ChatCompletion, ChatCompletionChunk, Chunks, collect
from tolmach.errors import ConfigError, UnsupportedFeature
from tolmach.providers.base import AbstractProvider, split_options
from tolmach.session import Session
from tolmach.transport import Timeouts

__all__ = ["Answer", "Continued", "Direct", "Provider", "Question", "parse_conversation", "split_call", "usage_asked"]

Provider = type[AbstractProvider] | str
"""A provider class, or the name of whoever is asked."""

Continued = Conversation | Mapping[str, Any] | None
"""The conversation to go on with: as an answer has it, or as its `model_dump()` does."""


class Answer(Protocol):
    """Who answers, and the answer. `model` and `provider` are right from the first event on."""

    @property
    def model(self) -> str: ...

    @property
    def provider(self) -> str: ...

    def events(self) -> AsyncGenerator[Event, None]: ...

    def attempts(self) -> list[Attempted]:
        """What was tried; empty where one service was asked and no route."""


class Direct:
    """The answer of one session."""

    def __init__(self, session: Session, turn: ChatRequest, strict: bool, timeouts: Timeouts) -> None:
        self.model = turn.model or session.site.name
        self.provider = session.site.name
        self._session = session
        self._turn = turn
        self._strict = strict
        self._timeouts = timeouts

    def events(self) -> AsyncGenerator[Event, None]:
        return self._session.ask(self._turn, strict=self._strict, timeouts=self._timeouts)

    def attempts(self) -> list[Attempted]:
        return []


class Question:
    """An answer to come, in the shapes of the openai package. With `usage` its chunks end with the tokens."""

    def __init__(self, answer: Answer, usage: bool) -> None:
        self._answer = answer
        self._usage = usage
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())

    def events(self) -> AsyncGenerator[Event, None]:
        return self._answer.events()

    async def chunks(self) -> AsyncGenerator[ChatCompletionChunk, None]:
        answer = self._answer
        making = Chunks(
            id=self._id,
            created=self._created,
            model=answer.model,
            provider=answer.provider,
            include_usage=self._usage,
        )
        async with aclosing(answer.events()) as events:
            async for event in events:
                making.model, making.provider = answer.model, answer.provider
                if type(event) is Done:
                    making.attempts = answer.attempts()
                for chunk in making.feed(event):
                    yield chunk

    async def whole(self) -> ChatCompletion:
        answer = self._answer
        async with aclosing(answer.events()) as events:
            seen = [event async for event in events]
        made = collect(seen, id=self._id, created=self._created, model=answer.model, provider=answer.provider)
        made.attempts = answer.attempts()
        return made


def split_call(given: dict[str, Any]) -> tuple[float | None, dict[str, Any]]:
    """The time limit of one call, and what is asked of the model. Raises `ConfigError` for what only a client takes."""
    access, options = split_options(given)
    if misplaced := given.keys() - options.keys() - {"timeout"}:
        raise ConfigError(f"{min(misplaced)}: give it to the client; a call takes none")
    if misplaced := options.keys() & {"extra_headers", "extra_query"}:
        feature = min(misplaced)
        raise UnsupportedFeature(f"{feature} of one call cannot be sent; give headers= to the client", feature=feature)
    extra = options.pop("extra_body", None) or {}
    if not isinstance(extra, Mapping):
        raise ConfigError(f"extra_body: a mapping, not {type(extra).__name__}")
    return access.timeout, {**options, **extra}


def usage_asked(options: dict[str, Any], stream: bool) -> bool:
    """Whether the chunks are to end with the tokens. What else `stream_options` asks for stays with the options."""
    wishes = options.pop("stream_options", None)
    if wishes is None:
        return False
    if not isinstance(wishes, Mapping):
        raise ConfigError(f"stream_options: a mapping, not {type(wishes).__name__}")
    if not stream:
        raise ConfigError("stream_options: only with stream=True")
    if wishes.keys() - {"include_usage"}:
        options["stream_options"] = dict(wishes)
    return bool(wishes.get("include_usage"))


def parse_conversation(conversation: Continued) -> Conversation | None:
    """The conversation of an earlier answer, also as its `model_dump()` has it."""
    try:
        return msgspec.convert(conversation, Conversation | None)
    except msgspec.ValidationError as error:
        raise ConfigError("conversation: what an earlier answer has as its conversation") from error
