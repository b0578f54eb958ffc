"""From an address to answers: each of the demo's pages found by discovery, then asked twice, as it was found."""

from collections.abc import AsyncIterator

import pytest

from tests.demo.test_pages import _name, _two_questions
from tolmach.demo import Demo
from tolmach.demo.pages import PAGES, DemoPage
from tolmach.discovery import Findings
from tolmach.egress import GuardedTransport
from tolmach.errors import AddressRefused
from tolmach.pages.search import Visitor, discover
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.session import Session
from tolmach.transport import Transport, shared

SHOWN = [page for page in PAGES if page.outcome not in ("login", "challenge")]
ANSWERED = [page for page in SHOWN if page.outcome not in ("no-guests", "stale")]
MISSING = {"renews": "cached-nonce", "stale": "cached-nonce", "consent": "consent"}


@pytest.fixture
async def demo() -> AsyncIterator[Demo]:
    async with Demo(delay=0) as demo:
        yield demo


async def _discovered(demo: Demo, page: DemoPage, transport: Transport) -> Findings:
    visitor = Visitor(transport)
    return await discover(f"{demo.url}{page.path}/", visitor.fetch, visitor=visitor)


@pytest.mark.parametrize("page", SHOWN, ids=_name)
async def test_what_a_page_shows_is_found(demo: Demo, page: DemoPage) -> None:
    findings = await _discovered(demo, page, shared())
    assert [found.protocol for found in findings.found] == [page.protocol] * len(page.bots)
    assert tuple(found.bot for found in findings.found) == page.bots
    kinds = {missing.kind for missing in findings.found[0].missing}
    if page.outcome == "no-guests":
        assert kinds <= {"login"}, "a page does not always show that guests are refused"
    else:
        assert kinds == ({MISSING[page.outcome]} if page.outcome in MISSING else set())


@pytest.mark.parametrize("page", [page for page in PAGES if page not in SHOWN], ids=_name)
async def test_what_stands_before_a_page_is_told(demo: Demo, page: DemoPage) -> None:
    findings = await _discovered(demo, page, shared())
    assert findings.found == ()
    assert [missing.kind for missing in findings.missing] == [page.outcome]


@pytest.mark.parametrize("page", ANSWERED, ids=_name)
async def test_two_questions_to_what_was_found(demo: Demo, page: DemoPage) -> None:
    row = dict((await _discovered(demo, page, shared())).found[0].row)
    site = Site(name="found", url=row.pop("url"), protocol=create(row.pop("protocol"), row))
    first, second = await _two_questions(Session(site, shared()))
    assert "> What is the first thing?" in first
    assert "> And the second?" in second
    assert demo.log.answers[page.path] == 2


async def test_a_server_discovers_only_what_the_guard_lets_through(demo: Demo) -> None:
    page = PAGES[0]
    with pytest.raises(AddressRefused):
        await _discovered(demo, page, GuardedTransport())
    assert demo.log.connections == 0
    findings = await _discovered(demo, page, GuardedTransport(allow=["127.0.0.0/8"]))
    assert [found.bot for found in findings.found] == list(page.bots)
