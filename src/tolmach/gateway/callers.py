"""Who asks: callers known by their keys, and held to what these allow."""

import time
from collections.abc import Callable, Mapping, Sequence

from tolmach.access.keys import Key, KeyRing, check
from tolmach.access.limits import Limiter
from tolmach.access.rules import KeyRule
from tolmach.errors import AuthError, Refused
from tolmach.gateway.reservations import Budgets, Peek, Reservation, Wanted, question_tokens
from tolmach.ledger.prices import Prices
from tolmach.routing.targets import Plan, Target
from tolmach.state import MemoryState

__all__ = ["Callers"]


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
        self.budgets = Budgets()
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

    async def admit(self, key: Key, peek: Peek, plan: Plan, body: bytes, asked: Wanted | None) -> Reservation:
        """Let a question in; `asked` is None where its answer has no tokens: vectors have none.

        Raises `AuthError`, `ModelNotFound`, `Refused` and `RateLimited` (`LimitReached`).
        """
        reservation = Reservation(key, question_tokens(body), asked, self.prices, self.budgets)
        targets = list({choice.target: plan.targets[choice.id] for choice in plan.choices}.values())
        if reservation.budget and self.budgets.priced_only:
            self._check_priced(targets, answered=asked is not None)
        # Who is asked first is known where they are asked in order.
        first = targets[:1] if plan.rules.strategy == "failover" else targets
        cost = max(map(reservation.cost_of, first))
        admission = await self.limiter.admit(key, peek.model, reservation.tokens, cost)
        reservation.hold(admission, cost)
        return reservation

    def _check_priced(self, targets: Sequence[Target], *, answered: bool) -> None:
        for target in targets:
            if self.prices.cost(target.name, 1, 1 if answered else 0) is None:
                raise Refused(
                    f"this key has a budget, and what {target.name} costs is not known here: give it a price, as "
                    f'[prices."{target.name}"] in the configuration, or ask with a key without a budget',
                    status=403,
                    code="unpriced_model",
                )
