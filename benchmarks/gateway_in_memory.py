"""The gateway asked in this process, with no socket and no clock: five ways through it, which cost the same every time.

What is the gateway's own is as it is served: the application that granian calls, the configuration, the connection to
the service with its parser. In place of granian and of the network stand objects in memory; the loop is asyncio's,
whose time goes on only where there is nothing else to do. See `instructions`, which counts what a request takes.
"""

import asyncio
import gc
import json
import selectors
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from gateway_processes import ANSWER, QUESTION, STREAMED
from msgspec import structs

from tolmach.access.keys import new_key
from tolmach.configuration import Settings
from tolmach.gateway.assembly import build
from tolmach.gateway.serving.rsgi import RsgiApp
from tolmach.ledger import writer
from tolmach.ledger.keys import save_key
from tolmach.ledger.opening import open_database

__all__ = ["EVENTS", "WAYS", "Way", "ask"]

EVENTS = 50
"""Pieces of text in a stream."""
_WARM = 10
"""Requests before those that count: handshake, connection, what is kept for later, the interpreter's own caches."""

# Services


def _response(kind: str, pieces: Sequence[bytes]) -> list[bytes]:
    """An answer as it arrives: each piece a chunk by itself, the head with the first."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\nServer: nginx\r\n\r\n".encode()
    first, *others = (b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return [head + first, *others[:-1], *(last + b"0\r\n\r\n" for last in others[-1:])]


def _event(value: object) -> bytes:
    return b"data: %b\n\n" % json.dumps(value, separators=(",", ":")).encode()


def _chunk(delta: dict[str, str], reason: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return _event(
        {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
    )


_USAGE = {"prompt_tokens": 9, "completion_tokens": EVENTS, "total_tokens": 9 + EVENTS}
_TEXT = [f"piece {i} " for i in range(EVENTS)]
_WHOLE = [
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nServer: nginx\r\n\r\n%b"
    % (len(ANSWER), ANSWER)
]
_STREAM = _response(
    "text/event-stream",
    [*(_chunk({"content": text}) for text in _TEXT), _chunk({}, "stop", usage=_USAGE) + b"data: [DONE]\n\n"],
)
# As AI Engine 3.6.2 answers (tests/captures/aiengine-3.6.2/chat-stream-two-turns.json).
_SESSION = b'{"success":true,"sessionId":"6b00e1cc384d5","restNonce":"293ca38f81"}'
_START = [
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=UTF-8\r\nContent-Length: %d\r\n\r\n%b"
    % (len(_SESSION), _SESSION)
]
_REPLY = {"success": True, "reply": "".join(_TEXT), "images": None, "actions": [], "usage": _USAGE}
_SITE = _response(
    "text/event-stream;charset=UTF-8",
    [
        *(_event({"type": "live", "data": text}) for text in _TEXT),
        _event({"type": "end", "data": json.dumps(_REPLY)}),
    ],
)
_ANSWERS = {b"/wp-json/mwai/v1/start_session": _START, b"/wp-json/mwai-ui/v1/chats/submit": _SITE}


def _answer_of(request: bytes) -> list[bytes]:
    """What the service sends for a request."""
    path = request.partition(b" ")[2].partition(b" ")[0]
    return _ANSWERS.get(path) or (_STREAM if b'"stream":true' in request else _WHOLE)


class _Line(asyncio.Transport):
    """A connection to a service: a request that is written is answered, piece by piece."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._written += data
        head, blank, body = self._written.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        if blank and len(body) >= int(length or b"0"):
            request, self._written = self._written, b""
            self._loop.call_soon(self._send, iter(_answer_of(request)))

    def _send(self, pieces: Iterator[bytes]) -> None:
        """One piece; the next one when whoever waits for this one has had it."""
        piece = next(pieces, None)
        if piece is not None:
            self._protocol.data_received(piece)
            self._loop.call_soon(self._send, pieces)

    def abort(self) -> None:
        self._loop.call_soon(self._protocol.connection_lost, None)

    close = abort

    def pause_reading(self) -> None:
        raise RuntimeError("these answers are too short to be held back")


class _Selector(selectors.DefaultSelector):
    """Waits for threads alone. `now` goes on by as long as nothing came."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout)
        if not ready and timeout is not None and timeout > 0:
            self.now += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    """asyncio's loop, connected to the services in memory, with a time of its own."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    async def create_connection(self, protocol_factory: Callable[[], Any], *_: Any, **__: Any) -> tuple[Any, Any]:
        protocol = protocol_factory()
        line = _Line(self, protocol)
        protocol.connection_made(line)
        return line, protocol


# Callers


class _Headers(dict[str, str]):
    """Each once; granian's may stand there several times."""

    def get_all(self, name: str) -> list[str]:
        return [self[name]] if name in self else []


class _Scope(NamedTuple):
    """What granian tells of a request."""

    path: str
    headers: _Headers
    method: str = "POST"
    query_string: str = ""
    client: str = "127.0.0.1:40000"
    authority: str = ""


class _Caller:
    """granian's side of one request: gives the body, takes the answer."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.status = 0
        self.pieces: list[bytes] = []

    async def __call__(self) -> bytes:
        return self._body

    async def client_disconnect(self) -> None:
        await asyncio.get_running_loop().create_future()

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.pieces.append(body)

    def response_stream(self, status: int, headers: list[tuple[str, str]]) -> "_Caller":
        self.status = status
        return self

    async def send_bytes(self, data: bytes) -> None:
        self.pieces.append(data)


# Ways


class Way(NamedTuple):
    """A way through the gateway: what is asked, and how often, to tell what one request takes."""

    name: str
    requests: int
    path: str
    body: bytes
    pieces: int
    """In how many the caller gets the answer."""
    ends: bytes
    """With what it ends."""
    provider: str = "up"
    keys: bool = False
    """Whether the caller has a key with limits, there is a ledger, and the model is a route."""


_CHAT, _MESSAGES = "/v1/chat/completions", "/v1/messages"
_DONE = b"data: [DONE]\n\n"
_SITE_QUESTION = STREAMED.replace(b'"gpt-4o"', b'"site/default"').replace(b'"max_tokens":1000,', b"")

WAYS = (
    Way("passed on, whole", 50, _CHAT, QUESTION, 1, ANSWER),
    Way("passed on, streamed", 10, _CHAT, STREAMED, EVENTS + 2, _DONE),
    Way("translated to messages, streamed", 10, _MESSAGES, STREAMED, EVENTS + 1, b'{"type":"message_stop"}\n\n'),
    Way("route, key with limits, ledger, whole", 50, _CHAT, QUESTION, 1, ANSWER, keys=True),
    Way("a site (AI Engine), streamed", 10, _CHAT, _SITE_QUESTION, EVENTS + 1, _DONE, provider="site"),
)

_CONFIGURATION = {
    "up": '[providers.up]\nprotocol = "openai"\nurl = "http://127.0.0.1:1/v1"\nmodels = ["gpt-4o"]\n',
    "site": '[providers.site]\nprotocol = "ai-engine"\nurl = "http://127.0.0.1:1"\nmodels = ["gpt-4o"]\n',
}
_ROUTE = """
[providers.second]
protocol = "openai"
url = "http://127.0.0.1:1/v1"
models = ["gpt-4o"]
[routes.gpt-4o]
targets = ["up/gpt-4o", "second/gpt-4o"]
recover = "resume"
"""


def _settings(way: Way, folder: Path) -> tuple[Settings, _Headers]:
    """The configuration of a way, and the headers of its caller. Requests are not logged."""
    headers = _Headers(
        {"content-type": "application/json", "content-length": str(len(way.body)), "host": "127.0.0.1:8080"}
    )
    file, ledger = folder / "tolmach.toml", "off"
    if way.keys:
        ledger = str(folder / "ledger.sqlite")
        plain, key = new_key(lambda size: bytes(range(size)), "bench")
        key = structs.replace(key, requests_per_minute=10**9, tokens_per_minute=10**12, streams=10**5)
        database = open_database(ledger)
        save_key(database, key)
        database.close()
        headers["authorization"] = f"Bearer {plain}"
    more = _ROUTE if way.keys else ""
    file.write_text(
        f'[gateway.log]\nlevel = "warning"\n[ledger]\nurl = "{ledger}"\n{_CONFIGURATION[way.provider]}{more}',
        encoding="utf-8",
    )
    return Settings.load(file, environ={}), headers


@contextmanager
def _rows_gather() -> Iterator[None]:
    """The ledger writes at its end alone: how many rows share a transaction hangs on how fast this machine is."""
    pause = writer._PAUSE
    writer._PAUSE = 3600.0
    try:
        yield
    finally:
        writer._PAUSE = pause


def ask(way: Way, requests: int, mark: Callable[[], None] = lambda: None) -> None:
    """Ask so many times, on a gateway of its own, which is closed at the end. `mark` is called before and after.

    Raises `RuntimeError` for an answer that is not the one expected.
    """
    with tempfile.TemporaryDirectory(prefix="tolmach-bench-") as folder, _rows_gather():
        settings, headers = _settings(way, Path(folder))
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(_asked(way, settings, _Scope(way.path, headers), requests, mark))


async def _asked(way: Way, settings: Settings, scope: _Scope, requests: int, mark: Callable[[], None]) -> None:
    gateway = build(settings)
    await gateway.start()
    application = RsgiApp(gateway)
    for _ in range(_WARM):
        _check(way, await _one(application, scope, way.body))
    # Whatever is collected, and when, would hang on what was allocated before.
    gc.collect()
    gc.disable()
    mark()
    for _ in range(requests):
        caller = await _one(application, scope, way.body)
    await gateway.aclose()
    mark()
    gc.enable()
    _check(way, caller)


async def _one(application: RsgiApp, scope: _Scope, body: bytes) -> _Caller:
    caller = _Caller(body)
    await asyncio.get_running_loop().create_task(application.__rsgi__(scope, caller))
    return caller


def _check(way: Way, caller: _Caller) -> None:
    answer = b"".join(caller.pieces)
    texts = way.pieces == 1 or all(text.encode() in answer for text in _TEXT)
    if (caller.status, len(caller.pieces)) != (200, way.pieces) or not answer.endswith(way.ends) or not texts:
        raise RuntimeError(f"{way.name}: status {caller.status}, {len(caller.pieces)} pieces: {answer[-300:]!r}")
