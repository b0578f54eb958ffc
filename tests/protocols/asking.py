"""Asks a site over real sockets, for the tests of the protocols that the demo plays."""

from tests.protocols.driving import join
from tolmach.chat import ChatRequest, Event
from tolmach.protocols.base import Site
from tolmach.session import Session
from tolmach.transport import create


async def events_of(site: Site, asked: ChatRequest, *, strict: bool = True) -> list[Event]:
    """The events of an answer, with adjoining pieces of text joined."""
    transport = create()
    try:
        return join([event async for event in Session(site, transport).ask(asked, strict=strict)])
    finally:
        await transport.aclose()
