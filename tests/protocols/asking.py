"""Asks a site over real sockets, for the tests of the protocols that the demo plays."""

from anychat.chat import ChatRequest, Event
from anychat.protocols.base import Site
from anychat.session import Session
from anychat.transport import create
from tests.protocols.driving import join


async def events_of(site: Site, asked: ChatRequest, *, strict: bool = True) -> list[Event]:
    """The events of an answer, with adjoining pieces of text joined."""
    transport = create()
    try:
        return join([event async for event in Session(site, transport).ask(asked, strict=strict)])
    finally:
        await transport.aclose()
