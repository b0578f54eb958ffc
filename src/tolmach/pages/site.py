"""A page as a site: what is asked is the assistant that discovery finds on it."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from urllib.parse import urldefrag, urlsplit

import msgspec
from msgspec import Struct

from tolmach.chat import ChatRequest
from tolmach.errors import ConfigError
from tolmach.protocols.base import SessionState, Site
from tolmach.wire import Decoder, Handshake, Head, Request, Steps

__all__ = ["PAGE", "PageAssistant", "is_page_address", "page_site"]

PAGE = "page"
"""The name by which sites that are pages are known."""


class PageAssistant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stands for the protocol of a page's assistant while nobody knows it; `PageSession` asks by the real one."""

    name: ClassVar[str] = PAGE
    title: ClassVar[str] = "the assistant of a page, found by discovery"
    features: ClassVar[frozenset[str]] = frozenset({"*"})
    """All: the protocol that is found says what it honours when it is asked."""
    traits: ClassVar[frozenset[str]] = frozenset({"stream", "history", "conversation"})

    bot: str = ""
    """The id or the name of the assistant; empty for the first of the page."""
    accept_consent: bool = False
    """Whether the operator agrees to what the site asks its visitors to agree to."""

    def ready(self, site: Site, state: SessionState) -> bool:
        return False

    def prepare(self, site: Site, state: SessionState) -> Steps:
        """Raises `ConfigError`: only a session that was opened for a page can ask it."""
        yield from ()
        raise ConfigError("a page is asked through open_session(site)")

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake:
        """Raises `ConfigError`, as `prepare`."""
        yield from ()
        raise ConfigError("a page is asked through open_session(site)")

    def reader(self, request: Request) -> Callable[[Head], Decoder] | None:
        return None


def is_page_address(value: object) -> bool:
    """Whether this is an address, and not the path that some protocols call `page`."""
    return isinstance(value, str) and value.partition("://")[0].lower() in ("http", "https") and "://" in value


def page_site(url: str, options: Mapping[str, Any] | None = None, *, name: str = "", what: str = "page") -> Site:
    """The site that is the assistant of a page. `what` is how errors call the address.

    Raises `ConfigError` for what is no http or https address, or an option that is wrong.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (TypeError, ValueError, AttributeError):
        good = False
    if not good:
        raise ConfigError(f"{what}: the http or https address of a page, such as https://shop.example/help")
    if "@" in parts.netloc:
        raise ConfigError(f"{what}: no name and password in the address; give them as headers")
    try:
        assistant = msgspec.convert(dict(options or {}), PageAssistant)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{what}: {error}") from error
    return Site(name=name or parts.netloc, url=urldefrag(url).url, protocol=assistant)
