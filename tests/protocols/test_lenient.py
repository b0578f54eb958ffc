"""A stream with one malformed event is read all the same; with two, or one that is too long, it is not."""

import pytest

from tolmach.chat import Delta, Done, Notice
from tolmach.errors import RemoteProtocolError
from tolmach.protocols import create
from tolmach.protocols.lenient import Forgiving, forgiving
from tolmach.wire import Head, Request

HEAD = Head(200, {"content-type": "text/event-stream"}, url="https://x.example/v1/chat/completions")
TEXT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
MALFORMED = b'data: {"choices":[{"index":0,"del\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def decoder(limit: int = 1000) -> Forgiving:
    reader = create("openai").reader(Request("POST", HEAD.url, {}, b'{"stream":true}'))
    assert reader is not None
    found = forgiving(reader(HEAD), HEAD, limit)
    assert isinstance(found, Forgiving)
    return found


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_one_malformed_event_is_left_out_with_a_notice(size: int) -> None:
    data, read = TEXT + MALFORMED + TEXT + END, decoder()
    events = [event for at in range(0, len(data), size) for event in read.feed(data[at : at + size])]
    events += read.close()
    assert [type(event) for event in events] == [Delta, Notice, Delta, Done]
    assert read.partial == "hihi"


def test_the_second_one_is_not() -> None:
    with pytest.raises(RemoteProtocolError):
        list(decoder().feed(MALFORMED + TEXT + MALFORMED))


@pytest.mark.parametrize("end", [b"", b"\n\n"])
def test_an_event_over_the_limit_is_not_waited_for(end: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="longer than 1000 bytes"):
        list(decoder().feed(b"data: " + b"x" * 1001 + end))


def test_what_is_no_stream_is_read_as_it_is() -> None:
    head = Head(200, {"content-type": "application/json"}, url=HEAD.url)
    reader = create("openai").reader(Request("POST", HEAD.url, {}, b"{}"))
    assert reader is not None
    assert not isinstance(forgiving(reader(head), head, 1000), Forgiving)
