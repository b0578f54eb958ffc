"""What is sent to a plain `http://` address: where to, and the bytes of the request's head.

Only addresses that are written out in full count as plain: those that a URL parser would change
(escapes, dots in a path, credentials, a name that is not ASCII) go by wreq, which has such a parser.
"""

import re
from functools import lru_cache

from msgspec import Struct

from tolmach.errors import ConfigError
from tolmach.transport.addresses import check_headers, origin
from tolmach.transport.content_coding import ACCEPTED
from tolmach.version import __version__
from tolmach.wire import Request

__all__ = ["Place", "bytes_of", "place_of"]

_ADDRESS = re.compile(
    r"http://(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[A-Za-z0-9/._~%!$&'()*+,;=:@-]*)?(?P<query>\?[A-Za-z0-9/._~%!$&()*+,;=:@?\[\]|-]*)?"
)
_DOTS = re.compile(r"/(?:\.|%2e){1,2}(?:/|\Z)", re.IGNORECASE)
"""A part of a path that stands for this folder or the one above."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
"""These say their length even when it is 0: some servers refuse them without (RFC 9110, 8.6)."""

_FRAMING = frozenset({"content-length", "transfer-encoding"})
"""How long the body is follows from the body."""


class Place(Struct, frozen=True):
    """A plain address: how to call its origin in messages, where to connect, the request's target and `Host`."""

    name: str
    host: str
    port: int
    target: str
    shown_host: str


@lru_cache(1024)
def place_of(url: str) -> Place | None:
    """Where a plain address leads; None when it is no such address."""
    found = _ADDRESS.fullmatch(url)
    if found is None or (found["path"] and _DOTS.search(found["path"])):
        return None
    host = found["host"].lower()
    port = int(found["port"] or 80)
    if not 0 < port < 65536:
        return None
    shown = host if port == 80 else f"{host}:{port}"
    return Place(origin(url), host.strip("[]"), port, (found["path"] or "/") + (found["query"] or ""), shown)


def bytes_of(request: Request, place: Place) -> bytes:
    """The request as it is sent (RFC 9112, 3). Raises `ConfigError` when it cannot be written."""
    body, method = request.body, request.method
    head = _head(method, place, tuple(request.headers.items()))
    if body:
        return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
    return head + (b"content-length: 0\r\n\r\n" if method in _WITH_BODY else b"\r\n")


@lru_cache(256)
def _head(method: str, place: Place, headers: tuple[tuple[str, str], ...]) -> bytes:
    """All but the length of the body; a session's questions have the same head, most of them."""
    if method not in _METHODS:
        raise ConfigError(f"there is no HTTP method {method!r}")
    try:
        check_headers(dict(headers))
    except ConfigError as error:
        raise ConfigError(f"{place.name}: the request cannot be written: {error}") from error
    lines = [(name, value) for name, value in headers if name.lower() not in _FRAMING]
    given = {name.lower() for name, _ in lines}
    defaults = (
        ("host", place.shown_host),
        ("user-agent", f"tolmach/{__version__}"),
        ("accept-encoding", ACCEPTED),
    )
    lines = [(name, value) for name, value in defaults if name not in given] + lines
    text = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"{method} {place.target} HTTP/1.1\r\n{text}".encode()
