"""One HTTP/1.1 connection on the event loop itself; llhttp (by httptools) reads what comes."""

import asyncio
import os
from collections.abc import Callable

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from tolmach.errors import ConnectionLost, RemoteProtocolError, TolmachError
from tolmach.transport.addresses import text_of
from tolmach.wire import Head

__all__ = ["Connection", "reason_of"]

_HEAD_BYTES = 256 << 10
"""Longest head that is read, with what is sent before it (1xx)."""

_HELD_BYTES = 256 << 10
"""How much of a body waits for its reader before the connection is not read any more."""

_MOST_NAMES = 512
_names: dict[bytes, str] = {}
"""Header names as they came, and in lower case: there are few, and each comes with every answer."""


class Connection(asyncio.Protocol):
    """Asks one question after the other. `released` is called when it can be asked again, `lost` when it is gone.

    Whoever asks waits (`wait`) until `head` is there or `failure`, and then until there are `parts`
    to `take` or the answer has `ended`, with a `failure` or without.
    """

    __slots__ = (
        "_bodiless",
        "_cookies",
        "_gone",
        "_head_bytes",
        "_headers",
        "_held",
        "_idle",
        "_keep",
        "_loop",
        "_lost",
        "_parser",
        "_paused",
        "_released",
        "_transport",
        "_turns",
        "_url",
        "_waiter",
        "ended",
        "failure",
        "head",
        "name",
        "parts",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        released: "Callable[[Connection], None]",
        lost: "Callable[[Connection], None]",
    ) -> None:
        self.name = name
        self.head: Head | None = None
        self.ended = True
        self.failure: TolmachError | None = None
        self._loop = loop
        self._released = released
        self._lost = lost
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._url = ""
        self._bodiless = False
        self._turns = 0
        self._headers: dict[str, str] = {}
        self._cookies: tuple[str, ...] = ()
        self._head_bytes = 0
        self.parts: list[bytes] = []
        self._held = 0
        self._paused = False
        self._keep = True
        self._idle = False
        self._gone = False
        self._waiter: asyncio.Future[None] | None = None

    # Asking

    def ask(self, data: bytes, url: str, *, bodiless: bool) -> None:
        """Send a request. `bodiless` says that its answer has no body whatever its head says (HEAD)."""
        self.head = None
        self.ended = self._idle = False
        self._url = url
        self._bodiless = bodiless
        self._turns += 1
        self._headers = {}
        self._cookies = ()
        self._head_bytes = 0
        self._transport.write(data)

    def wait(self) -> "asyncio.Future[None]":
        """Done when something has come that changes what there is to see, or a little more often."""
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def take(self) -> bytes:
        """What has come of the body."""
        parts = self.parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._held = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    def stale(self) -> bool:
        """Whether it broke as connections do that the other side had closed: used before, and no byte came."""
        return self._turns > 1 and self._head_bytes == 0 and isinstance(self.failure, ConnectionLost)

    def close_drained(self) -> None:
        """The answer is not read any further: keep the connection if it was whole, else close it at once."""
        if not self.ended or self.failure is not None or not self._keep or self._gone:
            self.abort()
            return
        if self.parts:
            self.take()
        self._idle = True
        self._released(self)

    def abort(self) -> None:
        """Close at once."""
        self.ended = True
        self._keep = False
        if self._idle:
            self._idle = False
            self._lost(self)
        self._transport.abort()

    def elapsed(self) -> None:
        """It has been idle for long: the other side will close it soon."""
        self.abort()

    def fail(self, failure: TolmachError, cause: BaseException | None = None) -> None:
        """End the answer with an error, and the connection."""
        failure.__cause__ = cause
        self.failure = failure
        self.abort()
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass of asyncio.Transport

    def data_received(self, data: bytes) -> None:
        if self.ended:
            # Nobody asked for this: whatever it is, the next answer cannot be told from it.
            self._keep = False
            if self._idle:
                self.abort()
            return
        if self.head is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as error:
            self.fail(RemoteProtocolError(f"{self.name}: the answer is no HTTP any more", code="http"), error)
        except HttpParserError as error:
            self._keep = False
            if not self.ended:
                text = f"{self.name}: what came is not valid HTTP: {error}"
                self.fail(RemoteProtocolError(text, code="http"), error)
        if self.head is not None:
            waiter = self._waiter
            if waiter is not None:
                self._waiter = None
                if not waiter.done():
                    waiter.set_result(None)
        elif self._head_bytes > _HEAD_BYTES:
            text = f"{self.name}: the head of the answer is longer than {_HEAD_BYTES} bytes"
            self.fail(RemoteProtocolError(text, code="http"))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        if self._idle:
            self._idle = False
            self._lost(self)
        if self.ended:
            return
        head = self.head
        if head is None:
            reason = reason_of(exc) if exc is not None else "closed without an answer"
        elif exc is None and "content-length" not in head.headers and "transfer-encoding" not in head.headers:
            self.ended = True  # such a body ends with its connection (RFC 9112, 6.3)
            self._wake()
            return
        else:
            reason = reason_of(exc) if exc is not None else "the body is incomplete"
        self.fail(ConnectionLost(f"{self.name}: the connection broke: {reason}"), exc)

    # What the parser calls

    def on_message_begin(self) -> None:
        if self.ended:
            self._keep = False  # a second answer, and one question

    def on_header(self, raw_name: bytes, raw_value: bytes) -> None:
        name = _names.get(raw_name) or _lower(raw_name)
        try:
            value = raw_value.decode()
        except UnicodeDecodeError:
            value = text_of(raw_value)
        headers = self._headers
        if name == "set-cookie":
            self._cookies += (value,)
        elif name in headers:
            headers[name] = f"{headers[name]}, {value}"
        else:
            headers[name] = value

    def on_headers_complete(self) -> None:
        if self.ended:
            return
        parser = self._parser
        status = parser.get_status_code()
        headers = self._headers
        if status >= 200:
            self.head = Head(status, headers, self._cookies, self._url)
            self._keep = parser.should_keep_alive()
            if self._bodiless:
                # The parser waits for a body that will not come.
                self.ended = True
                self._keep = False
            elif headers.get("transfer-encoding", "chunked").lower() != "chunked":
                text = f"{self.name}: the answer's transfer coding was not asked for"
                self.fail(RemoteProtocolError(text, code="http"))
        # From here on only trailers come, which mean nothing here, or the head that follows a 1xx.
        self._headers = {}
        self._cookies = ()

    def on_body(self, data: bytes) -> None:
        if self.ended:
            return
        self.parts.append(data)
        self._held += len(data)
        if self._held > _HELD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.head is not None:
            self.ended = True


def _lower(raw: bytes) -> str:
    name = raw.decode("latin-1").lower()
    if len(_names) < _MOST_NAMES:
        _names[raw] = name
    return name


def reason_of(error: Exception) -> str:
    """What the system says about an error, without the address."""
    if not isinstance(error, OSError) or error.errno is None:
        return type(error).__name__
    # Resolvers have numbers of their own, which are negative.
    return (os.strerror(error.errno) if error.errno > 0 else error.strerror or "no such name").lower()
