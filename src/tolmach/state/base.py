"""What the processes of a gateway share: limits, budgets, leases, remembered values, and what one tells the others.

All of it stands behind `State`, in this process (`state.memory`) or at a server (`state.redis`).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

__all__ = ["BUCKETS", "Outcome", "State", "Subscriber", "Want"]

BUCKETS = 60
"""Into how many parts a sliding window is divided. One more is counted, since the oldest is left in part:
so no window of the full length ever holds more than the limit, and 60/61 of the limit can be used for good."""

Subscriber = Callable[[bytes], None]


class Want(Struct, frozen=True):
    """So much of a counter, if it stays within its limit.

    `seconds` is the length of a sliding window, or with `fixed` the time that is left until the counter
    begins anew. Whoever uses a key uses it always in the same of the two ways.
    """

    key: str
    amount: int
    limit: int
    seconds: float
    fixed: bool = False


class Outcome(Struct, frozen=True):
    """What became of wants that are taken all or none.

    `used` has for each counter what is counted in it now. `refused` is the place of the first want that
    was too much, or -1 when all were taken; then `retry_after` is after how many seconds it would fit, if
    nobody takes anything before. `at` is when it was, by the clock of the state.
    """

    used: tuple[int, ...]
    at: float
    refused: int = -1
    retry_after: float = 0.0


class State(Protocol):
    """Shared state. No call fails: what cannot be asked of others is decided by what is known here.

    Calls that are not `async` return at once; their effect comes in the order of the calls.
    """

    @property
    def healthy(self) -> bool:
        """Whether what the others know is known here."""

    @property
    def problem(self) -> str:
        """Why it is not, in words without secrets; empty when it is."""

    async def start(self) -> None:
        """Reach the others, as far as that can be done now."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, seconds: float) -> None:
        """Keep a value for so long."""

    async def take(self, key: str) -> bytes | None:
        """As `get`, and forget it: of two that take at once one gets it."""

    async def add(self, key: str, amount: int, seconds: float) -> int:
        """Add to a counter, which begins anew so long after it was first added to; what it holds then."""

    async def at_least(self, key: str, amount: int, seconds: float) -> int:
        """Raise such a counter to `amount`, if it holds less; what it holds then."""

    async def take_if_below(self, wants: Sequence[Want]) -> Outcome:
        """Take all wants, or, when one does not fit, none. Nothing comes between the look and the taking."""

    def settle(self, wants: Sequence[Want], amounts: Sequence[int], at: float) -> None:
        """What was taken for `wants` `at` a time (`Outcome.at`) becomes `amounts`: more, less or nothing.

        What is less is given back to that time, what is more counts from now.
        """

    async def lease(self, key: str, holder: str, limit: int, seconds: float) -> bool:
        """Whether `holder` is one of at most `limit` holders, for so long. A holder that asks again stays longer."""

    def release(self, key: str, holder: str) -> None: ...

    def publish(self, channel: str, value: bytes) -> None:
        """Tell all subscribers, those of this process too."""

    async def subscribe(self, channel: str, subscriber: Subscriber) -> None:
        """Call `subscriber` with each value that is published."""

    async def aclose(self) -> None: ...
