"""An exchange's body, read under a watch: what all transports have in common."""

import asyncio
from collections.abc import Awaitable, Callable

from tolmach.errors import TolmachError
from tolmach.transport.timeouts import Watch
from tolmach.wire import Head

__all__ = ["BodyExchange", "Pull"]

Pull = Callable[[], Awaitable[bytes]]
"""Waits for the next piece, never an empty one. Raises `StopAsyncIteration` at the declared end of the body."""


class BodyExchange:
    """A response in progress. `release` lets go of the connection, at once and without waiting.

    `one` says that the first piece is all of the body. `translate` gives our error for one of the
    library's (the same error when it does not know it).
    """

    __slots__ = ("_one", "_pull", "_release", "_translate", "_watch", "head")

    def __init__(
        self,
        head: Head,
        pull: Pull,
        release: Callable[[], None],
        translate: Callable[[Exception], Exception],
        watch: Watch,
        *,
        one: bool = False,
    ) -> None:
        self.head = head
        self._one = one
        self._pull = pull
        self._release: Callable[[], None] | None = release
        self._translate = translate
        self._watch = watch
        watch.has_head()

    def __aiter__(self) -> "BodyExchange":
        return self

    async def __anext__(self) -> bytes:
        if self._release is None:
            raise StopAsyncIteration
        watch = self._watch
        try:
            watch.begin()
            piece = await self._pull()
            watch.end()
            if self._one:
                self._close()
            return piece
        except asyncio.CancelledError as error:
            self._close()
            expired = watch.expired()
            if expired is None:
                raise
            raise expired from error
        except (StopAsyncIteration, TolmachError):
            self._close()
            raise
        except Exception as error:  # whatever the library raises: `translate` knows, or hands it back
            self._close()
            told = self._translate(error)
            if told is error:
                raise
            raise told from error
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        release, self._release = self._release, None
        self._watch.disarm()
        if release is not None:
            release()

    async def aclose(self) -> None:
        """Close the connection when the body was not read out. May be called twice."""
        self._close()
