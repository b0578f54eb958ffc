"""A page on a port of its own, for what the demo's pages cannot show: frames of another origin, a page that waits."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

__all__ = ["serving_page"]


@asynccontextmanager
async def serving_page(
    html: str, *, host: str = "127.0.0.1", until: asyncio.Event | None = None, asked: asyncio.Event | None = None
) -> AsyncGenerator[str, None]:
    """The address of the page, all other paths being 404. It is given once `until` is set; `asked` is set before."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if asked is not None:
                asked.set()
            if until is not None:
                await until.wait()
            found = head.split()[1] == b"/"
            body = html.encode() if found else b"none"
            status = b"200 OK" if found else b"404 Not Found"
            writer.write(b"HTTP/1.1 %b\r\ncontent-type: text/html\r\nconnection: close\r\n" % status)
            writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the visitor went away
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://{host}:{server.sockets[0].getsockname()[1]}/"
    finally:
        if until is not None:
            until.set()
        server.close()
        await server.wait_closed()
