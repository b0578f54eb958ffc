"""AI Engine (`mwai`), the WordPress plugin by Meow Apps: versions 2.4.1 to 3.6.2.

A guest bootstraps (`start_session`, from 2.4.4 on) or finds the nonce in the page (before), and
posts JSON to a REST route. The service remembers nothing: each question carries the history. Bots
on OpenAI's Responses API go on from `previousResponseId` as well.
"""

import re
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import Struct

from tolmach.chat import ChatRequest, Event, Message, Notice, Reasoning, fold_system, format_prompt
from tolmach.decoding import ServerSentEvent, convert, find_json, parse_json, plain_text
from tolmach.errors import (
    AssistantGone,
    AuthError,
    BadRequest,
    ContextTooLong,
    ProtocolDrift,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    StaleSession,
    TolmachError,
)
from tolmach.protocols.base import SessionState, Site, challenge_page, failure
from tolmach.protocols.bodies import clean, encode_json
from tolmach.protocols.wordpress.common import (
    NONCE,
    PluginAnswer,
    adopt_nonce,
    doubt,
    doubted_nonce,
    ended_nonces,
    fetch_page,
    int_in,
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
    from selectolax.lexbor import LexborHTMLParser

__all__ = ["START", "AIEngine", "ShownWidget", "Widget", "shown_widgets"]

_SUBMIT = "/mwai-ui/v1/chats/submit"
START = "/mwai/v1/start_session"
_CONTAINER = "div.mwai-chatbot-container[data-system]"
_WIDGET = "widget"
_SESSION = "session"
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


class Widget(Struct, frozen=True, kw_only=True):
    """What one chatbot of a page says about itself, or what the options say without a page."""

    rest: str
    bot_id: str | None = None
    custom_id: str | None = None
    context_id: int | None = None
    max_length: int = 512
    counts: Literal["", "bytes", "characters"] = ""
    """What the site counts of a message; empty where no page says it, and nothing is refused beforehand."""
    nonce: str | None = None
    consent: str = ""
    """The site's request for consent, which its page shows before the chat; the server does not ask for it."""


class ShownWidget(Struct, frozen=True):
    """One chatbot of a page: what is used of it, and its two attributes as they are."""

    widget: Widget
    system: dict[str, Any]
    params: dict[str, Any]


_Reading = Generator[Request, Response, tuple[Widget, Head]]


class AIEngine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AI Engine's chatbot.

    Without `page` nothing is fetched but the bootstrap, and `bot_id` (or the bot that every
    installation has) is asked. With `page` the widget there says all: bot, REST root, limits, and
    on old versions the nonce. A site without the bootstrap is read at `page`, or at its root.
    """

    name: ClassVar[str] = "ai-engine"
    title: ClassVar[str] = "AI Engine for WordPress (mwai), 2.4.1 to 3.6.2"
    features: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[frozenset[str]] = frozenset({"stream", "history"})

    bot_id: str = ""
    """The chatbot, such as `default` or `chatbot-x1y2z3`; with `page`, which of its widgets to use."""
    custom_id: str = ""
    """The id of a chatbot that a shortcode made; the site knows it for 24 hours after its page was shown."""
    context_id: int | None = None
    """The post that the chatbot stands on, for bots that know their page."""
    page: str = ""
    """The path of the page with the chatbot, such as `/chat/` or `/`."""
    history: Literal["native", "prompt"] = "native"
    """`native`: earlier turns as the service's own `messages`; `prompt`: all turns in one text."""
    rest_path: str = "/wp-json"
    """The REST root under the site's address, when no page says it; `/index.php?rest_route=` on plain permalinks."""

    def ready(self, site: Site, state: SessionState) -> bool:
        return state.token(NONCE) is not None and state.token(_WIDGET) is not None

    def prepare(self, site: Site, state: SessionState) -> Steps:
        """Raises `AssistantGone`, `ProtocolDrift`, `AuthError` (guests are shut out), `StaleSession` (cached page)."""
        doubted = bool(doubted_nonce(state))
        yield from self._look(site, state, fresh=doubted)
        if doubted:
            looked_at(state)

    def _look(self, site: Site, state: SessionState, *, fresh: bool) -> Steps:
        """Keep the widget and a nonce; with `fresh`, or where a nonce has ended, of a page past the caches."""
        again = ended_nonces(state)
        widget, fresh = self._configured(site), fresh or bool(again)
        if self.page:
            widget, head = yield from self._read_page(site, state, fresh=fresh)
            fresh = True
            if widget.nonce and widget.nonce not in again:
                return _keep(state, widget, widget.nonce, head)
        if (yield from self._start(widget, state)):
            return
        found, head = yield from self._without_bootstrap(site, state, fresh=fresh)
        if found.nonce and found.nonce not in again:
            return _keep(state, found, found.nonce, head)
        if found.rest != widget.rest and (yield from self._start(found, state)):
            return
        if found.nonce:
            text = "the page still shows the nonce that the site refused: it comes out of a cache"
            raise StaleSession(text, code="cached_nonce")
        raise ProtocolDrift("neither the bootstrap nor the page gives a nonce", missing="restNonce", status=404)

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake:
        """Raises `BadRequest` for an empty message, and `ContextTooLong` for one that is longer than the page says.

        The service would refuse both.
        """
        yield from ()
        widget = _kept_widget(state)
        nonce = state.token(NONCE, margin=0.0) or ""
        history, message = self._split(turn.messages)
        if not message.strip():
            raise BadRequest("the message is empty", code="empty_message")
        _check_length(widget, message.strip())
        known = turn.conversation.state if turn.conversation else {}
        chat_id = known.get("chatId") or "".join(_BASE36[int(state.random_hex(4), 16) % 36] for _ in range(11))
        body: dict[str, Any] = {
            "botId": widget.bot_id,
            "customId": widget.custom_id,
            "session": state.token(_SESSION) or "N/A",
            "chatId": chat_id,
            "contextId": widget.context_id,
            "messages": [{"role": m.role, "content": m.text} for m in history],
            "newMessage": message,
            "newFileId": None,
            "stream": turn.stream,
        }
        if previous := known.get("previousResponseId"):
            body["previousResponseId"] = previous
        headers = {
            "accept": "text/event-stream" if turn.stream else "application/json",
            "content-type": "application/json",
            "x-wp-nonce": nonce,
        }
        request = Request("POST", widget.rest + _SUBMIT, headers, encode_json(body))
        asked = _Asked(
            message=message,
            max_length=widget.max_length,
            shown=bool(widget.counts),
            chosen=bool(self.bot_id or self.custom_id),
            chat_id=chat_id,
            consent=widget.consent if turn.conversation is None else "",
            streamed=turn.stream,
        )

        def decoder(head: Head) -> Decoder:
            if head.status < 400:
                adopt_nonce(state, nonce, head.header("x-wp-nonce"), head)
            return _EngineAnswer(head, state.limits, asked, state=state, nonce=nonce)

        return Call(request, decoder)

    def reader(self, request: Request) -> Callable[[Head], Decoder] | None:
        if request.method != "POST" or not _is_submit(request.url):
            return None
        body = find_json(request.body) or {}
        chat_id = text_in(body, "chatId")
        asked = _Asked(message=text_in(body, "newMessage"), chat_id=chat_id, streamed=body.get("stream") is True)
        nonce = request.headers.get("x-wp-nonce", "")
        return lambda head: _EngineAnswer(head, Limits(), asked, nonce=nonce)

    # Handshake

    def _configured(self, site: Site) -> Widget:
        rest = site.url.rstrip("/") + self.rest_path.rstrip("/")
        if site.api_endpoint.endswith(_SUBMIT):
            root = site.api_endpoint.removesuffix(_SUBMIT)
            rest = site.url.rstrip("/") + root if root.startswith("/") else root
        return Widget(
            rest=rest,
            bot_id=self.bot_id or (None if self.custom_id else "default"),
            custom_id=self.custom_id or None,
            context_id=self.context_id,
        )

    def _read_page(self, site: Site, state: SessionState, *, fresh: bool) -> _Reading:
        """The widget to use, and the head of its page. Raises `ProtocolDrift` and what `fetch_page` raises."""
        page = yield from fetch_page(site, state, self.page or "/", fresh=fresh)
        widgets = _widgets(page)
        if not widgets:
            raise no_widget(page, _CONTAINER)
        default = self._configured(site)
        wanted = {"bot_id": self.bot_id, "custom_id": self.custom_id}
        wanted = {name: value for name, value in wanted.items() if value}
        fitting = [w for w in widgets if all(getattr(w, name) == value for name, value in wanted.items())]
        changes: dict[str, Any] = {"context_id": self.context_id} if self.context_id is not None else {}
        if not fitting:
            # The bot is not on this page, but all bots of the site answer with its nonce.
            changes |= {"bot_id": default.bot_id, "custom_id": default.custom_id}
        widget = (fitting or widgets)[0]
        if not widget.rest:
            changes["rest"] = default.rest
        return msgspec.structs.replace(widget, **changes), page.head

    def _start(self, widget: Widget, state: SessionState) -> Generator[Request, Response, bool]:
        """Bootstrap; False when the site has no such route.

        An old nonce must not be sent along: the site would refuse it before it looked at the route.
        """
        headers = {"accept": "application/json", "content-type": "application/json"}
        response = yield Request("POST", widget.rest + START, headers)
        head, body = response.head, response.body
        value = find_json(body)
        if head.status == 404:
            return False
        if head.status >= 400:
            raise _bootstrap_error(head, body, value, state.now())
        nonce = text_in(value, "restNonce")
        if not nonce:
            text = text_in(value, "message") or plain_text(body) or "the bootstrap gave an empty answer"
            raise ProtocolDrift(f"the bootstrap gave no nonce: {text}", missing="restNonce", status=head.status)
        state.keep(_SESSION, text_in(value, "sessionId") or "N/A")
        _keep(state, widget, nonce, head)
        return True

    def _without_bootstrap(self, site: Site, state: SessionState, *, fresh: bool) -> _Reading:
        """The widget of the page, for versions before the bootstrap. No route and no widget: the plugin is gone."""
        try:
            return (yield from self._read_page(site, state, fresh=fresh))
        except ProtocolDrift as error:
            text = f"the site has no AI Engine bootstrap, and {error.text}; set `page` if the chatbot is elsewhere"
            raise AssistantGone(text, missing=error.missing, status=error.status) from error

    def _split(self, messages: tuple[Message, ...]) -> tuple[list[Message], str]:
        """The earlier turns and the new message. What does not end with a user's turn is sent as one text."""
        turns = fold_system(messages)
        if self.history == "prompt":
            return [], format_prompt(messages)
        if not turns or turns[-1].role == "assistant":
            return [], format_prompt(turns or messages)
        earlier = [Message("assistant" if m.role == "assistant" else "user", m.text) for m in turns[:-1]]
        return earlier, turns[-1].text


def _is_submit(url: str) -> bool:
    try:
        parts = urlsplit(url)
        route = dict(parse_qsl(parts.query)).get("rest_route", "")
    except ValueError:
        return False
    return any(path.rstrip("/").endswith(_SUBMIT) for path in (parts.path, route))


def _keep(state: SessionState, widget: Widget, nonce: str, head: Head) -> None:
    state.keep(_WIDGET, msgspec.json.encode(widget).decode())
    keep_nonce(state, nonce, head)


def _kept_widget(state: SessionState) -> Widget:
    kept = state.tokens.get(_WIDGET)
    if kept is None:
        raise StaleSession("another call dropped the session's tokens")
    return msgspec.json.decode(kept.value, type=Widget)


def _widgets(page: Response) -> list[Widget]:
    return [shown.widget for shown in shown_widgets(parse_html(page.body), page.head.url)]


def shown_widgets(tree: "LexborHTMLParser", url: str) -> list[ShownWidget]:
    """The chatbots of the page at `url`, in its order. An attribute that is no JSON is passed over."""
    found = []
    for node in tree.css(_CONTAINER):
        system = find_json((node.attributes.get("data-system") or "").encode("utf-8", "replace"))
        params = find_json((node.attributes.get("data-params") or "").encode("utf-8", "replace")) or {}
        if system is not None:
            found.append(ShownWidget(_widget(url, system, params), system, params))
    return found


def _widget(url: str, system: dict[str, Any], params: dict[str, Any]) -> Widget:
    return Widget(
        rest=on_site(url, system.get("restUrl")).rstrip("/"),
        bot_id=text_in(system, "botId") or None,
        custom_id=text_in(system, "customId") or None,
        context_id=int_in(system, "contextId"),
        max_length=int_in(params, "textInputMaxLength") or 512,
        counts="characters" if "blocks" in system or "shortcuts" in system else "bytes",
        nonce=text_in(system, "restNonce") or None,
        consent=_consent(system.get("blocks")),
    )


def _check_length(widget: Widget, message: str) -> None:
    """Raises `ContextTooLong`. Up to 2.4.8 the plugin counts bytes, and its pages up to 2.4.7 have no `blocks`."""
    if not widget.counts:
        return
    length = len(message.encode("utf-8", "replace")) if widget.counts == "bytes" else len(message)
    if length > widget.max_length:
        text = f"the message has {length} {widget.counts}, and the site takes {widget.max_length} at most"
        raise ContextTooLong(text, code="message_limit")


def _consent(blocks: Any) -> str:
    for block in blocks if isinstance(blocks, list) else ():
        if text_in(block, "type") == "content":
            data = block.get("data")
            if text_in(data, "id").startswith("mwai_gdpr_") or text_in(block, "id").startswith("mwai_gdpr_"):
                return plain_text(text_in(data, "html")) or "the site asks for consent to the processing of data"
    return ""


def _bootstrap_error(head: Head, body: bytes, value: Any, now: float) -> Exception:
    if challenge := challenge_page(head, body):
        return challenge
    text = text_in(value, "message")
    if head.status in (401, 403):
        said = text or plain_text(body)
        return AuthError(f"the site shuts guests out: {said}", status=head.status, code=text_in(value, "code") or None)
    return failure(head, body, now, text=plain_text(text), code=text_in(value, "code") or None)


# Answers

_LIMIT = re.compile(r"\b(reached|exceeded|over) (the|your|its)? ?\w* ?(limit|quota)|\blimit reached|\btoo many", re.I)
_SERVICE = re.compile(r"[^:\n]{1,60}(?=: )")
# The plugin's own words, which it does not translate; any other text of that place is its owner's, for a used-up limit.
_REJECTED = re.compile(r"sorry, your query has been rejected", re.I)
_BANNED = re.compile(r"your query has been rejected|unauthorized query|moderation", re.I)
_UNCONFIRMED = "the AI behind the site told no usage, as it does at the end of an answer: it may have broken off"
_SETUP = re.compile(r"\bAPI.?key\b|\bcURL error\b", re.I)


class _Asked(Struct, frozen=True, kw_only=True):
    """What the reading of an answer needs to know of the question."""

    message: str = ""
    max_length: int = 512
    shown: bool = False
    """Whether a page says the bot."""
    chosen: bool = False
    """Whether the options name the bot; else it is that of the page, or the one that every installation has."""
    chat_id: str = ""
    consent: str = ""
    streamed: bool = True


class _End(Struct):
    """The object of a whole answer; the parts that carry it."""

    reply: str | None = None
    images: list[str] | None = None
    responseId: str | None = None
    new_token: str | None = None


class _EngineAnswer(PluginAnswer):
    """`live` events with pieces and one `end` or `error`; or the object of the `end` alone."""

    def __init__(
        self, head: Head, limits: Limits, asked: _Asked, *, state: SessionState | None = None, nonce: str = ""
    ) -> None:
        super().__init__(head, limits, state=state, nonce=nonce)
        self._asked = asked

    def event(self, event: ServerSentEvent) -> Iterator[Event]:
        value = parse_json(event.data)
        if not isinstance(value, dict):
            raise RemoteProtocolError("an event of the answer is no object", status=self.head.status)
        kind, data = value.get("type"), value.get("data")
        if kind == "end":
            end = parse_json(data) if isinstance(data, str) else data
            if not isinstance(end, dict):
                raise RemoteProtocolError("the answer's end is no object", status=self.head.status)
            yield from self.whole(end)
        elif kind == "error":
            raise self._error(plain_text(data if isinstance(data, str) else event.data))
        elif kind == "live":
            if not isinstance(data, str):
                raise RemoteProtocolError("a piece of the answer is no text", status=self.head.status)
            yield from self._live(data, value.get("subtype"))

    def _live(self, text: str, subtype: Any) -> Iterator[Event]:
        if subtype is None or subtype == "content":
            yield from self.delta(text)
        elif text := clean(text):
            yield Reasoning(text) if subtype == "thinking" else Notice(clean(str(subtype)), text)

    def whole(self, value: dict[str, Any]) -> Iterator[Event]:
        if value.get("success") is not True:
            raise self.failed(b"", value)
        end = convert(value, _End)
        reply = clean(end.reply or "")
        pictures = [clean(url) for url in end.images or ()]
        if not reply and not self.partial:
            reply = "\n\n".join(f"![]({url})" for url in pictures)
        else:
            for url in pictures:
                yield Notice("image", url)
        yield from self.replace_with(reply)
        if self.state is not None and end.new_token:
            adopt_nonce(self.state, self.nonce, clean(end.new_token), self.head)
        if self._asked.consent:
            yield Notice("consent", self._asked.consent)
        usage = value.get("usage")
        accuracy = text_in(usage, "accuracy")
        estimated = accuracy == "estimated" or (not accuracy and self._asked.streamed)
        if self._streams and accuracy == "estimated" and (end.responseId or "").startswith("resp_"):
            # They tell the usage at their end. Chat completions may not, and are estimated when whole too.
            yield Notice("unconfirmed", _UNCONFIRMED)
        state = {"chatId": self._asked.chat_id, "previousResponseId": clean(end.responseId or "")}
        yield from self.conclude(
            usage=usage_in(usage, estimated=estimated), state={name: text for name, text in state.items() if text}
        )

    # Failures

    def failed(self, body: bytes, value: dict[str, Any] | None) -> Exception:
        if value is None:
            return failure(self.head, body, self.now) if self.head.status >= 400 else self.not_an_answer(body)
        code, text = text_in(value, "code"), plain_text(text_in(value, "message"))
        if code in _CODES:
            return _CODES[code](self, text, code)
        if value.get("success") is False and self.head.status in (200, 400, 403, 500):
            return self._error(text)
        if self.head.status >= 400:
            return failure(self.head, body, self.now, text=text, code=code or None)
        return RemoteProtocolError("the answer has no `success`", status=self.head.status)

    def _error(self, text: str) -> ProviderError:
        """The error that a text without a code stands for: by the structure around it, its words last.

        A fault of the AI has the service's name in front; an error found before the stream began
        (too long, no such bot) has no event stream's type, or is a 403. What is left are a few texts
        of the plugin, which are English everywhere, and the owner's words for a visitor's used-up limit.
        """
        status = self.head.status
        if status in (400, 403):
            return BadRequest(text or "the request was rejected", status=status)
        service = _SERVICE.match(text)
        if service and not _LIMIT.search(service[0]):
            return upstream_error(text, status)
        if _LIMIT.search(text):
            return RateLimited(text, status=status, code="guest_limit")
        if self.partial:
            return ProviderUnavailable(text, status=status, code="upstream")
        if (self._streams and self.head.content_type == "application/json") or _REJECTED.match(text):
            return self._rejected(text)
        if _BANNED.search(text):
            code = "moderation" if "moderation" in text.lower() else None
            return Refused(text, status=status, code=code)
        if _SETUP.search(text):
            return upstream_error(text, status)
        return RateLimited(text or "the site's limit for its visitors is used up", status=status, code="guest_limit")

    def _rejected(self, text: str) -> ProviderError:
        """The error for a question that was turned down before the AI was asked."""
        if "moderation" in text.lower():
            return Refused(text, status=self.head.status, code="moderation")
        asked, status = self._asked, self.head.status
        if len(asked.message.encode("utf-8", "replace")) > asked.max_length:  # 2.4.8 counts bytes, and does not show it
            return ContextTooLong(text, status=status)
        if self.state is None or not (asked.shown or asked.chosen):
            return BadRequest(text, status=status)
        # The length is allowed, so the bot is not known. A custom one is known again once its page was shown.
        if asked.shown and doubt(self.state, self.nonce):
            return StaleSession(text, status=status, code="unknown_bot")
        return AssistantGone(f"the site does not know this chatbot: {text}", missing="bot", status=status)


_CODES: dict[str, Callable[[_EngineAnswer, str, str], TolmachError]] = {
    "rest_cookie_invalid_nonce": lambda answer, text, code: answer.stale(text, code),
    "rest_forbidden": lambda answer, text, code: answer.stale(text, code),
    "rest_not_logged_in": lambda answer, text, code: AuthError(text, status=answer.head.status, code=code),
    "rest_no_route": lambda answer, text, code: AssistantGone(
        f"the site does not know the chat's route, so the plugin is switched off: {text}",
        missing=_SUBMIT,
        status=answer.head.status,
        code=code,
    ),
    "internal_server_error": lambda answer, text, code: ProviderUnavailable(text, status=answer.head.status, code=code),
}
