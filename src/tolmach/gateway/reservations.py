"""What a question may take: reserved before it is asked, and again before it is asked of another; settled at its end.

A reservation is rather too much than too little, so that however many ask at once no more is let through than a limit
or a budget allows. An answer to a key with a budget has a limit, which is reserved whole: its caller's, else one that
is put into the question.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from tolmach.access.keys import Key
from tolmach.access.limits import Admission
from tolmach.errors import BadRequest
from tolmach.gateway.answers.estimate import ENCODED_FILE
from tolmach.gateway.answers.spent import settle
from tolmach.gateway.http import Headers
from tolmach.ledger.prices import Prices
from tolmach.routing.journal import Attempt, Journal
from tolmach.routing.targets import Target

__all__ = ["Budgets", "Peek", "Reservation", "Wanted", "question_tokens", "wanted"]

_USUAL = 1024
"""Tokens that are held for an answer whose length nobody limits; less where the limit of the key is low."""
_PART_OF_LIMIT = 8

_BYTES_PER_TOKEN = 3
"""Of a body: fewer than a token has, so that what is reserved is rather too much."""
_FILE_TOKENS = 1000
_FILE_BYTES_PER_TOKEN = 100
"""A picture has some hundreds or thousands of tokens, and no text of a megabyte."""
_LINKED = re.compile(rb'"image_url"\s*:\s*["{]|"type"\s*:\s*"url"')
"""A picture in a body by its address."""

_MOST = 1_000_000_000
_MOST_ANSWERS = 1_000_000
_MOST_COST = 1 << 53
_DIGITS = re.compile(r"\s*[0-9]{1,20}(\.[0-9]{0,20})?([eE]\+?[0-9]{1,2})?\s*")


class Peek(Struct):
    """As much of a body as decides where it goes, and what it may cost."""

    model: str
    stream: bool | None = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n_predict: Any = None
    """llama.cpp's, which counts there before all others."""
    n: Any = None


class Budgets(Struct, frozen=True):
    """What the configuration says of keys with a budget."""

    answer_tokens: int = 4096
    """The limit of an answer, where neither its question nor its provider has one."""
    priced_only: bool = False
    """Whether they may only ask for models whose price is known."""


class Wanted(Struct, frozen=True):
    """What a question says of its answers: how many, and the largest of the limits for one; None for none."""

    answers: int = 1
    limit: int | None = None


def wanted(peek: Peek) -> Wanted:
    """Raises `BadRequest` for a number that is none. Fractions and digits in a text count: some services take them."""
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
    said = [_whole(name, value) for name in names if (value := getattr(peek, name)) is not None]
    # Less than 0 is no limit: llama.cpp then goes on for ever.
    limits = [min(number, _MOST) for number in said if number >= 0]
    answers = 1 if peek.n is None else min(max(_whole("n", peek.n), 1), _MOST_ANSWERS)
    return Wanted(answers, max(limits, default=None))


def _whole(name: str, value: Any) -> int:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = float(value)
    if type(value) is float and math.isfinite(value):
        return math.ceil(value)
    if type(value) is int:
        return value
    raise BadRequest(f"{name}: a whole number is needed", param=name, status=400)


def question_tokens(body: bytes) -> int:
    """About how many tokens a body has, rather too many."""
    files = [len(file) for file in ENCODED_FILE.findall(body)]
    text = (len(body) - sum(files)) // _BYTES_PER_TOKEN + 1
    linked = _FILE_TOKENS * len(_LINKED.findall(body)) if b"url" in body else 0
    return text + linked + sum(_FILE_TOKENS + size // _FILE_BYTES_PER_TOKEN for size in files)


class Reservation:
    """What is reserved for one question, in tokens and in millionths of a US dollar."""

    def __init__(self, key: Key, question: int, asked: Wanted | None, prices: Prices, budgets: Budgets) -> None:
        """`asked` is None where an answer has no tokens: vectors have none."""
        self.budget = key.budget_day is not None or key.budget_month is not None
        self._question = question
        self._asked = asked
        self._prices = prices
        self._budgets = budgets
        limit = key.tokens_per_minute
        usual = _USUAL if limit is None else min(_USUAL, limit // _PART_OF_LIMIT)
        self.tokens = question + self._answers(usual)
        self.cost = 0
        self._each = self.tokens
        self._admission: Admission | None = None

    def cost_of(self, target: Target) -> int:
        """What one asking of the target may cost; 0 where its price is unknown, or nobody counts it."""
        if not self.budget:
            return 0
        answers = self._answers(self._limit(target))
        return min(self._prices.cost(target.name, self._question, answers) or 0, _MOST_COST)

    def limit_for(self, target: Target) -> int | None:
        """The limit that is put into the question for this target; None where it stays as its caller wrote it."""
        if not self.budget or self._asked is None or self._asked.limit is not None:
            return None
        return self._limit(target)

    def _answers(self, otherwise: int) -> int:
        """The tokens of all answers, with the limit of their caller for each."""
        if self._asked is None:
            return 0
        return (otherwise if self._asked.limit is None else self._asked.limit) * self._asked.answers

    def _limit(self, target: Target) -> int:
        return target.provider.answer_tokens or self._budgets.answer_tokens

    def grow(self, tokens: int) -> None:
        """The question turns out to have so many tokens: it goes on from answers that are kept here."""
        more = max(tokens - self._question, 0)
        self._question += more
        self._each += more

    def headers(self) -> Headers:
        """How the limits of the key stand."""
        assert self._admission is not None
        return self._admission.headers()

    def hold(self, admission: Admission, cost: int) -> None:
        """It was let in, with so much reserved for its first asking."""
        self._admission = admission
        self.cost = cost

    async def permit(self, journal: Journal, target: Target) -> None:
        """Reserve what is missing for one more asking, beside those that run and what the others took.

        Raises `LimitReached`.
        """
        assert self._admission is not None
        tokens, cost = self._spent([attempt for attempt in journal.attempts if attempt.outcome])
        for running in (*(one.target for one in journal.attempts if not one.outcome), target):
            tokens += self._each
            cost += self.cost_of(running)
        more_tokens, more_cost = max(tokens - self.tokens, 0), max(cost - self.cost, 0)
        if more_tokens or more_cost:
            await self._admission.more(more_tokens, more_cost)
            self.tokens += more_tokens
            self.cost += more_cost

    def _spent(self, ended: Sequence[Attempt]) -> tuple[int, int]:
        """What these attempts took: tokens, and millionths of a US dollar where the price is known."""
        tokens = cost = 0
        for attempt in ended:
            if (usage := settle(attempt)) is not None:
                tokens += usage.prompt_tokens + usage.completion_tokens
                name, cached = attempt.target.name, usage.cached_tokens
                cost += self._prices.cost(name, usage.prompt_tokens, usage.completion_tokens, cached) or 0
        return tokens, cost

    def settle(self, journal: Journal) -> None:
        """The question is over: what it took counts, and nothing else."""
        if self._admission is not None:
            self._admission.settle(*self._spent(journal.attempts))
