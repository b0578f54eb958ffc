"""What recorded exchanges show: questions of the protocols that are known, and pages with assistants on them."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

from anychat.decoding import find_json
from anychat.discovery.findings import Evidence, Findings, Found, Page
from anychat.discovery.recognise import recognise
from anychat.protocols import PROTOCOLS, create
from anychat.protocols.wordpress import form_fields, text_in
from anychat.wire import Head, Request

__all__ = ["Traffic", "from_traffic"]

_ROUTES: dict[str, tuple[str, ...]] = {
    "openai": ("/chat/completions",),
    "openai-responses": ("/responses",),
    "anthropic": ("/v1/messages", "/messages"),
    "ollama": ("/api/chat",),
    "ai-engine": ("/mwai-ui/v1/chats/submit",),
    "ai-power": ("/wp-admin/admin-ajax.php",),
    "aipkit": ("/wp-admin/admin-ajax.php",),
}
"""Protocol -> what its question's path ends with: what stands before it is the service's address."""


class Traffic(Struct, frozen=True):
    """One exchange; without an answer for a request that was only written down, as a `curl` line."""

    request: Request
    head: Head | None = None
    body: bytes = b""

    @property
    def page(self) -> Page | None:
        """The answer as a page."""
        if self.head is None:
            return None
        return Page(self.head.url or self.request.url, self.body, self.head.status, self.head.headers)


def from_traffic(exchanges: Sequence[Traffic], now: float | None = None) -> tuple[Findings, list[Traffic]]:
    """What the pages and the questions among these exchanges show, and the exchanges with which nothing was done.

    The second are those that may be questions to a chat that is not known: neither pages nor other files of a page.
    """
    pages = {url: page for one in exchanges if (page := one.page) and (url := one.request.url)}
    found: dict[tuple[str, str, str], Found] = {}
    findings = Findings()
    rest = []
    for one in exchanges:
        asked = _question(one.request)
        if asked is not None:
            found.setdefault((asked.protocol, asked.row["url"], asked.bot), asked)
        elif (page := one.page) is not None and _is_html(page):
            seen = recognise(page, pages, now=now)
            findings = Findings(
                missing=(*findings.missing, *seen.missing), hints=tuple(dict.fromkeys((*findings.hints, *seen.hints)))
            )
            for each in seen.found:
                # A page says more than a question does.
                found[each.protocol, each.row["url"], each.bot] = each
        elif one.request.method not in ("GET", "HEAD", "OPTIONS") or _streams(one):
            rest.append(one)
    return Findings(found=tuple(found.values()), missing=findings.missing, hints=findings.hints), rest


def _is_html(page: Page) -> bool:
    return page.head.content_type in ("text/html", "application/xhtml+xml")


def _streams(one: Traffic) -> bool:
    return one.head is not None and one.head.content_type in ("text/event-stream", "application/x-ndjson")


def _question(request: Request) -> Found | None:
    """The assistant that this request asks, when it is a question of a protocol."""
    for protocol in PROTOCOLS:
        # `json-text` fits any JSON that its options name: it is for sites that are known to speak it.
        if protocol == "json-text" or create(protocol).reader(request) is None:
            continue
        row: dict[str, Any] = {
            "protocol": protocol,
            "url": _address(protocol, request.url),
            **_options(protocol, request),
        }
        bot = str(row.get("bot_id", row.get("custom_id", "")))
        body = find_json(request.body) or {}
        path = urlsplit(request.url).path
        model = text_in(body, "model")
        if model:
            row["default_model"] = model
        return Found(
            protocol=protocol,
            row=row,
            bot=bot,
            kind="inline" if protocol in ("ai-engine", "ai-power", "aipkit") else "api",
            models=(model,) if model else (),
            evidence=(Evidence(f"{request.method} {path}", f"a question of {protocol}"),),
        )
    return None


def _address(protocol: str, url: str) -> str:
    parts = urlsplit(url)
    path = next((parts.path.removesuffix(end) for end in _ROUTES.get(protocol, ()) if parts.path.endswith(end)), "")
    if protocol == "ai-engine":
        path = path.removesuffix("/wp-json")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))


def _options(protocol: str, request: Request) -> dict[str, Any]:
    return dict(_read_options(protocol, request))


def _read_options(protocol: str, request: Request) -> Iterator[tuple[str, Any]]:
    if protocol == "ai-engine":
        body = find_json(request.body) or {}
        yield from ((key, text) for key, name in _ENGINE_IDS if (text := text_in(body, name)))
        if "rest_route=" in request.url:
            yield "rest_path", f"{urlsplit(request.url).path}?rest_route="
    elif protocol in ("ai-power", "aipkit"):
        bot = form_fields(request).get("bot_id", "")
        if bot.isascii() and bot.isdigit():
            yield "bot_id", int(bot)


_ENGINE_IDS = (("bot_id", "botId"), ("custom_id", "customId"))
