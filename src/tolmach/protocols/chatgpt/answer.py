"""The answers of chatgpt.com: server-sent events that hold snapshots of messages, or deltas of them.

Both encodings come to the same: after each event there is a message as it stands now, and what it
has more than before is given out. A text that was rewritten is a `Notice("rewritten", text)`: the
answer is now `text`, and the pieces that follow add to it. Only an assistant's text addressed to
everybody is the answer; several such messages are parted by a blank line.
"""

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct, field

from tolmach.chat import Conversation, Done, Event
from tolmach.decoding import ServerSentEvent, ServerSentEvents, convert, parse_json
from tolmach.errors import BadRequest, ChallengeRequired, ProviderError, RemoteProtocolError
from tolmach.protocols.bodies import Body, Revisable, Snapshot, clean, json_body, shown
from tolmach.protocols.chatgpt.patch import Channel, Documents, Operation
from tolmach.protocols.openai.faults import fault_error, find_fault, http_error
from tolmach.wire import Head, Limits

__all__ = ["ConversationAnswer", "reported", "response_error"]

_PART = ("message", "content", "parts", "0")
_THOUGHTS = ("message", "content", "thoughts")
_SEPARATOR = "\n\n"


class _Author(Struct):
    role: str = ""


class _Message(Struct):
    author: _Author = field(default_factory=_Author)
    content: Any = None
    id: str | None = None
    status: str | None = None
    end_turn: Any = None
    recipient: str | None = None

    @property
    def visible(self) -> bool:
        return self.author.role == "assistant" and self.recipient in (None, "all")

    @property
    def finished(self) -> bool:
        return self.status == "finished_successfully" and self.end_turn is True


class _Content(Struct):
    content_type: str = "text"
    parts: list[Any] | None = None
    thoughts: list[Any] | None = None

    @property
    def text(self) -> str:
        if self.content_type not in ("text", "multimodal_text"):
            return ""
        return "".join(part for part in self.parts or () if isinstance(part, str))

    @property
    def reasoning(self) -> str:
        return _SEPARATOR.join(map(_thought, self.thoughts or ()))


def _thought(thought: Any) -> str:
    if isinstance(thought, dict):
        lines = (thought.get("summary"), thought.get("content"))
        return "\n".join(line for line in lines if isinstance(line, str) and line)
    return thought if isinstance(thought, str) else ""


def reported(value: Any, head: Head, now: float) -> ProviderError | None:
    """The error that a JSON value reports; None when it reports none."""
    fault = find_fault(value)
    return None if fault is None else _exact(fault_error(fault, head, now), head)


def response_error(head: Head, body: bytes, now: Callable[[], float]) -> ProviderError:
    """The error that a failed response stands for."""
    return _exact(http_error(head, body, now), head)


def _exact(error: ProviderError, head: Head) -> ProviderError:
    """The error by what this service's own words say."""
    words = error.text.lower()
    if "unusual activity" in words and not isinstance(error, ChallengeRequired):
        return ChallengeRequired(error.text, kind="unusual activity", url=head.url, status=head.status, code=error.code)
    lost = error.code is None and head.status == 404 and "conversation" in words and "not found" in words
    if lost or error.code == "conversation_not_found":
        return BadRequest(error.text, status=head.status, code="conversation_not_found")
    return error


class ConversationAnswer(Revisable):
    """Reads the answer to `POST .../conversation`."""

    def __init__(self, head: Head, limits: Limits, now: Callable[[], float]) -> None:
        super().__init__(head, limits)
        self._now = now
        self._failed = not 200 <= head.status < 300
        self._body = Body(head, limits)
        self._events = ServerSentEvents(limits.event_bytes)
        self._seen = False
        self._documents = Documents()
        self._delta_bytes = 0
        self._texts: dict[str, Snapshot] = {}
        self._thoughts: dict[str, Snapshot] = {}
        self._current = ""
        self._finished = False
        self._conversation: dict[str, str] = {}
        self._growing: tuple[Channel, Snapshot, bool] | None = None

    def feed(self, data: bytes) -> Iterator[Event]:
        if self.ended:
            return
        if self._failed:
            self._body.add(data)
            return
        for event in self._events.feed(data):
            self._seen = True
            yield from self._event(event)
            if self.ended:
                return

    def close(self) -> Iterator[Event]:
        if self._failed:
            raise response_error(self.head, self._body.read(), self._now)
        if not self.ended:
            self._check_whole_body()
            if self._finished:
                yield from self._conclude()
        self.check_ended()

    def _check_whole_body(self) -> None:
        """Raise what a body says that is no stream."""
        body = self._events.body().strip()
        if not self._seen and body.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[", b"<"):
            value = json_body(self.head, body)
            self._check(value)
            raise RemoteProtocolError(f"JSON instead of a stream: {shown(value)}", status=self.head.status)

    def _check(self, value: Any) -> None:
        if error := reported(value, self.head, self._now()):
            raise error

    # Events

    def _event(self, event: ServerSentEvent) -> Iterator[Event]:
        if event.data.strip() == b"[DONE]":
            yield from self._conclude()
            return
        value = parse_json(event.data)
        if event.event == "delta_encoding":
            if value != "v1":
                raise RemoteProtocolError(f"unknown delta encoding: {shown(value, 40)}", status=self.head.status)
            return
        if not isinstance(value, dict):
            raise RemoteProtocolError(f"an event that is no object: {shown(value, 80)}", status=self.head.status)
        if value.get("error") is not None:
            self._check({"error": value["error"]})
        if "v" in value or (event.event == "delta" and "type" not in value):
            yield from self._delta(value, len(event.data))
        elif "type" in value:
            self._keep_conversation(value)
        elif "message" in value:
            yield from self._look(value)
        else:
            self._check(value)

    def _delta(self, delta: dict[str, Any], size: int) -> Iterator[Event]:
        self._delta_bytes += size
        if self._delta_bytes > self.limits.answer_bytes:
            raise RemoteProtocolError(f"the answer is longer than {self.limits.answer_bytes} bytes", code="too_large")
        channel, operations = self._documents.take(delta)
        if self._growing is not None and channel is self._growing[0] and len(operations) == 1:
            (operation,) = operations
            if channel.grows(operation):
                self._finished = False
                self._growing[1].grow(operation.value)
                yield from self._piece(operation.value, reasoning=self._growing[2])
                return
        self._growing = None
        for operation in operations:
            channel.apply(operation)
        root = channel.root
        if isinstance(root, dict):
            yield from self._look(root)
            if operations:
                self._watch(channel, root, operations[-1])

    def _watch(self, channel: Channel, root: dict[str, Any], last: Operation) -> None:
        """Have further appends to the same text given out as they are."""
        if last.name != "append" or not isinstance(last.value, str) or root.get("message") is None:
            return
        message = convert(root["message"], _Message)
        key = message.id or ""
        if not message.visible:
            return
        content = convert(message.content, _Content)
        if last.path == _PART and key == self._current and key in self._texts:
            snapshot, whole, reasoning = self._texts[key], content.text, False
        elif last.path[:3] == _THOUGHTS and last.path[4:] == ("content",) and key in self._thoughts:
            snapshot, whole, reasoning = self._thoughts[key], content.reasoning, True
        else:
            return
        if snapshot.text == whole and whole.endswith(last.value) and self._is_last(content, last.path):
            channel.grow(last.path)
            self._growing = (channel, snapshot, reasoning)

    def _is_last(self, content: _Content, path: tuple[str, ...]) -> bool:
        """Whether what stands at `path` is the end of the text."""
        items = content.parts if path == _PART else content.thoughts
        return items is not None and path[3] == str(len(items) - 1)

    def _piece(self, text: str, *, reasoning: bool) -> Iterator[Event]:
        return self.reasoning(text) if reasoning else self.delta(text)

    # Messages

    def _keep_conversation(self, value: dict[str, Any]) -> None:
        id = value.get("conversation_id")
        if isinstance(id, str) and id:
            self._conversation["conversation_id"] = clean(id)

    def _look(self, root: dict[str, Any]) -> Iterator[Event]:
        """Give out what the message has more than before."""
        if root.get("error") is not None:
            self._check({"error": root["error"]})
        self._keep_conversation(root)
        if root.get("message") is None:
            return
        message = convert(root["message"], _Message)
        if not message.visible or message.content is None:
            return
        content = convert(message.content, _Content)
        key = message.id or ""
        if content.thoughts is not None:
            yield from self._think(key, content.reasoning)
        if content.parts is not None:
            yield from self._speak(key, content.text)
            if key == self._current:
                self._finished = message.finished
                if message.id:
                    self._conversation["parent_message_id"] = clean(message.id)

    def _think(self, key: str, text: str) -> Iterator[Event]:
        snapshot = self._thoughts.setdefault(key, Snapshot())
        piece = snapshot.advance(text)
        yield from self.reasoning(snapshot.text if piece is None else piece)

    def _speak(self, key: str, text: str) -> Iterator[Event]:
        if key not in self._texts:
            if not text:
                return
            if any(snapshot.text for snapshot in self._texts.values()):
                yield from self.delta(_SEPARATOR)
            self._texts[key] = Snapshot()
            self._current = key
        snapshot = self._texts[key]
        piece = snapshot.advance(text)
        if piece is not None and (not piece or key == self._current):
            yield from self.delta(piece)
        else:
            yield from self.rewrite(_SEPARATOR.join(s.text for s in self._texts.values() if s.text))

    # The end

    def _conclude(self) -> Iterator[Event]:
        for event in self.finish():
            if isinstance(event, Done) and len(self._conversation) == 2:
                yield Conversation(self._conversation)
            yield event
