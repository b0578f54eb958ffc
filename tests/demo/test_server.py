"""The server itself: connections, hang-ups, ports, and the same demo without sockets."""

import asyncio
import gc
import threading
import time
import urllib.request
from typing import Any

import pytest

from tests.demo.client import Connection, ask
from tolmach.demo import MOUNTS, Demo, serve_in_thread
from tolmach.demo.asgi import AbruptEnd, DemoAsgi
from tolmach.errors import ConfigError

CHAT = "/v1/chat/completions"
HEADERS = {"authorization": "Bearer any", "content-type": "application/json"}
BODY = b'{"model": "demo", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'


async def test_pieces_are_written_one_by_one_and_in_time() -> None:
    async with Demo(delay=0.01) as demo, Connection(demo.url) as connection:
        await connection.send("POST", CHAT, HEADERS, BODY)
        got = await connection.head()
        times = []
        while not got.chunks or b"[DONE]" not in got.chunks[-1]:
            event = await connection.event()
            times.append(time.monotonic())
            got.chunks.append(bytes(event.data))
    assert 30 <= len(got.chunks) <= 60
    assert all(chunk.endswith(b"\n\n") for chunk in got.chunks)
    # In time: the pieces are spread over the answer, not handed over at its end.
    assert times[len(times) // 2] - times[0] > 0.1
    assert times[-1] - times[len(times) // 2] > 0.1


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with Demo(delay=0) as demo:
        async with Connection(demo.url) as connection:
            for _ in range(3):
                await connection.send("POST", CHAT, HEADERS, BODY)
                got = await connection.rest(await connection.head())
                assert got.status == 200
                connection.h11.start_next_cycle()
        assert demo.log.connections == 1
        assert len(demo.log.requests) == 3
        await demo.log.wait_open_connections(0)


async def test_two_requests_at_once_on_one_connection_are_answered_in_order() -> None:
    async with Demo(delay=0) as demo:
        reader, writer = await asyncio.open_connection("127.0.0.1", demo.port)
        head = "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        writer.write((head.format("/Aichat/") + head.format("/nowhere")).encode())
        answer = b""
        while answer.count(b"\r\n0\r\n\r\n") < 2:
            answer += await reader.read(65536)
        writer.close()
        assert answer.index(b"200 ") < answer.index(b"404 ")


async def test_a_hang_up_in_mid_answer_is_noticed_at_once() -> None:
    async with Demo(delay=0.05) as demo:
        before = asyncio.all_tasks()
        async with Connection(demo.url) as connection:
            await connection.send("POST", CHAT, HEADERS, BODY)
            await connection.head()
            await connection.event()
            assert len(asyncio.all_tasks()) == len(before) + 1
        start = time.monotonic()
        await demo.log.wait_hangups(1)
        await demo.log.wait_open_connections(0)
        assert time.monotonic() - start < 0.5
        assert asyncio.all_tasks() == before
        assert demo.log.requests[-1].ended == "hangup"
        assert demo.log.answers["/v1"] == 0


async def test_what_is_no_http_is_refused() -> None:
    async with Demo() as demo:
        reader, writer = await asyncio.open_connection("127.0.0.1", demo.port)
        writer.write(b"nonsense\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 400 ")


async def test_head_has_no_body() -> None:
    async with Demo() as demo:
        reader, writer = await asyncio.open_connection("127.0.0.1", demo.port)
        writer.write(b"HEAD /Aichat/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert head.startswith(b"HTTP/1.1 200 ")
        assert body == b""


async def test_a_port_in_use_is_told() -> None:
    async with Demo() as demo:
        with pytest.raises(ConfigError, match=f"port {demo.port} of 127.0.0.1 is in use"):
            await Demo(port=demo.port).start()


def test_an_option_that_does_not_exist_is_told() -> None:
    with pytest.raises(ConfigError, match=r"no such option.*dealy"):
        Demo(dealy=1)


async def test_stopping_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    async with Demo(delay=10) as demo:
        async with Connection(demo.url) as stalled, Connection(demo.url) as idle:
            await stalled.send("POST", CHAT, HEADERS, BODY)
            await stalled.head()
            await idle.send("GET", "/", {}, b"")
            await idle.rest(await idle.head())
            assert demo.log.open_connections == 2
            await demo.stop()
            assert demo.log.open_connections == 0
            assert asyncio.all_tasks() == before
    gc.collect()


async def test_the_index_names_the_services() -> None:
    async with Demo() as demo:
        got = await ask(demo.url, "GET", "/")
        assert all(mount in got.text for mount in MOUNTS)
        assert (await ask(demo.url, "GET", "/nowhere")).status == 404


async def test_many_askers() -> None:
    """Two hundred at once, each with its own connection, get whole answers."""
    async with Demo(delay=0) as demo:
        answers = await asyncio.gather(*(ask(demo.url, "POST", CHAT, headers=HEADERS, body=BODY) for _ in range(200)))
        assert {got.status for got in answers} == {200}
        assert all(got.body.endswith(b"data: [DONE]\n\n") for got in answers)
        assert demo.log.chats("/v1") == demo.log.answers["/v1"] == 200


def test_a_demo_on_a_thread() -> None:
    with serve_in_thread(delay=0) as demo:
        with urllib.request.urlopen(f"{demo.url}/Aichat/") as response:
            assert response.status == 200
        assert len(demo.log.requests) == 1
        with pytest.raises(ConfigError, match="in use"), serve_in_thread(port=demo.demo.port):
            pass
    assert not [thread for thread in threading.enumerate() if thread.name == "tolmach-demo"]


# Without sockets


async def call(app: DemoAsgi, path: str, body: bytes, **headers: str) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []
    incoming: list[dict[str, Any]] = [
        {"type": "http.request", "body": body, "more_body": False},
        {"type": "http.disconnect"},
    ]
    lines = {**HEADERS, "host": "demo.test", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in lines.items()],
    }

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def test_the_same_answers_without_sockets() -> None:
    sent = await call(DemoAsgi(delay=0), CHAT, BODY)
    assert sent[0]["status"] == 200
    asgi = b"".join(message["body"] for message in sent[1:])
    async with Demo(delay=0) as demo:
        got = await ask(demo.url, "POST", CHAT, headers=HEADERS, body=BODY)
    assert asgi.count(b"data: ") == len(got.events)
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_faults_without_sockets_end_abruptly() -> None:
    app = DemoAsgi(delay=0)
    with pytest.raises(AbruptEnd, match="cut"):
        await call(app, CHAT, BODY, x_tolmach_demo="cut=3")
    with pytest.raises(AbruptEnd, match="reset"):
        await call(app, CHAT, BODY, x_tolmach_demo="reset")
    sent = await call(app, CHAT, BODY, x_tolmach_demo="stall=3")
    assert len(sent) == 1 + 1 + 3
    assert app.app.log.hangups == 1


@pytest.mark.parametrize("options", [{"delay": -1}, {"nonce_life": 0}, {"difficulty": "0ff"}, {"difficulty": ""}])
def test_an_option_that_makes_no_sense_is_told(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Demo(**options)


async def test_a_bug_of_the_demo_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with Demo(delay=0) as demo:
        monkeypatch.setattr("tolmach.demo.openai.chat._chat", lambda *_: 1 / 0)
        with pytest.raises(Exception, match="ConnectionClosed"):
            await ask(demo.url, "POST", CHAT, headers=HEADERS, body=BODY)
        assert "ZeroDivisionError" in caplog.text


HEAD = "HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (f"GET / {HEAD}Host: y\r\n\r\n", 400),
        (f"GET / {HEAD}A B: c\r\n\r\n", 400),
        (f"GET / {HEAD}A: b\0\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (f"POST / {HEAD}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (f"POST / {HEAD}Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (f"POST / {HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (f"GET / {HEAD}X: {'a' * (300 << 10)}\r\n\r\n", 431),
        (f"POST / {HEAD}Content-Length: {40 << 20}\r\n\r\n{'a' * (33 << 20)}", 413),
    ],
    ids=lambda value: str(value)[:40].encode("unicode_escape").decode(),
)
async def test_requests_are_read_strictly(request_: str, status: int) -> None:
    async with Demo() as demo:
        reader, writer = await asyncio.open_connection("127.0.0.1", demo.port)
        writer.write(request_.encode())
        assert (await reader.readline()).startswith(f"HTTP/1.1 {status} ".encode())
        writer.close()


async def _said(request: str) -> bytes:
    """All that the demo says to these bytes on a connection of their own; the last request in them ends it."""
    async with Demo() as demo:
        reader, writer = await asyncio.open_connection("127.0.0.1", demo.port)
        writer.write(request.encode())
        said = await reader.read()
        writer.close()
        return said


async def test_what_is_no_http_is_refused_behind_the_answers_before_it() -> None:
    said = await _said(f"GET /Aichat/ {HEAD}\r\nnonsense\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.index(b"0\r\n\r\nHTTP/1.1 400 ") > 0


async def test_nothing_is_answered_behind_the_last_request() -> None:
    said = await _said(f"GET /nowhere {HEAD}Connection: close\r\n\r\nGET /Aichat/ {HEAD}\r\n")
    assert said.startswith(b"HTTP/1.1 404 ")
    assert said.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in said


async def test_http_1_0_has_no_chunks() -> None:
    said = await _said("GET /Aichat/ HTTP/1.0\r\n\r\n")
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding" not in head.lower()
    assert body.rstrip().endswith(b"</html>")


async def test_a_body_is_welcomed_when_that_is_asked_for() -> None:
    async with Demo(delay=0) as demo:
        reader, writer = await asyncio.open_connection("127.0.0.1", demo.port)
        lines = "Authorization: Bearer any\r\nContent-Type: application/json\r\nConnection: close\r\n"
        writer.write(f"POST {CHAT} {HEAD}{lines}Content-Length: {len(BODY)}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
        writer.write(BODY)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_an_upgrade_is_not_taken() -> None:
    said = await _said(
        f"GET /nowhere {HEAD}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\nGET /Aichat/ {HEAD}Connection: close\r\n\r\n"
    )
    assert said.startswith(b"HTTP/1.1 404 ")
    assert b"HTTP/1.1 200 " in said
