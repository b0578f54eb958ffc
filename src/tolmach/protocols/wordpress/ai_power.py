"""AI Power (`wpaicg`), the WordPress plugin, before it became AIPKit: 1.8.79 to 1.9.18, and 2.2.

The nonce only comes from a page. A question is a form to admin-ajax.php, and the site's setting
of the bot decides whether the answer streams: the events of the AI behind it, passed through, or
one JSON object. Nearly all failures have status 200.
"""

import json
import re
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from tolmach.chat import ChatRequest, Event, FinishReason, Message, Usage, fold_system, format_prompt, new_messages
from tolmach.decoding import ServerSentEvent, find_json, parse_json, plain_text
from tolmach.errors import (
    BadRequest,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    StaleSession,
)
from tolmach.protocols.base import SessionState, Site, failure
from tolmach.protocols.bodies import clean, is_page
from tolmach.protocols.wordpress.common import (
    NONCE,
    PluginAnswer,
    ajax_address,
    ajax_failure,
    doubt,
    doubted_nonce,
    ended_nonces,
    fetch_page,
    first_match,
    form_fields,
    form_request,
    keep_nonce,
    looked_at,
    no_widget,
    on_site,
    parse_html,
    text_in,
    upstream_error,
    usage_in,
)
from tolmach.wire import Call, Decoder, Handshake, Head, Limits, Request, Response, Steps

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

__all__ = ["AIPower", "Widget", "page_params", "shown_chats"]

_SHORTCODE = "wpaicg_chat_shortcode_message"
_CHATBOX = "wpaicg_chatbox_message"
_WIDGET = "widget"
_VERSION_1_8 = re.compile(rb"/wp-ai-content-generator-public\.(?:js|css)\?(?:[^\"'<>\s]{0,80}?[&;])?ver=1\.8\.")
_AT_RISK = re.compile(r"""[\r\n\t<>"'\\]|%[0-9a-f]{2}""", re.I)
_DAMAGED = "AI Power 1.8 changes texts: line breaks, tags and codes like %20 are lost, and quotes get backslashes"
_WIDGETS = ".wpaicg-chat-shortcode[data-nonce], .wpaicg-chatbox[data-nonce]"


class Widget(Struct, frozen=True, kw_only=True):
    """What one chat of a page says about itself."""

    bot_id: int = 0
    post_id: int | None = None
    url: str = ""
    action: str = _SHORTCODE
    memory: int = 100
    ajax_url: str = ""
    damages: bool = False
    """Whether the plugin is a version that changes the text it is sent."""


_Reading = Generator[Request, Response, tuple[Widget, list[str], Head]]


class AIPower(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AI Power's chat, inline or floating. Options win over what the page says."""

    name: ClassVar[str] = "ai-power"
    title: ClassVar[str] = "AI Power for WordPress (wpaicg), 1.8.79 to 1.9.18 and 2.2"
    features: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[frozenset[str]] = frozenset({"stream", "history"})

    bot_id: int | None = None
    """The bot's number, 0 for the default one; else that of the page's first chat."""
    post_id: int | None = None
    """The number of the post that the chat stands on; else as the page says."""
    nonce: str = ""
    """A nonce to begin with: no page is fetched until the site refuses it."""
    action: Literal["", "wpaicg_chat_shortcode_message", "wpaicg_chatbox_message"] = ""
    """The form's action: of an inline chat or a floating one; else as the page's chat is."""
    page: str = ""
    """The path of the page with the chat; empty for the site's root."""
    history: Literal["prompt", "native"] = "prompt"
    """`prompt`: all turns in one text; `native`: earlier turns as the plugin's own history.

    The plugin damages its history: quotes and backslashes are sent as look-alikes, line breaks as spaces.
    """
    send_identity: bool = True
    """Whether to send who asks, as browsers do: the kind of chat, the visitor's id and the history."""

    def ready(self, site: Site, state: SessionState) -> bool:
        return state.token(NONCE) is not None

    def prepare(self, site: Site, state: SessionState) -> Steps:
        """Raises `AssistantGone`, `ProtocolDrift`, `StaleSession` (a cached page), or what the page's status says."""
        ended, doubted = ended_nonces(state), doubted_nonce(state)
        if self.nonce and self.nonce not in ended and self.nonce != doubted:
            state.keep(NONCE, self.nonce)
            return
        try:
            yield from self._look(site, state, ended, fresh=bool(ended or doubted))
        except ProviderError:
            if not doubted or doubted != self.nonce:
                raise
            state.keep(NONCE, doubted)  # no page shows another: the refusal meant what it said
        if doubted:
            looked_at(state)

    def _look(self, site: Site, state: SessionState, ended: set[str], *, fresh: bool) -> Steps:
        """Keep what the page says, and a nonce of it that has not ended."""
        widget, nonces, head = yield from self._read_page(site, state, self.page or "/", fresh=fresh)
        if ended.issuperset(nonces) and self.page not in ("", "/"):
            # Every page of the site carries the nonce: where one comes out of a cache, another may not.
            try:
                _, nonces, head = yield from self._read_page(site, state, "/", fresh=fresh)
            except ProviderError:
                nonces = []  # the chat's own page is what counts; the error below speaks of it
        nonce = next((nonce for nonce in nonces if nonce not in ended), None)
        if nonce is None:
            text = "the page still shows the nonce that the site refused: it comes out of a cache"
            raise StaleSession(text, code="cached_nonce")
        state.keep(_WIDGET, msgspec.json.encode(widget).decode())
        keep_nonce(state, nonce, head)

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake:
        """Raises `BadRequest` for an empty message, which the service would refuse."""
        yield from ()
        widget = self._widget(state)
        nonce = state.token(NONCE, margin=0.0) or ""
        thread = (turn.conversation.state if turn.conversation else {}).get("thread_id", "")
        message, history = self._split(turn.messages, widget.memory, bool(thread))
        if not message.strip():
            raise BadRequest("the message is empty", code="empty_message")
        fields = {
            "_wpnonce": nonce,
            "post_id": "" if widget.post_id is None else str(widget.post_id),
            "url": widget.url or site.url,
            "action": widget.action,
            "message": message,
            "bot_id": str(widget.bot_id),
        }
        if self.send_identity:
            fields["chatbot_identity"] = _identity(widget)
            fields["wpaicg_chat_client_id"] = state.visitor_id("ai-power.client", lambda: state.random_hex(10))
        if self.send_identity or history:
            fields["wpaicg_chat_history"] = json.dumps(history, ensure_ascii=False, separators=(",", ":"))
        if thread:
            fields["thread_id"] = thread
        request = form_request(
            ajax_address(site, widget.ajax_url), fields, accept="text/event-stream, application/json, */*;q=0.5"
        )
        damaged = _DAMAGED if widget.damages and _AT_RISK.search(message) else ""

        def decoder(head: Head) -> Decoder:
            answer = _PowerAnswer(head, state.limits, state=state, nonce=nonce)
            answer.damaged = damaged
            return answer

        return Call(request, decoder)

    def reader(self, request: Request) -> Callable[[Head], Decoder] | None:
        try:
            path = urlsplit(request.url).path
        except ValueError:
            return None
        if not path.endswith("/admin-ajax.php"):
            return None
        fields = form_fields(request)
        if fields.get("action") not in (_SHORTCODE, _CHATBOX):
            return None
        return lambda head: _PowerAnswer(head, Limits(), nonce=fields.get("_wpnonce", ""))

    def _widget(self, state: SessionState) -> Widget:
        kept = state.tokens.get(_WIDGET)
        widget = Widget() if kept is None else msgspec.json.decode(kept.value, type=Widget)
        chosen = {"bot_id": self.bot_id, "post_id": self.post_id, "action": self.action or None}
        return msgspec.structs.replace(widget, **{name: value for name, value in chosen.items() if value is not None})

    def _read_page(self, site: Site, state: SessionState, path: str, *, fresh: bool) -> _Reading:
        """The chat to use, the nonces on its page, and the page's head."""
        page = yield from fetch_page(site, state, path, fresh=fresh)
        tree = parse_html(page.body)
        chats = tree.css(_WIDGETS) or tree.css("[data-nonce][data-post-id]")
        params = page_params(tree)
        nonces = [(chat.attributes.get("data-nonce") or "").strip() for chat in chats]
        nonces = [clean(nonce) for nonce in (*nonces, text_in(params, "search_nonce")) if nonce]
        if not nonces:
            raise no_widget(page, "data-nonce")
        ajax_url = on_site(page.head.url, text_in(params, "ajax_url"))
        widgets = [_read_widget(chat, ajax_url) for chat in chats] or [Widget(ajax_url=ajax_url)]
        wanted = (widget for widget in widgets if self.bot_id is None or widget.bot_id == self.bot_id)
        widget = msgspec.structs.replace(next(wanted, widgets[0]), damages=_VERSION_1_8.search(page.body) is not None)
        return widget, nonces, page.head

    def _split(
        self, messages: tuple[Message, ...], memory: int, at_service: bool
    ) -> tuple[str, list[dict[str, int | str]]]:
        """The new message, and the entries of the plugin's history."""
        if at_service:
            return format_prompt(fold_system(new_messages(messages))), []
        turns = fold_system(messages)
        if self.history == "prompt" or not turns or turns[-1].role == "assistant":
            return format_prompt(messages), []
        speakers = {"assistant": "AI: "}
        return turns[-1].text, [
            {"id": 10000 + i, "text": speakers.get(m.role, "Human: ") + _history_text(m.text)}
            for i, m in enumerate(turns[:-1][-memory:])
        ]


def shown_chats(tree: "LexborHTMLParser", url: str) -> "list[tuple[Widget, LexborNode]]":
    """The chats of the page at `url` in its order, each with the element that says it."""
    ajax_url = on_site(url, text_in(page_params(tree), "ajax_url"))
    return [(_read_widget(node, ajax_url), node) for node in tree.css(_WIDGETS)]


def _read_widget(node: "LexborNode", ajax_url: str) -> Widget:
    said = node.attributes
    return Widget(
        bot_id=_number(said.get("data-bot-id")) or 0,
        post_id=_number(said.get("data-post-id")),
        url=clean(said.get("data-url") or ""),
        action=_CHATBOX if said.get("data-type") == "widget" else _SHORTCODE,
        memory=_number(said.get("data-memory-limit")) or 100,
        ajax_url=ajax_url,
    )


def _identity(widget: Widget) -> str:
    if widget.bot_id > 0:
        return f"custom_bot_{widget.bot_id}"
    return "widget" if widget.action == _CHATBOX else "shortcode"


def _history_text(text: str) -> str:
    """A text that survives the plugin, which drops every backslash before it parses the history, and strips tags."""
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", text)
    return text.replace('"', "”").replace("\\", "＼").replace("<", "&lt;")


def _number(text: str | None) -> int | None:
    """The digits of an attribute; some have strays around them."""
    digits = re.sub(r"[^0-9]", "", text or "")
    return int(digits) if digits and len(digits) < 16 else None


_PARAMS = re.compile(r"\bwpaicgParams\s*=\s*(?=\{)")


def page_params(tree: "LexborHTMLParser") -> dict[str, Any]:
    """The settings that the plugin prints into every page of the site."""
    for script in tree.css("script"):
        text = script.text()
        if found := _PARAMS.search(text):
            try:
                value, _ = json.JSONDecoder().raw_decode(text, found.end())
            except (ValueError, RecursionError):
                continue  # another script of the page may hold it unbroken
            if isinstance(value, dict):
                return value
    return {}


# Answers

_REFUSALS: dict[str, Callable[[str, int], ProviderError]] = {
    "tokenLimitReached": lambda text, status: RateLimited(text, status=status, code="guest_limit"),
    "messageFlagged": lambda text, status: Refused(text, status=status, code="message_flagged"),
    "ipBanned": lambda text, status: Refused(text, status=status, code="ip_banned"),
    "modflag": lambda text, status: Refused(text, status=status, code="moderation"),
    "pineconeError": lambda text, status: ProviderUnavailable(text, status=status, code="upstream"),
}

# For failures that differ in nothing but their words (2.x of the plugin differs; see aipkit).
_WORDS: tuple[tuple[re.Pattern[str], Callable[[str, int], ProviderError]], ...] = (
    (re.compile(r"nothing was inputted", re.I), lambda text, status: BadRequest(text, status=status)),
    (re.compile(r"prohibited|banned|not allowed|blocked", re.I), lambda text, status: Refused(text, status=status)),
    (re.compile(r"\b(limit|quota)\b", re.I), lambda text, status: RateLimited(text, status=status)),
    (re.compile(r"AI instance|api key", re.I), upstream_error),
)

# How the plugin pastes a word of an error into a chunk, unescaped.
_PASTED = re.compile(r'\{"choices":\[\{"delta":\{"content":"(.*)"\}\}\]\}', re.S)

_REASONS: dict[str, FinishReason] = {"length": "length", "content_filter": "content_filter"}


class _PowerAnswer(PluginAnswer):
    """Chunks of an OpenAI stream, events of an OpenAI assistant, or one JSON object."""

    def __init__(self, head: Head, limits: Limits, *, state: SessionState | None = None, nonce: str = "") -> None:
        super().__init__(head, limits, state=state, nonce=nonce)
        self._reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._thread = ""
        self._fault: list[str] = []
        """The words of an error that the plugin streams like an answer."""

    def event(self, event: ServerSentEvent) -> Iterator[Event]:
        data = event.data.strip()
        if data == b"[DONE]":
            yield from self._end()
        elif data == b"[LIMITED]":
            raise RateLimited("the site's limit for its visitors is used up", status=self.head.status, code="[LIMITED]")
        elif event.event == "thread_id":
            self._thread = clean(data.decode("utf-8", "replace"))
        elif event.event not in ("", "message"):
            yield from self._assistant(event.event, data)
        else:
            yield from self._chunk(data)

    def _chunk(self, data: bytes) -> Iterator[Event]:
        try:
            chunk = parse_json(data)
        except RemoteProtocolError:
            if not (pasted := _PASTED.fullmatch(data.decode("utf-8", "replace"))):
                raise
            self._fault.append(clean(pasted[1]))
            return
        if not isinstance(chunk, dict):
            raise RemoteProtocolError("a piece of the answer is no object", status=self.head.status)
        if chunk.get("error"):
            raise upstream_error(text_in(chunk["error"], "message") or plain_text(data), self.head.status)
        if "msg" in chunk and "choices" not in chunk:
            raise self._refusal(chunk)
        self._usage = usage_in(chunk.get("usage"), estimated=False) or self._usage
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(choice, dict):
            yield from self._choice(choice, genuine=not {"id", "object", "model"}.isdisjoint(chunk))

    def _choice(self, choice: dict[str, Any], *, genuine: bool) -> Iterator[Event]:
        delta = choice.get("delta")
        text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
        if isinstance(text, str) and text:
            if genuine and not self._fault:
                yield from self.delta(text)
            else:
                self._fault.append(clean(text))
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self._reason = _REASONS.get(reason, "stop")

    def _assistant(self, name: str, data: bytes) -> Iterator[Event]:
        """An event of OpenAI's assistants; those that bring nothing are passed over."""
        if name == "done":
            yield from self._end()
        elif name == "assistant_error":
            value = find_json(data)
            raise upstream_error(text_in(value, "msg") or plain_text(data), self.head.status)
        elif name == "thread.message.delta":
            value = parse_json(data)
            delta = value.get("delta") if isinstance(value, dict) else None
            parts = delta.get("content") if isinstance(delta, dict) else None
            for part in parts if isinstance(parts, list) else ():
                text = part.get("text") if isinstance(part, dict) else None
                if isinstance(text, dict) and isinstance(text.get("value"), str):
                    yield from self.delta(text["value"])

    def _end(self) -> Iterator[Event]:
        self._raise_fault()
        yield from self.conclude(
            usage=self._usage,
            state={"thread_id": self._thread} if self._thread else None,
            reason=self._reason or "stop",
        )

    def at_end(self) -> Iterator[Event]:
        self._raise_fault()
        if self._reason is not None:
            yield from self._end()

    def _raise_fault(self) -> None:
        """An error that was streamed word by word, and twice."""
        words = self._fault
        half = len(words) // 2
        if words[:half] == words[half:]:
            words = words[:half]
        if words:
            raise upstream_error("".join(words), self.head.status)

    def whole(self, value: dict[str, Any]) -> Iterator[Event]:
        if value.get("status") != "success":
            raise self._refusal(value)
        data = value.get("data")
        if data is not None and not isinstance(data, str):
            raise RemoteProtocolError("the answer's `data` is no text", status=self.head.status)
        yield from self.delta(data or "")
        thread = text_in(value, "thread_id")
        yield from self.conclude(state={"thread_id": thread} if thread else None)

    # Failures

    def failed(self, body: bytes, value: dict[str, Any] | None) -> Exception:
        if error := ajax_failure(self.head, body):
            return self.stale(error.text, error.code) if isinstance(error, StaleSession) else error
        text = plain_text(body)
        sentence = bool(text) and self.head.content_type == "text/html" and b"<" not in body and len(text) < 200
        if self.head.status == 403 and sentence:
            return self.stale(text)
        if self.head.status >= 400:
            return failure(self.head, body, self.now, text=plain_text(text_in(value, "msg")))
        if sentence:
            return BadRequest(text, status=self.head.status)
        if is_page(body) and self.head.content_type == "text/event-stream":
            return upstream_error(text, self.head.status, "upstream")
        return self.not_an_answer(body)

    def _refusal(self, value: dict[str, Any]) -> ProviderError:
        """The error for an object with a `msg`: by its flags, by what else is in it, by its words."""
        status, text = self.head.status, plain_text(text_in(value, "msg"))
        for flag, error in _REFUSALS.items():
            if value.get(flag):
                return error(text or flag, status)
        if "log" in value or "greeting_message" in value:
            return upstream_error(text, status)  # it was logged as a question: the AI was asked
        if not text:
            return RemoteProtocolError("the answer is neither a success nor a failure", status=status)
        if re.search(r"\bnonce\b", text, re.I):
            return self.stale(text)
        known: Callable[[str, int], ProviderError] | None = first_match(text, _WORDS)
        if known:
            return known(text, status)
        if self.state is not None and value.keys() == {"status", "msg"} and doubt(self.state, self.nonce):
            # To 1.8.90 the plugin tells an ended nonce by this text alone, in the site's language.
            return StaleSession(text, status=status, code="unknown_refusal")
        return Refused(text, status=status)
