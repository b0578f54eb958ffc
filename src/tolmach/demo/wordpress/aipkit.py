"""AI Power 2 (`aipkit`), as version 2.4.71 answers: hand the question in, then fetch its answer as a stream."""

import secrets
import time
from collections import OrderedDict
from typing import ClassVar
from urllib.parse import urlsplit

from msgspec import Struct

from tolmach.demo.answers import answer, last_question, tokens
from tolmach.demo.base import Headers, Kind, Piece, Reply, Step, Visit, World, json_text, upstream
from tolmach.demo.base import server_sent_event as event
from tolmach.demo.faults import wish_in
from tolmach.demo.wordpress.common import AJAX_HEADERS, EXPIRES, Plugin, attribute, form_of, wordpress_not_found
from tolmach.demo.wordpress.common import wordpress_page as page
from tolmach.wire import Request

__all__ = ["NONCE_ACTION", "Aipkit"]

POST_ID = 13
BOT_ID = 5
NONCE_ACTION = "aipkit_get_frontend_chat_nonce"
"""Gives a nonce, from version 2.3.41 on."""
KEY_LIFE = 60.0
"""Seconds until a question that was handed in is forgotten."""
_MAX_HISTORY = 15
_KEEP = 10_000

_STALE = "Your session has expired or the request is invalid. Please refresh the page and try again."
_CHECK_FAILED = "Security check failed. Please refresh the page and try again."
_BANNED = "Sorry, your message could not be sent as it contains prohibited words."
_QUOTA = "You have reached your quota for this period."


class _Cached(Struct):
    message: str
    until: float


class Aipkit(Plugin):
    """One site with its bots. The conversation is kept here, by bot, session and conversation."""

    kind: ClassVar[str] = "aipkit"
    NO_CACHE: ClassVar[str] = "no-cache, must-revalidate, max-age=0, no-store, private"

    def __init__(self, world: World, mount: str, bots: tuple[str, ...] = (str(BOT_ID),)) -> None:
        super().__init__(world, mount, "aipkit_frontend_chat_nonce")
        self.title = mount.strip("/")
        self._bots = bots
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._history: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._said: dict[tuple[str, str], str] = {}

    def step(self, method: str, path: str, request: Request) -> Step:
        if path != self.AJAX:
            return "page" if path in ("", "/") else "other"
        whole = request.url.encode() + request.body
        return next((step for action, step in _STEPS.items() if action in whole), "other")

    def wish(self, visit: Visit) -> str:
        if visit.step == "chat":
            # What the question asked for that was handed in before.
            cached = self._cache.get(visit.query.get("cache_key", ""))
            message = cached.message if cached else ""
        else:
            message = form_of(visit).get("message", "") if visit.mentions_faults else ""
        return wish_in(last_question(message))

    def respond(self, visit: Visit) -> Reply:
        if visit.step == "page":
            return self._page(visit)
        if visit.path != self.AJAX:
            return wordpress_not_found(visit)
        form = form_of(visit)
        action = {**visit.query, **form}.get("action")
        if "plugin-off" in visit.wanted:
            return self.no_action(action)
        if action == NONCE_ACTION:
            return self.say({"success": True, "data": {"nonce": self.nonces.issue()}})
        if action == "aipkit_cache_sse_message":
            return self._send(visit, {**visit.query, **form})
        if action == "aipkit_frontend_chat_stream":
            return self._stream(visit, {**visit.query, **form})
        return self.no_action(action)

    def _page(self, visit: Visit) -> Reply:
        if "plugin-off" in visit.wanted:
            return page(visit, self.title, POST_ID, "<p>[aipkit_chatbot id=5]</p>")
        cached = "cached-page" in visit.wanted and not visit.url.query
        nonce = self.nonces.old() if cached else self.nonces.issue()
        own = {"botId": BOT_ID, "ajaxUrl": visit.base + self.AJAX, "nonce": nonce, "postId": POST_ID}
        widget = (
            f'<div class="aipkit_chat_container aipkit-theme-custom" id="aipkit_chat_container_{BOT_ID}" '
            f"data-bot-id=\"{BOT_ID}\" data-config='{attribute(own | _CONFIG)}'></div>"
        )
        plugin = f"{visit.base}/wp-content/plugins/gpt3-ai-content-generator/dist/js"
        foot = f'<script src="{plugin}/public-main.bundle.js?ver=2.4.71" id="aipkit-public-main-js"></script>\n'
        return page(visit, self.title, POST_ID, widget, foot=foot, age=5021 if cached else None)

    # Step 1

    def _send(self, visit: Visit, given: dict[str, str]) -> Reply:
        if _foreign(visit):
            return self._refuse(403, "Embed feature is not available with your current plan.", "embed_not_available")
        if not self.nonces.check(given.get("_ajax_nonce", ""), visit.wanted):
            return self._refuse(403, _STALE, "nonce_failure_cache_sse")
        message = given.get("message", "")
        if not message and not given.get("image_inputs"):
            text = "Data to cache (message or image) cannot be empty."
            return self._refuse(400, text, "empty_data_to_cache")
        key = f"aipkit_sse_{secrets.token_hex(16)}"
        self._cache[key] = _Cached(message, self.world.settings.now() + KEY_LIFE)
        if len(self._cache) > _KEEP:
            self._cache.popitem(last=False)
        return self.say({"success": True, "data": {"cache_key": key}})

    def _refuse(self, status: int, text: str, code: str) -> Reply:
        return self.say({"success": False, "data": {"message": text, "code": code}}, status)

    # Step 2

    def _stream(self, visit: Visit, given: dict[str, str]) -> Reply:
        if _foreign(visit):
            return _events(_error("This domain is not permitted to access the chatbot."), _DONE)
        if not self.nonces.check(given.get("_ajax_nonce", ""), visit.wanted):
            return _events(_error(_CHECK_FAILED), _DONE)
        if visit.request.method != "GET" or not given.get("cache_key"):
            return _events(_error("Message cache key is missing."), _DONE)
        cached = self._cache.pop(given["cache_key"], None)
        if cached is None:
            return _events(_error("Message not found in cache."), _DONE)
        refusal = self._refusal(visit, given, cached)
        if refusal is not None:
            return _events(refusal, _DONE)
        if "upstream-error" in visit.wanted:
            failed = upstream(visit.wanted["upstream-error"])
            code = f" (Code: {failed.code})" if failed.code else ""
            return _events(_start(), _error(f"API Error: {failed.text}{code}"))
        return self._answer(visit, given, cached.message)

    def _refusal(self, visit: Visit, given: dict[str, str], cached: _Cached) -> Piece | None:
        wanted = visit.wanted
        if cached.until < self.world.settings.now():
            return _error("Cached message has expired.")
        if given.get("bot_id") not in self._bots:
            return _error("Invalid chatbot specified.")
        if not given.get("conversation_uuid"):
            return _error("Conversation ID is missing.")
        if not given.get("session_id"):
            return _error("Session ID is missing for guest.")
        if "no-guests" in wanted:
            return _error("Access disabled for guests.")
        if "banned" in wanted or "forbiddenword" in cached.message:
            return _error(_BANNED)
        if "guest-limit" in wanted:
            return _error(_QUOTA, {"quota_notice": {"type": "quota_notice", "message": _QUOTA, "actions": []}})
        return None

    def _answer(self, visit: Visit, given: dict[str, str], message: str) -> Reply:
        key = (given["session_id"], given["conversation_uuid"])
        asked = 1 if message.strip() else 0
        before = self._history.pop(key, 0)
        # The question is kept at once, the answer when it has been given: a hang-up leaves the question.
        self._history[key] = before + asked
        earlier = self._said.pop(key, "") if before else ""
        self._said[key] = f"{earlier}\n{message}"
        if len(self._history) > _KEEP:
            self._said.pop(self._history.popitem(last=False)[0], None)
        texts = tokens(answer(self.title, message, min(before, _MAX_HISTORY) + asked, earlier), visit.wanted)
        response = f"resp_demo{time.time_ns() // 1_000_000}"
        status = {"status": "in_progress", "response_id": response}
        pieces = [
            _start(),
            *(_named("status", {"type": f"response.{what}", **status}) for what in ("created", "in_progress")),
        ]
        stop = next((name for name in ("upstream-cut", "upstream-event") if name in visit.wanted), None)
        if stop:
            texts = texts[: int(visit.wanted[stop])]
        pieces += [Piece(event(json_text({"delta": text}, ascii_only=False, slashes=True))) for text in texts]
        if stop:
            pieces.append(_error(_BROKEN[stop]))
        else:
            pieces += [_named("openai_response_id", {"id": response}, "end"), _DONE]
        reply = _events(*pieces)

        def finished(whole: bool) -> None:
            if whole and not stop:
                self._history[key] = self._history.get(key, 0) + 1
            self.nonces.answered(whole, visit.wanted)

        reply.finished = finished
        return reply


_STEPS: dict[bytes, Step] = {
    b"aipkit_frontend_chat_stream": "chat",
    b"aipkit_cache_sse_message": "send",
    NONCE_ACTION.encode(): "handshake",
}
_BROKEN = {
    "upstream-cut": "Connection Error: transfer closed with outstanding read data remaining",
    "upstream-event": "mock mid-stream failure",
}


def _foreign(visit: Visit) -> bool:
    origin = visit.header("origin")
    return bool(origin) and urlsplit(origin).netloc != visit.url.netloc


def _named(name: str, value: object, kind: Kind = "lead", id: str = "") -> Piece:
    return Piece(event(json_text(value, ascii_only=False, slashes=True), name, id), kind)


def _start() -> Piece:
    return _named("message_start", {"message_id": f"aipkit-msg-{secrets.token_hex(7)}.{secrets.randbelow(10**8):08}"})


def _error(text: str, more: dict[str, object] | None = None) -> Piece:
    return _named("error", {"error": text, **(more or {})}, "end", f"err-{int(time.time())}")


_DONE = _named("done", {"finished": True}, "end")
_PREAMBLE = Piece(b":" + b" " * 4096 + b"\n\n", "lead")


def _events(*pieces: Piece) -> Reply:
    headers: Headers = [("Content-Type", "text/event-stream; charset=utf-8"), *AJAX_HEADERS, EXPIRES]
    headers += [
        ("Cache-Control", "no-cache, no-store, must-revalidate, max-age=0, no-transform"),
        ("Pragma", "no-cache"),
    ]
    return Reply(200, headers, (_PREAMBLE, *pieces), stream=True, buffered=True)


_CONFIG: dict[str, object] = {
    "theme": "custom",
    "popupEnabled": False,
    "headerName": "bot-main",
    "enableStarters": True,
    "starters": ["What can you do?", "Tell me a fun fact"],
    "requireConsentCompliance": False,
    "fileUploadEnabledUI": False,
    "imageUploadEnabledUI": False,
    "provider": "OpenAI",
    "enableOpenAIConversationState": False,
    "enableGoogleConversationState": False,
    "text": {"sendMessage": "Send Message", "initialGreeting": "Hello! How can I help you today?"},
}
