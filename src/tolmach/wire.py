"""HTTP as values: what a protocol asks for and what it is given.

Nothing here opens a socket. A handshake is a generator that yields steps and returns the `Call`
whose answer is streamed; see `tolmach.session` for the one place that drives it.
"""

from collections.abc import Callable, Generator, Iterable
from datetime import UTC, datetime
from typing import Any, Protocol

from msgspec import Struct

from tolmach.chat import Event

__all__ = [
    "Call",
    "Challenge",
    "Decoder",
    "Handshake",
    "Head",
    "Limits",
    "Request",
    "Response",
    "Step",
    "Steps",
    "Work",
    "http_date",
    "retry_after",
]


class Limits(Struct, frozen=True, kw_only=True):
    """How much a service may send before it is cut off. Sizes are bytes, after decompression."""

    event_bytes: int = 4 << 20
    answer_bytes: int = 64 << 20
    response_bytes: int = 16 << 20
    handshake_steps: int = 16
    redirects: int = 10


class Request(Struct, frozen=True):
    """One HTTP request. Header names in lower case; `url` is absolute."""

    method: str
    url: str
    headers: dict[str, str] = {}
    body: bytes = b""


class Head(Struct, frozen=True):
    """Status and headers of a response.

    Names are in lower case, repeated values joined with ", " (RFC 9110, 5.2), except Set-Cookie,
    whose lines stand in `cookies`. `url` is where the response came from, after redirects.
    """

    status: int
    headers: dict[str, str] = {}
    cookies: tuple[str, ...] = ()
    url: str = ""

    def header(self, name: str, default: str = "") -> str:
        return self.headers.get(name, default)

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case; empty when none was sent."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Response(Struct, frozen=True):
    """A whole response, read to its end."""

    head: Head
    body: bytes


class Decoder(Protocol):
    """Reads one answer. Bytes may be cut anywhere; the events come out the same.

    Both methods may be generators: an error is raised after the events that stood before it.
    """

    @property
    def partial(self) -> str:
        """The answer's text so far."""

    def feed(self, data: bytes) -> Iterable[Event]: ...

    def close(self) -> Iterable[Event]:
        """The rest, at the end of the body. Raises `TruncatedAnswer` when the answer never ended."""


class Call(Struct, frozen=True):
    """The request that carries the answer, and how to read it once its head is known."""

    request: Request
    decoder: Callable[[Head], Decoder]


class Work(Struct, frozen=True):
    """A pure CPU job. The driver runs it off the event loop and sends its result back.

    `run` is given a function that says whether the caller went away, and asks it now and then.
    """

    run: Callable[[Callable[[], bool]], Any]


class Challenge(Struct, frozen=True):
    """A question for a person (a CAPTCHA). The driver sends the handler's answer back, a text."""

    kind: str
    data: str = ""
    url: str = ""


Step = Request | Work | Challenge
Steps = Generator[Step, Any, None]
"""A handshake's shared part: it leaves what it learnt in the session's state."""
Handshake = Generator[Step, Any, Call]
"""`response = yield Request(...)`, and at the end the `Call`."""


def http_date(value: str) -> float | None:
    """Seconds since 1970 of an HTTP date (RFC 9110, 5.6.7, the preferred form); None if it is none."""
    try:
        return datetime.strptime(value.strip(), "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def retry_after(head: Head, now: float) -> float | None:
    """Seconds to wait that the response asks for, from a number or a date; never negative."""
    value = head.header("retry-after").strip()
    if not value:
        return None
    if value.isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    date = http_date(value)
    return None if date is None else max(0.0, date - now)
