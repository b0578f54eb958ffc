"""What the three WordPress protocols share.

Nonces: WordPress makes them of 10 hex digits, bound to an action, a user and a tick of 12 hours
(`wp_nonce_tick`); they hold for their own tick and the next one. All guests of a site get the same.
Pages that carry one may come out of a cache and show one that has ended, so what was refused is
remembered, and the page is then fetched past the caches.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from msgspec import structs

from tolmach.chat import Conversation, Event, FinishReason, Notice, Usage
from tolmach.decoding import ServerSentEvent, ServerSentEvents, find_json, plain_text
from tolmach.errors import (
    AssistantGone,
    AuthError,
    ContextTooLong,
    ProtocolDrift,
    ProviderError,
    ProviderUnavailable,
    RemoteProtocolError,
    StaleSession,
    TruncatedAnswer,
)
from tolmach.protocols.base import Answer, SessionState, Site, failure, same_origin
from tolmach.protocols.bodies import Body, arrival, clean, is_page
from tolmach.protocols.markup import trimmed
from tolmach.protocols.usage import chat_usage
from tolmach.wire import Head, Limits, Request, Response, http_date

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser

__all__ = [
    "NONCE",
    "PluginAnswer",
    "adopt_nonce",
    "ajax_address",
    "ajax_failure",
    "doubt",
    "doubted_nonce",
    "ended_nonces",
    "fetch_page",
    "first_match",
    "form_fields",
    "form_request",
    "int_in",
    "keep_nonce",
    "looked_at",
    "no_widget",
    "nonce_expiry",
    "on_site",
    "parse_html",
    "refuse_nonce",
    "text_in",
    "upstream_error",
    "usage_in",
]

NONCE = "nonce"
"""The name under which the session's state holds the nonce."""

_REFUSED = "refused_nonce"
_TICK = 12 * 3600
_DOUBTED = "doubted_nonce"
_LOOKED_AT = "page_looked_at"
_LOOK_HOLDS = 900.0


# Nonces


def nonce_expiry(head: Head, now: float) -> float | None:
    """When a nonce that came with this response ends, on our clock; None when the response has no date.

    It was made at `Date`, which a cache keeps; the server's clock stands at `Date` plus `Age` (RFC 9111, 5.1).
    """
    made = http_date(head.header("date"))
    if made is None:
        return None
    age = head.header("age").strip()
    server_now = made + (int(age) if age.isascii() and age.isdigit() and len(age) < 10 else 0)
    ends = (math.ceil(made / _TICK) + 1) * _TICK
    return ends + (now - server_now)


def keep_nonce(state: SessionState, nonce: str, head: Head) -> None:
    """Keep a nonce that came with this response until it ends.

    One that has ended by what the response says of itself is kept all the same: the site has the last
    word, and when it refuses the nonce, another one is looked for past the caches.
    """
    ends = nonce_expiry(head, state.now())
    state.keep(NONCE, nonce, ends)
    if state.token(NONCE) is None:
        state.keep(NONCE, nonce)


def refuse_nonce(state: SessionState, nonce: str) -> None:
    """Remember that the site refused this nonce: a page that still shows it comes out of a cache."""
    if nonce:
        state.visitor[_REFUSED] = nonce


def ended_nonces(state: SessionState) -> set[str]:
    """The nonces that cannot be used any more: the one that was refused last, and one held that has ended."""
    ended = {state.visitor[_REFUSED]} if _REFUSED in state.visitor else set()
    held = state.tokens.get(NONCE)
    if held is not None and state.token(NONCE) is None:
        ended.add(held.value)
    return ended


def adopt_nonce(state: SessionState, used: str, new: str, head: Head) -> None:
    """Take over the fresh nonce that came with an answer, unless `used` was replaced in the meantime."""
    held = state.tokens.get(NONCE)
    if new and new != used and held is not None and held.value == used:
        keep_nonce(state, new, head)


# Refusals that may mean the page has changed


def doubt(state: SessionState, nonce: str) -> bool:
    """Ask for another look at the page, after a refusal of no known meaning; False when it was looked at just now."""
    if state.token(_LOOKED_AT, margin=0.0) is not None:
        return False
    state.visitor[_DOUBTED] = nonce
    return True


def doubted_nonce(state: SessionState) -> str:
    """The nonce of the refusal after which the page is to be looked at again, once; empty when there is none."""
    return state.visitor.pop(_DOUBTED, "")


def looked_at(state: SessionState) -> None:
    """The page was looked at past the caches: what is refused in the next quarter of an hour is refused."""
    state.keep(_LOOKED_AT, "yes", state.now() + _LOOK_HOLDS)


# Pages


def fetch_page(site: Site, state: SessionState, path: str, *, fresh: bool) -> Generator[Request, Response, Response]:
    """The page of the site at `path`; with `fresh` past all caches, with a query that was never asked before.

    Raises `ProtocolDrift` when there is no such page, else the error for its status.
    """
    base = site.url.rstrip("/")
    url = base + (path if path.startswith("/") else f"/{path}")
    headers = {"accept": "text/html,application/xhtml+xml"}
    if fresh:
        url += f"{'&' if '?' in path else '?'}nocache={state.random_hex(12)}"
        headers["cache-control"] = "no-cache"
    response = yield Request("GET", url, headers)
    head = response.head
    if head.status in (404, 410):
        text = f"there is no page at {base}{path if path.startswith('/') else '/' + path}"
        raise ProtocolDrift(text, missing="page", status=head.status)
    if head.status >= 400:
        raise failure(head, response.body, state.now())
    if not head.url:
        head = Head(head.status, head.headers, head.cookies, url)
    return Response(head, response.body)


def parse_html(body: bytes) -> "LexborHTMLParser":
    """The page as a tree, without what is not read of it (`tolmach.protocols.markup`); never fails."""
    from selectolax.lexbor import LexborHTMLParser

    return LexborHTMLParser(trimmed(body).decode("utf-8", "replace"))


_SHORTCODE = re.compile(rb"\[(?:mwai_chat|wpaicg_chat|aipkit_chat)\w*")


def no_widget(page: Response, missing: str) -> ProviderError:
    """The error for a page without a chat: `ProtocolDrift`, or what stands in its place.

    `AuthError` where it is a login or asks for a password, `AssistantGone` where it shows the plugin's raw shortcode.
    """
    head = page.head
    if urlsplit(head.url).path.endswith("/wp-login.php") or b"post-password-form" in page.body:
        return AuthError("the page is behind a login or a password", status=head.status, code="login")
    if shortcode := _SHORTCODE.search(page.body):
        text = f"the chat plugin is switched off: the page shows its raw shortcode {shortcode[0].decode()}...]"
        return AssistantGone(text, missing=missing, status=head.status)
    where = head.url.partition("?")[0]
    return ProtocolDrift(f"no chat widget ({missing}) on {where}", missing=missing, status=head.status)


def on_site(page_url: str, given: Any) -> str:
    """An address that a page names, on the page's own origin; empty when it is no address.

    A site behind another name than it knows itself by (a proxy, http for https) names the wrong
    origin: its path holds, and questions never go to strangers.
    """
    if not isinstance(given, str) or not given:
        return ""
    given = clean(given)
    if absolute := same_origin(page_url, given):
        return absolute
    try:
        here, there = urlsplit(page_url), urlsplit(given)
    except ValueError:
        return ""
    if not there.path.startswith("/"):
        return ""
    return f"{here.scheme}://{here.netloc}{there.path}{'?' + there.query if there.query else ''}"


# Forms of admin-ajax.php


def ajax_address(site: Site, named: str = "") -> str:
    """The endpoint: as configured for the site, as its page names it, or where WordPress puts it."""
    configured = site.api_endpoint
    if configured.startswith("/"):
        configured = site.url.rstrip("/") + configured
    return configured or named or f"{site.url.rstrip('/')}/wp-admin/admin-ajax.php"


def form_request(url: str, fields: Mapping[str, str], accept: str = "application/json") -> Request:
    """A form as a browser posts it."""
    headers = {"accept": accept, "content-type": "application/x-www-form-urlencoded; charset=UTF-8"}
    return Request("POST", url, headers, urlencode(fields, errors="replace").encode())


_PART = re.compile(rb'Content-Disposition: form-data; name="([^"]*)"[^\r\n]*(?:\r?\n[^\r\n]+)*\r?\n\r?\n', re.I)


def form_fields(request: Request) -> dict[str, str]:
    """The fields of a recorded request: of its query, and of its form, urlencoded or multipart."""
    try:
        query = urlsplit(request.url).query
    except ValueError:
        query = ""
    fields = _pairs(query)
    body = request.body
    if body.startswith(b"--"):
        boundary = body.split(b"\n", 1)[0].rstrip(b"\r")
        for part in body.split(boundary)[1:]:
            if name := _PART.search(part):
                value = part[name.end() :].removesuffix(b"\n").removesuffix(b"\r")
                fields[name[1].decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    elif not body.lstrip().startswith(b"{"):
        fields.update(_pairs(body.decode("utf-8", "replace")))
    return fields


def _pairs(text: str) -> dict[str, str]:
    return dict(parse_qsl(text, keep_blank_values=True))


def ajax_failure(head: Head, body: bytes) -> ProviderError | None:
    """What WordPress itself answers for an action that is not registered, or for a nonce; None for all else."""
    said = body.strip()
    if said == b"0" and head.status in (200, 400):
        text = "the site does not know this action: the chat plugin is switched off, or is another version"
        return AssistantGone(text, missing="admin-ajax action", status=head.status, code="0")
    if said == b"-1" and head.status in (200, 403):
        return StaleSession("the site refused the nonce", status=head.status, code="-1")
    return None


# What the AI behind a site said, as the site reports it. The first that fits; words are all there is.
_UPSTREAM: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("context_length_exceeded", re.compile(r"context_length|maximum context|context length", re.I)),
    (
        "upstream_rate_limited",
        re.compile(r"rate.?limit|quota|too many requests|requests per (min|day)|billing|\b429\b|overloaded", re.I),
    ),
    (
        "upstream_auth",
        re.compile(r"api.?key|unauthori[sz]ed|authenticat|invalid_token|permission denied|\b401\b", re.I),
    ),
    ("empty", re.compile(r"no (data|content) (was )?received", re.I)),
)


def upstream_error(text: str, status: int, code: str | None = None) -> ProviderError:
    """The error for a fault of the AI behind a site.

    `ProviderUnavailable` with the code `upstream_auth`, `upstream_rate_limited`, `empty` or
    `upstream`; `ContextTooLong` when the conversation was too long for the model.
    """
    text = plain_text(text)
    code = code or next((name for name, words in _UPSTREAM if words.search(text)), "upstream")
    kind = ContextTooLong if code == "context_length_exceeded" else ProviderUnavailable
    return kind(text or "the AI behind the site failed", status=status, code=code)


def first_match(text: str, table: tuple[tuple[re.Pattern[str], Any], ...]) -> Any:
    """The second of the first pair whose pattern occurs in `text`; None when none does."""
    return next((value for words, value in table if words.search(text)), None)


# Answers


def text_in(value: Any, key: str) -> str:
    """A text of a JSON object, with lone surrogates replaced; empty when there is none."""
    text = value.get(key) if isinstance(value, dict) else None
    return clean(text) if isinstance(text, str) else ""


def int_in(value: dict[str, Any], key: str) -> int | None:
    """A count or an id of a JSON object; None when there is none."""
    number = value.get(key)
    return number if type(number) is int and 0 <= number < 1 << 53 else None


def usage_in(value: Any, *, estimated: bool) -> Usage | None:
    """The token counts in a JSON value by their OpenAI names; None when they are not all there."""
    if not isinstance(value, dict):
        return None
    told = chat_usage(value)
    return None if told is None else structs.replace(told, estimated=estimated)


class PluginAnswer(Answer, ABC):
    """An answer that is a stream of events or one JSON object; its bytes tell, headers do not.

    `state` is None for a recording; `nonce` is the one that the question was asked with.
    """

    def __init__(
        self, head: Head, limits: Limits = Limits(), *, state: SessionState | None = None, nonce: str = ""
    ) -> None:
        super().__init__(head, limits)
        self.damaged = ""
        """What the plugin does to the text that it was sent, where it is told before the end."""
        self.state = state
        self.nonce = nonce
        self.now = state.now() if state is not None else arrival(head)()
        self._events = ServerSentEvents(limits.event_bytes)
        self._body = Body(head, limits)
        self._streams = False

    def feed(self, data: bytes) -> Iterator[Event]:
        with self._stating():
            if self.head.status >= 400:
                self._body.add(data)
                return
            for event in self._events.feed(data):
                if self.ended:
                    return
                self._streams = True
                yield from self.event(event)

    def close(self) -> Iterator[Event]:
        with self._stating():
            if self.ended:
                return
            if self._streams:
                yield from self.at_end()
                self.check_ended()
                return
            body = self._body.read() if self.head.status >= 400 else self._events.body()
            value = find_json(body)
            if self.head.status >= 400 or value is None:
                raise self.failed(body, value)
            yield from self.whole(value)

    @contextmanager
    def _stating(self) -> Iterator[None]:
        """Have every error carry the status of the response."""
        try:
            yield
        except ProviderError as error:
            error.status = error.status or self.head.status
            raise

    @abstractmethod
    def event(self, event: ServerSentEvent) -> Iterator[Event]:
        """What one event of the stream means. Raises the error that it reports."""

    @abstractmethod
    def whole(self, value: dict[str, Any]) -> Iterator[Event]:
        """What the JSON object that the body is means. Raises the error that it reports."""

    def at_end(self) -> Iterator[Event]:
        """What a stream that broke off without a last event still means; by default nothing."""
        yield from ()

    @abstractmethod
    def failed(self, body: bytes, value: dict[str, Any] | None) -> Exception:
        """The error for a body with a status of 400 or more, or that is no JSON; `value` is the JSON in it."""

    def not_an_answer(self, body: bytes) -> Exception:
        """The error for a body with a status below 400 that is neither events nor JSON."""
        if is_page(body) and self.head.content_type == "text/html":
            text = f"the site shows a page instead of an answer: {plain_text(body, 120)}"
            return RemoteProtocolError(text, status=self.head.status, code="html")
        return TruncatedAnswer(status=self.head.status)

    def stale(self, text: str, code: str | None = None) -> StaleSession:
        """The error for a refused nonce, which is remembered."""
        if self.state is not None:
            refuse_nonce(self.state, self.nonce)
        return StaleSession(text, status=self.head.status, code=code)

    def replace_with(self, final: str) -> Iterator[Event]:
        """The whole text has come, and counts more than its pieces: the rest of it, or a notice of what it is."""
        so_far = self.partial
        if final.startswith(so_far):
            yield from self.delta(final[len(so_far) :])
        elif final.strip() and final.strip() != so_far.strip():
            yield Notice("rewritten", final)

    def conclude(
        self, *, usage: Usage | None = None, state: dict[str, str] | None = None, reason: FinishReason = "stop"
    ) -> Iterator[Event]:
        """The end of a whole answer, with what is known about it before `Done`. Raises for an empty one."""
        *rest, done = self.finish(reason)
        yield from rest
        if self.damaged:
            yield Notice("damaged", self.damaged)
        if usage is not None:
            yield usage
        if state:
            yield Conversation(state)
        yield done
