"""`tolmach serve` as a program of its own, with a configuration in a folder of the test."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

__all__ = ["Program", "Stream", "ask", "demo_config", "program", "raw"]

PATIENCE = 20.0
"""Seconds after which something that must come is taken not to come."""

_MAIN = "import sys; from tolmach.cli import main; sys.exit(main())"


def demo_config(url: str, more: str = "", gateway: str = "") -> str:
    """A configuration with the demo's services at `url` as providers."""
    return f"""
[gateway]
port = 0
{gateway}
[providers.openai]
protocol = "openai"
url = "{url}/v1"
api_key = "demo"
models = ["gpt-4o-mini"]
[providers.shop]
protocol = "ai-engine"
url = "{url}/Chatgpt4Online"
models = ["shop-model"]
{more}
"""


class Program:
    """A running `tolmach serve`."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.config = folder / "tolmach.toml"
        self.url = ""

    @property
    def output(self) -> str:
        """All that it has written, to both streams."""
        return (self.folder / "output").read_text("utf-8")

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]

    async def wait_for(self, text: str, times: int = 1) -> str:
        """All that it has written, once this text is in it so many times."""
        async with asyncio.timeout(PATIENCE):
            while self.output.count(text) < times:
                if self.process.returncode is not None:
                    raise AssertionError(f"it ended before it wrote {text!r}:\n{self.output}")
                await asyncio.sleep(0.01)
        return self.output

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()

    @property
    def workers(self) -> list[int]:
        """The processes that it has started."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def start(folder: Path, config: str, *args: str, environ: dict[str, str] | None = None) -> Program:
    (folder / "tolmach.toml").write_text(config, "utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOLMACH_")}
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _MAIN, "serve", "--config", str(folder / "tolmach.toml"), *args),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment | (environ or {}),
        )
    return Program(process, folder)


@asynccontextmanager
async def program(
    folder: Path, config: str, *args: str, environ: dict[str, str] | None = None
) -> AsyncGenerator[Program, None]:
    """The program while it serves; killed at the end, if it has not ended."""
    running = await start(folder, config, *args, environ=environ)
    try:
        said = await running.wait_for("/v1. Ctrl-C stops it.")
        running.url = said.partition(" at ")[2].partition("/v1")[0]
        yield running
    finally:
        if running.process.returncode is None:
            running.process.terminate()
            try:
                await asyncio.wait_for(running.process.wait(), 5)
            except TimeoutError:
                running.process.kill()
                await running.process.wait()


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


async def raw(
    url: str, method: str, path: str, body: bytes = b"", headers: str = ""
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own: status, headers and body."""
    async with asyncio.timeout(PATIENCE):
        stream = await Stream.open(url, method, path, body, headers)
        return stream.status, stream.headers, await stream.rest()


async def ask(
    url: str, model: str, question: str = "What is the answer?", *, stream: bool = False, headers: str = ""
) -> tuple[int, dict[str, str], bytes]:
    """A question by the chat completions API."""
    return await raw(url, "POST", "/v1/chat/completions", question_body(model, question, stream=stream), headers)


def question_body(model: str, question: str = "What is the answer?", *, stream: bool = False) -> bytes:
    return json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": question}]}).encode()


class Stream:
    """An answer while it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.data = b""

    @classmethod
    async def open(cls, url: str, method: str, path: str, body: bytes = b"", headers: str = "") -> "Stream":
        """The answer once its head is there."""
        reader, writer = await asyncio.open_connection(*_address(url))
        stream = cls(reader, writer)
        length = f"Content-Length: {len(body)}\r\n" if body or method == "POST" else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: {url.removeprefix('http://')}\r\nConnection: close\r\n{length}"
        writer.write(f"{head}{headers}\r\n".encode() + body)
        try:
            async with asyncio.timeout(PATIENCE):
                first = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        except BaseException:  # no answer, or the test goes away: the gateway must see it
            stream.close()
            raise
        stream.status = int(first[0].split()[1])
        stream.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in first[1:])}
        return stream

    @classmethod
    async def asked(cls, url: str, model: str, question: str = "What is the answer?") -> "Stream":
        """A streamed answer of which the first piece is there."""
        stream = await cls.open(url, "POST", "/v1/chat/completions", question_body(model, question, stream=True))
        assert stream.status == 200
        stream.data = await stream._reader.read(65536)
        return stream

    async def rest(self) -> bytes:
        """All of the answer's body, when it has ended or broken off."""
        async with asyncio.timeout(PATIENCE):
            while data := await self._read():
                self.data += data
        self._writer.close()
        if self.headers.get("transfer-encoding") == "chunked":
            return _dechunked(self.data)
        return self.data

    async def more(self) -> bytes:
        """What has come since, added to `data`; empty at the end."""
        async with asyncio.timeout(PATIENCE):
            data = await self._read()
        self.data += data
        return data

    def close(self) -> None:
        """Go away in mid-answer."""
        self._writer.transport.abort()

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(65536)
        except ConnectionError:
            return b""


def _dechunked(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size or b"0", 16)
        body, data = body + data[:length], data[length + 2 :]
    return body
