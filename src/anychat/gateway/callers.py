"""Who asks: callers known by their keys, and held to what these allow."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct

from anychat.access.keys import Key, KeyRing
from anychat.access.limits import Admission, Limiter
from anychat.chat import Usage
from anychat.errors import AuthError
from anychat.ledger.prices import Prices
from anychat.routing.targets import Plan
from anychat.state import MemoryState

__all__ = ["Callers", "Peek"]

_RESERVED = 1024
"""Tokens that are held for an answer whose length nobody has limited; less where the limit of the key is low."""

_PART_OF_LIMIT = 8
_BYTES_PER_TOKEN = 3
"""Of a body: fewer than a token has, so that what is reserved is rather too much."""


class Peek(Struct):
    """As much of a body as decides where it goes, and what it may cost."""

    model: str
    stream: bool | None = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None


class Callers:
    """The keys in force and their limits.

    While there is no key at all whoever reaches the gateway may ask, unless one is `required`: where others
    than this machine reach it, the last key that is taken away lets in nobody.
    """

    def __init__(
        self,
        keys: KeyRing | None = None,
        limiter: Limiter | None = None,
        prices: Prices | None = None,
        *,
        required: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.keys = keys if keys is not None else KeyRing()
        self.limiter = limiter or Limiter(MemoryState())
        self.prices = prices or Prices()
        self._required = required
        self._now = now

    def who(self, headers: Mapping[str, str]) -> Key | None:
        """The caller's key, from `Authorization: Bearer` or `x-api-key`; None where no keys are in force.

        Raises `AuthError`.
        """
        if not len(self.keys) and not self._required:
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

    async def admit(self, key: Key, peek: Peek, plan: Plan, size: int) -> Admission:
        """Let a question in whose body has `size` bytes. Raises `Refused` and `RateLimited` (`LimitReached`)."""
        if not key.limited:
            return self.limiter.admit_free(key, peek.model)
        tokens = size // _BYTES_PER_TOKEN + 1
        answer = _answer_tokens(peek, key)
        cost = None
        if key.budget_day is not None or key.budget_month is not None:
            cost = self.prices.cost(plan.first.name, tokens, answer)
        return await self.limiter.admit(key, peek.model, tokens + answer, cost or 0)

    def cost(self, target: str, usage: Usage) -> int | None:
        """Millionths of a US dollar; None for unknown."""
        return self.prices.cost(target, usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)


def _answer_tokens(peek: Peek, key: Key) -> int:
    """How many tokens an answer may have, as its caller says, or by what is usual."""
    for value in (peek.max_completion_tokens, peek.max_tokens, peek.max_output_tokens):
        if isinstance(value, int) and value > 0:
            return value
    limit = key.tokens_per_minute
    return _RESERVED if limit is None else min(_RESERVED, limit // _PART_OF_LIMIT)
