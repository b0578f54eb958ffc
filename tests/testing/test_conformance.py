"""Every protocol over every recording; and that the suite catches decoders that are wrong."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.testing.checking import check
from tolmach.chat import Delta, Done, Event
from tolmach.decoding import ServerSentEvents, find_json, parse_json
from tolmach.errors import ConfigError, RateLimited, TruncatedAnswer
from tolmach.protocols.base import Answer as BaseAnswer
from tolmach.testing import conformance, recordings
from tolmach.testing.conformance import Answer, Violation
from tolmach.wire import Decoder, Head, Request

PATHS = recordings.find(Path(__file__).parents[1] / "captures")


def _all_answers() -> list[Answer]:
    return [answer for path in PATHS for answer in conformance.answers(recordings.load(path))]


def _name(answer: Answer) -> str:
    return f"{answer.protocol}:{answer.recording}:{answer.exchange}"


@pytest.mark.parametrize("answer", _all_answers(), ids=_name)
def test_a_recorded_answer_comes_out_the_same_for_any_cut_and_is_never_taken_for_whole_when_it_is_not(answer):
    check(answer)
    assert answer.body or conformance.run(answer, []).failure is not None


# The suite itself: a right decoder passes, and each kind of wrong one is caught.

PIECES = ("Привет, ", "мир! ", "🚀👩‍💻", " the end")
STREAM = "".join(f"data: {json.dumps({'text': piece}, ensure_ascii=False)}\n\n" for piece in PIECES).encode()
STREAM += b"data: [DONE]\n\n"


class Right(BaseAnswer):
    """The smallest decoder that is right."""

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self._events = ServerSentEvents()

    def feed(self, data: bytes) -> Iterator[Event]:
        for event in self._events.feed(data):
            if self.ended:
                return
            if event.data == b"[DONE]":
                yield from self.finish()
            else:
                yield from self.delta(self.text(event.data))

    def text(self, data: bytes) -> str:
        value = parse_json(data)
        return value["text"] if isinstance(value, dict) and isinstance(value.get("text"), str) else ""

    def close(self) -> Iterator[Event]:
        self.check_ended()
        return iter(())


class DecodesEachChunkOnItsOwn(Right):
    def feed(self, data: bytes) -> Iterator[Event]:
        for line in data.decode("utf-8", "replace").splitlines():
            if line == "data: [DONE]":
                yield from self.finish()
            elif line.startswith("data: "):
                yield from self.delta(self.text(line[6:].encode()))


class EndsSilently(Right):
    def close(self) -> Iterator[Event]:
        return iter(())


class TakesTheEndOfTheBodyForTheEndOfTheAnswer(Right):
    def close(self) -> Iterator[Event]:
        if not self.ended:
            yield from self.finish(empty_ok=True)


class TakesAnUnendedEvent(Right):
    """The last event counts although its blank line is missing."""

    def feed(self, data: bytes) -> Iterator[Event]:
        self.tail = getattr(self, "tail", b"") + data
        yield from super().feed(data)

    def close(self) -> Iterator[Event]:
        last = self.tail.rpartition(b"data: ")[2]
        if not self.ended and last.startswith(b'{"text"') and last.endswith(b"}"):
            yield from self.delta(self.text(last))
            yield from self.finish()
        self.check_ended()


class SplitsAtLfOnly(Right):
    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Event]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line == b"data: [DONE]":
                yield from self.finish()
            elif line.startswith(b"data: "):
                yield from self.delta(self.text(line[6:]))


class RaisesKeyError(Right):
    def text(self, data: bytes) -> str:
        text: str = parse_json(data)["text"]
        return text


class PassesHalvesOfCharactersOn(Right):
    def delta(self, text: str) -> Iterator[Event]:
        if text:
            self._pieces.append(text)
            yield Delta(text)


class GoesOnAfterTheEnd(Right):
    def feed(self, data: bytes) -> Iterator[Event]:
        for event in super().feed(data):
            yield event
            if isinstance(event, Done):
                yield Delta("and another thing")


class BlamesTheNetwork(Right):
    def close(self) -> Iterator[Event]:
        if not self.ended:
            raise ConfigError("broken")
        return iter(())


def _answer(decoder: Callable[[Head], Decoder], body: bytes = STREAM) -> Answer:
    head = Head(200, {"content-type": "text/event-stream"})
    request = Request("POST", "http://example.test/chat")
    return Answer("handmade/stream", 0, "handmade", request, head, (body[:50], body[50:]), decoder)


def test_a_right_decoder_passes():
    outcome = conformance.check_cuts(_answer(Right))
    assert outcome.text == "".join(PIECES)
    assert outcome.events[-1] == Done()
    conformance.check(_answer(Right), mutations=100)


@pytest.mark.parametrize(
    ("decoder", "complaint"),
    [
        (DecodesEachChunkOnItsOwn, "as recorded"),
        (EndsSilently, "cut off after .* ended silently"),
        (TakesTheEndOfTheBodyForTheEndOfTheAnswer, "cut off after .* taken for a whole answer"),
        (TakesAnUnendedEvent, "cut off after .* taken for a whole answer"),
        (SplitsAtLfOnly, "CRLF for LF"),
        (RaisesKeyError, "mutation .* (KeyError|TypeError) came out"),
        (GoesOnAfterTheEnd, "came after Done"),
        (BlamesTheNetwork, "cut off after .* ConfigError is no ProviderError"),
    ],
)
def test_a_wrong_decoder_is_caught_and_the_place_is_named(decoder, complaint):
    with pytest.raises(Violation, match=rf"handmade/stream, exchange 0 \(handmade\)(.|\n)*{complaint}"):
        conformance.check(_answer(decoder), mutations=200)


def test_a_decoder_that_lets_halves_of_characters_out_is_caught():
    body = b'data: {"text": "\\ud83d"}\n\ndata: {"text": "\\ude80"}\n\ndata: [DONE]\n\n'
    assert conformance.check_cuts(_answer(Right, body)).text == "🚀"
    with pytest.raises(Violation, match="does not encode"):
        conformance.check_cuts(_answer(PassesHalvesOfCharactersOn, body))


class WholeBody(BaseAnswer):
    """A JSON answer, read at the end."""

    lenient = False

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self._body = b""

    def feed(self, data: bytes) -> Iterator[Event]:
        self._body += data
        return iter(())

    def close(self) -> Iterator[Event]:
        value = find_json(self._body + b'"}' if self.lenient and not self._body.endswith(b"}") else self._body)
        if value is None:
            raise TruncatedAnswer()
        if value.get("limit"):
            raise RateLimited("limit", status=429, retry_after=1.0)
        text = value.get("text")
        yield from self.delta(text if isinstance(text, str) else "")
        yield from self.finish()


class MendsBrokenJson(WholeBody):
    lenient = True


class RaisesByLength(WholeBody):
    """Says how many pieces came: an outcome that depends on the cuts, in the error alone."""

    count = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        self.count += 1
        return super().feed(data)

    def close(self) -> Iterator[Event]:
        raise RateLimited("limit", status=429, retry_after=float(self.count))


def test_whole_bodies_too():
    body = json.dumps({"text": "Привет 🚀"}).encode()
    conformance.check(_answer(WholeBody, body), mutations=50)
    conformance.check(_answer(WholeBody, b'{"limit": true}'), mutations=50)
    with pytest.raises(Violation, match="taken for a whole answer"):
        conformance.check_truncation(_answer(MendsBrokenJson, body))
    with pytest.raises(Violation, match="another outcome"):
        conformance.check_cuts(_answer(RaisesByLength, b'{"limit": true}'))


def test_line_ends_are_changed_only_in_bodies_made_of_lines():
    body = b'{"text":\n"x"}'
    conformance.check_line_ends(_answer(WholeBody, body))
    with pytest.raises(Violation, match="CRLF"):
        conformance.check_line_ends(_answer(SplitsAtLfOnly))


def test_truncation_points_are_all_lengths_or_both_ends_and_a_sample():
    assert conformance.truncation_points(1000, Random(0)) == list(range(1000))
    points = conformance.truncation_points(100_000, Random(0))
    assert points == sorted(set(points))
    assert len(points) == 1000 + 400 + 1000
    assert points[:1000] == list(range(1000))
    assert points[-1000:] == list(range(99_000, 100_000))


def test_mutations_are_damages_and_the_same_for_a_seed():
    one = [conformance.mutate(STREAM, Random(seed)) for seed in range(50)]
    assert one == [conformance.mutate(STREAM, Random(seed)) for seed in range(50)]
    assert sum(body != STREAM for body in one) > 40
    assert conformance.mutate(b"", Random(1)) is not None


def test_an_error_in_the_middle_keeps_the_events_before_it():
    class Limited(Right):
        def feed(self, data: bytes) -> Iterator[Event]:
            yield from super().feed(data)
            if self.ended:
                raise RateLimited("enough", status=200)

    outcome = conformance.run(_answer(Limited), [STREAM])
    assert outcome.text == "".join(PIECES)
    assert outcome.failure is not None
    assert outcome.failure.kind == "RateLimited"
