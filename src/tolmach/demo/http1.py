"""The demo's HTTP/1.1 (RFC 9112): requests read strictly by llhttp (httptools), responses written as given."""

from collections import deque

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from msgspec import Struct

__all__ = ["Asked", "Framing", "NoHttp", "RequestReader"]

_MAX_HEAD = 256 << 10
_MAX_BODY = 32 << 20


class NoHttp(Exception):
    """What came is no request that can be answered; `status` is what to say instead of an answer."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


class Asked(Struct):
    """A request as it came. Names of headers are in lower case; `last` says that no other may follow it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    version: str
    last: bool
    body: bytes = b""


class RequestReader:
    """Reads requests that come one behind the other; those that are whole stand in `whole`.

    `waits` says that the other side wants to hear that its body is welcome (100, RFC 9110, 10.1.1).
    """

    def __init__(self) -> None:
        self.whole: deque[Asked] = deque()
        self.waits = False
        self._parser = HttpRequestParser(self)
        self._refusal: NoHttp | None = None
        self._asked: Asked | None = None
        self._target = b""
        self._headers: list[tuple[str, str]] = []
        self._head = 0
        self._body: list[bytes] = []
        self._size = 0
        self._over = False

    def feed(self, data: bytes) -> None:
        """Raises `NoHttp`; what was whole before stands in `whole` all the same."""
        while data and not self._over:
            try:
                self._parser.feed_data(data)
                data = b""
            except HttpParserUpgrade as stop:
                # The demo speaks nothing else, so it stays with HTTP (RFC 9110, 7.8).
                data = data[stop.args[0] :]
            except HttpParserError as error:
                raise self._refusal or NoHttp(str(error) or "the request cannot be read") from error
            if self._refusal is not None:
                raise self._refusal

    # What the parser calls

    def on_message_begin(self) -> None:
        self._asked = None
        self._target, self._headers, self._head = b"", [], 0
        self._body, self._size = [], 0

    def on_url(self, part: bytes) -> None:
        self._target += part
        self._count(part)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name + value)
        if self._asked is None:  # else it is a trailer
            self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def _count(self, part: bytes) -> None:
        self._head += len(part)
        if self._head > _MAX_HEAD:
            self._refuse("the head of the request is too long", 431)

    def _refuse(self, reason: str, status: int = 400) -> None:
        self._refusal = self._refusal or NoHttp(reason, status)

    def on_headers_complete(self) -> None:
        parser = self._parser
        version = parser.get_http_version()
        names = [name for name, _ in self._headers]
        if version not in ("1.0", "1.1"):
            self._refuse(f"HTTP/{version} is not spoken here", 505)
        if names.count("host") > 1 or (version == "1.1" and "host" not in names):
            self._refuse("a request has one header Host")  # RFC 9112, 3.2
        method = parser.get_method().decode("ascii")
        last = not parser.should_keep_alive()
        self._asked = Asked(method, self._target.decode("latin-1"), self._headers, version, last)
        expects = [value.lower() for name, value in self._headers if name == "expect"]
        self.waits = version == "1.1" and expects == ["100-continue"]

    def on_body(self, data: bytes) -> None:
        self.waits = False
        self._size += len(data)
        if self._size > _MAX_BODY:
            self._refuse("the body is too long", 413)
        elif self._refusal is None:
            self._body.append(data)

    def on_message_complete(self) -> None:
        self.waits = False
        if self._asked is not None and self._refusal is None:
            self._asked.body = b"".join(self._body)
            self.whole.append(self._asked)
            self._over = self._asked.last


class Framing:
    """How the response to a request is written. `closes` says that the connection ends with it."""

    def __init__(self, asked: Asked | None, status: int, headers: list[tuple[str, str]]) -> None:
        given = {name.lower(): value for name, value in headers}
        self._bodiless = status in (204, 304) or (asked is not None and asked.method == "HEAD")
        self._left = int(given["content-length"]) if "content-length" in given else None
        self._chunked = self._left is None and asked is not None and asked.version == "1.1"
        self.closes = asked is None or asked.last or (self._left is None and not self._chunked)
        lines = list(headers)
        if self._chunked and status not in (204, 304):
            lines.append(("Transfer-Encoding", "chunked"))
        if self.closes and "connection" not in given:
            lines.append(("Connection", "close"))
        text = "".join(f"{name}: {value}\r\n" for name, value in lines)
        self.head = f"HTTP/1.1 {status} \r\n{text}\r\n".encode("latin-1")

    def data(self, data: bytes) -> bytes:
        """A piece of the body as it is sent. Raises `ValueError` for more than the response has declared."""
        if self._bodiless or not data:
            return b""
        if self._chunked:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise ValueError("the body is longer than its Content-Length")
        return data

    def end(self) -> bytes:
        """What stands at the end of the body. Raises `ValueError` for less than the response has declared."""
        if self._left and not self._bodiless:
            raise ValueError("the body is shorter than its Content-Length")
        return b"0\r\n\r\n" if self._chunked and not self._bodiless else b""
