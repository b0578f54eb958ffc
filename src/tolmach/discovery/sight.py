"""A page as the recognisers look at it: its tree, its address, and what all families ask of it."""

import re
from datetime import UTC, datetime
from functools import cached_property
from html import unescape
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from tolmach.discovery.findings import Evidence, Missing, Page
from tolmach.protocols.wordpress.common import nonce_expiry, parse_html

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser

__all__ = ["Sight", "is_address", "origin_of"]

_SAVED_FROM = re.compile(rb"<!--\s*saved from url=\(\d+\)(\S+?)\s*-->")
_HEADED = 4096
"""Bytes in which a browser that saves a page says where it came from."""
_NAMED = re.compile(rb"(?:restUrl|ajaxUrl|ajax_url)(?:&quot;|\")\s*:\s*(?:&quot;|\")(https?:[^&\"\s]{4,300})")
_CACHED = (
    re.compile(rb"<!--[^>]{0,200}?\bcached@(\d{10})\b"),
    re.compile(rb"<!--[^>]{0,300}?(?:cache|served from)[^>]{0,300}?(\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?)", re.I),
)
"""How page caches sign their pages: WP Rocket by seconds since 1970; LiteSpeed, WP Super Cache and W3 Total Cache
by a date."""
_SIGNED_BYTES = 2048
"""Caches sign at the end."""
_ROOT = re.compile(r"(.*)/(?:wp-json/?|index\.php)")
_CONTENT = re.compile(rb"https?://[^/\"'<>\s]{1,255}((?:/[\w.~-]{1,80}){0,8})/wp-content/")
"""Where WordPress stands, by its REST root; where that was moved, by its files."""
_PLUGIN_SCRIPT = re.compile(
    rb"/plugins/([\w-]+)/([^\"'<>\s?]{1,200}\.(?:js|css))(?:\?(?:[^\"'<>\s]{0,80}?&)?ver=([\w.]+))?"
)


class Sight:
    """One page, looked at once for all families. `now` is in seconds since 1970."""

    def __init__(self, page: Page, now: float | None = None) -> None:
        self.page = page
        self.now = now

    @cached_property
    def tree(self) -> "LexborHTMLParser":
        return parse_html(self.page.body)

    @cached_property
    def url(self) -> str:
        """The address: as fetched, as noted by the browser that saved the page, or as it says. Empty if unknown."""
        if is_address(self.page.url):
            return self.page.url
        if (saved := _SAVED_FROM.search(self.page.body[:_HEADED])) and is_address(where := saved[1].decode("latin-1")):
            return where
        for selector, attribute in (("link[rel=canonical]", "href"), ('meta[property="og:url"]', "content")):
            node = self.tree.css_first(selector)
            if node is not None and is_address(where := (node.attributes.get(attribute) or "").strip()):
                return where
        if named := _NAMED.search(self.page.body):
            where = unescape(named[1].decode("latin-1")).replace("\\/", "/")
            return f"{origin_of(where)}/" if is_address(where) else ""
        return ""

    @cached_property
    def rest_root(self) -> str:
        """The REST root that the page or its head names, with its last slash; empty when neither does."""
        if link := re.search(r'<([^<>]+)>\s*;\s*rel="?https://api\.w\.org/"?', self.page.head.header("link")):
            return _joined(self.url, str(link[1]))
        node = self.tree.css_first('link[rel="https://api.w.org/"]')
        href = (node.attributes.get("href") or "") if node is not None else ""
        return _joined(self.url, href)

    @cached_property
    def home(self) -> str:
        """The address of the WordPress site that the page belongs to, without a slash; its origin when unknown."""
        origin = origin_of(self.url)
        here = f"{urlsplit(self.url).path}/"
        root = _ROOT.fullmatch(urlsplit(self.rest_root).path)
        content = None if root else _CONTENT.search(self.page.body)
        folder = root[1] if root else content[1].decode("latin-1") if content else ""
        return origin + folder if folder and here.startswith(f"{folder}/") else origin

    @cached_property
    def path(self) -> str:
        """The page's path and query below `home`."""
        parts = urlsplit(self.url)
        path = parts.path[len(urlsplit(self.home).path) :] or "/"
        return f"{path}?{parts.query}" if parts.query else path

    @cached_property
    def plugins(self) -> dict[str, list[tuple[str, str]]]:
        """Plugin's folder -> the scripts and styles of it that the page names, with the version in their address."""
        found: dict[str, list[tuple[str, str]]] = {}
        for match in _PLUGIN_SCRIPT.finditer(self.page.body):
            folder, file, version = (part.decode("latin-1") for part in match.groups(b""))
            found.setdefault(folder, []).append((file, version))
        return found

    @cached_property
    def as_guest(self) -> bool:
        """Whether the page was shown to a visitor who is not logged in."""
        body = self.tree.body
        classes = (body.attributes.get("class") or "").split() if body is not None else []
        return "logged-in" not in classes and self.tree.css_first("#wpadminbar") is None

    def stale_nonce(self, nonce: str) -> Missing | None:
        """Says that a nonce of this page has ended, as far as its head or its cache's signature tells."""
        if not nonce or self.now is None:
            return None
        age = self._cached_for()
        if age is not None and age > 24 * 3600:
            text = f"the page lay in a cache for {age / 3600:.0f} hours: its nonce has ended, and is fetched anew"
            return Missing("cached-nonce", text)
        ends = nonce_expiry(self.page.head, self.now)
        if ends is not None and ends <= self.now:
            return Missing("cached-nonce", "the page came out of a cache and its nonce has ended; it is fetched anew")
        return None

    def _cached_for(self) -> float | None:
        """Seconds since the page was made, by what a page cache wrote at its end."""
        assert self.now is not None
        end = self.page.body[-_SIGNED_BYTES:]
        if rocket := _CACHED[0].search(end):
            return self.now - int(rocket[1])
        if dated := _CACHED[1].search(end):
            text = dated[1].decode("ascii").replace("T", " ")
            try:
                made = datetime.strptime(text if text.count(":") == 2 else f"{text}:00", "%Y-%m-%d %H:%M:%S")
            except ValueError:
                return None
            # The site's own time zone is not said: a day more is given.
            return self.now - made.replace(tzinfo=UTC).timestamp() - 14 * 3600
        return None

    def consent_manager(self, folder: str) -> Evidence | None:
        """A script of this plugin that a consent manager holds back."""
        for node in self.tree.css('script[type="text/plain"]'):
            named = " ".join(value or "" for name, value in node.attributes.items() if "src" in name)
            if f"/plugins/{folder}/" in named:
                return Evidence('script[type="text/plain"]', f"held back until consent: {named.strip()[:200]}")
        return None


def is_address(url: str) -> bool:
    """Whether this is an http or https address with a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def origin_of(url: str) -> str:
    """Scheme, host and port as they stand in the address; empty when it is none."""
    if not is_address(url):
        return ""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _joined(base: str, href: str) -> str:
    try:
        url = urljoin(base, href.strip())
    except ValueError:
        return ""
    return url if href and is_address(url) else ""
