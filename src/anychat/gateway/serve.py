"""Serving the gateway by granian, in this process."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Literal

from anychat.errors import ConfigError
from anychat.gateway.asgi import AsgiApp
from anychat.gateway.rsgi import RsgiApp

if TYPE_CHECKING:
    from anychat.gateway.core import Gateway

__all__ = ["Interface", "check_port", "serving"]

Interface = Literal["rsgi", "asgi"]

_HEADER_BYTES = 64 << 10


def check_port(host: str, port: int) -> int:
    """The port, a free one for 0. Raises `ConfigError` when it cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another port") from error
        number: int = probe.getsockname()[1]
        return number


@asynccontextmanager
async def serving(
    gateway: "Gateway",
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    interface: Interface = "rsgi",
    header_seconds: float = 15.0,
    shared: bool = False,
) -> AsyncGenerator[str, None]:
    """The gateway's address while it is served on the running loop.

    `shared` listens beside other processes on the same port. Leaving stops listening and ends what
    is under way. Raises `ConfigError` for a port in use.
    """
    from granian.constants import Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    if not shared:
        port = check_port(host, port)
    app = RsgiApp(gateway) if interface == "rsgi" else AsgiApp(gateway)
    server = Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.RSGI if interface == "rsgi" else Interfaces.ASGINL,
        websockets=False,
        backlog=2048,
        log_enabled=False,
        http1_settings=HTTP1Settings(header_read_timeout=int(header_seconds * 1000), max_buffer_size=_HEADER_BYTES * 8),
    )
    running = asyncio.ensure_future(server.serve())
    try:
        await _listening(running, host, port)
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        server.stop()  # type: ignore[no-untyped-call]  # granian has no annotation there
        with suppress(asyncio.CancelledError):
            await asyncio.wait({running}, timeout=5.0)


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
