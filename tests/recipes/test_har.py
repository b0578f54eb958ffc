"""HAR files as browsers and programs write them, and what is said where one has no answer."""

import base64
import gzip
import json
from typing import Any

import pytest

from tolmach.errors import ConfigError
from tolmach.recipes.har import read_har
from tolmach.recipes.infer import infer
from tolmach.recipes.traffic import Exchange

ASKED = {"method": "POST", "url": "https://a.test/api/ask", "headers": [], "postData": {"text": '{"message": "Why?"}'}}
REPLY = b'{"reply": "Because air scatters short waves."}'


def _response(**more: Any) -> dict[str, Any]:
    content = {"mimeType": "application/json", "size": len(REPLY)} | more.pop("content", {"text": REPLY.decode()})
    return {"status": 200, "headers": [], "content": content} | more


def _har(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"log": {"version": "1.2", "entries": entries}}).encode()


def _one(response: Any, **more: Any) -> Exchange:
    (exchange,) = read_har(_har({"request": ASKED, "response": response} | more))
    return exchange


@pytest.mark.parametrize(
    ("response", "head"),
    [
        (None, False),
        ({"status": 0}, False),
        ({"status": -1, "headers": None, "content": None}, False),
        (_response(), True),
    ],
)
def test_a_response_may_be_missing_or_null(response, head):
    exchange = _one(response)
    assert (exchange.head is not None, exchange.request.method) == (head, "POST")


def test_null_fields_and_numbers_in_texts_places_are_taken():
    entry = {
        "startedDateTime": None,
        "request": ASKED
        | {"headers": [{"name": "X-A", "value": None}, {"name": "X-B", "value": "1"}, None], "cookies": None},
        "response": _response(statusText=None, headers=[{"name": "Content-Length", "value": 46}]),
    }
    (exchange,) = read_har(_har(entry))
    assert exchange.request.headers == {"x-a": "", "x-b": "1"}
    assert exchange.head is not None
    assert exchange.head.header("content-length") == "46"


def test_entries_that_cannot_be_read_are_passed_over():
    found = read_har(_har({"request": None}, {"request": {"url": "https://a.test/"}}, {"request": ASKED}, {}))
    assert [one.request.url for one in found] == ["https://a.test/api/ask"]


@pytest.mark.parametrize(
    "data", [b"[]", b"{}", b'{"log": null}', b'{"log": {"entries": null}}', b"{", b"\xff{}", b"[" * 9000]
)
def test_what_is_no_har_file_is_said(data):
    with pytest.raises(ConfigError, match="not a HAR file"):
        read_har(data)


@pytest.mark.parametrize("coding", ["gzip", ""])
def test_a_body_that_was_saved_compressed_is_read(coding):
    text = base64.b64encode(gzip.compress(REPLY, mtime=0)).decode()
    headers = [{"name": "content-encoding", "value": coding}] if coding else []
    assert _one(_response(content={"text": text, "encoding": "base64"}, headers=headers)).body == REPLY


@pytest.mark.parametrize(
    ("kept", "read"),
    [(gzip.compress(REPLY, mtime=0)[:15], b'{"re'), (b"\x1f\x8bnone", b"\x1f\x8bnone")],
    ids=["cut", "no gzip"],
)
def test_a_compressed_body_that_is_damaged_is_read_as_far_as_it_goes(kept, read):
    text = base64.b64encode(kept).decode()
    assert _one(_response(content={"text": text, "encoding": "base64"})).body == read


def test_a_body_beside_the_file_is_read():
    entry = {"request": ASKED, "response": _response(content={"_file": "abc.json"})}
    (exchange,) = read_har(_har(entry), {"abc.json": REPLY}.get)
    assert (exchange.body, exchange.lost) == (REPLY, None)
    (exchange,) = read_har(_har(entry), lambda name: None)
    assert (exchange.body, exchange.lost) == (b"", len(REPLY))


def test_chromes_event_messages_are_the_stream():
    messages = [
        {"time": 1.0, "eventName": "message", "eventId": "", "data": '{"t":"The "}'},
        {"time": 1.1, "eventName": "piece", "eventId": "7", "data": "two\nlines"},
    ]
    stream = _response(content={"mimeType": "text/event-stream"})
    body = _one(stream, _eventSourceMessages=messages).body
    assert body == b'data: {"t":"The "}\n\nevent: piece\nid: 7\ndata: two\ndata: lines\n\n'


def test_messages_of_a_websocket_are_kept():
    frames = [
        {"type": "send", "time": 1.0, "opcode": 1, "data": "Why?"},
        {"type": "receive", "time": 1.1, "opcode": 2, "data": "AAE="},
        {"type": "receive", "time": 1.2, "opcode": 9, "data": ""},
    ]
    socket = {"method": "GET", "url": "wss://a.test/ws", "headers": []}
    (exchange,) = read_har(_har({"request": socket, "response": {"status": 101}, "_webSocketMessages": frames}))
    assert [(one.sent, one.text, one.binary) for one in exchange.frames] == [
        (True, "Why?", False),
        (False, "AAE=", True),
    ]


# What is said where no recipe can be made


def _said(*entries: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        infer(read_har(_har(*entries)))
    return str(caught.value)


def test_an_answer_that_was_not_recorded_is_named_with_its_size():
    lost = _response(content={"mimeType": "text/event-stream", "size": 0}, _transferSize=10838)
    said = _said({"request": ASKED, "response": lost})
    assert "the answer of POST /api/ask (text/event-stream, 10838 bytes) is not in the HAR" in said
    assert "record with Firefox" in said


def test_a_websocket_is_named_with_its_host():
    socket = {"method": "GET", "url": "wss://chat.a.test/ws", "headers": []}
    frames = [{"type": "send", "opcode": 1, "data": "Why?"}]
    said = _said({"request": socket, "response": {"status": 101}, "_webSocketMessages": frames})
    assert "a WebSocket to chat.a.test, 1 messages" in said


def test_an_answer_by_another_request_is_named():
    joined = _response(content={"text": '{"ok": true}'})
    stream = {"status": 200, "headers": [], "content": {"mimeType": "text/event-stream", "text": "data: {}\n\n"}}
    data = {"method": "GET", "url": "https://a.test/queue/data?id=2f1c", "headers": []}
    said = _said({"request": ASKED, "response": joined}, {"request": data, "response": stream})
    assert "comes by another request, GET /queue/data" in said
