"""What stands behind the end of a stream that is passed on: the connection serves again, and nobody waits for it."""

import asyncio
from typing import Any

from tests.gateway.serving.test_sockets import PATHS, body, both, connected, read_to_end, request
from tests.transport.server import listening
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.server import serving
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.routing.targets import Provider, Targets
from tolmach.transport import drain

EVENTS = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"Hello"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Upstream:
    """A service that sends the last of its chunks only after `go_on`."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.connections = 0
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                writer.write(HEAD + b"%x\r\n%b\r\n" % (len(EVENTS), EVENTS))
                going_on = asyncio.ensure_future(self.go_on.wait())
                gone = asyncio.ensure_future(reader.read(1))
                await asyncio.wait({going_on, gone}, return_when=asyncio.FIRST_COMPLETED)
                going_on.cancel()
                if gone.done():
                    return
                # It must not read what belongs to the next question.
                gone.cancel()
                await asyncio.gather(gone, return_exceptions=True)
                writer.write(b"0\r\n\r\n")
                self.go_on.clear()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self.closed.set()
            writer.close()


async def asked(url: str) -> bytes:
    async with connected(url) as (reader, writer):
        writer.write(request(PATHS[0], body(PATHS[0], "here/m", stream=True), "Connection: close\r\n"))
        return await read_to_end(reader)


def gateway(port: int) -> Gateway:
    site = Site(name="here", url=f"http://127.0.0.1:{port}/v1", protocol=create("openai"), api_key="key")
    return Gateway(Targets([Provider(name="here", site=site, access=Access(), models={"m": "m"})]))


@both
async def test_the_connection_serves_again_when_its_end_comes_late(interface: Any):
    upstream = Upstream()
    async with listening(upstream.serve) as port:
        async with serving(gateway(port), interface=interface) as url:
            for _ in range(5):
                # The caller has all of it although the service has not ended it.
                assert b"data: [DONE]\n\n\r\n0\r\n\r\n" in await asked(url)
                upstream.go_on.set()
                await asyncio.gather(*drain._closing)
            assert upstream.connections == 1


@both
async def test_a_connection_whose_end_does_not_come_is_closed(interface: Any):
    upstream = Upstream()
    async with listening(upstream.serve) as port:
        async with serving(gateway(port), interface=interface) as url:
            assert b"data: [DONE]\n\n\r\n0\r\n\r\n" in await asked(url)
            async with asyncio.timeout(5):
                await upstream.closed.wait()
            assert not upstream.go_on.is_set()
