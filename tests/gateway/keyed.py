"""`tolmach serve` over the counting upstream, with callers' keys and a ledger in the folder of a test."""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from msgspec import structs

from tests.gateway.program import Program, Stream, raw
from tests.gateway.upstream import COMPLETION
from tolmach.access.keys import Key, new_key
from tolmach.ledger.keys import save_key
from tolmach.ledger.opening import open_database

__all__ = [
    "CALLERS",
    "METRICS_KEY",
    "Load",
    "Reply",
    "ask",
    "body_of",
    "config",
    "crowd",
    "make_key",
    "metric",
    "opened",
    "until_metric",
]

CALLERS = 200
PATIENCE = 30.0
Reply = tuple[int, dict[str, str], bytes]
PATH = "/v1/chat/completions"
METRICS_KEY = "watching"

MODELS = {
    "good": "good",
    "bad": "bad",
    "silent": "silent",
    "held": "held",
    "cut": "cut",
    "smart": "good",
    "early": "silent",
}
"""Names for callers -> the upstream's own."""


def make_key(ledger: Path | str, **limits: Any) -> tuple[str, Key]:
    """A key of these limits in a ledger: its text, and as it is stored."""
    plain, key = new_key(secrets.token_bytes, "test")
    key = structs.replace(key, **limits)
    database = open_database(str(ledger))
    save_key(database, key)
    database.close()
    return plain, key


def config(ledger: Path | str, url: str, gateway: str = "", more: str = "") -> str:
    """A configuration with the upstream at `url` as the provider `up`; `gateway` has lines of that table."""
    models = json.dumps(MODELS).replace(":", " =")
    return f"""
[gateway]
port = 0
metrics_key = "{METRICS_KEY}"
{gateway}
[ledger]
url = "{ledger}"
[providers.up]
protocol = "openai"
url = "{url}/v1"
api_key = "demo"
models = {models}
{more}
"""


def body_of(model: str, **fields: Any) -> bytes:
    messages = [{"role": "user", "content": "What?"}]
    return json.dumps({"model": model, "messages": messages, "max_tokens": COMPLETION, **fields}).encode()


def _url(served: Program | str) -> str:
    return served if isinstance(served, str) else served.url


def _head(key: str, id: str) -> str:
    return (f"authorization: Bearer {key}\r\n" if key else "") + (f"x-request-id: {id}\r\n" if id else "")


async def ask(served: Program | str, key: str = "", model: str = "up/good", id: str = "", **fields: Any) -> Reply:
    return await raw(_url(served), "POST", PATH, body_of(model, **fields), _head(key, id))


async def opened(served: Program | str, key: str = "", model: str = "up/held", id: str = "") -> Stream:
    """A streamed answer of which the head is there."""
    stream = await Stream.open(_url(served), "POST", PATH, body_of(model, stream=True), _head(key, id))
    assert stream.status == 200
    return stream


async def crowd(asking: Callable[[], Awaitable[Reply]]) -> list[Reply]:
    return await asyncio.gather(*[asking() for _ in range(CALLERS)])


async def metric(served: Program, name: str) -> float:
    _, _, text = await raw(served.url, "GET", "/metrics", headers=f"authorization: Bearer {METRICS_KEY}\r\n")
    line = next(line for line in text.decode().splitlines() if line.startswith(name + " "))
    return float(line.split()[1])


async def until_metric(served: Program, name: str, holds: Callable[[float], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds(await metric(served, name)):  # noqa: ASYNC110 - another program's figures
            await asyncio.sleep(0.02)


class Load:
    """Callers who ask one question after the other: `async with Load(served, 8) as load`."""

    def __init__(self, served: Program, callers: int, key: str = "", prefix: str = "") -> None:
        self.answered: dict[str, float] = {}
        """The ids of the requests -> when their answers were whole, by the loop's clock."""
        self.statuses: set[int] = set()
        self.slowest = 0.0
        """The longest time, in seconds, that an answer took."""
        self.stall = 0.0
        """The longest time, in seconds, for which this process was not run although it wanted to be."""
        self._served = served
        self._key = key
        self._prefix = prefix
        self._callers = callers
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> "Load":
        asking = [asyncio.ensure_future(self._ask(number)) for number in range(self._callers)]
        self._tasks = [*asking, asyncio.ensure_future(self._watch())]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Let those under way end."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def more(self, answers: int = 20) -> None:
        """Wait until so many more have come."""
        wanted = len(self.answered) + answers
        async with asyncio.timeout(PATIENCE):
            while len(self.answered) < wanted:  # noqa: ASYNC110 - answers have no event to wait for
                await asyncio.sleep(0.005)

    async def _ask(self, caller: int) -> None:
        number = 0
        while not self._stopping:
            number += 1
            id = f"{self._prefix}{caller}-{number}"
            began = self._loop.time()
            try:
                status, headers, body = await ask(self._served, self._key, id=id)
            except (OSError, EOFError):
                return  # it was killed
            if len(body) != int(headers["content-length"]):
                return  # it was killed in mid-answer
            self.statuses.add(status)
            self.answered[id] = ended = self._loop.time()
            self.slowest = max(self.slowest, ended - began)

    async def _watch(self) -> None:
        while not self._stopping:
            began = self._loop.time()
            await asyncio.sleep(0.01)
            self.stall = max(self.stall, self._loop.time() - began - 0.01)
