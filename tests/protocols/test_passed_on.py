"""Bodies and answers that are passed on as they are, by the protocols that are public APIs themselves."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.protocols.driving import cases, load, new_state, read
from tolmach.chat import Delta, Done, Event, Usage
from tolmach.errors import BadRequest, ProviderUnavailable, RateLimited, RemoteProtocolError, TruncatedAnswer
from tolmach.protocols import create
from tolmach.protocols.base import Forwarding, Site
from tolmach.testing import conformance
from tolmach.wire import Decoder, Head

FAMILIES = {
    "anthropic": ("anthropic", "https://api.test/v1/messages", Usage(17, 12, 29, cached_tokens=5)),
    "openai-responses": (
        "responses",
        "https://api.test/v1/responses",
        Usage(9, 12, 21, cached_tokens=4, reasoning_tokens=7),
    ),
}
ANSWERS = [pytest.param(family, case, id=f"{family}/{case}") for family in FAMILIES for case in cases(family)]


def call(family: str, body: Any, **options: Any) -> Any:
    protocol = create(family, options)
    assert isinstance(protocol, Forwarding)
    site = Site(name="Api", url="https://api.test/v1", protocol=protocol, api_key="k")
    written = body if isinstance(body, bytes) else json.dumps(body).encode()
    return protocol.forward(FAMILIES[family][0], site, written, "own", new_state())


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_model_is_another(family: str):
    body = {"model": "m", "messages": [{"x": "Привет"}], "temperature": 1e-7, "unknown": {"b": [1, None]}}
    request = call(family, body).request
    assert (request.method, request.url) == ("POST", FAMILIES[family][1])
    assert json.loads(request.body) == body | {"model": "own"}
    assert "k" in (request.headers.get("x-api-key"), request.headers.get("authorization", "").removeprefix("Bearer "))
    with pytest.raises(BadRequest):
        call(family, b"[1]")


def test_the_sites_own_headers_go_along():
    headers = call("anthropic", {}, beta=["a", "b"], version="2026-10-21").request.headers
    assert (headers["anthropic-beta"], headers["anthropic-version"]) == ("a,b", "2026-10-21")


def test_what_the_caller_says_of_versions_goes_along():
    protocol = create("anthropic", {"beta": ["a", "b"]})
    assert isinstance(protocol, Forwarding)
    assert protocol.listed_headers == {"anthropic-beta", "anthropic-version"}
    site = Site(name="Api", url="https://api.test/v1?x=1", protocol=protocol, api_key="k")
    given = {"anthropic-beta": "c, a,,d", "anthropic-version": "2023-01-01"}
    request = protocol.forward("anthropic", site, b"{}", "own", new_state(), given).request
    assert request.headers["anthropic-beta"] == "a,b,c,d"
    assert request.headers["anthropic-version"] == "2023-01-01"
    assert request.headers["x-api-key"] == "k"
    counting = protocol.forward("anthropic/count_tokens", site, b"{}", "own", new_state(), given).request
    assert counting.url == "https://api.test/v1/messages/count_tokens?x=1"
    assert counting.headers == request.headers


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b'{"input_tokens": 12, "more": 1}', None),
        (200, b'{"input_tokens": "12"}', RemoteProtocolError),
        (200, b"[]", RemoteProtocolError),
        (200, b"", ProviderUnavailable),
        (200, b"event: ping\ndata: {}\n\n", RemoteProtocolError),
        (429, b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}', RateLimited),
    ],
)
def test_a_count_is_watched(status: int, body: bytes, error: Any):
    protocol = create("anthropic")
    assert isinstance(protocol, Forwarding)
    site = Site(name="Api", url="https://api.test", protocol=protocol, api_key="k")
    watch = protocol.forward("anthropic/count_tokens", site, b"{}", "own", new_state())
    got = read(watch.decoder(Head(status, {})), [body])
    assert (type(got.error) if error else got.events) == (error or [Done()])


class WithoutPieces:
    """The watch without what it says of each piece: an empty text, which no decoder of answers may give."""

    partial = ""

    def __init__(self, watch: Decoder) -> None:
        self.watch = watch

    def feed(self, data: bytes) -> Iterator[Event]:
        return (event for event in self.watch.feed(data) if event != Delta(""))

    def close(self) -> Iterator[Event]:
        return (event for event in self.watch.close() if event != Delta(""))


@pytest.mark.parametrize(("family", "case"), ANSWERS)
def test_every_recorded_answer_is_watched_as_a_decoder_has_to(family: str, case: str):
    (recorded,) = load(family, case)
    watch = call(family, {}).decoder
    request, head, pieces = recorded.request, recorded.head, tuple(recorded.chunks)

    def decoder(head: Head) -> Decoder:
        return WithoutPieces(watch(head))

    conformance.check(conformance.Answer(f"{family}/{case}", 0, family, request, head, pieces, decoder), mutations=4)


@pytest.mark.parametrize(("family", "case"), ANSWERS)
def test_what_is_whole_ends_and_what_fails_fails_in_the_same_way(family: str, case: str):
    (recorded,) = load(family, case)
    watched = read(call(family, {}).decoder(recorded.head), recorded.chunks)
    decoder = create(family).reader(recorded.request)
    assert decoder is not None
    told = read(decoder(recorded.head), recorded.chunks)
    if case in ("error-empty",):
        assert isinstance(told.error, ProviderUnavailable)
        assert watched.error is None  # nothing to say is an answer too
    else:
        assert (type(watched.error), str(watched.error)) == (type(told.error), str(told.error))
    if watched.error is None:
        assert watched.events[-1] == Done()
        assert [e for e in watched.events if isinstance(e, Usage)] == [
            e for e in told.events if isinstance(e, Usage)
        ] or (case == "error-empty")


@pytest.mark.parametrize("family", FAMILIES)
def test_pieces_are_told_with_what_the_model_wrote(family: str):
    (recorded,) = load(family, "stream")
    got = read(call(family, {}).decoder(recorded.head), recorded.chunks)
    decoder = create(family).reader(recorded.request)
    assert decoder is not None
    assert got.text == read(decoder(recorded.head), recorded.chunks).text
    assert [type(event) for event in got.events] == [Delta] * 6 + [Usage, Done]
    assert got.events[-2] == FAMILIES[family][2]
    cut = recorded.body[: -len(recorded.body) // 4]
    assert type(read(call(family, {}).decoder(recorded.head), [cut]).error) is TruncatedAnswer


def test_a_response_that_goes_on_in_the_background_is_passed_on():
    body = json.dumps({"id": "resp_1", "object": "response", "status": "queued", "output": []}).encode()
    assert read(call("openai-responses", {}).decoder(Head(200, {})), [body]).events == [Done()]


def test_the_wait_of_a_refusal_is_kept():
    head = Head(429, {"retry-after": "7", "content-type": "application/json"})
    body = b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}'
    error = read(call("anthropic", {}).decoder(head), [body]).error
    assert isinstance(error, RateLimited)
    assert error.retry_after == 7


@pytest.mark.parametrize(
    ("family", "api", "options", "said", "sent"),
    [
        ("openai", "openai", {}, {}, {"max_tokens": 77}),
        ("openai", "openai", {}, {"max_tokens": -1, "n_predict": -1}, {"max_tokens": 77}),
        ("openai", "openai", {"max_tokens_field": "max_completion_tokens"}, {}, {"max_completion_tokens": 77}),
        ("openai-responses", "responses", {}, {"max_output_tokens": None}, {"max_output_tokens": 77}),
        ("anthropic", "anthropic", {}, {}, {"max_tokens": 77}),
        ("anthropic", "anthropic/count_tokens", {}, {}, {}),
        ("openai", "embeddings", {}, {}, {}),
    ],
)
def test_an_answer_may_be_limited(family: str, api: str, options: Any, said: Any, sent: Any):
    protocol = create(family, options)
    assert isinstance(protocol, Forwarding)
    site = Site(name="Api", url="https://api.test/v1", protocol=protocol)
    body = json.dumps({"model": "m", "x": 1, **said}).encode()
    asked = protocol.forward(api, site, body, "own", new_state(), {}, 77).request
    assert json.loads(asked.body) == {"model": "own", "x": 1, **sent}
    assert json.loads(protocol.forward(api, site, body, "own", new_state()).request.body) == {
        "model": "own",
        "x": 1,
        **said,
    }
