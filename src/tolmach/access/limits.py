"""What a key may use, held while it is used: requests and tokens a minute, streams, budgets.

Tokens and money are reserved before a question is asked, at what they are estimated to be, and settled
after it at what they were. Nothing that was admitted goes over a limit but by what an estimate was too low.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count

from msgspec import Struct

from tolmach.access.keys import Key, check, check_model
from tolmach.errors import RateLimited
from tolmach.state import MemoryState, Outcome, State, Want

__all__ = ["Admission", "LimitReached", "Limiter", "micro"]

MINUTE = 60.0
_DAY = 86_400
_LEASE_SECONDS = 60.0
"""How long a stream of a process that was killed is still counted."""
_RENEW_SECONDS = 20.0
_STREAM_WAIT = 1.0
_FOREVER = 1 << 62

Headers = list[tuple[str, str]]
Spent = Callable[[str, float], Awaitable[int]]
"""What a key has spent since a time: its id, unix seconds -> millionths of a US dollar."""


class LimitReached(RateLimited):
    """A limit of the caller's key is used up; `headers` tell how it stands."""

    hint = "Wait and ask again later, or use a key with a higher limit."

    def __init__(self, text: str, *, code: str, retry_after: float, headers: Headers) -> None:
        super().__init__(text, status=429, code=code, retry_after=retry_after)
        self.headers = headers


class _Period(Struct, frozen=True):
    """A budget's day or month, by UTC."""

    name: str
    begins: float
    ends: float
    """Unix seconds."""


class _Plan(Struct, frozen=True):
    """A key's limits as counters; those of budgets have the period's name still to come."""

    key: Key
    limited: bool
    kinds: tuple[str, ...]
    """Of its wants, in their order: requests, tokens, day, month, as far as there is a limit."""
    requests: Want | None
    tokens: Want | None
    streams: str
    day: str
    month: str


class Admission:
    """One question let in. It ends with `settle`, or with `release` when it was not answered; then it is over.

    Both return at once, may be called twice, and may be called where a task is being cancelled.
    """

    __slots__ = ("_further", "_holder", "_limiter", "_open", "_outcome", "_plan", "_wants", "key")

    def __init__(self, limiter: "Limiter", plan: _Plan, wants: Sequence[Want], outcome: Outcome, holder: str) -> None:
        self.key = plan.key
        self._limiter = limiter
        self._plan = plan
        self._wants = wants
        self._outcome = outcome
        self._holder = holder
        self._further: list[tuple[Sequence[Want], float]] = []
        self._open = True

    async def more(self, tokens: int, cost: int) -> None:
        """Reserve more for the same question. Raises `LimitReached`, and what was reserved before stays so."""
        wants, outcome = await self._limiter.take_more(self._plan, tokens, cost)
        if not wants:
            return
        if self._open:
            self._further.append((wants, outcome.at))
        else:  # it ended while this was asked
            self._limiter.state.settle(wants, [0] * len(wants), outcome.at)

    def settle(self, tokens: int, cost: int | None) -> None:
        """The answer's tokens, question and all, and what they cost in millionths of a US dollar, if that is known."""
        if not self._open:
            return
        self._end()
        amounts = [
            1 if kind == "requests" else max(tokens if kind == "tokens" else cost or 0, 0) for kind in self._plan.kinds
        ]
        self._limiter.state.settle(self._wants, amounts, self._outcome.at)
        for wants, at in self._further:
            self._limiter.state.settle(wants, [0] * len(wants), at)

    def release(self) -> None:
        """Give back the tokens and the money, and let the stream go; that it was a request stays counted."""
        self.settle(0, 0)

    def headers(self) -> Headers:
        """How the limits of requests and tokens stand."""
        return _headers(self._plan, self._wants, self._outcome)

    def _end(self) -> None:
        self._open = False
        if self._holder:
            self._limiter.close_drained(self._plan.streams, self._holder)


class Limiter:
    """Admits questions by the limits of keys. `now` gives unix seconds, `new_holder` a name for a stream."""

    def __init__(
        self,
        state: State,
        *,
        now: Callable[[], float] = time.time,
        new_holder: Callable[[], str] | None = None,
    ) -> None:
        self.state = state
        self._now = now
        # A random name for this process and a running number: no randomness, so no system call, for each stream.
        process, numbers = secrets.token_hex(8), count(1)
        self._new_holder = new_holder or (lambda: f"{process}-{next(numbers):x}")
        self._plans: dict[str, _Plan] = {}
        self._held: dict[tuple[str, str], None] = {}
        self._day = self._month = _Period("", 0.0, 0.0)

    async def admit(self, key: Key, model: str, tokens: int, cost: int = 0) -> Admission:
        """Let a question in, `tokens` and `cost` (millionths of a US dollar) being estimates for the whole answer.

        Raises `AuthError` for a key switched off or expired, `ModelNotFound` for a model that it may not ask for,
        and `LimitReached`.
        """
        if isinstance(self.state, MemoryState):
            return self.admit_now(key, model, tokens, cost)
        plan, now = self._checked(key, model)
        holder = ""
        if key.streams is not None:
            holder = self._new_holder()
            if not await self.state.lease(plan.streams, holder, key.streams, _LEASE_SECONDS):
                raise _no_stream(plan)
            self._held[plan.streams, holder] = None
        try:
            wants = self._wants(plan, now, tokens, cost)
            outcome = await self.state.take_if_below(wants) if wants else _NOTHING
            return self._admitted(plan, wants, outcome, holder)
        except BaseException:  # whatever it was, cancelled too: no stream comes of it
            if holder:
                self.close_drained(plan.streams, holder)
            raise

    def admit_now(self, key: Key, model: str, tokens: int, cost: int = 0) -> Admission:
        """As `admit`, without waiting, where the state is in this process."""
        state = self.state
        assert isinstance(state, MemoryState), "only a state in this process answers at once"
        plan, now = self._checked(key, model)
        if not plan.limited:
            return Admission(self, plan, (), _NOTHING, "")
        holder = ""
        if key.streams is not None:
            holder = self._new_holder()
            if not state.lease_now(plan.streams, holder, key.streams, _LEASE_SECONDS):
                raise _no_stream(plan)
            self._held[plan.streams, holder] = None
        wants = self._wants(plan, now, tokens, cost)
        outcome = state.take_if_below_now(wants)
        if outcome.refused >= 0 and holder:
            self.close_drained(plan.streams, holder)
        return self._admitted(plan, wants, outcome, holder)

    async def take_more(self, plan: _Plan, tokens: int, cost: int) -> tuple[Sequence[Want], Outcome]:
        """Take tokens and money for a question that is let in already. Raises `LimitReached`."""
        wants = self._wants(plan, self._now(), tokens, cost, request=False)
        state = self.state
        if isinstance(state, MemoryState):
            outcome = state.take_if_below_now(wants)
        else:
            outcome = await state.take_if_below(wants) if wants else _NOTHING
        if outcome.refused >= 0:
            raise _refusal(plan, wants, outcome)
        return wants, outcome

    def close_drained(self, streams: str, holder: str) -> None:
        """End a stream's lease."""
        self._held.pop((streams, holder), None)
        self.state.release(streams, holder)

    async def seed(self, keys: Iterable[Key], spent: Spent) -> None:
        """Begin budgets with what was spent before the state began, as the ledger knows it."""
        now = self._now()
        day, month = self._periods(now)
        for key in keys:
            plan = self._plan(key)
            for limit, name, period in ((key.budget_day, plan.day, day), (key.budget_month, plan.month, month)):
                if limit is not None and (amount := await spent(key.id, period.begins)):
                    await self.state.at_least(name + period.name, amount, period.ends - now)

    async def keep(self) -> None:
        """Renew the leases of the streams under way, until cancelled."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            await self.renew()

    async def renew(self) -> None:
        """Renew the leases of the streams under way, once."""
        for streams, holder in tuple(self._held):
            await self.state.lease(streams, holder, _FOREVER, _LEASE_SECONDS)
            if (streams, holder) not in self._held:
                # It ended meanwhile.
                self.state.release(streams, holder)

    def _checked(self, key: Key, model: str) -> tuple[_Plan, float]:
        now = self._now()
        check(key, now)
        check_model(key, model)
        return self._plan(key), now

    def _plan(self, key: Key) -> _Plan:
        plan = self._plans.get(key.id)
        if plan is None or plan.key is not key:
            plan = self._plans[key.id] = _plan_of(key)
        return plan

    def _wants(self, plan: _Plan, now: float, tokens: int, cost: int, request: bool = True) -> list[Want]:
        key = plan.key
        wants = []
        if request and plan.requests is not None:
            wants.append(plan.requests)
        if plan.tokens is not None:
            wants.append(Want(plan.tokens.key, max(tokens, 0), plan.tokens.limit, MINUTE))
        if key.budget_day is not None or key.budget_month is not None:
            day, month = self._periods(now)
            # At least the smallest amount: so a budget that is used up admits nothing, whatever it is said to cost.
            amount = max(cost, 1)
            if key.budget_day is not None:
                wants.append(Want(plan.day + day.name, amount, micro(key.budget_day), day.ends - now, True))
            if key.budget_month is not None:
                wants.append(Want(plan.month + month.name, amount, micro(key.budget_month), month.ends - now, True))
        return wants

    def _admitted(self, plan: _Plan, wants: Sequence[Want], outcome: Outcome, holder: str) -> Admission:
        if outcome.refused >= 0:
            raise _refusal(plan, wants, outcome)
        return Admission(self, plan, wants, outcome, holder)

    def _periods(self, now: float) -> tuple[_Period, _Period]:
        if not self._day.begins <= now < self._day.ends:
            self._day, self._month = _day_of(now), _month_of(now)
        return self._day, self._month


_NOTHING = Outcome((), 0.0)


def micro(dollars: float) -> int:
    """US dollars in millionths."""
    return round(dollars * 1_000_000)


def _plan_of(key: Key) -> _Plan:
    def window(name: str, amount: int, limit: int | None) -> Want | None:
        return None if limit is None else Want(f"limit:{key.id}:{name}", amount, limit, MINUTE)

    limits = {
        "requests": key.requests_per_minute,
        "tokens": key.tokens_per_minute,
        "day": key.budget_day,
        "month": key.budget_month,
    }
    return _Plan(
        key=key,
        limited=key.limited,
        kinds=tuple(kind for kind, limit in limits.items() if limit is not None),
        requests=window("requests", 1, key.requests_per_minute),
        tokens=window("tokens", 0, key.tokens_per_minute),
        streams=f"limit:{key.id}:streams",
        day=f"budget:{key.id}:day:",
        month=f"budget:{key.id}:month:",
    )


def _day_of(now: float) -> _Period:
    begins = now // _DAY * _DAY
    return _Period(f"{datetime.fromtimestamp(begins, UTC):%Y-%m-%d}", begins, begins + _DAY)


def _month_of(now: float) -> _Period:
    first = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + timedelta(days=32)).replace(day=1)
    return _Period(f"{first:%Y-%m}", first.timestamp(), following.timestamp())


def _no_stream(plan: _Plan) -> LimitReached:
    limit = plan.key.streams
    return LimitReached(
        f"this key has {limit} answers under way, as many as it may have at once",
        code="rate_limit_exceeded",
        retry_after=_STREAM_WAIT,
        headers=[],
    )


def _refusal(plan: _Plan, wants: Sequence[Want], outcome: Outcome) -> LimitReached:
    # Where more is taken for a request that is counted already, the kinds begin behind it.
    want, kind = wants[outcome.refused], plan.kinds[outcome.refused - len(wants)]
    headers = _headers(plan, wants, outcome)
    if want.fixed:
        budget = want.limit / 1_000_000
        text = f"this key's budget of ${budget:g} a {kind} is used up, or would be by this question"
        return LimitReached(text, code="insufficient_quota", retry_after=outcome.retry_after, headers=headers)
    text = f"this key's limit of {want.limit} {kind} a minute is reached: {outcome.used[outcome.refused]} are counted"
    if kind == "tokens":
        text += f", and this question may take {want.amount}"
        if want.amount > want.limit:
            text += ", which is more than the limit; ask for a shorter answer"
    return LimitReached(text, code="rate_limit_exceeded", retry_after=outcome.retry_after, headers=headers)


def _headers(plan: _Plan, wants: Sequence[Want], outcome: Outcome) -> Headers:
    headers: Headers = []
    for kind, want, used in zip(plan.kinds[len(plan.kinds) - len(wants) :], wants, outcome.used, strict=True):
        if want.fixed:
            continue
        headers += [
            (f"x-ratelimit-limit-{kind}", str(want.limit)),
            (f"x-ratelimit-remaining-{kind}", str(max(want.limit - used, 0))),
            # The window slides: what was counted last leaves it after its whole length.
            (f"x-ratelimit-reset-{kind}", f"{want.seconds:g}s" if used else "0s"),
        ]
    return headers
