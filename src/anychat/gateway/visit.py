"""One request under way: the caller's side of it, and what is told and counted at its end."""

import re
import secrets
import time
from collections.abc import Iterable

from anychat.chat import Event, Notice
from anychat.errors import AnychatError
from anychat.gateway.http import Headers, Incoming, Reply, Writer
from anychat.gateway.shown import shown
from anychat.gateway.targets import Target

__all__ = ["JSON", "Visit"]

JSON = ("content-type", "application/json")
_EVENT_STREAM = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
_DEGRADED = frozenset({"dropped", "emulated", "tool_calls"})
"""The notices that say how the answer is less than what was asked for."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NOT_VISIBLE = re.compile(r"[^\x20-\x7e]")


class Visit:
    """A request and its reply. `user` says whose stored answers and conversations it may go on from."""

    __slots__ = (
        "_asked_of",
        "first",
        "headers",
        "id",
        "incoming",
        "reply",
        "started",
        "status",
        "surface",
        "target",
        "user",
    )

    def __init__(self, incoming: Incoming, reply: Reply) -> None:
        self.incoming = incoming
        self.reply = reply
        given = incoming.headers.get("x-request-id")
        self.id = given if given is not None and _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        self.started = time.perf_counter()
        self.headers: Headers = [("x-request-id", self.id)]
        self.surface = "none"
        self.target = ""
        self._asked_of: Target | None = None
        self.user = ""
        self.status = 0
        self.first: float | None = None

    def began(self, target: Target) -> None:
        self.target = target.name
        self._asked_of = target
        self.headers.append(("x-anychat-target", target.header))

    def shown(self, error: AnychatError) -> AnychatError:
        """The error as the caller may see it."""
        return error if self._asked_of is None else shown(error, self._asked_of)

    def timed(self) -> None:
        """The first event of the answer is there."""
        if self.first is None:
            self.first = time.perf_counter() - self.started
            self.headers.append(("server-timing", f"target;dur={self.first * 1000:.1f}"))

    def degraded(self, dropped: Iterable[str], events: Iterable[Event]) -> None:
        """Tell in a header what of the question did not reach the target."""
        said = [f"{name} was left out" for name in dropped]
        said += [event.text for event in events if type(event) is Notice and event.kind in _DEGRADED]
        if said:
            self.headers.append(("x-anychat-degraded", _NOT_VISIBLE.sub("?", "; ".join(said))[:1024]))

    async def send(self, status: int, body: bytes, headers: Headers | None = None) -> None:
        self.status = status
        await self.reply.whole(status, [JSON, *self.headers, *(headers or ())], body)

    async def stream(self) -> Writer:
        self.status = 200
        return await self.reply.stream(200, [*_EVENT_STREAM, *self.headers])
