"""AI Power (AIPKit), the WordPress plugin, from 2.3 on: 2.3 to 2.4.71.

A question takes two requests: a form that leaves the message with the site for a minute, and the
GET of its stream. The site keeps the conversation, under an id of the visitor and one of the
conversation that the client makes.
"""

import base64
import json
import re
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Struct

from tolmach.chat import ChatRequest, Event, Image, Message, Notice, fold_system, format_prompt, new_messages
from tolmach.decoding import ServerSentEvent, find_json, parse_json, plain_text
from tolmach.errors import (
    AssistantGone,
    AuthError,
    BadRequest,
    ProtocolDrift,
    ProviderError,
    RateLimited,
    Refused,
    RemoteProtocolError,
    StaleSession,
    TruncatedAnswer,
    UnsupportedFeature,
)
from tolmach.protocols.base import SessionState, Site, failure
from tolmach.protocols.bodies import clean
from tolmach.protocols.wordpress.common import (
    NONCE,
    PluginAnswer,
    ajax_address,
    ajax_failure,
    ended_nonces,
    fetch_page,
    first_match,
    form_fields,
    form_request,
    int_in,
    keep_nonce,
    no_widget,
    on_site,
    parse_html,
    refuse_nonce,
    text_in,
    upstream_error,
)
from tolmach.wire import Call, Decoder, Handshake, Head, Limits, Request, Response, Steps

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

__all__ = ["AIPKit", "Widget", "read_widget", "shown_configs"]

_CACHE = "aipkit_cache_sse_message"
_STREAM = "aipkit_frontend_chat_stream"
_MESSAGE = "aipkit_frontend_chat_message"
_NONCE = "aipkit_get_frontend_chat_nonce"
_WIDGET = "aipkit.widget"
_MAX_IMAGES = 4

# Where the AI keeps the conversation: what the stream calls its id, and the parameter that gives it back.
_UPSTREAM_IDS = {
    "openai_response_id": "previous_openai_response_id",
    "google_interaction_id": "previous_google_interaction_id",
}


class Widget(Struct, frozen=True, kw_only=True):
    """What one chat of a page says about itself."""

    bot_id: int | None = None
    ajax_url: str = ""
    post_id: int | None = None
    upstream_ids: tuple[str, ...] = ()
    """The parameters of `_UPSTREAM_IDS` that this bot takes."""


class AIPKit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AIPKit's chat, inline or in a popup."""

    name: ClassVar[str] = "aipkit"
    title: ClassVar[str] = "AI Power for WordPress (AIPKit), 2.3 to 2.4.71"
    features: ClassVar[frozenset[str]] = frozenset({"images"})
    traits: ClassVar[frozenset[str]] = frozenset({"stream", "conversation"})

    bot_id: int | None = None
    """The bot's number; else that of the page's first chat."""
    page: str = ""
    """The path of the page with the chat; empty for the site's root."""
    history: Literal["native", "prompt"] = "native"
    """`native`: the site keeps earlier turns, and loses what stands between `<` and `>` in them; `prompt`: all turns
    in one text, in a conversation of their own each time."""
    prefer_stream: bool = True
    """Whether to stream also where the caller wants the answer whole. Every version streams, for bots of every
    setting; false uses the single request of 2.3 to 2.4.0 for such callers."""

    def ready(self, site: Site, state: SessionState) -> bool:
        return state.token(NONCE) is not None and _WIDGET in state.visitor

    def prepare(self, site: Site, state: SessionState) -> Steps:
        """The page at first; later, from 2.3.41 on, the action that gives a fresh nonce, which no cache keeps.

        Raises `AssistantGone`, `ProtocolDrift`, `StaleSession` (a cached page), or what the page's status says.
        """
        ended, known = ended_nonces(state), _WIDGET in state.visitor
        if known and (yield from self._refresh(site, state, ended)):
            return
        try:
            widget, nonce, head = yield from self._read_page(site, state, fresh=bool(ended))
        except ProtocolDrift:
            # The bot of the options need not stand on this page, if the site gives its nonce without one.
            if known or self.bot_id is None or not (yield from self._refresh(site, state, ended)):
                raise
            return
        state.visitor[_WIDGET] = msgspec.json.encode(widget).decode()
        if nonce not in ended:
            keep_nonce(state, nonce, head)
        elif known or not (yield from self._refresh(site, state, ended)):
            text = "the page still shows the nonce that the site refused: it comes out of a cache"
            raise StaleSession(text, code="cached_nonce")

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake:
        """Leave the message with the site, and then the stream.

        Raises `BadRequest` for an empty message or a picture that is not readable, `UnsupportedFeature` for one
        that is not given as data, and the errors of the first request.
        """
        widget, nonce = self._widget(state), state.token(NONCE, margin=0.0) or ""
        known = turn.conversation.state if turn.conversation and self.history == "native" else {}
        damaged = _DAMAGED if "conversation_uuid" in known and _lost(turn.messages) else ""
        conversation = {"conversation_uuid": known.get("conversation_uuid") or state.uuid()}
        messages = fold_system(new_messages(turn.messages) if "conversation_uuid" in known else turn.messages)
        message, images = format_prompt(messages) if messages else "", _image_inputs(messages)
        if not message.strip() and not images:
            raise BadRequest("the message is empty", code="empty_message")
        url = ajax_address(site, widget.ajax_url)
        asked = _ids(widget) | {"session_id": state.visitor_id("aipkit.session", state.uuid)} | conversation

        def decoder(head: Head) -> Decoder:
            answer = _KitAnswer(head, state.limits, conversation, state=state, nonce=nonce)
            answer.damaged = damaged
            return answer

        if not turn.stream and not self.prefer_stream:
            fields = {"action": _MESSAGE, "message": message, "_ajax_nonce": nonce, **asked}
            return Call(form_request(url, fields | _image_field(images)), decoder)
        number = int(state.now() * 1000)
        left = {
            "action": _CACHE,
            "message": message,
            "_ajax_nonce": nonce,
            **({} if widget.bot_id is None else {"bot_id": str(widget.bot_id)}),
            "user_client_message_id": f"aipkit-client-msg-{widget.bot_id or 0}-{number}-{state.random_hex(5)}",
        }
        response = yield form_request(url, left | _image_field(images))
        try:
            key = _cache_key(response.head, response.body, find_json(response.body), state.now())
        except StaleSession:
            refuse_nonce(state, nonce)
            raise
        query = {"action": _STREAM, "cache_key": key, **asked, "_ts": str(number), "_ajax_nonce": nonce}
        query |= {name: known[name] for name in widget.upstream_ids if name in known}
        headers = {"accept": "text/event-stream", "cache-control": "no-cache"}
        return Call(Request("GET", f"{url}{'&' if '?' in url else '?'}{urlencode(query)}", headers), decoder)

    def reader(self, request: Request) -> Callable[[Head], Decoder] | None:
        try:
            path = urlsplit(request.url).path
        except ValueError:
            return None
        if not path.endswith("/admin-ajax.php"):
            return None
        fields = form_fields(request)
        action, nonce = fields.get("action"), fields.get("_ajax_nonce", "")
        if action == _CACHE and request.method == "POST":
            return lambda head: _LeavingMessage(head, nonce=nonce)
        if action not in (_STREAM, _MESSAGE):
            return None
        name = "conversation_uuid"
        conversation = {name: fields[name]} if fields.get(name) else {}
        return lambda head: _KitAnswer(head, Limits(), conversation, nonce=nonce)

    def _widget(self, state: SessionState) -> Widget:
        widget = msgspec.json.decode(state.visitor.get(_WIDGET, "{}"), type=Widget)
        return widget if self.bot_id is None else msgspec.structs.replace(widget, bot_id=self.bot_id)

    def _read_page(
        self, site: Site, state: SessionState, *, fresh: bool
    ) -> Generator[Request, Response, tuple[Widget, str, Head]]:
        page = yield from fetch_page(site, state, self.page or "/", fresh=fresh)
        configs = [config for config, _ in shown_configs(parse_html(page.body))]
        if not configs:
            raise no_widget(page, "data-config")
        config = next((c for c in configs if c["botId"] == self.bot_id), configs[0])
        return read_widget(page.head.url, config), text_in(config, "nonce"), page.head

    def _refresh(self, site: Site, state: SessionState, ended: set[str]) -> Generator[Request, Response, bool]:
        """Keep a nonce from the action that gives one; False when the site does not have it, or repeats an old one."""
        widget = self._widget(state)
        fields = {"action": _NONCE, **({} if widget.bot_id is None else {"bot_id": str(widget.bot_id)})}
        response = yield form_request(ajax_address(site, widget.ajax_url), fields)
        value = find_json(response.body) or {}
        nonce = text_in(value.get("data"), "nonce")
        if response.head.status >= 400 or value.get("success") is not True or not nonce or nonce in ended:
            return False
        state.visitor.setdefault(_WIDGET, msgspec.json.encode(widget).decode())
        keep_nonce(state, nonce, response.head)
        return True


def shown_configs(tree: "LexborHTMLParser") -> "list[tuple[dict[str, Any], LexborNode]]":
    """What the chats of a page say of themselves, in its order, each with its element."""
    found = []
    for node in tree.css("[data-config]"):
        config = find_json((node.attributes.get("data-config") or "").encode("utf-8", "replace"))
        if config is not None and text_in(config, "nonce") and "botId" in config:
            found.append((config, node))
    return found


def read_widget(url: str, config: dict[str, Any]) -> Widget:
    """What is used of a chat's configuration on the page at `url`."""
    flags = {
        "enableOpenAIConversationState": "openai_response_id",
        "enableGoogleConversationState": "google_interaction_id",
    }
    return Widget(
        bot_id=int_in(config, "botId"),
        ajax_url=on_site(url, config.get("ajaxUrl")),
        post_id=int_in(config, "postId"),
        upstream_ids=tuple(_UPSTREAM_IDS[name] for flag, name in flags.items() if config.get(flag) is True),
    )


def _ids(widget: Widget) -> dict[str, str]:
    ids = {"bot_id": widget.bot_id, "post_id": widget.post_id}
    return {name: str(value) for name, value in ids.items() if value is not None}


_TAG = re.compile(r"<[^<>]*>")
_DAMAGED = (
    "the site's history loses what stands between < and >, as it does in the earlier turns of this conversation; "
    'history = "prompt" sends them whole'
)


def _lost(messages: tuple[Message, ...]) -> bool:
    """Whether the site has lost something of the earlier turns."""
    return any(_TAG.search(message.text) for message in messages[:-1])


# Pictures

_DATA_URL = re.compile(r"data:(image/[\w.+-]+)(?:;[\w=.-]+)*;base64,(.*)", re.S | re.I)


def _image_inputs(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    images: list[dict[str, str]] = []
    for message in messages:
        for part in () if isinstance(message.content, str) else message.content:
            if isinstance(part, Image):
                images.append(_image_input(part.url, len(images) + 1))
    if len(images) > _MAX_IMAGES:
        raise BadRequest(f"at most {_MAX_IMAGES} pictures in a question, not {len(images)}", code="too_many_images")
    return images


def _image_input(url: str, number: int) -> dict[str, str]:
    data = _DATA_URL.fullmatch(url)
    if data is None:
        text = "this service takes pictures as data: URLs with base64, not as addresses"
        raise UnsupportedFeature(text, feature="images")
    try:
        base64.b64decode(data[2], validate=True)
    except ValueError as error:
        raise BadRequest(f"picture {number} is no valid base64: {error}", code="invalid_image_payload") from error
    kind = data[1].lower()
    name = f"image{number}.{kind.partition('/')[2].partition('+')[0]}"
    return {"mime_type": kind, "base64_data": data[2], "filename": name}


def _image_field(images: list[dict[str, str]]) -> dict[str, str]:
    return {"image_inputs": json.dumps(images, separators=(",", ":"))} if images else {}


# Failures. Most are words in the site's language and at its choice; what is known comes first.


def _gone(text: str, status: int) -> ProviderError:
    return AssistantGone(text, missing="bot", status=status)


_Failure = Callable[[str, int], ProviderError]

_QUOTA = re.compile(
    r"лимит|ліміт|исчерпа|вичерпа|квот|kontingent|aufgebraucht|\blimite?\b|\bl[ií]mite\b|limiet|limitów|cuota|\bcota\b"
    r"|上限|制限|限额|配额|한도",
    re.I,
)
_GUESTS = re.compile(
    r"\bгост(ь|я|ей|ям)|\bgäste|\binvité|\bvisiteurs|\binvitados|\bospiti|\bconvidados|\bvisitantes|\bgasten\b|\bgości"
    r"|\bmisafir|ゲスト|访客|游客|게스트",
    re.I,
)

_WORDS: tuple[tuple[re.Pattern[str], _Failure], ...] = (
    (re.compile(r"^(\w+ )?(API|Connection) Error\b", re.I), upstream_error),
    (re.compile(r"security check failed", re.I), lambda text, status: StaleSession(text, status=status, code="nonce")),
    (
        re.compile(r"not found in cache|cached message has expired", re.I),
        lambda text, status: StaleSession(text, status=status, code="cache_key"),
    ),
    (re.compile(r"quota|\blimit\b", re.I), lambda text, status: RateLimited(text, status=status, code="guest_limit")),
    (
        re.compile(r"disabled for guests|log ?in|domain is not permitted", re.I),
        lambda text, status: AuthError(text, status=status),
    ),
    (re.compile(r"invalid chatbot", re.I), _gone),
    (
        re.compile(r"\bis (missing|required)\b|cannot be empty", re.I),
        lambda text, status: BadRequest(text, status=status),
    ),
    # The same in the languages of most sites that translate: only 2.4.5 and later mark a quota, and none that guests
    # are shut out. A limit for guests is a limit.
    (_QUOTA, lambda text, status: RateLimited(text, status=status, code="guest_limit")),
    (_GUESTS, lambda text, status: AuthError(text, status=status)),
)

_AI_STATUS = re.compile(r"\(HTTP (\d{3})\)")
_BY_STATUS = {401: "upstream_auth", 403: "upstream_auth", 429: "upstream_rate_limited"}


def _refusal(text: str, status: int) -> ProviderError:
    known: _Failure | None = first_match(text, _WORDS)
    return known(text, status) if known else Refused(text, status=status)


def _failed_form(head: Head, body: bytes, value: dict[str, Any] | None, now: float) -> Exception:
    """The error for a form that did not succeed: by its code, by what it says of the AI, by its words."""
    if error := ajax_failure(head, body):
        return error
    data = value.get("data") if value is not None else None
    code, text, status = text_in(data, "code"), plain_text(text_in(data, "message")), head.status
    if code.startswith("nonce_failure"):
        return StaleSession(text, status=status, code=code)
    if code in ("embed_not_available", "cors_denied"):
        return AuthError(text, status=status, code=code)
    if code and status in (400, 413):
        return BadRequest(text, status=status, code=code)
    if ai := _AI_STATUS.search(text):
        return upstream_error(text, status, _BY_STATUS.get(int(ai[1]), "upstream"))
    if text and status in (400, 401, 403):
        return _refusal(text, status)
    if text and status >= 500:
        return upstream_error(text, status)
    if status >= 400:
        return failure(head, body, now, text=text, code=code or None)
    return _refusal(text, status) if text else RemoteProtocolError("the site's answer has no message", status=status)


def _cache_key(head: Head, body: bytes, value: dict[str, Any] | None, now: float) -> str:
    """The key of the message that was left with the site. Raises what the site answered instead."""
    if head.status < 400 and value is not None and value.get("success") is True:
        if key := text_in(value.get("data"), "cache_key"):
            return key
        raise ProtocolDrift("the site gave no key for the message", missing="cache_key", status=head.status)
    raise _failed_form(head, body, value, now)


# Answers

_BEGINS = {"response.created": True, "response.completed": False, "response.incomplete": False}


class _KitAnswer(PluginAnswer):
    """Named events, or the object of the single request.

    An `error` before any text is held: `done` after it means that the site refused the question, the
    end of the body that the AI failed. After text it is the AI's failure, and raised at once.
    """

    def __init__(
        self,
        head: Head,
        limits: Limits,
        conversation: dict[str, str],
        *,
        state: SessionState | None = None,
        nonce: str = "",
    ) -> None:
        super().__init__(head, limits, state=state, nonce=nonce)
        self._conversation = dict(conversation)
        self._held = ""
        self._open = False
        """Whether OpenAI began a response of which neither the end nor the id, which comes at its end, was told."""

    def event(self, event: ServerSentEvent) -> Iterator[Event]:
        name = event.event
        if name == "done":
            if self._held:
                raise self._refused(self._held)
            if self._open and self.partial:
                text = "the AI behind the site broke off"
                raise TruncatedAnswer(text, partial=self.partial, status=self.head.status)
            yield from self.conclude(state=self._conversation)
        elif name == "error":
            self._error(event.data)
        elif name == "status":
            self._open = _BEGINS.get(text_in(find_json(event.data), "type"), self._open)
        elif name in _UPSTREAM_IDS:
            self._open = False
            if upstream := text_in(_object(event.data), "id"):
                self._conversation[_UPSTREAM_IDS[name]] = upstream
        elif name == "warning":
            yield Notice("warning", text_in(_object(event.data), "error") or plain_text(event.data))
        elif name in ("citations", "grounding_metadata", "display_form_event"):
            yield Notice(name, clean(event.data.decode("utf-8", "replace")))
        elif name in ("", "message"):
            delta = _object(event.data).get("delta")
            if isinstance(delta, str):
                yield from self.delta(delta)

    def _error(self, data: bytes) -> None:
        value = find_json(data)
        text = plain_text(text_in(value, "error") or data) or "the site reports an error"
        if value is not None and value.get("quota_notice"):
            raise RateLimited(text, status=self.head.status, code="guest_limit")
        if self.partial:
            raise upstream_error(text, self.head.status)
        self._held = self._held or text

    def at_end(self) -> Iterator[Event]:
        if self._held:
            raise upstream_error(self._held, self.head.status)
        yield from ()

    def whole(self, value: dict[str, Any]) -> Iterator[Event]:
        data = value.get("data")
        if value.get("success") is not True:
            raise self.failed(b"", value)
        if not isinstance(data, dict) or not isinstance(data.get("reply", ""), str):
            raise RemoteProtocolError("the answer has no `reply`", status=self.head.status)
        for name, parameter in _UPSTREAM_IDS.items():
            if upstream := text_in(data, name):
                self._conversation[parameter] = upstream
        yield from self.delta(data.get("reply", ""))
        yield from self.conclude(state=self._conversation)

    def failed(self, body: bytes, value: dict[str, Any] | None) -> Exception:
        if value is None and self.head.status < 400 and not ajax_failure(self.head, body):
            return self.not_an_answer(body)
        return self._remember(_failed_form(self.head, body, value, self.now))

    def _refused(self, text: str) -> Exception:
        return self._remember(_refusal(text, self.head.status))

    def _remember(self, error: Exception) -> Exception:
        if isinstance(error, StaleSession) and error.code != "cache_key":
            return self.stale(error.text, error.code)
        return error


class _LeavingMessage(PluginAnswer):
    """The recorded answer to the first of the two requests: nothing comes of it but its error."""

    preparatory = True

    def event(self, event: ServerSentEvent) -> Iterator[Event]:
        raise RemoteProtocolError("a stream instead of a key for the message", status=self.head.status)

    def whole(self, value: dict[str, Any]) -> Iterator[Event]:
        _cache_key(self.head, b"", value, self.now)
        yield from ()

    def failed(self, body: bytes, value: dict[str, Any] | None) -> Exception:
        if value is None and self.head.status < 400 and not ajax_failure(self.head, body):
            return self.not_an_answer(body)
        return _failed_form(self.head, body, value, self.now)


def _object(data: bytes) -> dict[str, Any]:
    value = parse_json(data)
    if not isinstance(value, dict):
        raise RemoteProtocolError("an event of the answer is no object")
    return value
