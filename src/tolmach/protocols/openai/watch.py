"""Reading an answer that is passed on as it is: is it whole, what did it cost, where did it fail.

Chat completions, streamed and not, and embeddings. The texts are not looked at. Unlike the answer's
decoder this takes any number of choices, log probabilities, and fields that nobody here knows.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from tolmach.chat import Delta, Done, Event, Usage
from tolmach.decoding import ServerSentEvent, ServerSentEvents, convert, parse_json
from tolmach.errors import BadRequest, RemoteProtocolError, TruncatedAnswer
from tolmach.protocols.bodies import Body
from tolmach.protocols.openai.faults import fault_error, find_fault, http_error
from tolmach.wire import Head, Limits

__all__ = ["CompletionWatch", "EmbeddingsWatch", "with_model"]


class _Choice(Struct):
    index: int | float | str | None = None
    finish_reason: str | None = None


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_NO_TEXT = Delta("")
_TEXT_CAME = (_NO_TEXT,)


class CompletionWatch:
    """A `Decoder` whose events say only that text came, what it cost, and that the answer ended.

    A stream has ended with `[DONE]`, or at the end of the body when every choice that began has
    its `finish_reason`. `partial` stays empty: the bytes are with the caller.
    """

    partial = ""

    def __init__(self, head: Head, limits: Limits, now: Callable[[], float]) -> None:
        self._head = head
        self._now = now
        self._ended = False
        self._finished: set[int | float | str | None] = set()
        self._unfinished: set[int | float | str | None] = set()
        """Choices by their numbers."""
        self._usage: Usage | None = None
        failed = not 200 <= head.status < 300
        streamed = head.content_type == "text/event-stream" and not failed
        self._failed = failed
        self._events = ServerSentEvents(limits.event_bytes) if streamed else None
        # Of an answer in one piece there is nothing to wait for.
        self._begun = not streamed
        self._body = Body(head, limits)

    def feed(self, data: bytes) -> Iterable[Event]:
        if self._events is None:
            self._body.add(data)
            return ()
        return self._stream(self._events.feed(data))

    def _stream(self, events: Iterable[ServerSentEvent]) -> Iterator[Event]:
        for event in events:
            if event.data == b"[DONE]":
                yield from self._end()
            elif not self._ended:
                yield from self._chunk(event.data)

    def close(self) -> Iterator[Event]:
        if self._failed:
            raise http_error(self._head, self._body.read(), self._now)
        if self._events is None:
            yield from self._chunk(self._body.read())
            if not self._finished:
                raise RemoteProtocolError("the completion has no finished choice", status=self._head.status)
        if self._ended:
            return
        if not self._finished or self._unfinished:
            raise TruncatedAnswer(status=self._head.status)
        yield from self._end()

    def _end(self) -> Iterator[Event]:
        if self._ended:
            return
        self._ended = True
        if self._usage is not None:
            yield self._usage
        yield Done("stop")

    def _chunk(self, data: bytes) -> tuple[Event, ...]:
        try:
            chunk = _CHUNK.decode(data)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            chunk = self._slowly(data)
        if chunk.error is not None and bytes(chunk.error) != b"null":
            fault = find_fault(parse_json(data))
            if fault is not None:
                raise fault_error(fault, self._head, self._now())
        choices = chunk.choices
        if choices:
            for choice in choices:
                if choice.finish_reason:
                    self._finished.add(choice.index)
                    self._unfinished.discard(choice.index)
                elif choice.index not in self._finished:
                    self._unfinished.add(choice.index)
        elif choices is None and chunk.usage is None:
            raise RemoteProtocolError("an event of the answer is no chunk of a completion", status=self._head.status)
        if chunk.usage is not None:
            # Some servers count on, chunk by chunk: the last one counts.
            usage = chunk.usage
            self._usage = Usage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
        if choices and not self._begun:
            # Only until the first token: the chunk before it names the role, and comes whether or not one follows.
            self._begun = _has_token(data)
        return _TEXT_CAME if choices and self._begun else ()

    def _slowly(self, data: bytes) -> _Chunk:
        """A chunk that the fast parser refuses: lone surrogates, which services do send, or no chunk at all."""
        value = parse_json(data)
        return convert(value, _Loose).chunk() if isinstance(value, dict) else _Chunk()


def _has_token(data: bytes) -> bool:
    """Whether a chunk says more than whose turn it is."""
    chunk = parse_json(data)
    for choice in chunk.get("choices") or () if isinstance(chunk, dict) else ():
        piece = choice.get("delta") or choice.get("message")
        said = isinstance(piece, dict) and any(value for name, value in piece.items() if name != "role")
        if said or choice.get("finish_reason") or choice.get("text"):
            return True
    return False


class _Loose(Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None

    def chunk(self) -> _Chunk:
        error = None if self.error is None else msgspec.Raw(b"{}")
        return _Chunk(self.choices, self.usage, error)


class _Embeddings(Struct):
    data: list[msgspec.Raw]
    usage: _Usage | None = None


class EmbeddingsWatch:
    """A `Decoder` of embeddings; the vectors are not looked at, only that there are some."""

    partial = ""

    def __init__(self, head: Head, limits: Limits, now: Callable[[], float]) -> None:
        self._head = head
        self._now = now
        self._body = Body(head, limits)

    def feed(self, data: bytes) -> Iterator[Event]:
        self._body.add(data)
        yield from ()

    def close(self) -> Iterator[Event]:
        body = self._body.read()
        if not 200 <= self._head.status < 300:
            raise http_error(self._head, body, self._now)
        try:
            made = msgspec.json.decode(body, type=_Embeddings)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise RemoteProtocolError(f"no list of embeddings came: {error}", status=self._head.status) from error
        if not made.data:
            raise RemoteProtocolError("no embeddings came", status=self._head.status)
        if made.usage is not None:
            yield Usage(made.usage.prompt_tokens, 0, made.usage.total_tokens)
        yield Done("stop")


def with_model(body: bytes, model: str) -> bytes:
    """The body with another model; all else stays as it was written. Raises `BadRequest` when it is no object."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON object: {error}", code="invalid_json") from error
    return msgspec.json.encode({**fields, "model": model})
