"""Answers that are passed on: the bytes as they came, and never an end that did not come."""

import json
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import pytest

from tests.protocols.driving import cases, load, new_state
from tolmach.chat import Delta, Done, Event, Usage
from tolmach.decoding import split_events
from tolmach.errors import RemoteProtocolError, TolmachError
from tolmach.gateway.answers.relay import relay_stream
from tolmach.protocols import create
from tolmach.protocols.base import Forwarding, Site
from tolmach.protocols.lenient import forgiving
from tolmach.testing import conformance
from tolmach.testing.damage import damage_events, damage_structure
from tolmach.testing.decode import cut_at_random
from tolmach.wire import Call, Decoder, Head

APIS = {"openai": "openai", "anthropic": "anthropic", "openai-responses": "responses"}
RECORDED = [pytest.param(family, case, id=f"{family}/{case}") for family in APIS for case in cases(family)]
STREAMED = [param for param in RECORDED if load(*map(str, param.values))[0].head.content_type == "text/event-stream"]
ENDS = (b"[DONE]", b"message_stop", b"response.completed", b"response.incomplete")
LIMIT = 1 << 20


def watch(family: str, head: Head) -> Decoder:
    protocol = create(family)
    assert isinstance(protocol, Forwarding)
    site = Site(name="Api", url="https://api.test/v1", protocol=protocol)
    call: Call = protocol.forward(APIS[family], site, b"{}", "m", new_state())
    return call.decoder(head)


class Pieces:
    """An exchange with these pieces for its body."""

    def __init__(self, head: Head, pieces: Iterable[bytes]) -> None:
        self.head = head
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    async def aclose(self) -> None:
        pass


async def relayed(family: str, head: Head, pieces: Iterable[bytes]) -> tuple[list[bytes], list[Event], Any]:
    """What went out, what it meant, and the error at its end."""
    out: list[bytes] = []
    seen: list[Event] = []
    try:
        async for chunk in relay_stream(Pieces(head, pieces), watch(family, head), seen, LIMIT):
            out.append(chunk)  # noqa: PERF401  # what came before an error counts
    except TolmachError as error:
        return out, seen, error
    return out, seen, None


def single(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@pytest.mark.parametrize(
    ("data", "events", "rest"),
    [
        (b"", [], b""),
        (b"d", [], b"d"),
        (b"\n", [], b"\n"),
        (b"data: 1\n\n", [b"data: 1\n\n"], b""),
        (b"data: 1\n\ndata: 2\n\nda", [b"data: 1\n\n", b"data: 2\n\n"], b"da"),
        (b"data: 1\r\n\r\ndata: 2\r\n\r", [b"data: 1\r\n\r\n"], b"data: 2\r\n\r"),
        (b"data: 1\r\rdata: 2\n\n", [b"data: 1\r\r", b"data: 2\n\n"], b""),
        (b"data: 1\ndata: 2", [], b"data: 1\ndata: 2"),
    ],
)
def test_events_are_split_at_blank_lines(data: bytes, events: list[bytes], rest: bytes):
    assert split_events(data) == (events, rest)


@pytest.mark.parametrize(("family", "case"), STREAMED)
async def test_the_bytes_go_out_as_they_came(family: str, case: str):
    (recorded,) = load(family, case)
    body = recorded.body
    whole, meant, error = await relayed(family, recorded.head, [body])
    assert body.startswith(b"".join(whole))
    if error is None:
        assert type(meant[-1]) is Done
        # Nothing is missing but what stands behind the end.
        assert body[len(b"".join(whole)) :].strip() in (b"", b"data: [DONE]")
    rng = random.Random(case)
    cuts = sorted(rng.sample(range(1, len(body)), 9)) if len(body) > 10 else []
    some = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    for pieces in (recorded.chunks, single(body), some):
        out, seen, failed = await relayed(family, recorded.head, pieces)
        assert (out, seen, type(failed), str(failed)) == (whole, meant, type(error), str(error))
        assert all(chunk.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")) for chunk in out)


@pytest.mark.parametrize(("family", "case"), STREAMED)
async def test_what_is_cut_off_never_looks_finished(family: str, case: str):
    (recorded,) = load(family, case)
    body = recorded.body
    for end in range(len(body)):
        out, seen, error = await relayed(family, recorded.head, [body[:end]])
        passed = b"".join(out)
        if error is None:
            assert type(seen[-1]) is Done
        else:
            assert Done() not in seen
            assert not any(mark in passed for mark in ENDS)
            assert body.startswith(passed)


@pytest.mark.parametrize(("family", "case"), RECORDED)
async def test_of_damaged_answers_no_end_goes_out_that_was_not_accepted(family: str, case: str):
    (recorded,) = load(family, case)
    rng = random.Random(f"{family}/{case}")
    for round in range(40):
        damage = (conformance.mutate, damage_events, damage_structure)[round % 3]
        body = damage(recorded.body, rng)
        outcomes = []
        for pieces in ([body], cut_at_random(body, rng)):
            out, seen, error = await relayed(family, recorded.head, pieces)
            assert (error is None) == (bool(seen) and type(seen[-1]) is Done)
            outcomes.append((b"".join(out), [e for e in seen if e != Delta("")], type(error)))
        assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("family", APIS)
@pytest.mark.parametrize("kind", ["text/event-stream", "application/json", "text/html", ""])
@pytest.mark.parametrize("status", [200, 400, 503])
async def test_random_bytes_are_an_error_of_ours(family: str, kind: str, status: int):
    rng = random.Random(f"{family}{kind}{status}")
    alphabets = (bytes(range(256)), b'data: {}[]"type\n\r:,0', b"\n\r:d")
    for _ in range(60):
        alphabet = rng.choice(alphabets)
        body = bytes(rng.choice(alphabet) for _ in range(rng.randrange(200)))
        _, seen, error = await relayed(family, Head(status, {"content-type": kind}), [body])
        assert isinstance(error, TolmachError)
        assert Done() not in seen


async def test_an_event_over_the_limit_is_an_error():
    head = Head(200, {"content-type": "text/event-stream"})
    endless: Iterator[bytes] = (b"data: " + b"x" * 65536 for _ in range(1000))
    out, _, error = await relayed("anthropic", head, endless)
    assert out == []
    assert isinstance(error, RemoteProtocolError)


# The watch of chat completions; for those of the other APIs see tests/protocols/test_passed_on.py


class WithoutPieces:
    """The watch without what it says of each piece: an empty text, which no decoder of answers may give."""

    partial = ""

    def __init__(self, watch: Decoder) -> None:
        self.watch = watch

    def feed(self, data: bytes) -> Iterator[Event]:
        return (event for event in self.watch.feed(data) if event != Delta(""))

    def close(self) -> Iterator[Event]:
        return (event for event in self.watch.close() if event != Delta(""))


@pytest.mark.parametrize("case", cases("openai"))
def test_completions_are_watched_as_a_decoder_has_to(case: str):
    (recorded,) = load("openai", case)

    def reader(head: Head) -> Decoder:
        return WithoutPieces(watch("openai", head))

    answer = conformance.Answer(
        f"openai/{case}", 0, "openai", recorded.request, recorded.head, tuple(recorded.chunks), reader
    )
    conformance.check(answer, mutations=6)


def test_completions_say_what_they_cost():
    (recorded,) = load("openai", "stream")
    decoder = watch("openai", recorded.head)
    events = [*decoder.feed(recorded.body), *decoder.close()]
    assert [type(event) for event in events if type(event) is not Delta] == [Usage, Done]


# What the gateway asks for and the caller has not


def asking(body: Any, **options: Any) -> Call:
    protocol = create("openai", options)
    assert isinstance(protocol, Forwarding)
    site = Site(name="Api", url="https://api.test/v1", protocol=protocol)
    return protocol.forward("openai", site, json.dumps(body).encode(), "m", new_state())


@pytest.mark.parametrize(
    ("stream", "options", "sent"),
    [
        (True, None, {"include_usage": True}),
        (True, {"include_usage": False}, {"include_usage": True}),
        (True, {"include_obfuscation": False}, {"include_obfuscation": False, "include_usage": True}),
        (True, {"include_usage": True}, {"include_usage": True}),
        # The service says what is wrong with it.
        (True, [1], [1]),
        (True, {"include_usage": 1}, {"include_usage": 1}),
        (False, None, None),
    ],
)
def test_the_usage_of_a_stream_is_asked_for(stream: bool, options: Any, sent: Any):
    body = {"model": "x", "stream": stream, "messages": [], "stream_options": options}
    assert json.loads(asking(body).request.body) == {**body, "model": "m", "stream_options": sent}
    assert json.loads(asking(body, include_usage=False).request.body) == {**body, "model": "m"}


@pytest.mark.parametrize("resumable", [False, True])
async def test_the_usage_is_kept_from_who_did_not_ask(resumable: bool):
    (recorded,) = load("openai", "stream")
    usage, done = recorded.body.split(b"\n\n")[-3:-1]
    assert b'"usage":{' in usage
    for asked in (False, True):
        body = {"stream": True, **({"stream_options": {"include_usage": True}} if asked else {})}
        for pieces in ([recorded.body], single(recorded.body)):
            seen: list[Event] = []
            decoder = asking(body).decoder(recorded.head)
            if resumable:
                decoder = forgiving(decoder, recorded.head, LIMIT)
            out = [chunk async for chunk in relay_stream(Pieces(recorded.head, pieces), decoder, seen, LIMIT)]
            assert (usage in b"".join(out)) is asked
            assert b"".join(out).replace(usage + b"\n\n", b"") == recorded.body.replace(usage + b"\n\n", b"")
            assert [event for event in seen if type(event) is Usage] == [Usage(9, 12, 21)]
            assert out[-1].startswith(done)
