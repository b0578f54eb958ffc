"""What a transport is: one method that sends a request and gives back a head and a stream of bytes.

Cookies and redirects are not a transport's business: `tolmach.transport.exchange` does both once,
for all of them. A transport translates its library's exceptions into ours, `from` the cause, and
closes the connection at once when the reading task is cancelled or the exchange is closed.
"""

import time
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from msgspec import Struct, field, structs

from tolmach.errors import RemoteProtocolError
from tolmach.transport.addresses import without_credentials
from tolmach.wire import Head, Request

__all__ = ["Exchange", "Timeouts", "Transport", "TransportOptions", "read"]


class Timeouts(Struct, frozen=True, kw_only=True):
    """Time limits in seconds; None for none.

    `connect` until there is a connection (with TLS and proxy), `first_byte` from the sending until
    the head (a connection that has to be made first counts), `idle` between two pieces of the body
    while somebody waits for one, `total` for the whole exchange. `deadline` is when the total ends,
    by `time.monotonic`, where it began before this exchange did.
    """

    connect: float | None = 15.0
    first_byte: float | None = 120.0
    idle: float | None = 130.0
    total: float | None = 600.0
    deadline: float | None = None

    def within(self, remaining: float | None) -> "Timeouts":
        """The same, with no more than `remaining` seconds left of the total."""
        if remaining is None:
            return self
        deadline = time.monotonic() + remaining
        return structs.replace(self, deadline=deadline if self.deadline is None else min(self.deadline, deadline))


class TransportOptions(Struct, frozen=True, kw_only=True):
    """How to reach the network. Requests with equal options share a pool of connections, never cookies.

    `proxy` is `http://`, `https://`, `socks4://`, `socks4a://`, `socks5://` or `socks5h://` with
    optional credentials. `verify` is True, a file of CA certificates (PEM) that takes the place of the
    known ones, or, explicitly, False.
    `impersonate` names a browser profile such as `chrome131`. `resolve` pins host names to addresses.
    `trust_env` takes the proxy from `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` when
    `proxy` is not given; otherwise these are not looked at.
    """

    proxy: str | None = None
    verify: bool | str = True
    impersonate: str | None = None
    trust_env: bool = False
    resolve: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"TransportOptions({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Without the proxy's credentials."""
        proxy = self.proxy and without_credentials(self.proxy)
        shown = {name: getattr(self, name) for name in self.__struct_fields__} | {"proxy": proxy}
        return list(shown.items())


class Exchange(Protocol):
    """A response in progress: its head, and its body as pieces of bytes, decompressed.

    An exchange may have a method `at_once`: the whole body, when it came with the head and so is no longer
    to be waited for, else None.
    Iterating raises `TransportError`s, among them `ConnectionLost` when the body ends before its
    declared end. Closing is idempotent, and closes the connection when the body was not read out.
    """

    @property
    def head(self) -> Head: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class Transport(Protocol):
    """Sends requests. May be used from several event loops."""

    async def send(self, request: Request, timeouts: Timeouts) -> Exchange:
        """The exchange once its head is there. Redirects are not followed, cookies not kept."""

    async def aclose(self) -> None: ...


async def read(exchange: Exchange, limit: int) -> bytes:
    """The whole body. Raises `RemoteProtocolError` when it is longer than `limit` bytes; closes the exchange."""
    pieces = []
    size = 0
    at_once = getattr(exchange, "at_once", None)
    if at_once is not None and (whole := at_once()) is not None and len(whole) <= limit:
        return bytes(whole)
    try:
        async for piece in exchange:
            size += len(piece)
            if size > limit:
                raise RemoteProtocolError(
                    f"the response is longer than {limit} bytes", status=exchange.head.status, code="too_large"
                )
            pieces.append(piece)
    finally:
        await exchange.aclose()
    return b"".join(pieces)
