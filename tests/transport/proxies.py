"""Proxies to test against: HTTP (CONNECT and absolute form), SOCKS 4, 4a and 5, each with credentials."""

import asyncio
import base64
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.transport.server import listening

USER, PASSWORD = "user@home", "p:a/s s%"


@dataclass
class Proxy:
    """What a proxy saw: `asked` is (kind, host as it was written, port)."""

    port: int = 0
    demands: bool = False
    stall: bool = False
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            if self.stall:
                await reader.read()
            method, target, _ = head.split("\r\n")[0].split(" ")
            allowed = "proxy-authorization: basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if self.demands and allowed.lower() not in head.lower():
                writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            parts = urlsplit(target if "://" in target else f"//{target}")
            assert parts.hostname is not None
            assert parts.port is not None
            self.asked.append((method if method == "CONNECT" else "absolute", parts.hostname, parts.port))
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", parts.port)
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Go on\r\n\r\n")
            else:
                path = parts.path + (f"?{parts.query}" if parts.query else "")
                kept = [line for line in head.split("\r\n")[1:] if not line.lower().startswith("proxy-")]
                up_writer.write("\r\n".join([f"{method} {path} HTTP/1.1", *kept]).encode())
            await _pipe(reader, writer, up_reader, up_writer)

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            version = (await reader.readexactly(1))[0]
            if self.stall:
                await reader.read()
            if version == 4:
                await self._socks4(reader, writer)
            elif version == 5:
                await self._socks5(reader, writer)

    async def _socks4(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command, *rest = await reader.readexactly(7)
        assert command == 1
        port, address = rest[0] << 8 | rest[1], bytes(rest[2:])
        user = (await reader.readuntil(b"\0"))[:-1].decode()
        host, kind = socket.inet_ntoa(address), "socks4"
        if address[:3] == b"\0\0\0":
            host, kind = (await reader.readuntil(b"\0"))[:-1].decode(), "socks4a"
        if self.demands and user != USER:
            writer.write(b"\0\x5d" + bytes(6))
            return
        self.asked.append((kind, host, port))
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\0\x5a" + bytes(6))
        await _pipe(reader, writer, up_reader, up_writer)

    async def _socks5(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        methods = await reader.readexactly((await reader.readexactly(1))[0])
        if self.demands:
            if 2 not in methods:
                writer.write(b"\5\xff")
                return
            writer.write(b"\5\2")
            assert await reader.readexactly(1) == b"\1"
            user = await reader.readexactly((await reader.readexactly(1))[0])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            good = (user.decode(), password.decode()) == (USER, PASSWORD)
            writer.write(b"\1" + (b"\0" if good else b"\1"))
            if not good:
                return
        else:
            writer.write(b"\5\0")
        _, command, _, kind = await reader.readexactly(4)
        assert command == 1
        if kind == 3:
            name, host = "socks5h", (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            name, host = (
                "socks5",
                socket.inet_ntop(
                    *(
                        (socket.AF_INET, await reader.readexactly(4))
                        if kind == 1
                        else (socket.AF_INET6, await reader.readexactly(16))
                    )
                ),
            )
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append((name, host, port))
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\5\0\0\1" + bytes(6))
        await _pipe(reader, writer, up_reader, up_writer)


async def _pipe(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    up_reader: asyncio.StreamReader,
    up_writer: asyncio.StreamWriter,
) -> None:
    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    try:
        await asyncio.gather(copy(reader, up_writer), copy(up_reader, writer))
    finally:
        up_writer.transport.abort()


@contextlib.asynccontextmanager
async def proxying(
    kind: str, *, demands: bool = False, stall: bool = False, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Proxy]:
    """A proxy of this kind (`http` or `socks`) that `demands` credentials or never answers."""
    proxy = Proxy(demands=demands, stall=stall)
    async with listening(proxy._http if kind == "http" else proxy._socks, tls) as proxy.port:
        yield proxy
