"""A session with the assistant of a page: discovery at the first question, and again when the site refuses it."""

import asyncio
import copy
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Set
from concurrent.futures import Future
from contextlib import aclosing
from typing import Any, cast

from msgspec import Struct, structs

from tolmach.chat import ChatRequest, Event, Notice, fold_system
from tolmach.discovery import Found
from tolmach.errors import ConsentNeeded, ContextTooLong, ProtocolDrift, StaleSession, TimedOut, TolmachError
from tolmach.pages.assistants import Finding, choose, find
from tolmach.pages.cache import KEPT_SECONDS, keep, kept
from tolmach.pages.site import PageAssistant
from tolmach.protocols import create
from tolmach.protocols.base import Site, same_origin
from tolmach.session import ChallengeHandler, Session
from tolmach.transport import Timeouts, Transport

__all__ = ["Assistant", "Opener", "PageSession", "check_consent"]

Opener = Callable[[Site, bool], Session]
"""Opens a session with the site that was found; the flag says whether it is at the page's own origin."""

_AGAIN_SECONDS = 60.0
"""How long a page is not looked at again after that has changed nothing."""


class Assistant(Struct, frozen=True):
    """The assistant of a page: what was found of it, the others there, and when (seconds since 1970)."""

    found: Found
    others: tuple[Found, ...] = ()
    at: float = 0.0


class _Known:
    """An assistant and the session with it."""

    def __init__(self, assistant: Assistant, session: Session, looked: float) -> None:
        self.assistant = assistant
        self.session = session
        self.looked = looked
        """When the page was looked at for it, on the monotonic clock; -inf where that was remembered."""
        self.answered = False

    @property
    def was_just_found(self) -> bool:
        """Whether the page would only say the same again."""
        return not self.answered and time.monotonic() - self.looked < _AGAIN_SECONDS


def check_consent(found: Found, *, accepted: bool) -> None:
    """Raises `ConsentNeeded` where the site's page asks for consent and nobody gave it."""
    if found.consent and not accepted:
        raise ConsentNeeded(f"the site asks its visitors for consent before they chat: {found.consent}")


class PageSession(Session):
    """One user's session with the assistant of a page; the finding is shared with others who ask the same page.

    A finding holds for a day. It is made again when the site refuses what was found: a part of the page is gone
    (`ProtocolDrift`, `AssistantGone`), or a fresh nonce is refused (`StaleSession`).
    """

    def __init__(
        self,
        site: Site,
        transport: Transport,
        *,
        opened: Opener,
        headers: Mapping[str, str],
        timeouts: Timeouts,
        on_challenge: ChallengeHandler | None = None,
    ) -> None:
        super().__init__(site, transport, timeouts=timeouts, on_challenge=on_challenge)
        self._page = cast(PageAssistant, site.protocol)
        self._opened = opened
        self._headers = headers
        self._guard = threading.Lock()
        self._search: Future[None] | None = None
        self._known: _Known | None = None
        self._in_vain = float("-inf")

    async def assistant(self, timeouts: Timeouts | None = None) -> Assistant:
        """Whom the next question goes to. Raises what stands before the assistants of the page, as `find`."""
        return (await self._ready(timeouts or self.timeouts)).assistant

    async def make_ready(self) -> None:
        """Find the assistant and shake hands with it."""
        await (await self._ready(self.timeouts)).session.make_ready()

    async def ask(
        self,
        turn: ChatRequest,
        *,
        strict: bool | Set[str] = True,
        timeouts: Timeouts | None = None,
        on_challenge: ChallengeHandler | None = None,
        forgive: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """As `Session.ask`, of the assistant that the page has.

        Raises besides: what stands before the assistant (`AssistantGone`, `AuthError`, `ChallengeRequired`),
        `ConsentNeeded`, `ContextTooLong` for a message over the site's limit (nothing is sent then), and
        `ConfigError` for a bot that the page does not have.
        """
        times = timeouts or self.timeouts
        until = None if times.total is None else time.monotonic() + times.total
        told: list[Notice] = []
        try:
            known: _Known | None = await self._ready(times)
            while known is not None:
                self._check(known.assistant.found, turn)
                asked = known.session.ask(
                    turn, strict=strict, timeouts=_left(times, until), on_challenge=on_challenge, forgive=forgive
                )
                started = False
                try:
                    async with aclosing(_untold(asked, told)) as events:
                        async for event in events:
                            started = started or not isinstance(event, Notice)
                            yield event
                    known.answered = True
                    return
                except (ProtocolDrift, StaleSession):
                    again = None if started else await self._again(known, _left(times, until))
                    if again is None:
                        raise
                    # The conversation is that of the assistant before; the messages tell it all.
                    known, turn = again, structs.replace(turn, conversation=None)
        except TolmachError as error:
            error.provider = error.provider or self.site.name
            raise

    def _check(self, found: Found, turn: ChatRequest) -> None:
        """Raises `ConsentNeeded`, and `ContextTooLong` for a message that the site would not take."""
        check_consent(found, accepted=self._page.accept_consent)
        turns = fold_system(turn.messages)
        if found.limit is None or not turns:
            return
        message = turns[-1].text.strip()
        if not found.limit.allows(message):
            length, unit = found.limit.length(message), found.limit.unit
            raise ContextTooLong(
                f"the message has {length} {unit}, and the site takes {found.limit.most} at most", code="message_limit"
            )

    # Finding

    async def _ready(self, times: Timeouts) -> _Known:
        known = self._known
        if known is not None and time.time() - known.assistant.at < KEPT_SECONDS:
            return known
        return await self._found(times, lambda: self._look(times, fresh=False))

    async def _again(self, refused: _Known, times: Timeouts) -> _Known | None:
        """Another assistant than the one that was refused; None when the page has no other to say."""
        if self._known is not refused and self._known is not None:
            return self._known  # another caller has looked meanwhile
        if refused.was_just_found or time.monotonic() - self._in_vain < _AGAIN_SECONDS:
            return None
        try:
            known = await self._found(times, lambda: self._look(times, fresh=True))
        except TolmachError:
            known = refused  # what the site said to the question says more than that the page cannot be read
        if known.assistant.found.row == refused.assistant.found.row:
            self._in_vain = time.monotonic()
            return None
        return known

    async def _found(self, times: Timeouts, look: Callable[[], Coroutine[Any, Any, None]]) -> _Known:
        """What is known after a search; of callers at the same time one searches for all."""
        while True:
            with self._guard:
                search, leading = self._search, self._search is None
                if search is None:
                    search = self._search = Future()
            if not leading:
                try:
                    async with asyncio.timeout(times.total):
                        await asyncio.shield(asyncio.wrap_future(search))
                except TolmachError as error:
                    raise copy.copy(error) from error
                except TimeoutError as error:
                    raise TimedOut("timed out while another caller looked at the page", phase="total") from error
                if self._known is not None:
                    return self._known
                continue
            try:
                await look()
            except TolmachError as error:
                self._end(search, error)
                raise
            except BaseException:
                # Cancelled, or a bug of ours: the next of the waiting callers looks for itself.
                self._end(search)
                raise
            self._end(search)
            if self._known is not None:
                return self._known

    def _end(self, search: "Future[None]", error: TolmachError | None = None) -> None:
        with self._guard:
            self._search = None
        if error is None:
            search.set_result(None)
        else:
            # A copy, since each caller's raise adds its own traceback.
            search.set_exception(copy.copy(error))

    async def _look(self, times: Timeouts, *, fresh: bool) -> None:
        """Take over what was found before, or with `fresh` and where nothing was, look at the page."""
        url, bot = self.site.url, self._page.bot
        finding = None if fresh else kept(url)
        if finding is not None and any(one.fits(bot) or not bot for one in finding.found):
            self._take(finding, float("-inf"))
            return
        finding = await find(url, self._transport, self._headers, times.total)
        keep(url, finding)
        self._take(finding, time.monotonic())

    def _take(self, finding: Finding, looked: float) -> None:
        """Go on with this finding; the session stays where the assistant is the same."""
        found = choose(finding.found, self._page.bot)
        others = tuple(one for one in finding.found if one is not found)
        assistant = Assistant(found, others, finding.at)
        before = self._known
        if before is not None and before.assistant.found.row == found.row:
            before.assistant, before.looked = assistant, looked
            return
        site = _site_of(self.site, found)
        own = same_origin(self.site.url, site.url) is not None
        self._known = _Known(assistant, self._opened(site, own), looked)


async def _untold(events: AsyncGenerator[Event, None], told: list[Notice]) -> AsyncGenerator[Event, None]:
    """The events without the notices that were told already, by the assistant that was asked before."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Notice):
                if event in told:
                    continue
                told.append(event)
            yield event


def _site_of(page: Site, found: Found) -> Site:
    row = dict(found.row)
    url, protocol = row.pop("url"), row.pop("protocol")
    models = tuple(row.pop("models", None) or ())
    default = row.pop("default_model", "") or (models[0] if models else "")
    return Site(
        name=page.name,
        url=url,
        protocol=create(protocol, row),
        default_model=page.default_model or default,
        models=models,
        headers=page.headers,
        impersonate=page.impersonate,
        timeout=page.timeout,
    )


def _left(times: Timeouts, until: float | None) -> Timeouts:
    """The time limits with what is left of the total."""
    return times if until is None else structs.replace(times, total=max(0.001, until - time.monotonic()))
