"""AI Engine (`mwai`), as version 3.6.2 answers: start_session for the nonce, JSON in, JSON or events out."""

import json
import secrets
from typing import Any, ClassVar

from tolmach.demo.answers import answer, last_question, tokens
from tolmach.demo.base import (
    Headers,
    Piece,
    Reply,
    Step,
    Visit,
    World,
    server_page,
    server_sent_event,
    upstream,
)
from tolmach.demo.faults import wish_in
from tolmach.demo.wordpress.common import (
    CRITICAL,
    EXPIRES,
    NonceBook,
    attribute,
    php_json,
    wordpress_not_found,
    wordpress_page,
)
from tolmach.wire import Request

__all__ = ["START", "AiEngine", "error"]

POST_ID = 5
_MAX_CHARACTERS = 512
_MAX_MESSAGES = 16
_REJECTED = "Sorry, your query has been rejected."
_BANNED = "Your query has been rejected."
_LIMIT = "You have reached the limit (check the Insights Tab > Limits > Guests)."
_CUT = "Demo: cURL error 56: Recv failure: Connection reset by peer"

START = "/mwai/v1/start_session"
"""The route that gives a nonce, from version 2.4.4 on."""
_ROUTES: dict[str, tuple[str, Step]] = {
    START: ("POST", "handshake"),
    "/mwai-ui/v1/chats/submit": ("POST", "chat"),
    "/mwai-ui/v1/discussions/list": ("POST", "other"),
    "/": ("GET", "other"),
}


class AiEngine:
    """One site with the bot `default`; an unknown bot is answered by it, as since version 3.0.3."""

    kind: ClassVar[str] = "ai_engine"

    def __init__(self, world: World, mount: str) -> None:
        self.mount = mount
        self.title = mount.strip("/")
        self.nonces = NonceBook(world, mount, "wp_rest")

    def step(self, method: str, path: str, request: Request) -> Step:
        if path.startswith("/wp-json"):
            return _ROUTES.get(path.removeprefix("/wp-json"), ("", "other"))[1]
        return "page" if path in ("", "/") else "other"

    def wish(self, visit: Visit) -> str:
        body = _body(visit) if visit.mentions_faults else None
        return wish_in(last_question(str(body.get("newMessage", "")))) if isinstance(body, dict) else ""

    def respond(self, visit: Visit) -> Reply:
        if visit.path.startswith("/wp-json"):
            return self._rest(visit)
        if visit.step == "page":
            return self._page(visit)
        return wordpress_not_found(visit)

    def failure(self, visit: Visit, status: int) -> Reply:
        return self._critical(visit) if status == 500 else server_page(status)

    def _page(self, visit: Visit) -> Reply:
        if "plugin-off" in visit.wanted:
            return wordpress_page(visit, self.title, POST_ID, "<p>[mwai_chatbot]</p>")
        plugin = f"{visit.base}/wp-content/plugins/ai-engine"
        system = _SYSTEM | {"contextId": POST_ID, "pluginUrl": plugin, "restUrl": f"{visit.base}/wp-json"}
        widget = (
            f"<div class='mwai-chatbot-container' data-params='{attribute(_PARAMS)}' "
            f"data-system='{attribute(system)}' data-theme='{attribute(_THEME)}'></div>"
        )
        foot = f'<script src="{plugin}/app/chatbot.js?ver=1795218317" id="mwai_chatbot-js"></script>\n'
        cached = "cached-page" in visit.wanted and not visit.url.query
        return wordpress_page(visit, self.title, POST_ID, widget, foot=foot, age=5021 if cached else None)

    def _rest(self, visit: Visit) -> Reply:
        route = visit.path.removeprefix("/wp-json") or "/"
        off = "plugin-off" in visit.wanted
        started = self._php_session(visit) if route == START and not off else []
        nonce = visit.header("x-wp-nonce")
        given = nonce or visit.query.get("_wpnonce", "")
        good = 0
        if given and "no-guests" not in visit.wanted:
            # WordPress checks the nonce, from the header or the query, before it looks for the route.
            good = self.nonces.check(given, visit.wanted if visit.step == "chat" else {})
            if not good:
                refused = [EXPIRES, _NO_STORE, *(header for header in started if header[0] == "Pragma")]
                return error(visit, 403, "rest_cookie_invalid_nonce", "Cookie check failed", refused)
        fresh = [*started, *([("X-WP-Nonce", self.nonces.current())] if good else [])]
        if "no-guests" in visit.wanted:
            return error(visit, 401, "rest_not_logged_in", "You are not currently logged in.", started)
        if _ROUTES.get(route, ("", ""))[0] != visit.request.method or off:
            vary = [("Vary", "Origin")] if visit.request.method == "GET" else []
            text = "No route was found matching the URL and request method."
            return error(visit, 404, "rest_no_route", text, [*fresh, *vary])
        if route == "/":
            return _json(visit, 200, _index(visit), [*fresh, ("Allow", "GET"), ("Vary", "Origin")])
        if route == START:
            return self._start_session(visit, fresh)
        if not nonce:
            return error(visit, 401, "rest_forbidden", "Sorry, you are not allowed to do that.", fresh)
        if visit.request.body and visit.content_type == "application/json" and _body(visit) is _BROKEN:
            return _json(visit, 400, _INVALID_JSON, fresh)
        if route == "/mwai-ui/v1/discussions/list":
            return _json(visit, 200, {"success": False, "message": "You need to be connected."}, [*fresh, _ALLOW])
        return self._submit(visit, fresh, renewed=good == 2)

    def _php_session(self, visit: Visit) -> Headers:
        """The headers of a PHP session, which this plugin starts for its first route."""
        headers = [EXPIRES_SESSION, ("Cache-Control", "no-store, no-cache, must-revalidate"), ("Pragma", "no-cache")]
        if "PHPSESSID" not in _cookies(visit):
            headers.insert(0, ("Set-Cookie", f"PHPSESSID={secrets.token_hex(13)}; path=/"))
        return headers

    def _visitor(self, visit: Visit) -> tuple[str, Headers]:
        """The visitor's id, and the cookie that sets it when there was none."""
        session = _cookies(visit).get("mwai_session_id")
        if session is not None:
            return session, []
        session = secrets.token_hex(7)[:13]
        return session, [("Set-Cookie", f"mwai_session_id={session}; path=/; HttpOnly")]

    def _start_session(self, visit: Visit, headers: Headers) -> Reply:
        session, cookie = self._visitor(visit)
        value = {"success": True, "sessionId": session, "restNonce": self.nonces.issue()}
        return _json(visit, 200, value, [*headers, *cookie, _ALLOW])

    def _submit(self, visit: Visit, fresh: Headers, *, renewed: bool) -> Reply:
        body = _body(visit)
        asked = body if isinstance(body, dict) and visit.content_type == "application/json" else {}
        message, history = asked.get("newMessage"), asked.get("messages", [])
        if (message is not None and not isinstance(message, str)) or not isinstance(history, list | None):
            return self._critical(visit)
        message = (message or "").strip()
        if not message or not (asked.get("botId") or asked.get("customId")):
            return _json(visit, 403, {"success": False, "message": _REJECTED}, fresh)
        stream = asked.get("stream") is True
        if len(message) > _MAX_CHARACTERS:
            # Found before the stream's headers are set: the event comes as JSON by its type.
            return _early(visit, _REJECTED, fresh) if stream else _refusal(visit, _REJECTED, fresh, stream=False)
        wanted = visit.wanted
        fresh = [*fresh, *self._visitor(visit)[1]]
        reply: Reply
        if "banned" in wanted or "forbiddenword" in message:
            reply = _refusal(visit, _BANNED, fresh, stream=stream)
        elif "guest-limit" in wanted:
            reply = _refusal(visit, _LIMIT, fresh, stream=stream)
        elif "upstream-error" in wanted:
            text = _upstream_text(wanted["upstream-error"], stream=stream)
            reply = _refusal(visit, text, fresh, stream=stream)
        else:
            count = min(sum(isinstance(entry, dict) for entry in history or []), _MAX_MESSAGES) + 1
            earlier = "\n".join(str(entry.get("content")) for entry in history or [] if isinstance(entry, dict))
            texts = tokens(answer(self.title, message, count, earlier), wanted)
            token = {"new_token": self.nonces.current()} if renewed else {}
            reply = _stream(visit, texts, fresh, token) if stream else _whole(visit, texts, fresh, token)
        if visit.wanted.get("nonce-expires") is not None or reply.status == 200:
            reply.finished = lambda whole: self.nonces.answered(whole, visit.wanted)
        return reply

    def _critical(self, visit: Visit) -> Reply:
        return error(visit, 500, "internal_server_error", CRITICAL, [EXPIRES, _NO_STORE])


def _whole(visit: Visit, texts: list[str], fresh: Headers, extra: dict[str, str]) -> Reply:
    if "upstream-cut" in visit.wanted:
        return _refusal(visit, _CUT, fresh, stream=False)
    return _json(visit, 200, _result("".join(texts), len(texts)) | extra, fresh)


def _stream(visit: Visit, texts: list[str], fresh: Headers, extra: dict[str, str]) -> Reply:
    for fault in ("upstream-cut", "upstream-event"):
        if fault in visit.wanted:
            texts = texts[: int(visit.wanted[fault])]
    pieces = [Piece(server_sent_event(php_json({"type": "live", "data": text}))) for text in texts]
    if "upstream-cut" in visit.wanted:
        pieces.append(Piece(server_sent_event(php_json({"type": "error", "data": _CUT})), "end"))
    else:
        # An error event of the AI is swallowed: the stream ends as usual, with what had come.
        result = php_json(_result("".join(texts), len(texts)) | extra).decode()
        pieces.append(Piece(server_sent_event(php_json({"type": "end", "data": result})), "end"))
    return Reply(200, [*_event_stream(visit), *fresh, ("Cache-Control", "no-cache")], pieces, stream=True)


def _upstream_text(status: float, *, stream: bool) -> str:
    """A failure of the AI as the plugin tells it: two ways of reading it, two texts."""
    failed = upstream(status)
    if stream:
        codes = "".join(f" ({code})" for code in (failed.code, failed.kind) if code)
        return f"Demo: Error: {failed.text}{codes}"
    if status == 401:
        return "Demo: Incorrect API key provided."
    if failed.code:
        return f"Demo: {failed.text}"
    error = {"message": failed.text, "type": failed.kind, "param": None, "code": None}
    return f"Demo: {json.dumps({'error': error})}"


def _result(text: str, count: int) -> dict[str, Any]:
    numbers = {"prompt_tokens": 11, "completion_tokens": count, "total_tokens": 11 + count}
    usage = {**numbers, "price": None, "queries": 1, "accuracy": "estimated"}
    empty: dict[str, Any] = {"images": None, "actions": [], "shortcuts": [], "blocks": []}
    return {"success": True, "reply": text, **empty, "usage": usage, "responseId": f"chatcmpl-{secrets.token_hex(6)}"}


def _refusal(visit: Visit, text: str, fresh: Headers, *, stream: bool) -> Reply:
    if not stream:
        return _json(visit, 500, {"success": False, "message": text}, fresh)
    piece = Piece(server_sent_event(php_json({"type": "error", "data": text})), "end")
    return Reply(200, [*_event_stream(visit), *fresh, ("Cache-Control", "no-cache")], (piece,), stream=True)


def _early(visit: Visit, text: str, fresh: Headers) -> Reply:
    reply = _json(visit, 200, None, fresh)
    reply.pieces = (Piece(server_sent_event(php_json({"type": "error", "data": text})), "end"),)
    return reply


def error(visit: Visit, status: int, code: str, text: str, headers: Headers | None = None) -> Reply:
    """A `WP_Error` as the REST API tells it."""
    return _json(visit, status, {"code": code, "message": text, "data": {"status": status}}, headers)


def _json(visit: Visit, status: int, value: object, headers: Headers | None = None) -> Reply:
    kind = ("Content-Type", "application/json; charset=UTF-8")
    return Reply(status, [kind, *_rest_headers(visit), *(headers or [])], (Piece(php_json(value)),))


def _event_stream(visit: Visit) -> Headers:
    return [("Content-Type", "text/event-stream;charset=UTF-8"), *_rest_headers(visit)]


def _rest_headers(visit: Visit) -> Headers:
    return [
        ("X-Robots-Tag", "noindex"),
        ("Link", f'<{visit.base}/wp-json/>; rel="https://api.w.org/"'),
        ("X-Content-Type-Options", "nosniff"),
        ("Access-Control-Expose-Headers", "X-WP-Total, X-WP-TotalPages, Link"),
        ("Access-Control-Allow-Headers", "Authorization, X-WP-Nonce, Content-Disposition, Content-MD5, Content-Type"),
    ]


_ALLOW = ("Allow", "POST")
_NO_STORE = ("Cache-Control", "no-cache, must-revalidate, max-age=0, no-store, private")
EXPIRES_SESSION = ("Expires", "Thu, 19 Nov 1981 08:52:00 GMT")
_BROKEN = object()
_INVALID_JSON = {
    "code": "rest_invalid_json",
    "message": "Invalid JSON body passed.",
    "data": {"status": 400, "json_error_code": 4, "json_error_message": "Syntax error"},
}


def _body(visit: Visit) -> Any:
    try:
        return json.loads(visit.request.body)
    except ValueError:
        return _BROKEN


def _cookies(visit: Visit) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in visit.header("cookie").split(";"))
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}


def _index(visit: Visit) -> dict[str, Any]:
    home = visit.base
    names = ["oembed/1.0", "mwai-ui/v1", "mwai/v1", "wp/v2"]
    return {"name": "tolmach demo", "description": "", "url": home, "home": home, "namespaces": names, "routes": {}}


_PARAMS: dict[str, Any] = {
    "aiName": "AI: ",
    "userName": "User: ",
    "guestName": "Guest:",
    "imageUpload": False,
    "fileUpload": False,
    "multiUpload": False,
    "maxUploads": 1,
    "mode": "chat",
    "textInputMaxLength": _MAX_CHARACTERS,
    "startSentence": "Hi! How can I help you?",
    "localMemory": True,
    "themeId": "chatgpt",
    "window": False,
}
_SYSTEM: dict[str, Any] = {
    "botId": "default",
    "customId": None,
    "userData": None,
    "sessionId": None,
    "restNonce": None,
    "contextId": None,
    "pluginUrl": "",
    "restUrl": "",
    "stream": True,
    "debugMode": False,
    "eventLogs": False,
    "typewriter": False,
    "crossSite": False,
    "actions": [],
    "blocks": [],
    "shortcuts": [],
}
_THEME = {"type": "internal", "name": "ChatGPT", "themeId": "chatgpt", "settings": [], "style": ""}
