"""The private event loop, on a thread of its own, that the synchronous API runs on.

So the synchronous calls are the asynchronous ones, and work where a loop is running already
(Jupyter). The thread starts at the first use and is a daemon; a forked child starts its own.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["iterate", "run"]

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_loop.run_forever, name="anychat", daemon=True)
            _thread.start()
        return _loop


def _stop() -> None:
    global _loop, _thread
    with _lock:
        loop, thread, _loop, _thread = _loop, _thread, None, None
    if loop is not None and thread is not None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=1.0)
        if not thread.is_alive():
            loop.close()


def _after_fork() -> None:
    # The parent's thread does not exist in the child, and its lock may have been held.
    global _lock, _loop, _thread
    _lock = threading.Lock()
    _loop = _thread = None


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _wait(future: "Future[T]") -> T:
    try:
        return future.result()
    except BaseException:
        # Ctrl-C while waiting: what runs on the loop must not run on.
        future.cancel()
        raise


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result. Must not be called from the private loop's own thread."""
    return _wait(asyncio.run_coroutine_threadsafe(coroutine, _running_loop()))


def iterate(make: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
    """The items of an asynchronous generator, one by one. Closing this one closes it at once."""
    source = make()
    reading: list[asyncio.Task[Any]] = []

    async def following() -> tuple[T] | None:
        reading[:] = [task] if (task := asyncio.current_task()) else []
        try:
            return (await anext(source),)
        except StopAsyncIteration:
            return None

    try:
        while (item := run(following())) is not None:
            yield item[0]
    finally:
        run(_close(source, reading))


async def _close(source: AsyncGenerator[Any, None], reading: list["asyncio.Task[Any]"]) -> None:
    # An interrupted read was cancelled but may not have ended; only then can the generator close.
    if reading:
        await asyncio.wait(reading)
    await source.aclose()
