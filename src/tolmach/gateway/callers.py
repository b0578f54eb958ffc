"""Who asks: callers known by their keys, and held to what these allow."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from tolmach.access.keys import Key, KeyRing, check
from tolmach.access.limits import Admission, Limiter
from tolmach.access.rules import KeyRule
from tolmach.errors import AuthError
from tolmach.ledger.prices import Prices
from tolmach.routing.journal import Journal
from tolmach.routing.targets import Plan
from tolmach.state import MemoryState

__all__ = ["Callers", "Peek"]

_RESERVED = 1024
"""Tokens that are held for an answer whose length nobody has limited; less where the limit of the key is low."""

_PART_OF_LIMIT = 8
_BYTES_PER_TOKEN = 3
"""Of a body: fewer than a token has, so that what is reserved is rather too much."""

_ENCODED = re.compile(rb"[A-Za-z0-9+/=_-]{4096,}")
"""A picture or another file in a body, by its BASE64."""
_ENCODED_TOKENS = 1000
_ENCODED_BYTES_PER_TOKEN = 100
"""A picture has some hundreds or thousands of tokens, and no text of a megabyte."""

_MOST_ANSWERS = 128


class Peek(Struct):
    """As much of a body as decides where it goes, and what it may cost."""

    model: str
    stream: bool | None = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None


class Callers:
    """The keys in force and their limits.

    While there is no key at all whoever reaches the gateway may ask, unless the `rule` says otherwise: where others
    than this machine reach it, or once there was `ever` a key, the last one that is taken away lets in nobody.
    """

    def __init__(
        self,
        keys: KeyRing | None = None,
        limiter: Limiter | None = None,
        prices: Prices | None = None,
        *,
        rule: KeyRule | None = None,
        ever: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.keys = keys if keys is not None else KeyRing()
        self.limiter = limiter or Limiter(MemoryState())
        self.prices = prices or Prices()
        self.rule = rule or KeyRule()
        """May be replaced at any time."""
        self.ever = ever or len(self.keys) > 0
        self.lost = False
        """Whether the keys in force are not in the ledger any more, although nobody has removed them."""
        self._now = now

    @property
    def need_keys(self) -> bool:
        """Whether a caller without a key is refused."""
        return len(self.keys) > 0 or self.rule.requires(ever=self.ever)

    @property
    def problem(self) -> str:
        """What is wrong with the keys; empty when nothing is."""
        if self.lost:
            return "the ledger has lost the keys for callers: those known hold on until the gateway is started again"
        if len(self.keys) or not self.need_keys:
            return ""
        gone = (
            "there were keys for callers, and there is none any more" if self.ever else "there are no keys for callers"
        )
        return f"{gone}: nobody may ask until one is made with `tolmach keys add NAME`"

    def who(self, headers: Mapping[str, str]) -> Key | None:
        """The caller's key, from `Authorization: Bearer` or `x-api-key`; None where no keys are in force.

        Raises `AuthError`.
        """
        if not self.need_keys:
            return None
        scheme, _, plain = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not plain.strip():
            plain = headers.get("x-api-key", "")
        if not plain.strip():
            raise AuthError(
                "a key is needed: send it as Authorization: Bearer KEY, or as x-api-key",
                status=401,
                code="missing_api_key",
            )
        return self.keys.find(plain.strip(), self._now())

    def revoked(self, key: Key) -> AuthError | None:
        """Why a key that was let in is not let in any more: it was removed, switched off, or has expired."""
        try:
            check(self.keys.current(key), self._now())
        except AuthError as error:
            return error
        return None

    async def admit(self, key: Key, peek: Peek, plan: Plan, body: bytes, *, answered: bool = True) -> Admission:
        """Let a question in; `answered` says whether its answer has tokens: vectors have none.

        Raises `AuthError`, `ModelNotFound` and `RateLimited` (`LimitReached`).
        """
        tokens = _question_tokens(body)
        answer = _answer_tokens(peek, key) if answered else 0
        cost = None
        if key.budget_day is not None or key.budget_month is not None:
            cost = self.prices.cost(plan.first.name, tokens, answer)
        return await self.limiter.admit(key, peek.model, tokens + answer, cost or 0)

    def spent(self, journal: Journal) -> tuple[int, int]:
        """What the attempts at a question took that are settled: tokens, and millionths of a US dollar where known."""
        tokens = cost = 0
        for attempt in journal.attempts:
            if (usage := attempt.usage) is not None:
                tokens += usage.prompt_tokens + usage.completion_tokens
                name, cached = attempt.target.name, usage.cached_tokens
                cost += self.prices.cost(name, usage.prompt_tokens, usage.completion_tokens, cached) or 0
        return tokens, cost


def _question_tokens(body: bytes) -> int:
    """About how many tokens a body has, rather too many."""
    files = [len(file) for file in _ENCODED.findall(body)]
    text = (len(body) - sum(files)) // _BYTES_PER_TOKEN + 1
    return text + sum(_ENCODED_TOKENS + size // _ENCODED_BYTES_PER_TOKEN for size in files)


def _answer_tokens(peek: Peek, key: Key) -> int:
    """How many tokens the answers may have, as their caller says, or by what is usual."""
    limit = key.tokens_per_minute
    usual = _RESERVED if limit is None else min(_RESERVED, limit // _PART_OF_LIMIT)
    said = (peek.max_completion_tokens, peek.max_tokens, peek.max_output_tokens)
    each = next((value for value in said if isinstance(value, int) and value > 0), usual)
    return each * (peek.n if isinstance(peek.n, int) and 0 < peek.n <= _MOST_ANSWERS else 1)
