"""Serving the gateway by granian, in this process."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from typing import Any, Literal

from tolmach.errors import ConfigError
from tolmach.gateway.addresses import resolve, url_of
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.asgi import AsgiApp
from tolmach.gateway.serving.rsgi import RsgiApp

__all__ = ["Interface", "reserved", "run", "serving"]

Interface = Literal["rsgi", "asgi"]


_MOST_CONNECTIONS = 1_000_000
"""More than a process may have open: no limit of the server's own."""


@contextmanager
def reserved(host: str, port: int) -> Iterator[tuple[str, int]]:
    """An address and a port, a free one for 0, which nobody takes meanwhile but servers that share it.

    Raises `ConfigError` when it cannot be listened on.
    """
    address, family = resolve(host)
    with socket.socket(family, socket.SOCK_STREAM) as held:
        try:
            number = _free_port(family, address, port)
            if hasattr(socket, "SO_REUSEPORT"):
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                held.bind((address, number))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror or error}; choose another port"
            ) from error
        yield address, number


def _free_port(family: socket.AddressFamily, address: str, port: int) -> int:
    """The port, a free one for 0. Raises `OSError` when a server listens there."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Without sharing the port: so another server of this kind is noticed, too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))
        number: int = probe.getsockname()[1]
        return number


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a program on a fast event loop: uvloop's, or asyncio's own where there is none (Windows)."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


@asynccontextmanager
async def serving(
    gateway: Gateway,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    interface: Interface = "rsgi",
    header_seconds: float = 15.0,
    header_bytes: int = 64 << 10,
    shared: bool = False,
    grace: float = 5.0,
) -> AsyncGenerator[str, None]:
    """The gateway's address while it is served on the running loop.

    A caller has `header_seconds` to send the head of a request, which is also how long an idle
    connection is kept, and `header_bytes` for it. `shared` listens beside other processes on the same
    port. Leaving stops listening, and gives what is under way `grace` seconds. Raises `ConfigError`
    for a port in use.
    """
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    with nullcontext((resolve(host)[0], port)) if shared else reserved(host, port) as (address, port):
        server = Server(
            RsgiApp(gateway) if interface == "rsgi" else AsgiApp(gateway),
            address=address,
            port=port,
            interface=Interfaces.RSGI if interface == "rsgi" else Interfaces.ASGINL,
            # Where it also speaks HTTP/2, a caller who sends nothing at all is waited for without end.
            http=HTTPModes.http1,
            websockets=False,
            backlog=2048,
            # Without it no more connections than the backlog are served at once, and further callers wait without
            # a word. How many questions are answered at once is the gateway's own limit, with a 503 for the rest.
            backpressure=_MOST_CONNECTIONS,
            log_enabled=False,
            http1_settings=HTTP1Settings(
                header_read_timeout=max(1, int(header_seconds * 1000)), max_buffer_size=header_bytes
            ),
        )
        running = asyncio.ensure_future(server.serve())
        try:
            await _listening(running, address, port)
        except BaseException:
            running.cancel()
            raise
    try:
        yield url_of(host, port)
    finally:
        server.stop()  # type: ignore[no-untyped-call]  # granian has no annotation there
        with suppress(asyncio.CancelledError):
            await asyncio.wait({running}, timeout=grace)


async def _listening(running: "asyncio.Future[None]", host: str, port: int) -> None:
    """Wait until the server accepts connections; it gives no sign of its own."""
    for _ in range(200):
        if running.done():
            running.result()
            raise ConfigError(f"the server did not start on {host}:{port}")
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return
    raise ConfigError(f"the server did not start on {host}:{port}")
