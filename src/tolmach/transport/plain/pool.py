"""The idle plain connections of one event loop."""

import asyncio
from collections.abc import AsyncGenerator

from tolmach.errors import ConnectionLost
from tolmach.transport.coarse_timer import CoarseTimer
from tolmach.transport.plain.connection import Connection

__all__ = ["Pool"]

_POOL_SECONDS = 55.0
"""How long an idle connection is kept at most: less than the 60 s after which most servers and balancers close it."""


class Pool:
    """Connections that wait for a question, by the name of their origin, and those whose answer has not begun."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: set[Connection] = set()
        self._idle: dict[str, list[Connection]] = {}
        self._old = CoarseTimer(loop, _POOL_SECONDS / 2)
        self._keeper: AsyncGenerator[None, None] | None = None
        self._closed = False

    def take(self, name: str) -> Connection | None:
        """The idle connection to that origin that was used last."""
        stack = self._idle.get(name)
        if not stack:
            return None
        connection = stack.pop()
        self._old.discard(connection)
        return connection

    def give(self, connection: Connection) -> None:
        if self._closed:
            connection.abort()
            return
        stack = self._idle.get(connection.name)
        if stack is None:
            stack = self._idle[connection.name] = []
        stack.append(connection)
        self._old.add(connection)

    def lost(self, connection: Connection) -> None:
        """An idle connection has gone."""
        self._old.discard(connection)
        stack = self._idle.get(connection.name, [])
        if connection in stack:
            stack.remove(connection)
            if not stack:
                del self._idle[connection.name]

    def close(self) -> None:
        """Close the idle connections, and those whose answer has not begun."""
        self._closed = True
        for connection in [one for stack in self._idle.values() for one in stack]:
            connection.abort()
        for connection in list(self.waiting):
            connection.fail(ConnectionLost(f"{connection.name}: the transport was closed"))

    async def tie(self) -> None:
        """Close the pool when its event loop shuts down."""
        if self._keeper is None:
            # `asyncio.run` closes the asynchronous generators that were started and are not done.
            self._keeper = self._keep()
            await anext(self._keeper)

    async def _keep(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self.close()
            await asyncio.sleep(0)  # in the loop's next round the sockets are closed
