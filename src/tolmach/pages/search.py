"""Fetches what discovery wants to see, politely: one request at a time, with a pause, bounded in number and size.

`Visitor` is how pages are fetched over a transport; `discover` takes any function that gives a page for
an address, so that a server can put its own guard in between.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct, structs

from tolmach.cookies import CookieJar
from tolmach.discovery import Findings, Found, Page, links, recognise
from tolmach.discovery.sight import is_address, origin_of
from tolmach.errors import ConfigError, TolmachError
from tolmach.transport import Exchange, Timeouts, Transport, open_exchange
from tolmach.version import __version__
from tolmach.wire import Limits, Request

if TYPE_CHECKING:
    from urllib.robotparser import RobotFileParser

__all__ = ["USER_AGENT", "Fetch", "Manners", "Visitor", "discover"]

USER_AGENT = f"tolmach/{__version__} (looks for chat assistants; heeds robots.txt as tolmach)"

Fetch = Callable[[str, str], Awaitable[Page]]
"""Gives the page at an address for a method, GET or (without a body) POST. Raises `TolmachError` when none came."""

_ROBOTS_BYTES = 512 << 10
"""As much of robots.txt as has to be read (RFC 9309, 2.5)."""
_LONGEST_DELAY = 10.0
_ROUNDS = 4
"""How often findings may ask for further pages: frames in frames are the deepest."""


class Manners(Struct, frozen=True, kw_only=True):
    """How a visitor behaves. Seconds, bytes and counts."""

    user_agent: str = USER_AGENT
    headers: dict[str, str] = {}
    """Further headers, for the origin of the first page alone."""
    pause: float = 0.5
    """Between two requests to a host; none for loopback addresses."""
    page_bytes: int = 5 << 20
    """What is read of a page; the rest of a longer one is left."""
    fetches: int = 40
    redirects: int = 5
    seconds: float = 20.0
    """For one page, redirects included."""


class Visitor:
    """Fetches pages over a transport, one after the other, as one visitor with its own cookies."""

    def __init__(self, transport: Transport, manners: Manners | None = None) -> None:
        self.manners = manners or Manners()
        self.fetched = 0
        self._transport = transport
        self._jar = CookieJar()
        self._lock = asyncio.Lock()
        self._last: dict[str, float] = {}
        self._first_origin = ""
        self.delays: dict[str, float] = {}
        """Host -> seconds between two requests, where its robots.txt asks for more than the usual pause."""

    async def fetch(self, url: str, method: str = "GET") -> Page:
        """The page at `url`, cut at the limit. Raises `TransportError`s, and `ConfigError` beyond the count."""
        async with self._lock:
            if self.fetched >= self.manners.fetches:
                raise ConfigError(f"{self.manners.fetches} pages were fetched; no more are")
            self.fetched += 1
            host = urlsplit(url).netloc
            await self._wait(host)
            try:
                return await self._get(url, method)
            finally:
                self._last[host] = time.monotonic()

    async def _wait(self, host: str) -> None:
        pause = 0.0 if _is_loopback(host) else max(self.manners.pause, self.delays.get(host, 0.0))
        if (last := self._last.get(host)) is not None and (left := last + pause - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def _get(self, url: str, method: str) -> Page:
        manners = self.manners
        self._first_origin = self._first_origin or origin_of(url)
        headers = {"accept": "text/html,application/xhtml+xml,application/json;q=0.9,*/*;q=0.5"}
        headers["user-agent"] = manners.user_agent
        if origin_of(url) == self._first_origin:
            headers |= manners.headers
        timeouts = Timeouts(
            connect=manners.seconds, first_byte=manners.seconds, idle=manners.seconds, total=manners.seconds
        )
        limits = Limits(redirects=manners.redirects)
        exchange = await open_exchange(self._transport, Request(method, url, headers), self._jar, timeouts, limits)
        body, cut = await _read(exchange, manners.page_bytes)
        head = exchange.head
        return Page(head.url or url, body, head.status, head.headers, cut)


async def _read(exchange: Exchange, most: int) -> tuple[bytes, bool]:
    """What there is of a body up to `most` bytes, after decompression, and whether there was more."""
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in exchange:
            pieces.append(piece[: most - size])
            size += len(piece)
            if size > most:
                return b"".join(pieces), True
    finally:
        await exchange.aclose()
    return b"".join(pieces), False


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


async def discover(
    url: str, fetch: Fetch, *, crawl: int = 0, visitor: Visitor | None = None, user_agent: str = USER_AGENT
) -> Findings:
    """The assistants of the page at `url`, and with `crawl` of the pages up to so many links away (at most 2).

    Only `fetch` is used to fetch. With `crawl` all but the first page heed robots.txt; its delay is told to
    `visitor`. A further page that cannot be had is passed over. Raises `ConfigError` for what is no http or
    https address, and what `fetch` raises for the first page.
    """
    if not is_address(url):
        raise ConfigError(f"{url!r} is no http or https address")
    search = _Search(fetch, visitor, user_agent, heed=crawl > 0)
    findings = await search.look(await fetch(url, "GET"), ask_first=url)
    if crawl:
        async for page in search.crawl(url, min(crawl, 2)):
            findings = _merged(findings, await search.look(page))
    return structs.replace(findings, wanted=())


class _Search:
    """One search: the pages that were fetched, and the rules of their hosts."""

    def __init__(self, fetch: Fetch, visitor: Visitor | None, user_agent: str, *, heed: bool) -> None:
        self._fetch = fetch
        self._visitor = visitor
        self._agent = user_agent
        self._heed = heed
        self._pages: dict[str, Page] = {}
        self._rules: dict[str, RobotFileParser] = {}

    async def look(self, page: Page, ask_first: str = "") -> Findings:
        """What a page says, with the further pages that it wants."""
        self._pages.setdefault(ask_first or page.url, page)
        self._pages.setdefault(page.url, page)
        findings = recognise(page, self._pages, now=time.time())
        for _ in range(_ROUNDS):
            if not findings.wanted:
                break
            for wanted in findings.wanted:
                await self._have(wanted.url, wanted.method)
            findings = recognise(page, self._pages, now=time.time())
        return findings

    async def crawl(self, url: str, depth: int) -> AsyncIterator[Page]:
        """The pages that are so many links away, in their order, each once."""
        level = [self._pages[url]]
        for _ in range(depth):
            following = []
            for page in level:
                for link in links(page):
                    if link in self._pages:
                        continue
                    got = await self._have(link)
                    if got.status == 200:
                        following.append(got)
                        yield got
            level = following

    async def _have(self, url: str, method: str = "GET") -> Page:
        """The page, from before or fetched now; one with status 0 when it cannot be had or robots.txt forbids it."""
        page = self._pages.get(url)
        if page is None:
            page = Page(url, b"", 0)
            try:
                if not self._heed or await self._allowed(url):
                    page = await self._fetch(url, method)
            except TolmachError:
                pass  # a further page is never worth failing for: what the first one says stands
            self._pages[url] = page
            self._pages.setdefault(page.url, page)
        return page

    async def _allowed(self, url: str) -> bool:
        origin = origin_of(url)
        if origin not in self._rules:
            self._rules[origin] = await self._read_rules(origin)
        return self._rules[origin].can_fetch(self._agent, url)

    async def _read_rules(self, origin: str) -> "RobotFileParser":
        """robots.txt as RFC 9309, 2.3.1 has it: none means that all is allowed, a failing server that nothing is."""
        from urllib.robotparser import RobotFileParser

        rules = RobotFileParser()
        try:
            page = await self._fetch(f"{origin}/robots.txt", "GET")
        except TolmachError:
            page = Page(origin, b"", 503)
        if page.status >= 500:
            text = "User-agent: *\nDisallow: /"
        else:
            text = page.body[:_ROBOTS_BYTES].decode("utf-8", "replace") if page.status == 200 else ""
        rules.parse(text.splitlines())
        delay = rules.crawl_delay(self._agent)
        if delay is not None and self._visitor is not None:
            self._visitor.delays[urlsplit(origin).netloc] = min(float(delay), _LONGEST_DELAY)
        return rules


def _merged(first: Findings, second: Findings) -> Findings:
    """Both; of an assistant that stands on several pages the first."""
    found: dict[tuple[str, str, str], Found] = {}
    for one in (*first.found, *second.found):
        found.setdefault((one.protocol, str(one.row.get("url")), f"{one.bot}|{one.row.get('action', '')}"), one)
    hints = () if found else tuple(dict.fromkeys((*first.hints, *second.hints)))
    return Findings(tuple(found.values()), (), first.missing, hints, (*first.named, *second.named))
