"""A recipe played over its own recording: whether it reads the recorded answer and makes the recorded request.

Pure: the session's clock and randomness are counters. Values that are made anew for each question differ between two
plays, so they are told from those that stay, and these have to be the recorded ones.
"""

import re
from collections.abc import Generator, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tolmach.chat import ChatRequest, Conversation, Delta, Done, Event, Message
from tolmach.errors import TolmachError
from tolmach.protocols.base import SessionState, Site
from tolmach.protocols.recipe.protocol import Recipe
from tolmach.recipes.draft import Draft
from tolmach.recipes.traffic import Exchange, Path, leaves, pointer, written
from tolmach.wire import Call, Request, Response

__all__ = ["answers_anew", "makes_the_request", "reads_the_answer"]

_STATUS = re.compile(
    r"ok|success(ful)?|done|finished|complet(e|ed)|true|null|pending|processing|started|\[?done\]?", re.I
)

_OTHER_QUESTION = "Quite another thing to ask, 7301"


def reads_the_answer(options: dict[str, Any], exchange: Exchange, text: str) -> str:
    """Why a recipe with these tables does not read `text` out of the recorded response; empty when it does."""
    try:
        events = _events(_recipe(options), exchange)
    except (TolmachError, msgspec.ValidationError) as error:
        return f"its own recording cannot be read by it: {error}"
    said = "".join(event.text for event in events if isinstance(event, Delta))
    if not events or not isinstance(events[-1], Done):
        return "the recorded answer does not end by it"
    if said.strip() != text.strip():
        return f"of the recorded answer it reads {_short(said)}"
    return ""


def makes_the_request(
    options: dict[str, Any], url: str, exchanges: Sequence[Exchange], index: int, question: str, history: Sequence[Path]
) -> str:
    """Why a recipe with these tables does not ask as the exchange at `index` did; empty when it does.

    What stands below a place of `history` is the caller's own conversation, which is not compared.
    """
    try:
        recipe = _recipe(options)
        before = exchanges[:index]
        first, second = (_played(recipe, url, before, question, seed) for seed in (1, 2))
        other = _played(recipe, url, before, _OTHER_QUESTION, 1)
    except (TolmachError, msgspec.ValidationError, _NotRecorded) as error:
        return f"its steps cannot be played over the recording: {error}"
    for path, leaf in _said(other):
        if isinstance(leaf, str) and question.strip() in leaf:
            return f"at {pointer(path)} it sends the recorded question, whatever is asked"
    recorded = dict(_said(exchanges[index].request))
    made, again = dict(_said(first)), dict(_said(second))
    if urlsplit(first.url).path != urlsplit(exchanges[index].request.url).path and first.url == second.url:
        return f"it asks {urlsplit(first.url).path}"
    for path, leaf in recorded.items():
        if any(path[: len(place)] == place for place in history):
            continue
        if path not in made:
            return f"it leaves out {pointer(path)}"
        if made[path] == again[path] and str(made[path]).strip() != str(leaf).strip():
            return f"at {pointer(path)} it sends {_short(str(made[path]))}"
    return ""


def answers_anew(said: str, question: str, draft: Draft) -> str:
    """Why what a recipe answered to a new question is no answer to it; empty when it may be one."""
    text = said.strip()
    if not text:
        return "the answer is empty"
    if text == question.strip():
        return "the answer repeats the question"
    if question.strip() != draft.question.strip() and text == draft.answer.strip():
        return "the answer to another question is the recorded one, word for word"
    if _STATUS.fullmatch(text):
        return f"the answer is a word for a state: {text}"
    return ""


class _NotRecorded(Exception):
    """A step asks for what the recording does not have."""


def _recipe(options: dict[str, Any]) -> Recipe:
    return msgspec.convert(options, Recipe)


def _events(recipe: Recipe, exchange: Exchange) -> list[Event]:
    read = recipe.reader(exchange.request)
    if read is None or exchange.head is None:
        return []
    decoder = read(exchange.head)
    return [*decoder.feed(exchange.body), *decoder.close()]


def _said(request: Request) -> list[tuple[Path, Any]]:
    """What stands in the query and the body."""
    asked = written(request)
    return [*leaves({"query": asked.query, "body": asked.body})]


def _played(recipe: Recipe, url: str, exchanges: Sequence[Exchange], question: str, seed: int) -> Request:
    """The request of a first question, with the recorded responses for its steps."""
    counter = iter(range(seed * 1_000_003, 1 << 60))

    def random_hex(digits: int) -> str:
        return f"{next(counter) * 0x9E3779B97F4A7C15 & (1 << 4 * digits) - 1:0{digits}x}"

    state = SessionState(now=lambda: 1_700_000_000.0 + seed * 86_400, random_hex=random_hex)
    site = Site(name="recording", url=url, protocol=recipe)
    if not recipe.ready(site, state):
        _run(recipe.prepare(site, state), exchanges)
    turn = ChatRequest(messages=(Message("user", question),), stream=True, conversation=Conversation({}))
    call = _run(recipe.open(site, turn, state), exchanges)
    assert isinstance(call, Call)  # what `open` of a recipe returns
    return call.request


def _run(steps: Generator[Any, Any, Any], exchanges: Sequence[Exchange]) -> Any:
    answer: Response | None = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as done:
            return done.value
        answer = _recorded(step, exchanges)


def _recorded(step: Request, exchanges: Sequence[Exchange]) -> Response:
    """The recorded response to a step; of several to one address the last."""
    for exchange in reversed(exchanges):
        asked = exchange.request
        alike = (asked.method, urlsplit(asked.url)[1:3]) == (step.method, urlsplit(step.url)[1:3])
        if alike and exchange.head is not None:
            return Response(exchange.head, exchange.body)
    raise _NotRecorded(f"{step.method} {urlsplit(step.url).path} has no recorded response")


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:79]}…")
