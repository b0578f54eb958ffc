"""The conformance suite: what every protocol must do with every recorded answer.

- The outcome does not depend on how the bytes were cut, nor, where the body is made of lines, on
  whether LF, CRLF or CR ends them.
- A truncated answer is never a success: it ends in an error, or, only once the mark that ends the
  answer has come, in the same way as the whole.
- Damaged bytes give events or a `ProviderError`, never another exception, and the same wherever
  they were cut.
- Always: every text encodes to UTF-8; an answer ends with exactly one `Done` or with an error, never
  silently. Only a `preparatory` decoder, of a step before the question, has no events when all is well.

Use it for a protocol of your own:

    from tolmach.testing import conformance, recordings

    @pytest.mark.parametrize("path", recordings.find("tests/captures"), ids=str)
    def test_conformance(path):
        for answer in conformance.answers(recordings.load(path), [MyProtocol()]):
            conformance.check(answer)

The checks raise `Violation`, an `AssertionError` that names the recording, the exchange and the cut.
All that is random comes from a seed.
"""

import random
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from tolmach.chat import Delta, Done, Event, Reasoning, Usage
from tolmach.errors import ProviderError, TolmachError
from tolmach.protocols.base import ChatProtocol
from tolmach.testing.decode import cut_at_random, find_reader, known_protocols
from tolmach.testing.recordings import Recording
from tolmach.wire import Decoder, Head, Request

__all__ = [
    "Answer",
    "Failure",
    "Outcome",
    "Violation",
    "answers",
    "check",
    "check_cuts",
    "check_line_ends",
    "check_mutations",
    "check_same",
    "check_truncation",
    "mutate",
    "run",
    "truncation_points",
]


class Violation(AssertionError):
    """A decoder does what no decoder may do; the message says where and what."""


class Answer(Struct, frozen=True):
    """One recorded answer to a question, and how its protocol reads it."""

    recording: str
    exchange: int
    protocol: str
    request: Request
    head: Head
    pieces: tuple[bytes, ...]
    reader: Callable[[Head], Decoder]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def where(self) -> str:
        return f"{self.recording}, exchange {self.exchange} ({self.protocol})"


class Failure(Struct, frozen=True):
    """How an answer failed, by what a caller can tell errors apart."""

    kind: str
    message: str
    status: int | None = None
    code: str | None = None
    retry_after: float | None = None


class Outcome(Struct, frozen=True):
    """What came of an answer: its events, with neighbouring pieces of text joined, and the error that ended it."""

    events: tuple[Event, ...]
    failure: Failure | None = None

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Delta))


def answers(recording: Recording, protocols: Iterable[ChatProtocol] | None = None) -> Iterator[Answer]:
    """The chat answers of a recording: those to requests that one of the protocols knows.

    `protocols` are by default those of all known sites and all that tolmach brings.
    """
    known = known_protocols() if protocols is None else tuple(protocols)
    for index, exchange in enumerate(recording.exchanges):
        found = find_reader(exchange.request, known)
        if found is not None:
            protocol, reader = found
            pieces = tuple(exchange.pieces())
            yield Answer(recording.name, index, protocol, exchange.request, exchange.head, pieces, reader)


# Running


def _join(events: Iterable[Event]) -> tuple[Event, ...]:
    """The events with neighbouring pieces of text made one."""
    joined: list[Event] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, Delta) and isinstance(last, Delta):
            joined[-1] = Delta(last.text + event.text)
        elif isinstance(event, Reasoning) and isinstance(last, Reasoning):
            joined[-1] = Reasoning(last.text + event.text)
        else:
            joined.append(event)
    return tuple(joined)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)


def _check_event(event: Event, ended: bool, where: str) -> None:
    if ended:
        raise Violation(f"{where}: {event!r} came after Done")
    if isinstance(event, Delta) and not event.text:
        raise Violation(f"{where}: an empty Delta")
    for text in _texts(msgspec.structs.asdict(event)):
        _check_encodes(text, repr(event), where)


def _check_encodes(text: str, what: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Violation(f"{where}: {what} does not encode to UTF-8") from error


def run(answer: Answer, pieces: Iterable[bytes], how: str = "") -> Outcome:
    """Feed the pieces to a new decoder and close it.

    Raises `Violation` for what is wrong with any bytes: an exception that is no `ProviderError`,
    a text that does not encode, an event after `Done`, an end without `Done` or an error.
    """
    where = f"{answer.where}{how and ', '}{how}"
    events: list[Event] = []
    ended = False

    def take(some: Iterable[Event]) -> None:
        nonlocal ended
        for event in some:
            _check_event(event, ended, where)
            ended = ended or isinstance(event, Done)
            events.append(event)

    try:
        decoder = answer.reader(answer.head)
        for piece in pieces:
            take(decoder.feed(piece))
        take(decoder.close())
    except Violation:
        raise
    except ProviderError as error:
        return Outcome(_join(events), _failure(error, where))
    except TolmachError as error:
        raise Violation(f"{where}: {type(error).__name__} is no ProviderError: {error}") from error
    except Exception as error:  # whatever a decoder may raise by mistake is what is looked for here
        raise Violation(f"{where}: {type(error).__name__} came out: {error}") from error
    if not ended and (events or not getattr(decoder, "preparatory", False)):
        raise Violation(f"{where}: the answer ended silently, without Done or an error")
    return Outcome(_join(events))


def _failure(error: ProviderError, where: str) -> Failure:
    _check_encodes(str(error), f"the message of {type(error).__name__}", where)
    _check_encodes(error.partial, f"the partial text of {type(error).__name__}", where)
    return Failure(type(error).__name__, str(error), error.status, error.code, error.retry_after)


def check_same(answer: Answer, outcome: Outcome, expected: Outcome, how: str) -> None:
    """Raises `Violation` when `outcome`, that came of reading the body as `how` says, is not the expected one."""
    if outcome == expected:
        return
    pairs = enumerate(zip(expected.events, outcome.events, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(expected.events), len(outcome.events)))
    raise Violation(
        f"{answer.where}, {how}: another outcome than in one piece\n"
        f"  expected: {_shorten(expected, at)}\n"
        f"  got:      {_shorten(outcome, at)}"
    )


def _shorten(outcome: Outcome, at: int) -> str:
    event = repr(outcome.events[at]) if at < len(outcome.events) else "no further event"
    event = event if len(event) <= 300 else f"{event[:140]} ... {event[-140:]}"
    return f"event {at} of {len(outcome.events)}: {event}; {outcome.failure or 'no error'}"


def _seeded(answer: Answer, seed: int, what: str) -> random.Random:
    """A generator of its own for each answer and check, the same in every run."""
    return random.Random(zlib.crc32(f"{answer.recording}/{answer.exchange}/{what}/{seed}".encode()))


def _single_bytes(body: bytes) -> Iterator[bytes]:
    return (body[i : i + 1] for i in range(len(body)))


# Checks


def check(answer: Answer, *, seed: int = 0, cuts: int = 8, mutations: int = 12) -> None:
    """All checks on one answer. Raises `Violation`."""
    check_cuts(answer, seed=seed, rounds=cuts)
    check_line_ends(answer, seed=seed)
    check_truncation(answer, seed=seed)
    check_mutations(answer, seed=seed, rounds=mutations)


def check_cuts(answer: Answer, *, seed: int = 0, rounds: int = 8) -> Outcome:
    """Whole, as recorded, byte by byte and at random cuts: the same outcome, which is given."""
    body = answer.body
    expected = run(answer, [body], "whole")
    check_same(answer, run(answer, answer.pieces, "as recorded"), expected, "as recorded")
    check_same(answer, run(answer, _single_bytes(body), "byte by byte"), expected, "byte by byte")
    rng = _seeded(answer, seed, "cuts")
    for _ in range(rounds):
        pieces = cut_at_random(body, rng)
        how = _cut_text(pieces)
        check_same(answer, run(answer, pieces, how), expected, how)
    return expected


def _cut_text(pieces: Sequence[bytes]) -> str:
    edges = []
    at = 0
    for piece in pieces[:-1]:
        at += len(piece)
        edges.append(at)
    shown = ", ".join(map(str, edges[:12]))
    return f"cut at {shown}{', ...' if len(edges) > 12 else ''}" if edges else "in one piece"


_FIELD_LINE = re.compile(rb"^(?:\xef\xbb\xbf)?(?:data|event|id):", re.M)


def check_line_ends(answer: Answer, *, seed: int = 0) -> None:
    """A body made of lines means the same with CRLF or CR for LF. Other bodies are not looked at."""
    body = answer.body
    if b"\r" in body or not _FIELD_LINE.search(body):
        return
    expected = run(answer, [body], "whole")
    rng = _seeded(answer, seed, "line ends")
    for name, end in (("CRLF", b"\r\n"), ("CR", b"\r")):
        other = body.replace(b"\n", end)
        for pieces in ([other], list(_single_bytes(other)), cut_at_random(other, rng)):
            how = f"{name} for LF in {len(pieces)} pieces"
            check_same(answer, run(answer, pieces, how), expected, how)


def truncation_points(
    length: int, rng: random.Random, *, every: int = 8000, ends: int = 1000, sample: int = 400
) -> list[int]:
    """Where to cut off a body: at every length up to `every`.

    A longer body is cut off at every length of its first and last `ends` bytes and at a random
    `sample` between, because all lengths would take quadratic time.
    """
    if length <= every:
        return list(range(length))
    middle = rng.sample(range(ends, length - ends), min(sample, length - 2 * ends))
    return [*range(ends), *sorted(middle), *range(length - ends, length)]


def check_truncation(answer: Answer, *, seed: int = 0, every: int = 8000, ends: int = 1000, sample: int = 400) -> None:
    """Cut off at each of the `truncation_points`: an error, or the outcome of the whole; never another success.

    The outcome of the whole is right for a part only if that holds what ends the answer; the count of tokens
    may come behind it. So a part that has the same outcome is followed by parts that all have it.
    """
    body = answer.body
    expected = run(answer, [body], "whole")
    since: int | None = None
    points = truncation_points(len(body), _seeded(answer, seed, "truncation"), every=every, ends=ends, sample=sample)
    for end in points:
        how = f"cut off after {end} of {len(body)} bytes"
        outcome = run(answer, [body[:end]], how)
        if outcome.failure is None:
            if outcome not in (expected, _uncounted(expected)):
                raise Violation(f"{answer.where}, {how}: taken for a whole answer: {_shorten(outcome, 0)}")
            since = end if since is None else since
        elif since is not None:
            raise Violation(f"{answer.where}, {how}: an error, though {since} bytes were taken for a whole answer")


def _uncounted(outcome: Outcome) -> Outcome:
    """The outcome without the tokens that the service counted."""
    return Outcome(tuple(event for event in outcome.events if not isinstance(event, Usage)), outcome.failure)


_STRUCTURE = (b"\n\n", b"\r\n", b"data:", b"data: [DONE]\n\n", b"event: done\n", b'"', b"\\", b"{", b"}", b"null", b",")
_ODD = (b"\x00", b"\xff", b"\xf0\x9f", b"\xef\xbb\xbf", b"\\ud83d", b"\\ude80", b"1e999", b"-1", b"[[[[", b"<br />\n")


def mutate(body: bytes, rng: random.Random) -> bytes:
    """The body with one to eight damages: bits flipped, bytes and spans lost, doubled, inserted or exchanged."""
    data = bytearray(body)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        span = rng.choice((1, 1, 2, 7, 40))
        match rng.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + span]
            case 2:
                data[at:at] = rng.choice(_STRUCTURE)
            case 3:
                data[at:at] = rng.choice(_ODD)
            case 4:
                data[at:at] = data[at : at + span]
            case 5:
                other = rng.randrange(len(data) + 1)
                low, high = min(at, other), max(at, other)
                one, two = bytes(data[low : min(low + span, high)]), bytes(data[high : high + span])
                data[high : high + len(two)] = one
                data[low : low + len(one)] = two
            case _:
                data[at : at + span] = rng.randbytes(len(data[at : at + span]))
    return bytes(data)


def check_mutations(
    answer: Answer, *, seed: int = 0, rounds: int = 12, change: Callable[[bytes, random.Random], bytes] = mutate
) -> None:
    """Damaged bytes: events or a `ProviderError`, and the same wherever they were cut. `change` makes the damage."""
    rng = _seeded(answer, seed, "mutations")
    for number in range(rounds):
        body = change(answer.body, rng)
        how = f"mutation {number} of seed {seed}"
        expected = run(answer, [body], how)
        pieces = cut_at_random(body, rng)
        at = f"{how}, {_cut_text(pieces)}"
        check_same(answer, run(answer, pieces, at), expected, at)
        if len(body) <= 4096:
            at = f"{how}, byte by byte"
            check_same(answer, run(answer, _single_bytes(body), at), expected, at)
