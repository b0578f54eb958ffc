"""Which of a service's own conversations a question continues, and the answers that callers refer back to.

Callers send the whole history with each question; many services keep it themselves and want only
what is new. A history is recognised by a hash of its messages up to the last answer: one changed
letter in it, or other tools, and it is another conversation. A conversation is taken out when it is
used, for then it has moved on at the service: the same question asked again starts a new one.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from tolmach.chat import (
    AnswerText,
    ChatRequest,
    Conversation,
    Event,
    Image,
    Message,
    ToolCall,
    ToolCallDelta,
)
from tolmach.errors import BadRequest

__all__ = [
    "Conversations",
    "MemoryStore",
    "Responses",
    "Store",
    "StoredResponse",
    "answer_message",
    "conversation_key",
    "fingerprint",
]

T = TypeVar("T")


class Store(Protocol[T]):
    """What is remembered for a while, by keys; in this process, or at a server that replicas share."""

    async def get(self, key: str) -> T | None: ...

    async def take(self, key: str) -> T | None:
        """As `get`, and forget it: of two that take at once one gets it."""

    async def put(self, key: str, value: T) -> None: ...


def _no_weight(value: Any) -> int:
    return 0


class MemoryStore(Generic[T]):
    """A store in this process, for at most `size` values, `weight` in all, and `seconds` after the last use.

    The one not used for longest goes first. `now` gives seconds, of any clock that does not go back.
    """

    def __init__(
        self,
        *,
        now: Callable[[], float],
        size: int = 10_000,
        seconds: float = 3600.0,
        weight: int = 256 << 20,
        weigh: Callable[[T], int] = _no_weight,
    ) -> None:
        self._now = now
        self._size = size
        self._seconds = seconds
        self._limit = weight
        self._weigh = weigh
        self._weight = 0
        self._entries: OrderedDict[str, tuple[float, int, T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: str) -> T | None:
        value = await self.take(key)
        if value is not None:
            await self.put(key, value)
        return value

    async def take(self, key: str) -> T | None:
        self._expire()
        return self._remove(key)

    async def put(self, key: str, value: T) -> None:
        self._expire()
        self._remove(key)
        weight = self._weigh(value)
        if weight > self._limit or self._size < 1:
            return
        self._entries[key] = (self._now() + self._seconds, weight, value)
        self._weight += weight
        while len(self._entries) > self._size or self._weight > self._limit:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: str) -> T | None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self._weight -= entry[1]
        return entry[2]

    def _expire(self) -> None:
        """Forget what is too old. Entries stand in the order of their last use, so of their end."""
        now = self._now()
        while self._entries:
            key = next(iter(self._entries))
            if self._entries[key][0] > now:
                return
            self._remove(key)


# Conversations of the services


def fingerprint(messages: Iterable[Message], tools: Any = None) -> str:
    """A SHA-256 of messages and the tools offered, in hexadecimal digits.

    The same for forms that mean the same: a text and a list of one text part, arguments of a call
    with other white space, white space around an answer.
    """
    digest = hashlib.sha256(_canonical(tools or None))
    for message in messages:
        digest.update(b"\n")
        digest.update(_canonical(_essence(message)))
    return digest.hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr).encode()


def _essence(message: Message) -> list[Any]:
    text = message.text.strip() if message.role == "assistant" else message.text
    pictures: list[Any] = []
    if not isinstance(message.content, str):
        # Where a picture stands between the texts counts too.
        kinds = [part.url if isinstance(part, Image) else len(part.text) for part in message.content]
        pictures = kinds if any(isinstance(part, Image) for part in message.content) else []
    calls = [[call.id, call.name, _arguments(call.arguments)] for call in message.tool_calls]
    return [message.role, text, message.name, pictures, calls, message.tool_call_id]


def _arguments(text: str) -> Any:
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError):
        return text  # as the model wrote it


def conversation_key(target: str, user: str, messages: Sequence[Message], tools: Any = None) -> str | None:
    """Under which key the conversation of the messages up to the last answer is kept; None when there was no answer.

    `user` tells apart whose conversations these are: no one continues another's.
    """
    end = next((i for i in range(len(messages), 0, -1) if messages[i - 1].role == "assistant"), 0)
    if not end:
        return None
    return _canonical([target, user, fingerprint(messages[:end], tools)]).decode()


def answer_message(events: Iterable[Event]) -> Message:
    """The answer as the message that a caller sends back with the next question."""
    text = AnswerText()
    calls: dict[int, ToolCall] = {}
    for event in events:
        text.feed(event)
        if isinstance(event, ToolCallDelta):
            call = calls.get(event.index) or ToolCall("", "", "")
            calls[event.index] = ToolCall(
                call.id or event.id or "", call.name or event.name or "", call.arguments + event.arguments
            )
    return Message("assistant", str(text), tool_calls=tuple(calls[index] for index in sorted(calls)))


class Conversations:
    """The services' own conversations, by what was said in them."""

    def __init__(self, store: Store[Conversation]) -> None:
        self._store = store

    async def find(self, target: str, user: str, turn: ChatRequest) -> Conversation | None:
        """The conversation that the turn continues, if the service keeps it. It is given out once."""
        key = conversation_key(target, user, turn.messages, turn.options.get("tools"))
        return None if key is None else await self._store.take(key)

    async def keep(self, target: str, user: str, turn: ChatRequest, events: Sequence[Event]) -> None:
        """Remember the conversation after an answer: `events` as the caller got them, with the service's state."""
        state = next((event for event in reversed(events) if isinstance(event, Conversation)), None)
        if state is None:
            return
        messages = (*turn.messages, answer_message(events))
        key = conversation_key(target, user, messages, turn.options.get("tools"))
        if key is not None:
            await self._store.put(key, state)


# Answers that callers refer to


class StoredResponse(Struct, frozen=True):
    """A question's messages, all of them, and its answer."""

    messages: tuple[Message, ...]
    answer: Message


def _size_of(response: StoredResponse) -> int:
    """Characters in a response, roughly what it weighs."""
    return sum(map(_length, (*response.messages, response.answer)))


def _length(message: Message) -> int:
    calls = sum(len(call.arguments) for call in message.tool_calls)
    if isinstance(message.content, str):
        return calls + len(message.content)
    return calls + sum(len(part.url if isinstance(part, Image) else part.text) for part in message.content)


class Responses:
    """Answers by their ids, for `previous_response_id`. An id is known only to the user who was given it."""

    def __init__(self, store: Store[StoredResponse]) -> None:
        self._store = store

    @classmethod
    def in_memory(cls, *, now: Callable[[], float], size: int = 10_000, seconds: float = 3600.0) -> "Responses":
        """In this process: at most `size`, and 256 million characters in all."""
        return cls(MemoryStore(now=now, size=size, seconds=seconds, weigh=_size_of))

    async def put(self, user: str, id: str, messages: Sequence[Message], answer: Message) -> None:
        await self._store.put(_canonical([user, id]).decode(), StoredResponse(tuple(messages), answer))

    async def history(self, user: str, id: str) -> tuple[Message, ...]:
        """The messages before the new ones: those of the earlier question, and its answer. Raises `BadRequest`."""
        stored = await self._store.get(_canonical([user, id]).decode())
        if stored is None:
            raise BadRequest(
                f"previous_response_id: there is no response {id!r} any more",
                param="previous_response_id",
                status=400,
                code="previous_response_not_found",
            )
        return (*stored.messages, stored.answer)
