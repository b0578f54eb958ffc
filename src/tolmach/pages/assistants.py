"""Looks for the assistants of a page, and chooses one of them."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from msgspec import Struct, structs

from tolmach.decoding import plain_text
from tolmach.discovery import Findings, Found, Page
from tolmach.errors import (
    AssistantGone,
    AuthError,
    ChallengeRequired,
    ConfigError,
    TimedOut,
    TolmachError,
    error_for_status,
)
from tolmach.pages.search import USER_AGENT, Manners, Visitor, discover
from tolmach.transport import Transport
from tolmach.wire import retry_after

__all__ = ["Finding", "choose", "find"]

_PASSING = (408, 425, 429)
"""With the 5xx, statuses that say nothing of whether there is an assistant."""


class Finding(Struct, frozen=True):
    """What was found on a page: one assistant or more, and when (seconds since 1970)."""

    found: tuple[Found, ...]
    at: float


async def find(url: str, transport: Transport, headers: Mapping[str, str], seconds: float | None) -> Finding:
    """The assistants of the page at `url`, looked for politely; `headers` go to its own origin alone.

    Raises what stands before them: `AuthError` (a login), `ChallengeRequired`, `AssistantGone` (there is none),
    `ProviderUnavailable` or `RateLimited` with status and `retry_after` for a page that fails, `TimedOut` after so
    many seconds, or what the transport raises for the page itself.
    """
    first: list[Page] = []
    own = {name: value for name, value in headers.items() if name != "user-agent"}
    agent = headers.get("user-agent") or USER_AGENT
    visitor = Visitor(transport, Manners(user_agent=agent, headers=own))

    async def fetch(address: str, method: str = "GET") -> Page:
        page = await visitor.fetch(address, method)
        first[:] = first or [page]
        return page

    try:
        async with asyncio.timeout(seconds):
            findings = await discover(url, fetch, visitor=visitor, user_agent=agent)
    except TimeoutError as error:
        raise TimedOut("the assistant of the page was not found in time", phase="total", seconds=seconds) from error
    if not findings.found:
        raise _nothing(url, findings, first[0])
    # The evidence is for people who ask what was found; here it would only be kept.
    return Finding(tuple(structs.replace(one, evidence=()) for one in findings.found), time.time())


def _nothing(url: str, findings: Findings, page: Page) -> TolmachError:
    kinds = {missing.kind for missing in findings.missing}
    said = [missing.text for missing in findings.missing] or list(findings.hints)
    said += [one.line for one in findings.named]
    text = "; ".join(["no assistant that can be asked was found on the page", *said])
    if "challenge" in kinds:
        return ChallengeRequired(text, url=url)
    if "login" in kinds:
        return AuthError(text, status=page.status, code="login")
    if page.status in _PASSING or page.status >= 500:
        text = f"the page cannot be had now (HTTP {page.status}): {plain_text(page.body, 120)}"
        return error_for_status(page.status, text, retry_after=retry_after(page.head, time.time()))
    return AssistantGone(text, missing="assistant")


def choose(found: Sequence[Found], bot: str) -> Found:
    """The assistant with this id or name; the first for an empty one. Raises `ConfigError` when there is none."""
    if not bot:
        return found[0]
    for one in found:
        if one.fits(bot):
            return one
    there = ", ".join(one.bot or one.name or one.protocol for one in found)
    raise ConfigError(f"bot {bot!r}: no assistant of this page has that id or name; there are: {there}")
