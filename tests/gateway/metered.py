"""A service that keeps an account of all that it is asked and gives, and callers who ask for it in every way.

What the account says and what a ledger says must be the same, for each question: for the test of it in the suite, and
for `make bench ARGS=money` with a large number.

The model's name says what the service does: `plain` answers and tells its tokens, `cached` had half of the question in
its cache, `quiet` tells nothing, `wrong` tells what cannot be, `bad` refuses (500), `cut` breaks off after two pieces,
`held` waits after two pieces until its caller goes, `silent` says nothing, `long` gives as many tokens as it may.
Tokens that it does not tell it counts as the gateway estimates them, so that the two can be compared to the last one.
"""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from msgspec import Struct

from tests.gateway.program import Stream, raw
from tests.gateway.upstream import PIECES, Upstream, completion, write_chunk, write_whole
from tolmach.gateway.answers.estimate import estimate_prompt, estimate_tokens
from tolmach.gateway.surfaces.openai import OpenAISurface
from tolmach.ledger import Database
from tolmach.ledger.prices import Rate

__all__ = [
    "KINDS",
    "LIMIT",
    "RATE",
    "Bill",
    "Kind",
    "Metered",
    "ask_all",
    "booked",
    "differing",
    "metered_config",
    "spend",
    "summed",
]

RATE = Rate(3.0, 15.0, 0.3)
LIMIT = 500
"""The limit of answers to keys with a budget, in the configuration."""

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_TOLD = 20
"""Tokens of an answer as it is told."""
_UNLIMITED = 2000
"""Tokens of a long answer without a limit."""
_WRONG: tuple[Any, ...] = (
    {"prompt_tokens": -1_000_000, "completion_tokens": -1_000_000, "total_tokens": -2_000_000},
    {"prompt_tokens": 2**63, "completion_tokens": 2**63, "total_tokens": 1},
    {"prompt_tokens": 5.5, "completion_tokens": None, "total_tokens": None},
    {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
)


class Bill(Struct, frozen=True, order=True):
    """One asking that costs something."""

    target: str
    prompt: int
    completion: int
    cached: int = 0

    @property
    def cost(self) -> int:
        return RATE.cost(self.prompt, self.completion, self.cached) or 0


class _Answer:
    """One answer under way: what of it has gone out, and what it comes to."""

    def __init__(self, body: dict[str, Any], number: int) -> None:
        self.body = body
        self.model = str(body["model"])
        self.answers = body.get("n") or 1
        self.streamed = body.get("stream") is True
        self.sent = ""
        self.told = False
        turn = OpenAISurface().parse(json.dumps(body).encode()).turn
        self.id = turn.messages[-1].text.split()[0]
        self._estimate = estimate_prompt(turn)
        self._number = number

    def usage(self) -> dict[str, Any] | None:
        """What it tells at its end."""
        if self.model == "quiet":
            return None
        if self.model == "wrong":
            wrong: dict[str, Any] = _WRONG[self._number % len(_WRONG)]
            return wrong
        self.told = True
        bill = self.bill()
        told = {"prompt_tokens": bill.prompt, "completion_tokens": bill.completion}
        return told | {"prompt_tokens_details": {"cached_tokens": bill.cached}} if bill.cached else told

    def bill(self) -> Bill:
        target = f"up/{self.model}"
        if not self.told:
            return Bill(target, self._estimate, estimate_tokens(self.sent))
        prompt = self._estimate + self._number % 7
        each = int(self.body.get("max_tokens") or _UNLIMITED) if self.model == "long" else _TOLD
        return Bill(target, prompt, each * self.answers, prompt // 2 if self.model == "cached" else 0)


class Metered(Upstream):
    """`async with Metered() as upstream`; `bills` has the account, by the first word of each question."""

    def __init__(self) -> None:
        super().__init__()
        self.bills: dict[str, list[Bill]] = defaultdict(list)
        self._arrived: dict[tuple[str, str], asyncio.Event] = defaultdict(asyncio.Event)
        self._number = 0

    async def arrived(self, id: str, model: str) -> None:
        """Wait until the model was asked this question."""
        async with asyncio.timeout(60):
            await self._arrived[id, model].wait()

    async def answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        self._number += 1
        answer = _Answer(body, self._number)
        self._arrived[answer.id, answer.model].set()
        if answer.model == "bad":
            write_whole(writer, 500, "application/json", b'{"error":{"message":"it is broken","type":"server_error"}}')
            return True
        try:
            return await self._given(answer, writer)
        finally:
            self.bills[answer.id].append(answer.bill())

    async def _given(self, answer: _Answer, writer: asyncio.StreamWriter) -> bool:
        if answer.model == "silent":
            await asyncio.get_running_loop().create_future()
        if answer.streamed:
            return await self._streamed(answer, writer)
        text = "".join(PIECES)
        choices = [
            {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for index in range(answer.answers)
        ]
        answer.sent = text * answer.answers
        write_whole(writer, 200, "application/json", completion("chat.completion", choices, "m", answer.usage()))
        await writer.drain()
        return True

    async def _streamed(self, answer: _Answer, writer: asyncio.StreamWriter) -> bool:
        writer.write(_HEAD)
        for number, piece in enumerate(PIECES):
            for index in range(answer.answers):
                delta = {"index": index, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}
                _event(writer, [delta])
                answer.sent += piece
            await writer.drain()
            if number == 1 and answer.model == "held":
                await asyncio.get_running_loop().create_future()
            if number == 1 and answer.model == "cut":
                return False
        for index in range(answer.answers):
            _event(writer, [{"index": index, "delta": {}, "finish_reason": "stop"}])
        usage = answer.usage()
        if usage is not None:
            _event(writer, [], usage)
        write_chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def _event(writer: asyncio.StreamWriter, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> None:
    write_chunk(writer, b"data: " + completion("chat.completion.chunk", choices, "m", usage) + b"\n\n")


def metered_config(ledger: str, url: str, gateway: str = "") -> str:
    """A configuration with the service as `up`, whose bodies go through, and as `worded`, whose do not."""
    models = ["plain", "cached", "quiet", "wrong", "bad", "cut", "held", "silent", "long"]
    names = ", ".join(f'{name} = "{name}"' for name in models)
    return f"""
[gateway]
port = 0
{gateway}
[gateway.budgets]
answer_tokens = {LIMIT}
[ledger]
url = "{ledger}"
[prices."*"]
input = {RATE.input}
output = {RATE.output}
cached = {RATE.cached}
[providers.up]
protocol = "openai"
url = "{url}/v1"
default_model = "plain"
models = {{ {names}, usual = "plain", everyday = "plain" }}
[providers.worded]
protocol = "openai"
url = "{url}/v1"
models = {{ {names} }}
emulate = ["tools"]
[routes.retried]
targets = ["up/bad", "up/plain"]
[routes.patient]
targets = ["up/silent", "up/plain"]
first_token_timeout = 0.5
[routes.hedged]
targets = ["up/silent", "up/plain"]
hedge_after = 0.05
[routes.resumed]
targets = ["up/cut", "up/plain"]
recover = "resume"
[routes.restarted]
targets = ["up/cut", "up/plain"]
recover = "restart"
"""


# The callers

_SPELLINGS = ("up/plain", "up/usual", "plain", "everyday", "up", "up/default")
_PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "responses": "/v1/responses"}


class Kind(Struct, frozen=True):
    """A way of asking. `leaves` says when its caller goes: before the answer, in the middle of it, or not."""

    name: str
    models: tuple[str, ...]
    api: str = "openai"
    stream: bool = False
    leaves: str = ""
    n: int = 1
    fields: dict[str, Any] = {}


def _kinds() -> list[Kind]:
    both = (False, True)
    found = []
    for api in _PATHS:
        for stream in both:
            how = f"{api}, {'streamed' if stream else 'whole'}"
            found.append(Kind(f"plain, {how}", _SPELLINGS, api, stream))
            found += [Kind(f"{model}, {how}", (f"up/{model}",), api, stream) for model in ("cached", "quiet", "wrong")]
            found.append(Kind(f"given up before the answer, {how}", ("up/silent",), api, stream, "before"))
            found += [
                Kind(f"{route}, {how}", (route,), api, stream)
                for route in ("retried", "patient", "hedged", "restarted")
            ]
        found.append(Kind(f"cut, {api}", ("up/cut",), api, True))
        found.append(Kind(f"resumed, {api}", ("resumed",), api, True))
        found.append(Kind(f"given up in mid-answer, {api}", ("up/held",), api, True, "within"))
    for stream in both:
        for model in ("plain", "quiet"):
            found += [
                Kind(f"n = 3, {model}, passed on", (f"up/{model}",), stream=stream, n=3),
                Kind(f"n = 3, {model}, asked three times", (f"worded/{model}",), stream=stream, n=3),
            ]
    asked = {"stream_options": {"include_usage": True}}
    found.append(Kind("usage asked for", ("up/plain", "up/quiet"), stream=True, fields=asked))
    return found


KINDS = _kinds()


def _body(kind: Kind, id: str, model: str) -> bytes:
    text = f"{id} What is the answer to all of this, in four words?"
    limit = "max_output_tokens" if kind.api == "responses" else "max_tokens"
    fields: dict[str, Any] = {"model": model, "stream": kind.stream, limit: 50, **kind.fields}
    if kind.n > 1:
        fields["n"] = kind.n
    if kind.api == "responses":
        return json.dumps({**fields, "input": text}).encode()
    return json.dumps({**fields, "messages": [{"role": "user", "content": text}]}).encode()


async def ask_all(
    urls: Sequence[str],
    key: str,
    upstream: Metered,
    rounds: int,
    *,
    at_once: int = 32,
    kinds: Sequence[Kind] = KINDS,
    strict: bool = True,
) -> dict[str, Kind]:
    """Ask in every way, `rounds` times each, the gateways at `urls` in turn. Gives the ids of the questions.

    With `strict` an answer that is none is an error.
    """
    turns = enumerate((turn, kind) for turn in range(rounds) for kind in kinds)
    asking = [(f"q{number}", kind, kind.models[turn % len(kind.models)]) for number, (turn, kind) in turns]
    random.Random(7).shuffle(asking)
    places, slots = cycle(urls), asyncio.Semaphore(at_once)

    async def one(id: str, kind: Kind, model: str, url: str) -> None:
        async with slots:
            try:
                await _ask(url, key, upstream, id, kind, model)
            except (AssertionError, OSError, EOFError, TimeoutError):
                if strict:
                    raise

    await asyncio.gather(*[one(*each, next(places)) for each in asking])
    return {id: kind for id, kind, _ in asking}


async def _ask(url: str, key: str, upstream: Metered, id: str, kind: Kind, model: str) -> None:
    headers = f"authorization: Bearer {key}\r\nx-request-id: {id}\r\n"
    body, path = _body(kind, id, model), _PATHS[kind.api]
    if kind.leaves == "within":
        await _leave_within(await Stream.open(url, "POST", path, body, headers))
    elif kind.leaves:
        waiting = asyncio.ensure_future(raw(url, "POST", path, body, headers))
        await upstream.arrived(id, "silent")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    else:
        status, _, answer = await raw(url, "POST", path, body, headers)
        assert status == 200, (kind.name, status, answer)


async def _leave_within(stream: Stream) -> None:
    while b"two" not in stream.data:
        more = await stream.more()
        assert more, stream.data
    stream.close()


async def spend(url: str, key: str, id: str, number: int, *, chat_only: bool = False) -> int:
    """Ask for an answer that is as long as it may be, by one API or another; the status."""
    said: dict[str, Any] = {"model": "up/long", "stream": number % 2 == 0}
    text = f"{id} Go on and on."
    if number % 3 == 0 and not chat_only:
        path, body = _PATHS["responses"], {**said, "input": text}
    else:
        path, body = _PATHS["openai"], {**said, "messages": [{"role": "user", "content": text}]}
        if number % 4 == 1:
            body["n"] = 2
    headers = f"authorization: Bearer {key}\r\nx-request-id: {id}\r\n"
    status, _, _ = await raw(url, "POST", path, json.dumps(body).encode(), headers)
    return status


# The ledger


def booked(database: Database, key: str) -> dict[str, list[Bill]]:
    """What the ledger has of a key's questions: the attempts that took something, by the ids of the requests."""
    found: dict[str, list[Bill]] = defaultdict(list)
    rows = database.query(
        "SELECT r.request, a.target, a.prompt_tokens, a.completion_tokens, a.cached_tokens, a.cost "
        "FROM tolmach_requests r JOIN tolmach_attempts a ON a.uid = r.uid WHERE r.key = ?",
        (key,),
    )
    for id, target, prompt, completion_, cached, cost in rows:
        if prompt or completion_:
            bill = Bill(target.replace("worded/", "up/"), prompt, completion_, cached)
            assert cost == bill.cost
            found[id].append(bill)
    return found


def differing(billed: dict[str, list[Bill]], found: dict[str, list[Bill]]) -> dict[str, tuple[list[Bill], list[Bill]]]:
    """The questions of which the two say something else. Several askings of one attempt are one row of the ledger."""
    return {
        id: (billed.get(id, []), found.get(id, []))
        for id in billed.keys() | found.keys()
        if _together(billed.get(id, ())) != _together(found.get(id, ()))
    }


def _together(bills: Sequence[Bill]) -> list[Bill]:
    """The bills with those of one target as one."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for bill in bills:
        sums[bill.target] = [
            a + b for a, b in zip(sums[bill.target], (bill.prompt, bill.completion, bill.cached), strict=True)
        ]
    return sorted(Bill(target, *counts) for target, counts in sums.items())


def summed(bills: dict[str, list[Bill]]) -> int:
    """What all of it costs, in millionths of a US dollar."""
    return sum(bill.cost for each in bills.values() for bill in each)
