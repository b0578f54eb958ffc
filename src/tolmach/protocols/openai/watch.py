"""Reading an answer that is passed on as it is: is it whole, what did it cost, where did it fail.

Chat completions, streamed and not, and embeddings. Unlike the answer's decoder this takes any number of choices,
log probabilities, and fields that nobody here knows. Texts are looked at for how long they are.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from tolmach.chat import Delta, Done, Event, Usage
from tolmach.decoding import ServerSentEvent, ServerSentEvents, convert, parse_json
from tolmach.errors import RemoteProtocolError, TruncatedAnswer
from tolmach.protocols.api_answer import NO_TEXT
from tolmach.protocols.bodies import Body, clean
from tolmach.protocols.openai.faults import fault_error, find_fault, http_error
from tolmach.protocols.passed_on import Fields, given
from tolmach.protocols.usage import chat_usage, count, counted
from tolmach.wire import Head, Limits

__all__ = ["CompletionWatch", "EmbeddingsWatch", "ask_for_usage"]


class _Choice(Struct):
    index: int | float | str | None = None
    finish_reason: str | None = None
    delta: Any = None
    message: Any = None
    text: Any = None
    usage: Any = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: msgspec.Raw | None = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class CompletionWatch:
    """A `Decoder` whose events say only what text came, what it cost, and that the answer ended.

    A stream has ended with `[DONE]`, or at the end of the body when every choice that began has
    its `finish_reason`. With `unasked` the chunk of the usage is not for the caller: it means a
    `Usage` and nothing else. `partial` stays empty: the bytes are with the caller.
    """

    partial = ""

    def __init__(self, head: Head, limits: Limits, now: Callable[[], float], unasked: bool = False) -> None:
        self._head = head
        self._now = now
        self._ended = False
        self._finished: set[int | float | str | None] = set()
        self._unfinished: set[int | float | str | None] = set()
        """Choices by their numbers."""
        self._unasked = unasked
        self._usage: Usage | None = None
        self._told: Usage | None = None
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
        if self._usage is not None and self._usage is not self._told:
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
        if chunk.usage is not None:
            # Some servers count on, chunk by chunk: the last one counts.
            self._usage = chat_usage(chunk.usage) or self._usage
        if chunk.choices:
            return self._choices(chunk.choices)
        if chunk.choices is None and chunk.usage is None:
            raise RemoteProtocolError("an event of the answer is no chunk of a completion", status=self._head.status)
        if not self._unasked or chunk.usage is None:
            return ()
        self._told = self._usage
        return (self._usage or _NOTHING_TOLD,)

    def _choices(self, choices: list[_Choice]) -> tuple[Event, ...]:
        for choice in choices:
            if choice.finish_reason:
                self._finished.add(choice.index)
                self._unfinished.discard(choice.index)
            elif choice.index not in self._finished:
                self._unfinished.add(choice.index)
            if choice.usage is not None:
                # Moonshot tells it there.
                self._usage = chat_usage(choice.usage) or self._usage
        # Only until the first token: the chunk before it names the role, and comes whether or not one follows.
        self._begun = self._begun or any(map(_has_token, choices))
        if not self._begun:
            return ()
        text = _said(choices[0]) if len(choices) == 1 else "".join(map(_said, choices))
        return (Delta(text),) if text else _NOTHING_SAID

    def _slowly(self, data: bytes) -> _Chunk:
        """A chunk that the fast parser refuses: lone surrogates, which services do send, or no chunk at all."""
        value = parse_json(data)
        return convert(value, _Loose).chunk() if isinstance(value, dict) else _Chunk()


_NOTHING_SAID = (NO_TEXT,)
_NOTHING_TOLD = Usage(0, 0, 0)


def _has_token(choice: _Choice) -> bool:
    """Whether a choice says more than whose turn it is."""
    piece = choice.delta or choice.message
    said = isinstance(piece, dict) and any(value for name, value in piece.items() if name != "role")
    return bool(said or choice.finish_reason or choice.text)


def _said(choice: _Choice) -> str:
    """All that the model wrote in a piece of a choice: text, reasoning, calls."""
    piece = choice.delta or choice.message
    if not isinstance(piece, dict):
        return _text(choice.text)
    content = piece.get("content")
    if len(piece) == 1 and type(content) is str and content.isascii():
        return content
    calls = piece.get("tool_calls")
    functions = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    texts = [content, piece.get("reasoning_content") or piece.get("reasoning"), piece.get("refusal")]
    for function in (*functions, piece.get("function_call")):
        if isinstance(function, dict):
            texts += [function.get("name"), function.get("arguments")]
    return "".join(map(_text, texts))


def _text(value: Any) -> str:
    """A text, or those of parts as Mistral writes them."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return "".join(_text(part.get("text") or part.get("thinking")) for part in value if isinstance(part, dict))
    return ""


class _Loose(Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None

    def chunk(self) -> _Chunk:
        error = None if self.error is None else msgspec.Raw(b"{}")
        return _Chunk(self.choices, self.usage, error)


class _Embeddings(Struct):
    data: list[msgspec.Raw]
    usage: Any = None


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
        prompt = count(made.usage.get("prompt_tokens")) if isinstance(made.usage, dict) else None
        if (usage := counted(prompt, 0)) is not None:
            yield usage
        yield Done("stop")


# The question


def ask_for_usage(fields: Fields) -> bool:
    """Have the usage told at the end of a stream, where its caller has not asked for it; whether that was so."""
    if "stream" not in fields or bytes(fields["stream"]) != b"true":
        return False
    options = parse_json(bytes(fields["stream_options"])) if given(fields, "stream_options") else {}
    if not isinstance(options, dict) or options.get("include_usage") not in (None, False):
        return False  # the caller has asked, or the service says what is wrong with it
    fields["stream_options"] = msgspec.Raw(msgspec.json.encode({**options, "include_usage": True}))
    return True
