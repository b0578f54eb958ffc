"""AI Power up to 1.9 (`wpaicg`), as version 1.9.18 answers: nonce in the page, form in, JSON or a stream out."""

import re
import time
from typing import ClassVar

import msgspec

from tolmach.demo.answers import answer, last_question, tokens
from tolmach.demo.base import Kind, Piece, Reply, Step, Visit, World, json_text, server_sent_event, upstream
from tolmach.demo.faults import wish_in
from tolmach.demo.wordpress.common import (
    AJAX_HEADERS,
    EXPIRES,
    Plugin,
    form_of,
    php_json,
    wordpress_not_found,
    wordpress_page,
)
from tolmach.wire import Request

__all__ = ["AiPower"]

_GREETING = (
    "Converse as if you were an AI assistant. Answer the question as truthfully as possible using the "
    "provided text. Tone: Friendly"
)
_EMPTY = "It appears that nothing was inputted."
_BANNED = "Your message contains prohibited words. Please modify your message and try again."
_LIMIT = "You have reached your token limit."
_CUT = "cURL error 56: Recv failure: Connection reset by peer"
_ACTIONS = frozenset({"wpaicg_chat_shortcode_message", "wpaicg_chatbox_message"})
POST_ID = 11
STREAM_BOT = 6
JSON_BOT = 5


class AiPower(Plugin):
    """One site. `stream` says how its default bot answers; bot 5 answers in JSON and bot 6 streams."""

    kind: ClassVar[str] = "ai_power"

    def __init__(self, world: World, mount: str, *, stream: bool) -> None:
        super().__init__(world, mount, "wpaicg-chatbox")
        self.title = mount.strip("/")
        self._streams = {0: stream, JSON_BOT: False, STREAM_BOT: True}
        self._log_number = 0

    def step(self, method: str, path: str, request: Request) -> Step:
        if path == self.AJAX:
            return "chat"
        return "page" if path in ("", "/") else "other"

    def wish(self, visit: Visit) -> str:
        return wish_in(last_question(form_of(visit).get("message", ""))) if visit.mentions_faults else ""

    def respond(self, visit: Visit) -> Reply:
        if visit.step == "page":
            return self._page(visit)
        if visit.path == self.AJAX:
            return self._chat(visit)
        return wordpress_not_found(visit)

    def _page(self, visit: Visit) -> Reply:
        if "plugin-off" in visit.wanted:
            return wordpress_page(visit, self.title, POST_ID, "<p>[wpaicg_chatgpt]</p>")
        cached = "cached-page" in visit.wanted and not visit.url.query
        nonce = self.nonces.old() if cached else self.nonces.issue()
        widget = _WIDGET.format(nonce=nonce, post=POST_ID, url=visit.base, stream=int(self._streams[0]))
        params = php_json({"ajax_url": visit.base + self.AJAX, "search_nonce": nonce, "logged_in": "0"}).decode()
        foot = f"<script id='wpaicg-init-js-extra'>var wpaicgParams = {params};</script>\n"
        plugin = f"{visit.base}/wp-content/plugins/gpt3-ai-content-generator/public/js"
        head = f"<script src='{plugin}/wp-ai-content-generator-public.js?ver=1.9.18'></script>\n"
        return wordpress_page(visit, self.title, POST_ID, widget, head=head, foot=foot, age=5021 if cached else None)

    def _chat(self, visit: Visit) -> Reply:
        form = form_of(visit)
        given = {**visit.query, **form}
        action = given.get("action")
        if action not in _ACTIONS or "plugin-off" in visit.wanted:
            return self.no_action(action)
        if not self.nonces.check(given.get("_wpnonce", ""), visit.wanted):
            return self.ajax(b"The link you followed has expired.", 403, html=True)
        message = form.get("message", "").strip()
        if not message:
            return self.say({"status": "error", "msg": _EMPTY})
        bot = given.get("bot_id", "")
        streams = self._streams.get(int(bot) if bot.isascii() and bot.isdigit() else 0, self._streams[0])
        history = _history(given.get("wpaicg_chat_history", ""))
        reply = self._stream(visit, message, history) if streams else self._json(visit, message, history)
        reply.finished = lambda whole: self.nonces.answered(whole, visit.wanted)
        return reply

    def _text(self, message: str, history: list[str]) -> str:
        # The instruction of the bot goes along as a message of the user's.
        return answer(self.title, message, len(history) + 2, "\n".join(history))

    def _json(self, visit: Visit, message: str, history: list[str]) -> Reply:
        wanted = visit.wanted
        self._log_number += 1
        log = str(self._log_number) if history else self._log_number
        if "guest-limit" in wanted:
            return self.say({"msg": _LIMIT, "tokenLimitReached": True})
        if "banned" in wanted or "forbiddenword" in message:
            return self.say({"status": "error", "msg": _BANNED})
        if "upstream-error" in wanted or "upstream-cut" in wanted:
            text = _CUT if "upstream-cut" in wanted else upstream(wanted["upstream-error"]).text
            return self.say({"status": "error", "msg": text, "greeting_message": _GREETING, "log": log})
        data = "".join(tokens(self._text(message, history), wanted))
        success = {"status": "success", "msg": "Something went wrong", "greeting_message": _GREETING}
        return self.say({**success, "data": data, "log": log})

    def _stream(self, visit: Visit, message: str, history: list[str]) -> Reply:
        wanted = visit.wanted
        pieces: list[Piece] = []
        if "guest-limit" in wanted:
            pieces.append(_event({"msg": _LIMIT, "tokenLimitReached": True}, "end", spaced=False))
        elif "upstream-error" in wanted:
            pieces += _told_as_text(upstream(wanted["upstream-error"]).text) * 2
        else:
            if "banned" in wanted or "forbiddenword" in message:
                # The real one says so and goes on to answer.
                pieces.append(_event({"msg": _BANNED, "messageFlagged": True}, "lead", spaced=False))
            pieces += self._chunks(visit, tokens(self._text(message, history), wanted))
        headers = [("Content-Type", "text/event-stream;charset=UTF-8"), *AJAX_HEADERS, EXPIRES]
        return Reply(200, [*headers, ("Cache-Control", "no-cache")], pieces, stream=True)

    def _chunks(self, visit: Visit, texts: list[str]) -> list[Piece]:
        """The chunks of the AI behind the plugin, passed through as they are."""
        created = int(time.time())
        pieces = [_chunk(created, {"role": "assistant", "content": ""}, "lead")]
        for fault in ("upstream-cut", "upstream-event"):
            if fault in visit.wanted:
                texts = texts[: int(visit.wanted[fault])]
        pieces += [_chunk(created, {"content": text}) for text in texts]
        if "upstream-event" in visit.wanted:
            error = {"message": "mock mid-stream failure", "type": "server_error", "code": "server_error"}
            pieces.append(_event({"error": error}, "end"))
        elif "upstream-cut" not in visit.wanted:
            pieces.append(_chunk(created, {}, "end", "stop"))
            pieces.append(Piece(b"data: [DONE]\n\n", "mark"))
        return pieces


def _event(value: object, kind: Kind, *, spaced: bool = True) -> Piece:
    return Piece(server_sent_event(json_text(value, ascii_only=False, spaced=spaced)), kind)


def _chunk(created: int, delta: dict[str, str], kind: Kind = "token", finish: str | None = None) -> Piece:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "chatcmpl-demo", "object": "chat.completion.chunk", "created": created, "model": "gpt-4o-mini"}
    return _event({**head, "choices": choices}, kind)


def _told_as_text(text: str) -> list[Piece]:
    """A fault of the AI as the plugin tells it: word by word, like an answer, without `[DONE]`."""
    words = re.findall(r"\s*\S+", text)
    pieces = [
        Piece(server_sent_event(json_text({"choices": [{"delta": {"content": word}}]}, ascii_only=False), "message"))
        for word in words
    ]
    return [*pieces, _event({"choices": [{"finish_reason": "stop"}]}, "end", spaced=False)]


_Entry = list[str | dict[str, str | int]]


def _history(text: str) -> list[str]:
    """The history as the plugin reads it: all backslashes go first, and what is then no JSON is dropped."""
    try:
        entries = msgspec.json.decode(text.replace("\\", ""), type=_Entry)
    except (msgspec.DecodeError, UnicodeError):
        return []
    return [str(entry.get("text", "")) if isinstance(entry, dict) else entry for entry in entries]


_WIDGET = """<div class="wpaicg-chat-shortcode"
     data-user-bg-color="#ccf5e1"
     data-nonce="{nonce}"
     data-post-id="{post}"
     data-url="{url}"
     data-bot-id="0"
     data-typewriter-effect = ""
     data-openai_stream_nav="{stream}"
     data-memory-limit = "100"
     data-assistant-enabled="false"
     data-type="shortcode"
>
        <ul class="wpaicg-chat-shortcode-messages">
            <li class="wpaicg-ai-message"><span class="wpaicg-chat-message">
                    Привет, я бот                </span></li>
        </ul>
        <textarea class="wpaicg-chat-shortcode-typing" placeholder="Type a message"></textarea>
</div>"""
