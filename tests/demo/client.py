"""A bare HTTP client for these tests: h11 over asyncio's streams, one connection a request."""

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import h11


@dataclass
class Got:
    """A response; `chunks` are the chunks of its body as the server wrote them."""

    status: int
    headers: list[tuple[str, str]]
    chunks: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str:
        return ", ".join(value for key, value in self.headers if key == name.lower())

    @property
    def events(self) -> list[tuple[str, str]]:
        """The server-sent events: name and data."""
        found = []
        for block in self.text.split("\n\n"):
            name = re.search(r"^event: (.*)$", block, re.M)
            data = re.search(r"^data: (.*)$", block, re.M)
            if data:
                found.append((name[1] if name else "", data[1]))
        return found


class Connection:
    """One keep-alive connection."""

    def __init__(self, url: str) -> None:
        self.parts = urlsplit(url)
        self.h11 = h11.Connection(h11.CLIENT)

    async def __aenter__(self) -> "Connection":
        self.reader, self.writer = await asyncio.open_connection(self.parts.hostname, self.parts.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def send(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        lines = {"Host": self.parts.netloc, **headers}
        if body or method == "POST":
            lines["Content-Length"] = str(len(body))
        self.writer.write(self.h11.send(h11.Request(method=method, target=path, headers=list(lines.items()))) or b"")
        self.writer.write((self.h11.send(h11.Data(data=body)) or b"") + (self.h11.send(h11.EndOfMessage()) or b""))

    async def event(self) -> Any:
        while (event := self.h11.next_event()) is h11.NEED_DATA:
            self.h11.receive_data(await self.reader.read(1 << 20))
        return event

    async def head(self) -> Got:
        event = await self.event()
        while isinstance(event, h11.InformationalResponse):
            event = await self.event()
        assert isinstance(event, h11.Response), event
        headers = [(name.decode(), value.decode()) for name, value in event.headers]
        return Got(event.status_code, headers)

    async def rest(self, got: Got) -> Got:
        while isinstance(event := await self.event(), h11.Data):
            if event.chunk_start or not got.chunks:
                got.chunks.append(b"")
            got.chunks[-1] += bytes(event.data)
        return got


async def ask(
    url: str, method: str, path: str, *, headers: dict[str, str] | None = None, body: bytes = b"", fault: str = ""
) -> Got:
    """One request on its own connection. Raises what the connection raises."""
    lines = dict(headers or {})
    if fault:
        lines["x-tolmach-demo"] = fault
    async with Connection(url) as connection:
        await connection.send(method, path, lines, body)
        return await connection.rest(await connection.head())


async def post_form(url: str, path: str, fields: dict[str, str], *, fault: str = "", **headers: str) -> Got:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    return await ask(url, "POST", path, headers={**kind, **headers}, body=urlencode(fields).encode(), fault=fault)


async def post_json(url: str, path: str, value: Any, *, fault: str = "", headers: dict[str, str] | None = None) -> Got:
    kind = {"content-type": "application/json"}
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return await ask(url, "POST", path, headers=kind | (headers or {}), body=body, fault=fault)
