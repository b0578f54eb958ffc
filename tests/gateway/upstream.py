"""A chat completions service that counts what it is asked, whose answers have known numbers of tokens.

The model's name says what it does: `good` answers, `bad` answers 500, `cut` breaks a stream off after two pieces,
`silent` says nothing, `held` sends one piece and the rest once `gate` is set. Every answer has PROMPT and COMPLETION
tokens, and tells so.
"""

import asyncio
import json
from collections import Counter
from types import TracebackType
from typing import Any, Self

__all__ = ["COMPLETION", "PIECES", "PROMPT", "Upstream", "completion", "write_chunk", "write_whole"]

PROMPT, COMPLETION = 30, 20
PIECES = ("One ", "two ", "three ", "four.")
_USAGE = {"prompt_tokens": PROMPT, "completion_tokens": COMPLETION, "total_tokens": PROMPT + COMPLETION}


class Upstream:
    """`async with Upstream() as upstream: upstream.url`. `seconds` is how long an answer takes."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.url = ""
        self.asked: Counter[str] = Counter()
        """Requests by model."""
        self.answered: Counter[str] = Counter()
        """Answers sent to their end by model."""
        self.active = 0
        """Requests being answered."""
        self.most = 0
        """The most of them at once so far."""
        self.connections = 0
        self.gate = asyncio.Event()
        self._seconds = seconds
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def tokens(self) -> int:
        """Tokens of all answers that were begun."""
        return (self.asked.total() - self.asked["bad"]) * (PROMPT + COMPLETION)

    async def until_active(self, number: int) -> None:
        """Wait until so many requests are being answered."""
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: self.active == number)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while (body := await _request(reader)) is not None:
                answering = asyncio.ensure_future(self._counted(body, writer))
                gone = asyncio.ensure_future(reader.read(1))
                await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():
                    answering.cancel()
                    await asyncio.gather(answering, return_exceptions=True)
                    return
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)
                if not answering.result():
                    return
        except (ConnectionError, asyncio.CancelledError):
            return  # the caller went away, or the test is over
        finally:
            self.connections -= 1
            self._tasks.discard(task)
            writer.close()

    async def _counted(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        """Answer; whether the connection may be used again."""
        model = str(body["model"])
        self.asked[model] += 1
        await self._count(1)
        try:
            return await self.answer(body, writer)
        finally:
            await self._count(-1)

    async def _count(self, more: int) -> None:
        self.active += more
        self.most = max(self.most, self.active)
        async with self._changed:
            self._changed.notify_all()

    async def answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        """Answer a question by its model; whether the connection may be used again."""
        model, streamed = str(body["model"]), bool(body.get("stream"))
        await asyncio.sleep(self._seconds)
        if model == "silent":
            await asyncio.get_running_loop().create_future()
        if model == "bad":
            write_whole(writer, 500, "application/json", b'{"error":{"message":"it is broken","type":"server_error"}}')
            return True
        if streamed:
            return await self._stream(model, writer)
        if model == "held":
            await self.gate.wait()
        message = {"role": "assistant", "content": "".join(PIECES)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        write_whole(writer, 200, "application/json", completion("chat.completion", [choice], model, _USAGE))
        self.answered[model] += 1
        return True

    async def _stream(self, model: str, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number, piece in enumerate(PIECES):
            choice = {"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}
            write_chunk(writer, b"data: " + completion("chat.completion.chunk", [choice], model) + b"\n\n")
            await writer.drain()
            if number == 0 and model == "held":
                await self.gate.wait()
            if number == 1 and model == "cut":
                return False
        last = {"index": 0, "delta": {}, "finish_reason": "stop"}
        write_chunk(writer, b"data: " + completion("chat.completion.chunk", [last], model) + b"\n\n")
        write_chunk(
            writer, b"data: " + completion("chat.completion.chunk", [], model, _USAGE) + b"\n\ndata: [DONE]\n\n"
        )
        writer.write(b"0\r\n\r\n")
        self.answered[model] += 1
        return True


async def _request(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The body of the next request; None at the connection's end."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    except asyncio.IncompleteReadError:
        return None
    length = int(head.partition("content-length:")[2].partition("\r\n")[0])
    body: dict[str, Any] = json.loads(await reader.readexactly(length))
    return body


def completion(kind: str, choices: list[dict[str, Any]], model: str, usage: dict[str, int] | None = None) -> bytes:
    told = {"usage": usage} if usage else {}
    body = {"id": "chatcmpl-1", "object": kind, "created": 1, "model": model, "choices": choices, **told}
    return json.dumps(body).encode()


def write_whole(writer: asyncio.StreamWriter, status: int, kind: str, body: bytes) -> None:
    head = f"HTTP/1.1 {status} Any\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
