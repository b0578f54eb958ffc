"""The private event loop, on a thread of its own, that the synchronous API runs on.

So the synchronous calls are the asynchronous ones, and work where a loop is running already
(Jupyter). The thread starts at the first use, and ends with the program, after what runs on it was
cancelled; a forked child starts its own.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from tolmach.errors import ConfigError, ConnectionLost

__all__ = ["iterate", "run"]

T = TypeVar("T")

_EXIT_SECONDS = 2.0
"""How long the end of the program waits for what was cancelled."""


class _Job(Generic[T]):
    """A coroutine on the loop, and the thread that waits for it. All but `wait` runs on the loop's thread."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], is_exit: Callable[[], bool]) -> None:
        self._coroutine = coroutine
        self._is_exit = is_exit
        self._task: asyncio.Task[T] | None = None
        self._future: Future[T] = Future()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._coroutine)
        self._task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[T]") -> None:
        if not task.cancelled():
            error = task.exception()
            if error is None:
                self._future.set_result(task.result())
            else:
                self._future.set_exception(error)
        elif not self._is_exit():
            # At the end of the program only daemon threads still wait, and those end without a word.
            self._future.cancel()

    def drop(self) -> None:
        """Nobody waits any more."""
        if self._task is None:
            self._coroutine.close()
        else:
            self._task.cancel()

    def wait(self) -> T:
        return self._future.result()


class _Loop:
    """An event loop that runs on its own thread until it is stopped."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stopped: asyncio.Event
        self._closing: set[asyncio.Task[None]] = set()
        self._ended = False
        self.thread = threading.Thread(target=self._serve, name="tolmach", daemon=True)
        self.thread.start()
        self._started.wait()

    def _serve(self) -> None:
        # At its end the runner cancels the tasks, and closes the generators and the loop.
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            self._stopped = asyncio.Event()
            self._started.set()
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        await self._stopped.wait()

    def stop(self) -> None:
        self._ended = True
        self._loop.call_soon_threadsafe(self._stopped.set)
        self.thread.join(_EXIT_SECONDS)

    @property
    def here(self) -> bool:
        """Whether the calling thread is this loop's own, which must not wait for it."""
        return threading.current_thread() is self.thread

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. Interrupting the wait cancels it. Raises `ConfigError` on the loop's own thread."""
        if self.here or self.process != os.getpid():
            coroutine.close()
            if self.here:
                raise ConfigError(
                    "a synchronous call from inside tolmach's own loop (as in a challenge handler) "
                    "would wait for itself; use the asynchronous one"
                )
            raise ConnectionLost("the answer belongs to the process that asked, and this is a fork of it")
        job = _Job(coroutine, lambda: self._ended)
        try:
            self._loop.call_soon_threadsafe(job.start)
            return job.wait()
        except BaseException:
            # Ctrl-C, wherever it struck: what runs on the loop must not run on.
            self._loop.call_soon_threadsafe(job.drop)
            raise

    def close(self, source: AsyncGenerator[Any, None], reading: list["asyncio.Task[Any]"]) -> None:
        """Close the generator, and return once it is closed.

        Not waited for on the loop's own thread, where the garbage collector may have brought us. What
        a stopped loop or a parent process held is closed, or not ours.
        """
        if self.process != os.getpid() or self._ended:
            return
        if self.here:
            task = self._loop.create_task(_close(source, reading))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        else:
            self.run(_close(source, reading))


_lock = threading.Lock()
_current: _Loop | None = None
_of_parents: list[_Loop] = []
"""Loops of the processes that this one is a fork of: not to be closed here, where they do not run."""


def _running() -> _Loop:
    global _current
    with _lock:
        if _current is None:
            _current = _Loop()
        return _current


def _stop() -> None:
    global _current
    with _lock:
        loop, _current = _current, None
    if loop is not None:
        loop.stop()


def _after_fork() -> None:
    # The parent's thread does not exist in the child, and its lock may have been held.
    global _lock, _current
    _lock = threading.Lock()
    if _current is not None:
        _of_parents.append(_current)
        _current = None


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result. Interrupting the wait (Ctrl-C) cancels it. Raises `ConfigError` on the private loop."""
    return _running().run(coroutine)


def iterate(make: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
    """The items of an asynchronous generator, one by one. Closing this one closes it at once."""
    loop = _running()
    source = make()
    reading: list[asyncio.Task[Any]] = []

    async def following() -> tuple[T] | None:
        reading[:] = [task] if (task := asyncio.current_task()) else []
        try:
            return (await anext(source),)
        except StopAsyncIteration:
            return None

    try:
        while (item := loop.run(following())) is not None:
            yield item[0]
    finally:
        loop.close(source, reading)


async def _close(source: AsyncGenerator[Any, None], reading: list["asyncio.Task[Any]"]) -> None:
    # An interrupted read was cancelled but may not have ended; only then can the generator close.
    if reading:
        await asyncio.wait(reading)
    await source.aclose()
