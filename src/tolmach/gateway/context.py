"""One request under way: the caller's side of it, and what is told and counted at its end."""

import asyncio
import re
import secrets
import time
from collections.abc import Iterable
from itertools import count
from typing import Any, Protocol

from tolmach.access.keys import Key
from tolmach.chat import Event, Notice, Usage
from tolmach.errors import AuthError, TolmachError
from tolmach.gateway.http import Headers, Incoming, Reply, Writer
from tolmach.gateway.public_errors import public_error
from tolmach.gateway.telemetry.logs import AccessLine
from tolmach.gateway.telemetry.transcript import Transcript
from tolmach.routing.journal import Attempt, Journal
from tolmach.routing.targets import Plan, Target

__all__ = ["JSON", "Held", "RequestContext"]

JSON = ("content-type", "application/json")
_EVENT_STREAM = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
_DEGRADED = frozenset({"dropped", "emulated", "tool_calls"})
"""The notices that say how the answer is less than what was asked for."""
# Ids are for finding a request in the log; nothing is kept secret by them.
_PROCESS = secrets.token_hex(10)
_numbers = count(1)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_NOT_VISIBLE = re.compile(r"[^\x20-\x7e]")


class Held(Protocol):
    """What is reserved for a question by the limits of its caller's key."""

    def limit_for(self, target: Target) -> int | None:
        """The limit that is put into the question for this target; None where it stays as its caller wrote it."""

    def grow(self, tokens: int) -> None:
        """The question turns out to have so many tokens."""

    def settle(self, journal: Journal) -> None:
        """The question is over: what its attempts took counts."""


class RequestContext:
    """A request and its reply. `user` says whose stored answers and conversations it may go on from.

    `error` is the kind of the error that it ended in, `usage` the tokens of question and answer where they are known,
    `target` the one that answered or was asked last, `model` the name that was asked for, `size` the bytes of the body.
    `revoked` is why its key is not good any more, once it is not.
    `task` is the one that answers it, `writer` that of a streamed answer, once it has begun. `complete` says that all
    of the answer is there and its end is on the way to the caller, who may close the connection then.
    """

    __slots__ = (
        "complete",
        "error",
        "gone",
        "headers",
        "id",
        "incoming",
        "journal",
        "key",
        "model",
        "plan",
        "reply",
        "reservation",
        "revoked",
        "size",
        "started",
        "status",
        "streamed",
        "surface",
        "target",
        "task",
        "usage",
        "user",
        "writer",
    )

    def __init__(self, incoming: Incoming, reply: Reply) -> None:
        self.incoming = incoming
        self.reply = reply
        self.revoked: AuthError | None = None
        given = incoming.headers.get("x-request-id")
        self.id = given if given is not None and _REQUEST_ID.fullmatch(given) else f"{_PROCESS}{next(_numbers):012x}"
        self.started = time.monotonic()
        self.headers: Headers = [("x-request-id", self.id)]
        self.surface = "none"
        self.model = ""
        self.size = 0
        self.target = ""
        self.plan: Plan | None = None
        self.journal = Journal(self.started)
        self.key: Key | None = None
        self.reservation: Held | None = None
        self.user = ""
        self.status = 0
        self.streamed = False
        self.error = ""
        self.gone = False
        self.complete = False
        self.task: asyncio.Task[Any] | None = None
        self.writer: Writer | None = None
        self.usage: Usage | None = None

    @property
    def first(self) -> float | None:
        """Seconds until the first token of the answer; None while there is none."""
        attempt = next((one for one in reversed(self.journal.attempts) if one.first is not None), None)
        return None if attempt is None else attempt.first

    def limit_for(self, target: Target) -> int | None:
        """The limit of an answer that is put into the question for this target; None for none but its caller's."""
        return None if self.reservation is None else self.reservation.limit_for(target)

    def public_error(self, error: TolmachError, target: Target | None) -> TolmachError:
        """The error as the caller may see it; `target` is the one that gave it."""
        return error if target is None else public_error(error, target)

    def answered_by(self, attempt: Attempt) -> None:
        """Tell in headers who answers, after how many attempts and how long."""
        target, attempts = attempt.target, self.journal.attempts
        self.target = target.name
        headers = self.headers
        headers.append(("x-tolmach-target", target.header))
        headers.append(("x-tolmach-attempts", str(len(attempts))))
        if attempt.first is not None:
            headers.append(("server-timing", f"target;dur={attempt.first * 1000:.1f}"))
        if self.incoming.headers.get("x-tolmach-debug"):
            headers.append(("x-tolmach-route", _NOT_VISIBLE.sub("?", "; ".join(self.journal.lines()))[:4096]))

    def degraded(self, dropped: Iterable[str], events: Iterable[Event]) -> None:
        """Tell in a header what of the question did not reach the target."""
        said = [f"{name} was left out" for name in dropped]
        said += [event.text for event in events if type(event) is Notice and event.kind in _DEGRADED]
        if said:
            self.headers.append(("x-tolmach-degraded", _NOT_VISIBLE.sub("?", "; ".join(said))[:1024]))

    def line(self) -> AccessLine:
        """What is logged of it at its end."""
        incoming, usage = self.incoming, self.usage
        line = AccessLine(
            request=self.id,
            method=incoming.method,
            path=incoming.path,
            surface=self.surface,
            target=self.target,
            status=self.status,
            gone=self.gone,
            error=self.error,
            first_ms=None if self.first is None else round(self.first * 1000, 1),
            total_ms=round((time.monotonic() - self.started) * 1000, 1),
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
        )
        if isinstance(incoming, Transcript):
            line.question, line.answer = incoming.question, incoming.answer
        return line

    async def send(self, status: int, body: bytes, headers: Headers | None = None) -> None:
        self.status = status
        await self.reply.whole(status, [JSON, *self.headers, *(headers or ())], body)

    async def stream(self) -> Writer:
        """The writer of a streamed answer, whose head is sent the first time."""
        if self.writer is None:
            self.status = 200
            self.streamed = True
            self.writer = await self.reply.stream(200, [*_EVENT_STREAM, *self.headers])
        return self.writer
