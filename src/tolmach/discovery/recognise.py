"""All the assistants of a page and of the pages that belong to it, and which further pages would tell more."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal
from urllib.parse import urldefrag, urljoin, urlsplit

from msgspec import structs

from tolmach.decoding import find_json, plain_text
from tolmach.discovery.apis import find_apis, wants_lists
from tolmach.discovery.findings import MAX_FOUND, Evidence, Findings, Found, Missing, Named, Page, Wanted
from tolmach.discovery.plugins import AI_ENGINE, GPT3, Known, bootstrap_of, find_ai_engine, find_ai_power, find_aipkit
from tolmach.discovery.sight import Sight, is_address, origin_of
from tolmach.discovery.widgets import name_answer, name_widgets
from tolmach.errors import AssistantGone
from tolmach.protocols.base import challenge_page
from tolmach.protocols.bodies import is_page
from tolmach.protocols.wordpress.ai_engine import shown_widgets
from tolmach.protocols.wordpress.common import no_widget, text_in
from tolmach.wire import Response

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

__all__ = ["links", "recognise"]

_MAX_FRAMES = 10
_MAX_DEPTH = 3
"""How deep frames in frames are looked at."""
_MARKS = re.compile(rb"mwai-chatbot-container|aipkit|wpaicg")
"""What stands in every page with a widget; nothing is searched where none of it does."""
_FRAME_SOURCES = (
    "src",
    "data-src",
    "data-lazy-src",
    "data-cookieblock-src",
    "data-src-cmplz",
    "data-cmp-src",
    "data-consent-src",
)
"""Where an iframe's address stands, also when a lazy loader or a consent manager took it away."""
_CONSENT_SOURCES = frozenset(_FRAME_SOURCES[3:])
_OPENED = re.compile(r"window\.open\(\s*['\"]([^'\"]{1,500})['\"]")
_TEMPLATE = re.compile(rb"<template\b[^<>]*>", re.I)
_TEMPLATE_END = re.compile(rb"</template\b", re.I)
_STABLE_TAG = re.compile(rb"^\s*Stable tag:\s*(\d+(?:\.\d+)+)", re.I | re.M)
_INLINE = ("iframe[srcdoc]", 'script[type*="template"]', 'script[type="text/html"]')
"""Markup that stands in the page beside its own, such as a popup that a script puts there later."""


def recognise(page: Page, more: Mapping[str, Page] | None = None, *, now: float | None = None) -> Findings:
    """What stands on this page, with what `more` (address -> page as it came) adds.

    `now`, in seconds since 1970, is for telling old nonces. `wanted` of the findings names pages that are
    not in `more` yet; a page that could not be fetched may stand there as one with status 0. The work is
    bounded by the pages' size.
    """
    return _Recognition(more or {}, now).run(page)


def links(page: Page) -> list[str]:
    """The pages of the same origin that this page links to, without fragments, in its order."""
    sight = Sight(page)
    origin = origin_of(sight.url)
    found: dict[str, None] = {}
    for node in sight.tree.css("a[href]"):
        url = _absolute(sight.url, node.attributes.get("href"))
        path = urlsplit(url).path.lower() if url else ""
        if url and origin_of(url) == origin and not path.endswith(_FILES) and "/wp-admin" not in path:
            found.setdefault(url)
        if len(found) >= 1000:
            break
    return list(found)


_FILES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".gif",
    ".webp",
    ".svg",
    ".pdf",
    ".zip",
    ".mp4",
    ".mp3",
    ".xml",
    ".ico",
    ".css",
    ".js",
)


class _Recognition:
    """One look at a page and all that belongs to it."""

    def __init__(self, more: Mapping[str, Page], now: float | None) -> None:
        self._more = more
        self._now = now
        self._wanted: dict[str, Wanted] = {}
        self._seen: set[str] = set()
        self._hints: dict[str, None] = {}
        self._named: dict[tuple[str, str], Named] = {}

    def run(self, page: Page) -> Findings:
        found = list(self._look(page, 0))
        if not found:
            apis = {page.url: page} | {w.url: p for w in wants_lists(page) if (p := self._more.get(w.url))}
            found = list(find_apis(apis))
            if not found and not _MARKS.search(page.body):
                self._want(*wants_lists(page))
            for answered in apis.values():
                self._note(name_answer(answered))
        missing = tuple(_troubles(page, bool(found)))
        unique: dict[tuple[str, str, str], Found] = {}
        for one in found[:MAX_FOUND]:
            key = (
                one.protocol,
                str(one.row.get("url")),
                f"{one.bot}|{one.row.get('custom_id', '')}|{one.row.get('action', '')}",
            )
            unique.setdefault(key, one)
        return Findings(
            tuple(unique.values()),
            tuple(self._wanted.values()),
            missing,
            tuple(self._hints),
            tuple(self._named.values()),
        )

    def _note(self, named: Iterable[Named]) -> None:
        for one in named:
            self._named.setdefault((one.name, one.id), one)

    def _want(self, *wanted: Wanted) -> None:
        for one in wanted:
            if one.url not in self._more:
                self._wanted.setdefault(one.url, one)

    def _look(self, page: Page, depth: int) -> Iterator[Found]:
        """The assistants of a page, then those in its frames."""
        if not _is_html(page):
            return
        sight = Sight(page, self._now)
        self._seen.add(sight.url)
        self._note(name_widgets(sight))
        if _MARKS.search(page.body):
            yield from self._widgets(sight)
        if depth < _MAX_DEPTH:
            yield from self._inline(sight, depth)
            yield from self._frames(sight, depth)

    def _widgets(self, sight: Sight) -> Iterator[Found]:
        known = self._known(sight)
        found = [*find_ai_engine(sight, known), *find_aipkit(sight, known), *find_ai_power(sight, known)]
        if not found:
            for folder, name in ((AI_ENGINE, "AI Engine"), (GPT3, "AI Power")):
                if folder in sight.plugins:
                    self._hints[
                        f"{name} is active on this site, but no chat stands on this page; --crawl looks at others"
                    ] = None
        yield from found
        if any(one.protocol == "ai-engine" for one in found):
            if sight.rest_root:
                self._want(Wanted(sight.rest_root, "rest-index"))
            # All bots of a site have the same bootstrap.
            shown = shown_widgets(sight.tree, sight.url)[0].widget
            if bootstrap := bootstrap_of(shown):
                self._want(Wanted(bootstrap, "bootstrap", "POST"))
            self._want(Wanted(f"{sight.home}/wp-content/plugins/{AI_ENGINE}/readme.txt", "readme"))

    def _known(self, sight: Sight) -> Known:
        """What the site's REST index and readme files say, where they were fetched."""
        versions = {}
        for folder in (AI_ENGINE, GPT3):
            readme = self._more.get(f"{sight.home}/wp-content/plugins/{folder}/readme.txt")
            if readme is not None and readme.status == 200 and (tag := _STABLE_TAG.search(readme.body[:4096])):
                versions[folder] = tag[1].decode()
        index = self._more.get(sight.rest_root)
        shut_out = ""
        if index is not None and index.status in (401, 403):
            value = find_json(index.body)
            if text_in(value, "code").startswith("rest_"):
                shut_out = plain_text(text_in(value, "message")) or f"HTTP {index.status}"
        return Known(self._more, versions, shut_out)

    def _inline(self, sight: Sight, depth: int) -> Iterator[Found]:
        """Markup that stands in the page as text: popups in templates, frames with their document beside them."""
        documents = [
            (selector, _inner(node).encode("utf-8", "replace"))
            for selector in _INLINE
            for node in sight.tree.css(selector)[:_MAX_FRAMES]
        ]
        documents += [("template", inner) for inner in _templates(sight.page.body)]
        for where, markup in documents:
            if _MARKS.search(markup):
                inner = structs.replace(sight.page, url=sight.url, body=markup)
                for one in self._look(inner, depth + 1):
                    yield structs.replace(one, evidence=(*one.evidence, Evidence(where, "the chat stands in it")))

    def _frames(self, sight: Sight, depth: int) -> Iterator[Found]:
        for url, why, consent in _frames_of(sight):
            if url in self._seen:
                continue
            self._want(Wanted(url, why))
            page = self._more.get(url)
            if page is None or page.status != 200:
                continue
            self._seen.add(url)
            for one in self._look(page, depth + 1):
                where = Evidence("iframe" if why == "iframe" else "window.open", url)
                asks = "the frame is held back until consent" if consent and not one.consent else one.consent
                missing = one.missing
                if consent and not one.consent:
                    text = "the site asks visitors for consent before they chat; agree with --accept-consent"
                    missing = (*missing, Missing("consent", text))
                yield structs.replace(one, evidence=(*one.evidence, where), consent=asks, missing=missing)


def _frames_of(sight: Sight) -> list[tuple[str, Literal["iframe", "popup"], bool]]:
    """The frames and popups of a page: address, why it is wanted, and whether a consent manager holds it back."""
    found: dict[str, tuple[str, Literal["iframe", "popup"], bool]] = {}
    for node in sight.tree.css("iframe"):
        said = node.attributes
        for name in _FRAME_SOURCES:
            if url := _absolute(sight.url, said.get(name)):
                found.setdefault(url, (url, "iframe", name in _CONSENT_SOURCES))
                break
        if len(found) >= _MAX_FRAMES:
            break
    origin = origin_of(sight.url)
    for node in sight.tree.css('[onclick*="window.open"], a[data-type="iframe"][href], a[data-popup][href]')[
        :_MAX_FRAMES
    ]:
        opened = _OPENED.search(node.attributes.get("onclick") or "")
        url = _absolute(sight.url, opened[1] if opened else node.attributes.get("href"))
        if url and origin_of(url) == origin:
            found.setdefault(url, (url, "popup", False))
    return list(found.values())[:_MAX_FRAMES]


def _inner(node: "LexborNode") -> str:
    """The markup in a frame's own document, or in a script that is a template."""
    if node.tag == "iframe":
        return node.attributes.get("srcdoc") or ""
    return node.text(deep=True) or ""


def _templates(body: bytes) -> Iterator[bytes]:
    """What stands in the page's templates; the tree keeps their content apart."""
    at = 0
    for _ in range(_MAX_FRAMES):
        begin = _TEMPLATE.search(body, at)
        end = _TEMPLATE_END.search(body, begin.end()) if begin else None
        if begin is None or end is None:
            return
        yield body[begin.end() : end.start()]
        at = end.end()


def _absolute(base: str, href: str | None) -> str:
    try:
        url = urldefrag(urljoin(base, (href or "").strip())).url
    except ValueError:
        return ""
    return url if href and is_address(url) else ""


def _is_html(page: Page) -> bool:
    if page.head.content_type in ("text/html", "application/xhtml+xml"):
        return True
    return page.head.content_type == "" and (is_page(page.body) or b"<" in page.body[:2048])


def _asks_for_password(page: Page) -> bool:
    """Whether WordPress' form for the password of a post stands in the page; its name also stands in style sheets."""
    return b"post-password-form" in page.body and Sight(page).tree.css_first("form.post-password-form") is not None


def _troubles(page: Page, found: bool) -> Iterator[Missing]:
    """What is wrong with a page as a whole."""
    if found and not _is_html(page):
        return  # an API; what it wants stands with it
    if challenge := challenge_page(page.head, page.body):
        yield Missing("challenge", f"{challenge.text}: a person has to open it in a browser")
        return
    if page.status in (404, 410):
        yield Missing("page", f"there is no such page (HTTP {page.status})")
    elif page.status in (401, 403):
        yield Missing("login", f"the site does not show this page to visitors (HTTP {page.status})")
    elif page.status >= 400:
        yield Missing("page", f"the site failed (HTTP {page.status})")
    if not _is_html(page):
        return
    if urlsplit(page.url).path.endswith("/wp-login.php") or _asks_for_password(page):
        yield Missing("login", "the page is behind a login or a password")
    if not found:
        gone = no_widget(Response(page.head, page.body), "widget")
        if isinstance(gone, AssistantGone):
            yield Missing("plugin-off", gone.text)
    if page.cut:
        yield Missing("page", "the page is longer than what was read of it")
