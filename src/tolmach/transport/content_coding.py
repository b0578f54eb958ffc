"""Content codings of responses (RFC 9110, 8.4), for transports whose library does not undo them safely."""

import zlib
from collections import deque

from tolmach.errors import ConnectionLost, RemoteProtocolError
from tolmach.transport.body import Pull

__all__ = ["ACCEPTED", "decoded"]

ACCEPTED = "gzip, deflate"
"""What a request may say in Accept-Encoding."""

_PIECE_BYTES = 256 << 10
"""A piece is no longer than this, so that a small body which unpacks to gigabytes is seen growing."""

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def decoded(pull: Pull, headers: dict[str, str], what: str) -> Pull:
    """A pull that undoes the content coding, if there is one. Takes the headers that tell of it out of `headers`.

    Raises `RemoteProtocolError` for a coding that nobody asked for; the pull raises it for broken
    data and `ConnectionLost` for data that ends early.
    """
    coding = headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity"):
        return pull
    if coding not in _WINDOW_BITS:
        raise RemoteProtocolError(f"{what}: the answer's coding {coding!r} was not asked for", code="http")
    del headers["content-encoding"]
    headers.pop("content-length", None)
    return _Inflating(pull, coding, what)


class _Inflating:
    def __init__(self, pull: Pull, coding: str, what: str) -> None:
        self._pull = pull
        self._coding = coding
        self._what = what
        self._inflate = zlib.decompressobj(_WINDOW_BITS[coding])
        self._started = False
        self._waiting: deque[bytes] = deque()

    async def __call__(self) -> bytes:
        while True:
            while self._waiting:
                if piece := self._next():
                    return piece
            try:
                self._waiting.append(await self._pull())
            except StopAsyncIteration:
                if self._started and not self._inflate.eof:
                    raise ConnectionLost(
                        f"{self._what}: the connection broke: the {self._coding} data is cut"
                    ) from None
                raise

    def _next(self) -> bytes:
        """The next piece of what is waiting; empty when more has to come first."""
        data = self._waiting.popleft()
        try:
            if self._inflate.eof:
                # A further member of a gzip file (RFC 1952, 2.2).
                self._inflate = zlib.decompressobj(_WINDOW_BITS[self._coding])
            elif not self._started and self._coding == "deflate" and data[0] & 0x0F != 8:
                # What many servers send as "deflate": no zlib header around it.
                self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            self._started = True
            piece = self._inflate.decompress(data, _PIECE_BYTES)
        except zlib.error as error:
            raise RemoteProtocolError(
                f"{self._what}: the answer's {self._coding} data is broken", code="http"
            ) from error
        rest = self._inflate.unconsumed_tail or self._inflate.unused_data
        if rest:
            self._waiting.appendleft(rest)
        elif len(piece) == _PIECE_BYTES:
            self._waiting.appendleft(b"")  # there may be more that the object holds back
        return piece
