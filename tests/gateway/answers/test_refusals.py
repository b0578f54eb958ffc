"""What a service says with its refusal, as far as callers hear it: a status of HTTP, a wait that can be meant."""

import asyncio
import json
from typing import Any

import pytest

from tests.gateway.answers.test_drain import gateway
from tests.gateway.serving.test_sockets import PATHS, body, both, connected, read_to_end, request
from tolmach.gateway.serving.server import serving

HUGE = "9" * 400


@both
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("status", "sent", "expected", "waits"),
    [
        (999, "", 502, None),
        (600, "", 502, None),
        (418, "", 418, None),
        (429, "Retry-After: 9\r\n", 429, "9"),
        (429, "Retry-After: 0.5\r\n", 429, "1"),
        (503, "Retry-After: 99999999999999999999\r\n", 503, "2678400"),
        (429, f"Retry-After: {HUGE}\r\nRetry-After-Ms: {HUGE}\r\n", 429, "2678400"),
        (429, "Retry-After: -5\r\nRetry-After-Ms: -5\r\n", 429, None),
        (429, "Retry-After: soon\r\nRetry-After-Ms: soon\r\n", 429, None),
    ],
    ids=lambda value: str(value)[:20].strip(),
)
async def test_what_reaches_the_caller(
    interface: Any, path: str, streamed: bool, status: int, sent: str, expected: int, waits: str | None
) -> None:
    said = json.dumps({"error": {"message": "no", "type": "x", "code": "y"}}).encode()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status} Any\r\nContent-Type: application/json\r\nContent-Length: {len(said)}\r\n"
        writer.write(f"{head}Connection: close\r\n{sent}\r\n".encode() + said)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as upstream:
        async with serving(gateway(upstream.sockets[0].getsockname()[1]), interface=interface) as url:
            async with connected(url) as (reader, writer):
                writer.write(request(path, body(path, "here/m", stream=streamed), "Connection: close\r\n"))
                answer = await read_to_end(reader)
    head, _, rest = answer.partition(b"\r\n\r\n")
    lines = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:])
    if path == PATHS[0]:  # passed on; elsewhere the status is that of the kind of error
        assert int(head.split()[1]) == expected
    assert 400 <= int(head.split()[1]) <= 599
    assert lines.get("retry-after") == waits
    assert "retry-after-ms" not in lines
    assert json.loads(rest)["error"]
