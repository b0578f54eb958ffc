"""What recorded exchanges show: questions of the protocols that are known, and pages with assistants on them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

from tolmach.chat import Done, Event
from tolmach.decoding import find_json
from tolmach.discovery.findings import Evidence, Findings, Found, Missing, Page
from tolmach.discovery.recognise import recognise
from tolmach.errors import ProtocolDrift, ProviderError, RemoteProtocolError
from tolmach.protocols import PROTOCOLS, create
from tolmach.protocols.wordpress.common import form_fields, text_in
from tolmach.wire import Decoder, Head, Request

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


_KEYED = frozenset(("authorization", "x-api-key", "x-goog-api-key"))
_KEY = Missing("key", "the request has a key, which is not kept: set `api_key`")
_APIS = frozenset(("openai", "openai-responses", "anthropic", "gemini", "ollama"))


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
        asked = _question(one)
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


def _question(one: Traffic) -> Found | None:
    """The assistant that this request asks, when it is a question of a protocol."""
    request = one.request
    for protocol in PROTOCOLS:
        # `json-text` fits any JSON that its options name: it is for sites that are known to speak it.
        reader = None if protocol == "json-text" else create(protocol).reader(request)
        if reader is None or (protocol in _APIS and not _speaks(protocol, one, reader)):
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
            missing=(_KEY,) if protocol in _APIS and not _KEYED.isdisjoint(request.headers) else (),
            evidence=(Evidence(f"{request.method} {path}", f"a question of {protocol}"),),
        )
    return None


def _speaks(protocol: str, one: Traffic, reader: Callable[[Head], Decoder]) -> bool:
    """Whether an exchange at an API's route is one of the API: other services have routes of these names too."""
    if protocol == "ollama" and not _asks_ollama(find_json(one.request.body) or {}):
        return False
    if one.head is None or not 200 <= one.head.status < 300 or not one.body.strip():
        return True
    events = 0
    try:
        for event in _events(reader(one.head), one.body):
            events += not isinstance(event, Done)
    except (RemoteProtocolError, ProtocolDrift):
        return events > 0
    except ProviderError:
        return True  # an error in the API's own words
    return True


def _events(decoder: Decoder, body: bytes) -> Iterator[Event]:
    yield from decoder.feed(body)
    yield from decoder.close()


def _asks_ollama(body: dict[str, Any]) -> bool:
    messages = body.get("messages")
    return bool(text_in(body, "model")) and isinstance(messages, list) and all(map(_is_message, messages))


def _is_message(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("role"), str) and isinstance(item.get("content", ""), str)


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
