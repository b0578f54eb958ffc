"""Recordings hold no secrets, whatever the place they stood in."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.transport.conftest import LONG
from tolmach.errors import ConnectionLost
from tolmach.testing.record import RecordingTransport
from tolmach.testing.recordings import find, load
from tolmach.transport import read
from tolmach.transport.memory import MemoryTransport
from tolmach.transport.replay import ReplayTransport
from tolmach.wire import Head, Request

CAPTURES = Path(__file__).parents[1] / "captures"

NONCE = "05bdef9152"
HIDDEN = {
    "nonce": NONCE,
    "cookie": "c00kievalue+/=",
    "bearer": "sk-live-abcdef",
    "basic": "dXNlcjpwYXNz",
    "key": "gk-123456",
    "sentinel": "gAAAAABsentinel",
    "token": "eyJhbGciOi.J9.abc-def_ghi",
    "ajax": "aaaabbbbcc",
    "form": "ddddeeeeff",
    "password": "hunter22",
    "rest": "1234abcdef",
}

SHORT_COOKIE = "c1"
"""Not looked for elsewhere: it would be found in words. Where it stands as a cookie, it goes."""

PAGE = f"""<div data-nonce="{NONCE}" data-x="{{&quot;restNonce&quot;:&quot;{HIDDEN["rest"]}&quot;}}">
<input type="hidden" id="_wpnonce" name="_wpnonce" value="{HIDDEN["form"]}" />
<script>var x = {{"ajax_nonce": "{HIDDEN["ajax"]}", "token": "{HIDDEN["token"]}", "usage": {{"tokens": 12}}}};</script>
an answer in words: nonce, cookie, token; "token": "Hello", a c1 too""".encode()


def _requests() -> list[Request]:
    body = json.dumps({"access_token": HIDDEN["token"], "password": HIDDEN["password"], "text": "my question"})
    form = f'--b\r\nContent-Disposition: form-data; name="_ajax_nonce"\r\n\r\n{HIDDEN["ajax"]}\r\n--b--\r\n'
    return [
        Request("GET", "http://service.test/page"),
        Request("POST", "http://service.test/a", {"X-WP-Nonce": NONCE, "x-api-key": HIDDEN["key"]}, body.encode()),
        Request("POST", "http://service.test/b", {"authorization": f"Bearer {HIDDEN['bearer']}"}, form.encode()),
        Request(
            "POST",
            f"http://service.test/c?_wpnonce={HIDDEN['form']}&x=1",
            {
                "cookie": f"wordpress_x={HIDDEN['cookie']}; b={SHORT_COOKIE}",
                "proxy-authorization": f"Basic {HIDDEN['basic']}",
                "openai-sentinel-proof-token": HIDDEN["sentinel"],
            },
            f"action=chat&nonce={HIDDEN['ajax']}&message=my+question".encode(),
        ),
    ]


async def _record(file: Path) -> RecordingTransport:
    async def handler(request: Request) -> tuple[Head, AsyncIterator[bytes]]:
        async def body() -> AsyncIterator[bytes]:
            for at in range(0, len(PAGE), 7):  # every secret is cut somewhere
                yield PAGE[at : at + 7]

        cookies = (f"wordpress_x={HIDDEN['cookie']}; Path=/", f"b={SHORT_COOKIE}")
        return Head(200, {"x-wp-nonce": NONCE, "content-type": "text/html"}, cookies), body()

    async with aclosing(RecordingTransport(MemoryTransport(handler=handler))) as recorder:
        for request in _requests():
            assert await read(await recorder.send(request, LONG), 10_000) == PAGE, "the caller gets it all"
        recorder.save(file)
    return recorder


async def test_no_secret_is_written(tmp_path: Path) -> None:
    file = tmp_path / "family" / "case.json"
    await _record(file)
    recording = load(file)
    crossed = [file.read_bytes(), *(exchange.body() for exchange in recording.exchanges)]
    for kind, secret in HIDDEN.items():
        for text in crossed:
            assert secret.encode() not in text, kind
    headers = [line for exchange in recording.exchanges for line in exchange.head.cookies]
    assert headers == ["wordpress_x=" + headers[0][12:26] + "; Path=/", "b=00"] * 4
    assert recording.exchanges[3].request.headers["cookie"].endswith("; b=00")


@pytest.mark.parametrize(
    "text",
    [
        '<div data-nonce="{}">',
        "<div data-nonce='{}'>",
        '<script nonce="{}">',
        '<input name="_wpnonce" value="{}">',
        '{{"restNonce": "{}"}}',
        '{{"rest_nonce":"{}"}}',
        '"{{\\"nonce\\":\\"{}\\"}}"',
        "data-x='{{&quot;nonce&quot;:&quot;{}&quot;}}'",
        "{{'nonce': '{}'}}",
        '{{"access_token": "{}"}}',
        '{{"accessToken": "{}"}}',
        '{{"apiKey": "{}"}}',
        '{{"session_id": "{}"}}',
        '{{"token": "{}"}}',
    ],
)
@pytest.mark.parametrize("side", ["request", "response"])
async def test_each_place_where_a_secret_stands(tmp_path: Path, text: str, side: str) -> None:
    secret = "gAAAAAB0-abcdef0123"
    whole = f"before {text.format(secret)} after".encode()

    async def handler(request: Request) -> tuple[Head, AsyncIterator[bytes]]:
        async def body() -> AsyncIterator[bytes]:
            yield b"" if side == "request" else whole

        return Head(200), body()

    async with aclosing(RecordingTransport(MemoryTransport(handler=handler))) as recorder:
        request = Request("POST", "http://service.test/", {}, whole if side == "request" else b"")
        await read(await recorder.send(request, LONG), 1000)
        recorder.save(tmp_path / "f" / "c.json")
    [exchange] = load(tmp_path / "f" / "c.json").exchanges
    kept = exchange.request.body if side == "request" else exchange.body()
    assert secret.encode() not in kept
    assert len(kept) == len(whole)
    assert kept.startswith(b"before ")
    assert kept.endswith(b" after")


async def test_what_is_no_secret_stays(tmp_path: Path) -> None:
    file = tmp_path / "family" / "case.json"
    await _record(file)
    recording = load(file)
    page = recording.exchanges[0].body().decode()
    assert len(page) == len(PAGE)
    assert page.endswith('an answer in words: nonce, cookie, token; "token": "Hello", a c1 too')
    assert '{"tokens": 12}' in page
    assert [len(chunk.data) for chunk in recording.exchanges[0].chunks][:-1] == [7] * (len(PAGE) // 7)
    asked = recording.exchanges[1].request
    assert json.loads(asked.body)["text"] == "my question"
    assert (recording.case, recording.family, recording.observed) == ("case", "family", True)


async def test_a_nonce_of_the_page_is_still_the_one_that_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "family" / "case.json"
    await _record(file)
    exchanges = load(file).exchanges
    sent = exchanges[1].request.headers["x-wp-nonce"]
    assert len(sent) == len(NONCE)
    assert f'data-nonce="{sent}"' in exchanges[0].body().decode()
    assert exchanges[0].head.header("x-wp-nonce") == sent
    ajax = exchanges[3].request.body.decode().split("nonce=")[1].split("&")[0]
    assert f'"ajax_nonce": "{ajax}"' in exchanges[0].body().decode()
    assert ajax in exchanges[2].request.body.decode()


async def test_a_call_that_was_left_is_marked(tmp_path: Path) -> None:
    async def handler(request: Request) -> tuple[Head, AsyncIterator[bytes]]:
        async def body() -> AsyncIterator[bytes]:
            yield b"one"
            raise LookupError

        return Head(200), body()

    async with aclosing(RecordingTransport(MemoryTransport(handler=handler))) as recorder:
        exchange = await recorder.send(Request("GET", "http://service.test/"), LONG)
        assert await anext(aiter(exchange)) == b"one"
        await exchange.aclose()
        with pytest.raises(ConnectionLost):
            await read(await recorder.send(Request("GET", "http://service.test/"), LONG), 10)
        recorder.save(tmp_path / "f" / "c.json", case="a", family="b", description="c")
    recording = load(tmp_path / "f" / "c.json")
    assert [exchange.broken for exchange in recording.exchanges] == ["client closed on purpose", "ConnectionLost"]
    assert (recording.case, recording.family, recording.description) == ("a", "b", "c")


async def test_it_does_not_grow_for_ever() -> None:
    async def handler(request: Request) -> tuple[Head, AsyncIterator[bytes]]:
        async def body() -> AsyncIterator[bytes]:
            yield b"one"

        return Head(200), body()

    async with aclosing(RecordingTransport(MemoryTransport(handler=handler), most=2)) as recorder:
        for _ in range(5):
            await read(await recorder.send(Request("GET", "http://service.test/"), LONG), 10)
    assert recorder.dropped == 3


@pytest.mark.parametrize("path", find(CAPTURES)[::7], ids=lambda path: f"{path.parent.name}/{path.stem}")
async def test_the_captures_recorded_again_keep_their_sizes_and_no_nonce(path: Path, tmp_path: Path) -> None:
    """Real pages and answers: what a header says is secret is nowhere in the file."""
    original = load(path)
    recorder = RecordingTransport(ReplayTransport(original.exchanges))
    for exchange in original.exchanges:
        answer = await recorder.send(exchange.request, LONG)
        try:
            await read(answer, 64 << 20)
        except ConnectionLost:
            assert exchange.broken
    file = tmp_path / "family" / "case.json"
    recorder.save(file)
    again = load(file)
    assert [len(one.body()) for one in again.exchanges] == [len(one.body()) for one in original.exchanges]
    secrets = {one.request.headers.get("x-wp-nonce", "") for one in original.exchanges} - {"", "0000000000"}
    for secret in secrets:
        for one in again.exchanges:
            assert secret.encode() not in one.body() + one.request.body
        assert secret.encode() not in file.read_bytes()
