"""The connection to a state server: many callers, one connection, and what happens when it is lost.

Commands of all callers go out together, in the order in which they came. A server that does not answer in
time is not asked again until a probe in the background has found it well; until then each call is `Lost`
at once.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio
from msgspec import Struct
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tolmach.errors import ConfigError

__all__ = ["Command", "Link", "Lost", "Subscribed"]

_log = logging.getLogger("tolmach.state")

Subscribed = Callable[[str, bytes], None]
"""Called with a channel and a value."""

_MOST_AT_ONCE = 256
"""Commands in one exchange."""
_PATIENCE = 4
"""How often the time-out is begun again when it was this process that had no time."""
_LASTING_SECONDS = 10.0
"""A connection that held so long was a good one: the next loss is looked into soon."""
_LISTEN_SECONDS = 10.0
"""How long the listener waits before it checks its connection."""


_Waiting = tuple[tuple[Any, ...], "asyncio.Future[Any]"]
"""A command and its answer to come."""


class Lost(Exception):
    """The server did not answer; the message says why."""


class Command(Struct, frozen=True):
    """A command that nobody waits for; `lost` is called when it did not reach the server for certain."""

    words: tuple[Any, ...]
    lost: Callable[[], None]


class Link:
    """Commands to one server. Times are seconds.

    `restore` gives what the server has to be told when it is reached: all of it (True), then what has come
    meanwhile (False).
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        connect_timeout: float,
        first_delay: float,
        longest_delay: float,
        probe: str,
        restore: Callable[[bool], Sequence[Command]],
        receive: Subscribed,
    ) -> None:
        self.healthy = False
        self.problem = "it was not asked yet"
        self._url = url
        self._where = _where(url)
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._delays = (first_delay, longest_delay)
        self._delay = first_delay
        self._connected_at = 0.0
        self._probe = probe
        self._restore = restore
        self._receive = receive
        self._client = self._new_client()
        self._queue: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._working: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._channels: dict[str, asyncio.Event] = {}
        self._pubsub: Any = None

    async def start(self) -> None:
        """Connect, or begin to try in the background."""
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        # Whoever came first may go away; the others wait for the same connection.
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        self._working = asyncio.ensure_future(self._work())
        try:
            await self._connect()
        except Lost as error:
            self._lose(str(error))

    def call(self, *words: Any) -> "asyncio.Future[Any]":
        """The answer to a command, to come. Raises `Lost`, as the future does."""
        if not self.healthy:
            raise Lost(self.problem)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((words, future))
        self._wake.set()
        return future

    def send(self, command: Command) -> None:
        """Give a command on its way."""
        try:
            future = self.call(*command.words)
        except Lost:
            command.lost()
            return
        future.add_done_callback(lambda done: command.lost() if done.cancelled() or done.exception() else None)

    async def subscribe(self, channel: str) -> None:
        """Receive what is published on a channel, from now on if the server is there, else when it is."""
        heard = self._channels.setdefault(channel, asyncio.Event())
        if self._listening is None:
            self._listening = asyncio.ensure_future(self._listen())
        elif self._pubsub is not None and not heard.is_set():
            try:
                await self._pubsub.subscribe(channel)
            except (RedisError, OSError):
                # The listener finds out by itself, and subscribes to all channels again.
                return
        if self.healthy:
            try:
                await asyncio.wait_for(heard.wait(), self._connect_timeout)
            except TimeoutError:
                _log.warning("%s has not confirmed a subscription yet", self._where)

    async def aclose(self) -> None:
        self.healthy = False
        self.problem = "it is closed"
        tasks = [each for each in (self._starting, self._mending, self._listening, self._working) if each is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail_queue(Lost(self.problem))
        await self._client.aclose()

    # Commands

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                batch = self._queue[:_MOST_AT_ONCE]
                del self._queue[:_MOST_AT_ONCE]
                try:
                    await self._exchange(batch)
                except Lost as error:
                    self._lose(str(error))
                finally:
                    for _, future in batch:
                        _fail(future, Lost(self.problem))

    async def _exchange(self, batch: Sequence[_Waiting]) -> None:
        """Send commands and hand out the answers. Raises `Lost` when one could not be done."""
        answers = await self._run(self._client, [words for words, _ in batch])
        failed = None
        for (_, future), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                failed = failed or Lost(_reason(answer))
                _fail(future, failed)
            elif not future.done():
                future.set_result(answer)
        if failed is not None:
            raise failed

    async def _run(self, client: "redis.asyncio.Redis", commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers, errors of single commands among them. Raises `Lost`."""
        pipeline = client.pipeline(transaction=False)
        for words in commands:
            pipeline.execute_command(*words)
        task = asyncio.ensure_future(pipeline.execute(raise_on_error=False))
        try:
            if not await self._in_time(task):
                raise Lost(f"it did not answer within {self._timeout * 1000:g} ms")
            return task.result()
        except (RedisError, OSError) as error:
            raise Lost(_reason(error)) from error
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def _in_time(self, task: "asyncio.Task[Any]") -> bool:
        """Whether the server answered in time. A timer that comes late tells that this process was busy, not it."""
        loop = asyncio.get_running_loop()
        for _ in range(_PATIENCE):
            began = loop.time()
            done, _ = await asyncio.wait({task}, timeout=self._timeout)
            if done:
                return True
            if loop.time() - began < 1.5 * self._timeout:
                return False
        return False

    # The connection

    async def _connect(self) -> None:
        """A new connection, once the server takes what is written to it. Raises `Lost`."""
        client = self._new_client()
        try:
            async with asyncio.timeout(self._connect_timeout):
                await client.set(self._probe, b"1", px=1000)
                await self._tell(client, self._restore(True))
        except BaseException as error:  # whatever it was, this connection is not used
            await client.aclose()
            if isinstance(error, TimeoutError):
                raise Lost(f"no connection within {self._connect_timeout:g} s") from error
            if isinstance(error, RedisError | OSError):
                raise Lost(_reason(error)) from error
            raise
        old, self._client = self._client, client
        self.healthy, self.problem = True, ""
        self._connected_at = asyncio.get_running_loop().time()
        # What has come meanwhile goes before all that is asked from now on.
        for command in self._restore(False):
            self.send(command)
        await old.aclose()

    async def _tell(self, client: "redis.asyncio.Redis", commands: Sequence[Command]) -> None:
        told = False
        try:
            answers = await self._run(client, [command.words for command in commands])
            if failed := next((answer for answer in answers if isinstance(answer, Exception)), None):
                raise Lost(_reason(failed))
            told = True
        finally:
            if not told:
                for command in commands:
                    command.lost()

    def _lose(self, problem: str) -> None:
        self._fail_queue(Lost(problem))
        if self._mending is not None:
            return
        self.healthy, self.problem = False, problem
        first, longest = self._delays
        lasted = asyncio.get_running_loop().time() - self._connected_at > _LASTING_SECONDS
        self._delay = first if lasted else min(self._delay * 2, longest)
        _log.warning("the state server %s is lost, what is known here counts: %s", self._where, problem)
        self._mending = asyncio.ensure_future(self._mend())

    async def _mend(self) -> None:
        while True:
            await asyncio.sleep(self._delay)
            try:
                await self._connect()
            except Lost as error:
                self.problem = str(error)
                self._delay = min(self._delay * 2, self._delays[1])
            else:
                self._mending = None
                _log.info("the state server %s is back", self._where)
                return

    def _fail_queue(self, error: Lost) -> None:
        batch, self._queue = self._queue, []
        for _, future in batch:
            _fail(future, error)

    def _new_client(self, timeout: float | None = None) -> "redis.asyncio.Redis":
        """A client that tries once. Raises `ConfigError` for an address that is none."""
        try:
            return redis.asyncio.Redis.from_url(
                self._url,
                socket_timeout=timeout,
                socket_connect_timeout=self._connect_timeout,
                # A socket of this machine has no far end that can vanish.
                **({} if self._url.startswith("unix") else {"socket_keepalive": True}),
                retry=Retry(NoBackoff(), 0),
                health_check_interval=0 if timeout is None else _LISTEN_SECONDS,
            )
        except (ValueError, TypeError) as error:
            # Not in the words of the cause: they can have a part of a password in them.
            raise ConfigError(
                "gateway.state: this is no address of a server, such as redis://USER:PASSWORD@HOST:PORT/0; "
                "write what is special in a password as %XX"
            ) from error

    # Listening

    async def _listen(self) -> None:
        delay = self._delays[0]
        while True:
            client = self._new_client(self._connect_timeout)
            try:
                async with client.pubsub() as pubsub:
                    await pubsub.subscribe(*self._channels)
                    self._pubsub = pubsub
                    delay = self._delays[0]
                    while True:
                        self._heard(await pubsub.get_message(timeout=_LISTEN_SECONDS))
            except (RedisError, OSError, TimeoutError) as error:
                _log.debug("the listener at %s starts again: %s", self._where, _reason(error))
            finally:
                self._pubsub = None
                for heard in self._channels.values():
                    heard.clear()
                await client.aclose()
            await asyncio.sleep(delay)
            delay = min(delay * 2, self._delays[1])

    def _heard(self, message: dict[str, Any] | None) -> None:
        if message is None:
            return
        channel: bytes = message["channel"]
        if message["type"] == "subscribe":
            self._channels[channel.decode()].set()
        elif message["type"] == "message":
            self._receive(channel.decode(), message["data"])


def _fail(future: "asyncio.Future[Any]", error: Lost) -> None:
    """Unless there is an answer already."""
    if not future.done():
        future.set_exception(error)
        # Who waited may have gone away; then nobody looks at it.
        future.exception()


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _where(url: str) -> str:
    """The address without its credentials."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.path if parts.scheme == 'unix' else parts.netloc.rpartition('@')[2]}"
