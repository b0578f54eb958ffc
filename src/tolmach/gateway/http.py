"""What a server interface gives to the gateway and takes from it: requests and replies as plain objects.

`gateway.serving.rsgi` and `gateway.serving.asgi` implement `Incoming` and `Reply`; `gateway.core` sees nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

__all__ = [
    "MOST_HEADERS",
    "MOST_SKIPPED",
    "SKIP_SECONDS",
    "BodyBroken",
    "BodyRefused",
    "BodyTooLarge",
    "BodyTooSlow",
    "EncodedBody",
    "ForeignPage",
    "Headers",
    "Incoming",
    "Overloaded",
    "Reply",
    "ServerLimits",
    "TooManyHeaders",
    "Writer",
]

Headers = list[tuple[str, str]]

MOST_HEADERS = 100
"""More headers than these the server itself refuses."""


MOST_SKIPPED = 64 << 20
SKIP_SECONDS = 2.0
"""So many bytes, for so long, are read of a body that is refused and thrown away: most clients send all of it before
they look for an answer, and one whose connection is closed meanwhile never sees why."""


class ServerLimits(Struct, frozen=True, kw_only=True):
    """How much a caller may send. Sizes are bytes, times seconds."""

    body_bytes: int = 32 << 20
    body_seconds: float = 60.0
    depth: int = 100
    headers: int = MOST_HEADERS
    streams: int = 10_000
    """Questions under way at once."""


class BodyRefused(Exception):
    """The request's body was not read: it breaks a limit. `status` and `code` are what the caller is told."""

    status = 400
    code = "bad_request"
    retry_after: int | None = None
    """Seconds; for what is only so now."""


class BodyTooLarge(BodyRefused):
    """The body is longer than allowed; `limit` is in bytes."""

    status = 413
    code = "request_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is longer than {limit} bytes")
        self.limit = limit


class BodyBroken(BodyRefused):
    """The body ended before its last chunk, or what came is no chunk."""

    def __init__(self) -> None:
        super().__init__("the body broke off: its last chunk did not come, or what came is no chunk")


class BodyTooSlow(BodyRefused):
    """The body took longer than allowed; `limit` is in seconds."""

    status = 408
    code = "request_timeout"

    def __init__(self, limit: float) -> None:
        super().__init__(f"the body did not come within {limit:g} seconds")
        self.limit = limit


class TooManyHeaders(BodyRefused):
    """The request has more headers than allowed."""

    status = 431
    code = "too_many_headers"


class EncodedBody(BodyRefused):
    """The body is compressed, or encoded in another way: `encoding` is what the request says of it."""

    status = 415
    code = "unsupported_encoding"

    def __init__(self, encoding: str) -> None:
        super().__init__(f"a body with Content-Encoding: {encoding[:40]} is not read here; send it as plain JSON")
        self.encoding = encoding


class ForeignPage(BodyRefused):
    """A page in a browser asks that may not."""

    status = 403
    code = "origin_not_allowed"


class Overloaded(BodyRefused):
    """As many questions as allowed are under way, or the gateway is being stopped."""

    status = 503
    code = "overloaded"
    retry_after = 1


class Incoming(Protocol):
    """A request of a caller."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Names in lower case."""
    client: str
    hosts: Sequence[str]
    """The values of all `Host` headers."""
    authority: str
    """The host of a target in absolute form, as a proxy is asked; empty for the usual one."""
    raw_path: str | None
    """The path before it was decoded; None where the server does not tell."""

    async def body(self, limit: int, seconds: float) -> bytes:
        """The whole body. Raises `BodyTooLarge` for more than `limit` bytes, `BodyTooSlow` after `seconds`."""


class Writer(Protocol):
    """The body of a streamed reply."""

    async def write(self, data: bytes) -> None:
        """Send at once. Raises `ConnectionError` when the caller has gone."""


class Reply(Protocol):
    """The answer to one request. Exactly one of the two is called, once."""

    async def whole(self, status: int, headers: Headers, body: bytes) -> None: ...

    async def stream(self, status: int, headers: Headers) -> Writer:
        """Send the head; the reply ends when the handler returns. A handler that raises breaks it off."""
