"""Connecting to a plain address, to whichever of its addresses answers first (RFC 8305, without the sorting)."""

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from tolmach.errors import ConnectFailed, TimedOut
from tolmach.transport.plain.connection import Connection, reason_of
from tolmach.transport.plain.pool import Pool
from tolmach.transport.plain.request import Place

__all__ = ["connected"]

_HEAD_START = 0.25
"""Seconds that one address has to answer before the next one is tried beside it (RFC 8305, 5)."""


async def connected(pool: Pool, place: Place, pins: Sequence[str] | None, seconds: float | None) -> Connection:
    """A new connection. `pins` are the addresses to use for the host; without them the system is asked.

    Raises `ConnectFailed`, and `TimedOut` after so many seconds.
    """
    try:
        async with asyncio.timeout(seconds):
            addresses = pins or await _addresses(pool.loop, place)
            if len(addresses) == 1:
                return await _connect(pool, place, addresses[0])
            return await _first(pool, place, addresses)
    except TimeoutError as error:
        if isinstance(error, OSError) and error.errno is not None:
            # The system's own limit, which is shorter than ours.
            raise ConnectFailed(f"{place.name}: no connection: {reason_of(error)}") from error
        message = f"{place.name}: no connection within {seconds or 0.0:g} s"
        raise TimedOut(message, phase="connect", seconds=seconds) from error
    except OSError as error:
        raise ConnectFailed(f"{place.name}: no connection: {reason_of(error)}") from error


async def _addresses(loop: asyncio.AbstractEventLoop, place: Place) -> list[str]:
    try:
        return [str(ip_address(place.host))]
    except ValueError:
        pass  # a name
    try:
        found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError("the name of the host is none") from error
    return list(dict.fromkeys(str(row[4][0]) for row in found))


async def _connect(pool: Pool, place: Place, address: str) -> Connection:
    _, connection = await pool.loop.create_connection(
        lambda: Connection(pool.loop, place.name, pool.give, pool.lost), address, place.port
    )
    return connection


async def _first(pool: Pool, place: Place, addresses: Sequence[str]) -> Connection:
    """The first connection that comes about; each address has a head start on the next."""
    attempts: list[asyncio.Task[Connection]] = []
    left = list(addresses)
    try:
        while True:
            if left:
                attempts.append(pool.loop.create_task(_connect(pool, place, left.pop(0))))
            open_ones = [attempt for attempt in attempts if not attempt.done()]
            limit = _HEAD_START if left else None
            await asyncio.wait(open_ones, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            for attempt in attempts:
                if attempt.done() and attempt.exception() is None:
                    attempts.remove(attempt)
                    return attempt.result()
            if not left and all(attempt.done() for attempt in attempts):
                return attempts[-1].result()  # raises its error
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_drop)
            attempt.cancel()


def _drop(attempt: "asyncio.Task[Connection]") -> None:
    """Close what came about too late."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()
