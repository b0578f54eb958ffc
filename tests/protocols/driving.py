"""Drives handshakes and decoders in the tests of the protocols: fixed clock and digits, no network."""

import base64
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tolmach.chat import ChatRequest, Conversation, Delta, Event, Notice, parse_messages
from tolmach.errors import ProviderError, TolmachError
from tolmach.protocols.base import ChatProtocol, SessionState, Site
from tolmach.testing import recordings
from tolmach.wire import Call, Challenge, Decoder, Head, Request, Response, Work

CAPTURES = Path(__file__).parent.parent / "captures"
NOW = 1_795_000_000.0

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells it.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
STRICT_WEATHER: dict[str, Any] = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
NOW_TOOL: dict[str, Any] = {"type": "function", "function": {"name": "now"}}

Cut = Callable[[bytes], Iterable[bytes]]


class Outcome(NamedTuple):
    """What an answer came to: its events with adjoining pieces of text joined, and the error at its end."""

    events: list[Event]
    error: TolmachError | None

    @property
    def text(self) -> str:
        """The answer's text as a caller ends up with it."""
        text = ""
        for event in self.events:
            if isinstance(event, Delta):
                text += event.text
            elif isinstance(event, Notice) and event.kind == "rewritten":
                text = event.text
        return text

    @property
    def failure(self) -> ProviderError:
        """The error, where there has to be one that the service reported."""
        assert isinstance(self.error, ProviderError)
        return self.error

    @property
    def said(self) -> tuple[Any, ...]:
        """For comparing two outcomes."""
        error = self.error
        told = error and (type(error), str(error), vars(error))
        return (join(self.events), told)


def join(events: list[Event]) -> list[Event]:
    """The events with adjoining deltas as one."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, Delta) and out and isinstance(out[-1], Delta):
            out[-1] = Delta(out[-1].text + event.text)
        else:
            out.append(event)
    return out


def read(decoder: Decoder, chunks: Iterable[bytes]) -> Outcome:
    """Feed a decoder. Any exception but ours goes through."""
    events: list[Event] = []
    try:
        for chunk in chunks:
            for event in decoder.feed(chunk):
                events.append(event)  # noqa: PERF402  # what came before an error counts
        for event in decoder.close():
            events.append(event)  # noqa: PERF402
    except TolmachError as error:
        error.partial = error.partial or decoder.partial
        return Outcome(events, error)
    return Outcome(events, None)


def by_bytes(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def cut_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The data cut at these places, taken modulo its length."""
    at = sorted({place % (len(data) + 1) for place in places})
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


class Recorded(NamedTuple):
    """One exchange of a recording."""

    request: Request
    head: Head
    chunks: list[bytes]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


def load(family: str, case: str) -> list[Recorded]:
    recording = json.loads((CAPTURES / family / f"{case}.json").read_text(encoding="utf-8"))
    out = []
    for exchange in recording["exchanges"]:
        asked, answered = exchange["request"], exchange["response"]
        url = f"http://chat.test{asked['path']}"
        headers = {name.lower(): value for name, value in answered["headers"]}
        out.append(
            Recorded(
                Request(asked["method"], url, {}, (asked["body"] or "").encode()),
                Head(answered["status"], headers, url=url),
                [base64.b64decode(chunk["b64"]) for chunk in answered["chunks"]],
            )
        )
    return out


def cases(family: str) -> list[str]:
    return sorted(path.stem for path in (CAPTURES / family).glob("*.json"))


class Plugin:
    """What was recorded of a WordPress plugin, by recording and number of the exchange, and its protocol's readers."""

    def __init__(self, protocol: ChatProtocol, folders: str, prefix: str) -> None:
        self.exchanges = {
            f"{recording.name.removeprefix(prefix)}[{i}]": exchange
            for path in sorted(CAPTURES.glob(f"{folders}/*.json"))
            for recording in [recordings.load(path)]
            for i, exchange in enumerate(recording.exchanges)
        }
        self.readers = {name: protocol.reader(exchange.request) for name, exchange in self.exchanges.items()}
        self.answers = {name: reader for name, reader in self.readers.items() if reader is not None}

    def outcome(self, name: str, *, cut: Cut = lambda body: [body]) -> Outcome:
        """What a recorded answer comes to."""
        exchange = self.exchanges[name]
        return read(self.answers[name](exchange.head), cut(exchange.body()))

    def page(self, name: str, status: int | None = None, **replaced: str) -> Response:
        """A recorded page with other words; a leading `_` of a name lets a word begin with a digit."""
        exchange = self.exchanges[name]
        body = exchange.body()
        for old, new in replaced.items():
            assert old.removeprefix("_").encode() in body
            body = body.replace(old.removeprefix("_").encode(), new.encode())
        head = exchange.head
        return Response(Head(head.status if status is None else status, head.headers, url=""), body)


def new_state(now: float = NOW) -> SessionState:
    """A state whose clock stands still and whose random digits count up."""
    count = iter(range(1, 10_000))
    return SessionState(now=lambda: now, random_hex=lambda n: f"{next(count):0{n}x}"[-n:])


def turn(
    messages: Any = "hello",
    *,
    conversation: Conversation | None = None,
    stream: bool = True,
    model: str = "",
    **options: Any,
) -> ChatRequest:
    asked = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    return ChatRequest(
        messages=parse_messages(asked), model=model, stream=stream, conversation=conversation, options=options
    )


class Driven(NamedTuple):
    """The requests and challenges of a handshake, and what it returned."""

    requests: list[Request]
    challenges: list[Challenge]
    call: Call | None


def drive(steps: Any, *responses: Response, answer: str = "") -> Driven:
    """Run a handshake; its requests get the responses in order, a challenge gets `answer`."""
    requests: list[Request] = []
    challenges: list[Challenge] = []
    left = list(responses)
    result: Any = None
    try:
        while True:
            step = steps.send(result)
            if isinstance(step, Request):
                requests.append(step)
                result = left.pop(0)
            elif isinstance(step, Work):
                result = step.run(lambda: False)
            else:
                challenges.append(step)
                result = answer
    except StopIteration as stop:
        assert not left, "responses are left over"
        return Driven(requests, challenges, stop.value)


def sent_to(site: Site, asked: ChatRequest) -> Any:
    """The JSON that a turn's question is."""
    return json.loads(ask(site.protocol, site, asked).request.body)


def reading(protocol: ChatProtocol, family: str, case: str) -> tuple[Callable[[], Decoder], bytes]:
    """What reads the answer of a recording with one exchange, and the answer's body."""
    (recorded,) = load(family, case)
    reader = protocol.reader(recorded.request)
    assert reader is not None
    return partial(reader, recorded.head), recorded.body


def recorded_outcome(protocol: ChatProtocol, family: str, case: str) -> Outcome:
    """What a recorded answer comes to, in one piece and byte by byte alike."""
    decoder, body = reading(protocol, family, case)
    whole = read(decoder(), [body])
    assert whole.said == read(decoder(), by_bytes(body)).said
    return whole


def ask(protocol: Any, site: Any, asked: ChatRequest, *responses: Response, state: SessionState | None = None) -> Call:
    """The call that a turn's handshake ends with."""
    call = drive(protocol.open(site, asked, state or new_state()), *responses).call
    assert call is not None
    return call


def response(value: Any, status: int = 200, kind: str = "application/json", **headers: str) -> Response:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Response(Head(status, {"content-type": kind, **headers}, url="http://chat.test/"), body)
