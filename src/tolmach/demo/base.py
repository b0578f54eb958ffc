"""What the demo's services are made of: a visit in, a reply out, both as values.

A service is plain code without sockets or waiting: it reads a request and gives the pieces of its
answer. `tolmach.demo.delivery` puts time and faults between the pieces, `tolmach.demo.server` and
`tolmach.demo.asgi` send them.
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, ClassVar, Literal, NamedTuple, Protocol
from urllib.parse import SplitResult, parse_qsl

from msgspec import Struct, field

from tolmach.demo.faults import Wanted
from tolmach.demo.log import Log
from tolmach.errors import ConfigError
from tolmach.wire import Request

__all__ = [
    "JUNK",
    "Break",
    "Headers",
    "Kind",
    "Piece",
    "Reply",
    "Service",
    "Settings",
    "Step",
    "Upstream",
    "Visit",
    "World",
    "json_reply",
    "json_text",
    "page_reply",
    "server_page",
    "server_sent_event",
    "text_reply",
    "upstream",
]

Headers = list[tuple[str, str]]

JUNK = (
    "\ufeff\n<br />\n<b>Warning</b>:  Undefined variable $x in "
    "<b>/var/www/html/wp-content/themes/x/functions.php</b> on line <b>3</b><br />\n"
).encode()
"""What a badly behaved theme prints before every body."""

Step = Literal["page", "handshake", "send", "chat", "other"]
"""What a request is for: the page with the widget, fetching a token, handing in a question whose
answer another request fetches, the request that carries the answer, anything else."""

Kind = Literal["lead", "token", "end", "mark"]
"""`end` is what comes behind the last token, `mark` what of it only tells that the answer is over, or what it took."""


class Piece(NamedTuple):
    """A part of a body that is written at once. Delays and `cut=K` count the tokens."""

    data: bytes
    kind: Kind = "token"


class Break(Enum):
    """What happens to the connection instead of more bytes."""

    RESET = "reset"
    CUT = "cut"
    STALL = "stall"


class Reply(Struct):
    """A service's answer.

    `finished` is called when the body ends: with True when all of it was sent, with False when it broke
    off. `buffered` says that the service throws away what was printed before its body.
    """

    status: int
    headers: Headers
    pieces: Sequence[Piece] = ()
    stream: bool = False
    buffered: bool = False
    finished: Callable[[bool], None] | None = None


class Settings(Struct, frozen=True, kw_only=True):
    """How a demo behaves. Raises `ConfigError` for a value that makes no sense.

    `delay` is the seconds between two tokens. `nonce_life` is the seconds after which a nonce is
    refused for certain (WordPress: a day; it works for half of that at least). `require_key` makes
    `/v1` ask for a bearer. `difficulty` is that of the proof of work at `/ChatGpt`.
    """

    delay: float = 0.02
    nonce_life: float = 86400.0
    require_key: bool = True
    difficulty: str = "0fffff"
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if not 0 <= self.delay < 3600:
            raise ConfigError(f"delay must be from 0 to 3600 seconds, not {self.delay}")
        if not self.nonce_life > 0:
            raise ConfigError(f"nonce_life must be more than 0 seconds, not {self.nonce_life}")
        try:
            digits = bytes.fromhex(self.difficulty)
        except ValueError as error:
            raise ConfigError(f"difficulty must be hexadecimal digits, two a byte, not {self.difficulty!r}") from error
        if not digits:
            raise ConfigError("difficulty must not be empty")


class World(Struct, frozen=True):
    """What all services of one demo share."""

    settings: Settings
    log: Log


class Visit(Struct):
    """One request at a service: `path` is below its mount and starts with `/`."""

    request: Request
    url: SplitResult
    mount: str
    path: str
    step: Step
    wanted: Wanted

    @property
    def base(self) -> str:
        """The address of the service, without a slash at the end."""
        return f"{self.url.scheme}://{self.url.netloc}{self.mount}"

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.url.query, keep_blank_values=True))

    def header(self, name: str) -> str:
        return self.request.headers.get(name, "")

    @property
    def mentions_faults(self) -> bool:
        """Whether the body or the query can ask for faults at all: worth reading it for them."""
        return b"fault" in self.request.body or "fault" in self.url.query

    @property
    def content_type(self) -> str:
        return self.header("content-type").partition(";")[0].strip().lower()


class Service(Protocol):
    """The server side of one protocol at one place."""

    kind: ClassVar[str]
    """The protocol's name; faults say which of them they are for."""

    @property
    def mount(self) -> str: ...

    def step(self, method: str, path: str, request: Request) -> Step:
        """What the request is for."""

    def wish(self, visit: Visit) -> str:
        """The faults asked for in the question's text or the model's name, as in the header; mostly nothing."""

    def respond(self, visit: Visit) -> Reply: ...

    def failure(self, visit: Visit, status: int) -> Reply:
        """What the site answers when it fails with this status before its chat code runs."""


_SURROGATE = re.compile("[\ud800-\udfff]")


def json_text(value: Any, *, ascii_only: bool = True, slashes: bool = False, spaced: bool = False) -> bytes:
    """JSON as the servers write it. `slashes` escapes them, as PHP does. Halves of pairs stay escapes always."""
    separators = (", ", ": ") if spaced else (",", ":")
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    if slashes:
        text = text.replace("/", "\\/")
    if not ascii_only:
        text = _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
    return text.encode()


def server_sent_event(data: bytes, event: str = "", id: str = "") -> bytes:
    """One event of `text/event-stream`."""
    head = (f"event: {event}\n" if event else "") + (f"id: {id}\n" if id else "")
    return b"%sdata: %s\n\n" % (head.encode(), data)


def json_reply(status: int, value: Any, headers: Headers | None = None) -> Reply:
    kind = ("Content-Type", "application/json")
    return Reply(status, [kind, *(headers or [])], (Piece(json_text(value, ascii_only=False)),))


def page_reply(html: str, status: int = 200, headers: Headers | None = None) -> Reply:
    kind = ("Content-Type", "text/html; charset=UTF-8")
    return Reply(status, [kind, *(headers or [])], (Piece(html.encode()),))


def text_reply(status: int, text: str) -> Reply:
    return Reply(status, [("Content-Type", "text/plain; charset=utf-8")], (Piece(text.encode()),))


_REASONS = {401: "Authorization Required", 429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway"}


def server_page(status: int) -> Reply:
    """The front end's own error page."""
    title = f"{status} {_REASONS.get(status, 'Error')}"
    return page_reply(
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        "<hr><center>nginx/1.22.1</center>\r\n</body>\r\n</html>\r\n",
        status,
    )


class Upstream(NamedTuple):
    """What the AI behind a service says when it answers with a failure."""

    text: str
    kind: str
    code: str | None = None


_UPSTREAM = {
    401: Upstream(
        "Incorrect API key provided: sk-mock. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
        "invalid_request_error",
        "invalid_api_key",
    ),
    429: Upstream(
        "Rate limit reached for mock in organization org-mock on requests per min (RPM): Limit 3.",
        "requests",
        "rate_limit_exceeded",
    ),
    500: Upstream("The server had an error while processing your request. Sorry about that!", "server_error"),
}


def upstream(status: float) -> Upstream:
    """The failure of this status; that of 500 for any other."""
    return _UPSTREAM.get(int(status), _UPSTREAM[500])
