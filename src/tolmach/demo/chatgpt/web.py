"""chatgpt.com's conversation: cookies, requirements with a proof of work, and an answer in two encodings."""

import json
import time
import uuid
from collections import OrderedDict
from typing import Any, ClassVar

from msgspec import Struct, field

from tolmach.demo.answers import answer, last_question, tokens
from tolmach.demo.base import Headers, Kind, Piece, Reply, Step, Visit, World, json_reply, json_text, page_reply
from tolmach.demo.base import server_sent_event as event
from tolmach.demo.chatgpt.sentinel import Sentinel, proof_holds, requirements_token_holds
from tolmach.demo.faults import wish_in
from tolmach.wire import Request

__all__ = ["ChatgptWeb"]

MODELS = ("auto", "gpt-3.5-turbo", "gpt-4o", "gpt-4o-mini", "gpt-4", "gpt-4-turbo", "chatgpt-4o-latest")
_UNUSUAL = "Unusual activity has been detected from your device. Try again later."
_KEEP = 10_000


class _Refused(Exception):
    """A request that the service refuses, with what it answers."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(str(detail))
        self.reply = json_reply(status, {"detail": detail})


class _Conversation(Struct):
    messages: set[str] = field(default_factory=set)
    count: int = 0
    """Messages that the model would be sent."""
    said: str = ""
    """What was asked in them."""


class ChatgptWeb:
    """The service, for guests below `/backend-anon` and with a bearer below `/backend-api`."""

    kind: ClassVar[str] = "chatgpt_web"

    def __init__(self, world: World, mount: str) -> None:
        self.mount = mount
        self.title = mount.strip("/")
        self._world = world
        self._sentinel = Sentinel()
        self._conversations: OrderedDict[str, _Conversation] = OrderedDict()

    def step(self, method: str, path: str, request: Request) -> Step:
        return _STEPS.get(path.removeprefix("/backend-anon").removeprefix("/backend-api"), "other")

    def wish(self, visit: Visit) -> str:
        body = _body(visit) if visit.mentions_faults else None
        if not isinstance(body, dict):
            return ""
        messages = body.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else None
        return wish_in(last_question(_text(last)), str(body.get("model", "")))

    def respond(self, visit: Visit) -> Reply:
        if visit.step == "page":
            return self._page(visit)
        try:
            self._authorize(visit)
            if visit.step == "handshake":
                return self._requirements(visit)
            if visit.step == "chat":
                return self._conversation(visit)
            raise _Refused(404, "Not Found")
        except _Refused as refused:
            return refused.reply

    def failure(self, visit: Visit, status: int) -> Reply:
        detail = {401: "Unauthorized", 429: "Too many requests in 1 hour. Try again later."}
        return json_reply(status, {"detail": detail.get(status, "Internal server error")})

    def _page(self, visit: Visit) -> Reply:
        device = str(uuid.uuid4())
        headers = [
            ("Set-Cookie", f"oai-did={device}; Path=/; SameSite=Lax"),
            ("Set-Cookie", f"__cf_bm={uuid.uuid4().hex}; Path=/; HttpOnly"),
        ]
        html = (
            f'<!DOCTYPE html><html data-build="prod-demo"><head><title>ChatGPT</title></head><body data-id="{device}">'
        )
        return page_reply(f"{html}</body></html>", headers=headers)

    def _authorize(self, visit: Visit) -> None:
        if visit.request.method != "POST":
            raise _Refused(405, "Method Not Allowed")
        kind, _, key = visit.header("authorization").partition(" ")
        if visit.path.startswith("/backend-api/") and not (kind.lower() == "bearer" and key.strip()):
            raise _Refused(401, {"message": "Unauthorized - Access token is missing", "type": "invalid_request_error"})
        try:
            uuid.UUID(visit.header("oai-device-id"))
        except ValueError as error:
            raise _Refused(403, _UNUSUAL) from error

    def _requirements(self, visit: Visit) -> Reply:
        body = _body(visit)
        if not isinstance(body, dict) or visit.content_type != "application/json":
            raise _Refused(422, [_missing("body")])
        if "unusual-activity" in visit.wanted or not requirements_token_holds(body.get("p")):
            raise _Refused(403, _UNUSUAL)
        turnstile, arkose = "turnstile" in visit.wanted, "arkose" in visit.wanted
        settings, log = self._world.settings, self._world.log
        token, asked = self._sentinel.issue(settings.difficulty, settings.now(), turnstile=turnstile, arkose=arkose)
        log.handshakes[self.mount] += 1
        log.changed()
        return json_reply(
            200,
            {
                "persona": "chatgpt-noauth" if visit.path.startswith("/backend-anon") else "chatgpt-freeaccount",
                "token": token,
                "arkose": {"required": arkose, "dx": "demo-arkose" if arkose else None},
                "turnstile": {"required": turnstile, "dx": "demo-turnstile" if turnstile else None},
                "proofofwork": {"required": True, "seed": asked.seed, "difficulty": asked.difficulty},
            },
        )

    def _check_tokens(self, visit: Visit) -> None:
        asked = self._sentinel.take(visit.header("openai-sentinel-chat-requirements-token"), self._world.settings.now())
        held = (
            asked is not None
            and proof_holds(visit.header("openai-sentinel-proof-token"), asked.seed, asked.difficulty)
            and bool(visit.header("openai-sentinel-turnstile-token") or not asked.turnstile)
            and bool(visit.header("openai-sentinel-arkose-token") or not asked.arkose)
        )
        if not held:
            self._world.log.refusals[self.mount] += 1
            self._world.log.changed()
            raise _Refused(403, _UNUSUAL)

    def _conversation(self, visit: Visit) -> Reply:
        accept = visit.header("accept")
        if accept and "text/event-stream" not in accept and "*/*" not in accept:
            raise _Refused(406, "Not Acceptable")
        self._check_tokens(visit)
        body = _checked(visit)
        if "guest-limit" in visit.wanted:
            raise _Refused(429, "You've reached our limit of messages per hour. Please try again later.")
        key, kept = self._find(body)
        for message in body["messages"]:
            kept.messages.add(message["id"])
        kept.count += len(body["messages"])
        talk = _Talk(key, str(uuid.uuid4()), body["model"])
        kept.said = "\n".join([kept.said, *map(_text, body["messages"])])
        text = answer(self.title, _text(body["messages"][-1]), kept.count, kept.said)
        pieces = _pieces(visit, talk, tokens(text, visit.wanted), body)

        def finished(whole: bool) -> None:
            if whole:
                kept.messages.add(talk.message)
                kept.count += 1

        headers: Headers = [("Content-Type", "text/event-stream; charset=utf-8"), ("Cache-Control", "no-cache")]
        return Reply(200, headers, pieces, stream=True, finished=finished)

    def _find(self, body: dict[str, Any]) -> tuple[str, _Conversation]:
        """The conversation to go on with, or a new one. Its parent must be a message in it."""
        key = body.get("conversation_id")
        if key is None:
            key = str(uuid.uuid4())
            self._conversations[key] = _Conversation()
            if len(self._conversations) > _KEEP:
                self._conversations.popitem(last=False)
            return key, self._conversations[key]
        kept = self._conversations.get(key)
        if kept is None:
            raise _Refused(404, {"message": f"Conversation {key} not found", "code": "conversation_not_found"})
        if body["parent_message_id"] not in kept.messages:
            raise _Refused(
                404, {"message": "Parent message not found in the conversation", "code": "message_not_found"}
            )
        return key, kept


_STEPS: dict[str, Step] = {
    "": "page",
    "/": "page",
    "/sentinel/chat-requirements": "handshake",
    "/conversation": "chat",
}


class _Talk(Struct):
    """The answer that is being given."""

    conversation: str
    message: str
    model: str
    created: float = field(default_factory=time.time)

    def snapshot(self, text: str, status: str = "in_progress") -> dict[str, Any]:
        """The assistant's message with this much text, and what stands around it."""
        done = status == "finished_successfully"
        message = _message(self.message, "assistant", text, status, self.created)
        message["end_turn"] = True if done else None
        message["metadata"] = {"model_slug": self.model, "message_type": "next"} | (_COMPLETE if done else {})
        return {"message": message, "conversation_id": self.conversation, "error": None}


_COMPLETE = {"is_complete": True, "finish_details": {"type": "stop", "stop_tokens": [200002]}}


def _message(key: str, role: str, text: str, status: str, created: float) -> dict[str, Any]:
    return {
        "id": key,
        "author": {"role": role, "name": None, "metadata": {}},
        "create_time": created,
        "content": {"content_type": "text", "parts": [text]},
        "status": status,
        "end_turn": None,
        "weight": 1.0,
        "metadata": {},
        "recipient": "all",
        "channel": None,
    }


def _pieces(visit: Visit, talk: _Talk, texts: list[str], body: dict[str, Any]) -> list[Piece]:
    """The events of the answer, in the encoding that the request can read."""
    wanted = visit.wanted
    if "upstream-error" in wanted:
        error = "Something went wrong while generating the response."
        return [_data({"message": None, "conversation_id": talk.conversation, "error": error}, "end"), _DONE]
    stop = next((name for name in ("upstream-cut", "upstream-event") if name in wanted), None)
    texts = texts[: int(wanted[stop])] if stop else texts
    deltas = "v1" in body.get("supported_encodings", []) and "snapshots" not in wanted
    lead, rest, end = (_deltas if deltas else _snapshots)(talk, texts, body, rewritten="rewritten" in wanted)
    if stop == "upstream-event":
        error = "The server had an error while processing your request."
        end = [_data({"message": None, "conversation_id": talk.conversation, "error": error}, "end"), _DONE]
    elif stop:
        end = []
    return [*lead, *rest, *end]


_DONE = Piece(b"data: [DONE]\n\n", "end")
_Parts = tuple[list[Piece], list[Piece], list[Piece]]
_TAKEN_BACK = "Let me say that again.\n\n"


def _data(value: Any, kind: Kind = "token", name: str = "") -> Piece:
    return Piece(event(json_text(value, ascii_only=False), name), kind)


def _before(talk: _Talk, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages that come before the answer: a hidden one of the system, and the user's own."""
    hidden = _message(str(uuid.uuid4()), "system", "", "finished_successfully", talk.created)
    hidden["metadata"] = {"is_visually_hidden_from_conversation": True}
    asked = body["messages"][-1]
    user = _message(asked["id"], "user", _text(asked), "finished_successfully", talk.created)
    around = {"conversation_id": talk.conversation, "error": None}
    return [{"message": hidden, **around}, {"message": user, **around}]


def _snapshots(talk: _Talk, texts: list[str], body: dict[str, Any], *, rewritten: bool) -> _Parts:
    rest = []
    so_far = ""
    for text in texts:
        so_far += text
        rest.append(_data(talk.snapshot(so_far)))
    if rewritten:
        # From its middle on the text is another one; what had been given out is not its beginning.
        so_far = _TAKEN_BACK + so_far
        rest.append(_data(talk.snapshot(so_far)))
    last = _data(talk.snapshot(so_far, "finished_successfully"), "end")
    return [_data(before, "lead") for before in _before(talk, body)], rest, [last, _DONE]


def _deltas(talk: _Talk, texts: list[str], body: dict[str, Any], *, rewritten: bool) -> _Parts:
    def delta(value: dict[str, Any], kind: Kind = "token") -> Piece:
        return _data(value, kind, "delta")

    hidden, user = _before(talk, body)
    lead = [
        _data("v1", "lead", "delta_encoding"),
        delta({"p": "", "o": "add", "v": hidden, "c": 0}, "lead"),
        delta({"v": user, "c": 1}, "lead"),
        delta({"v": talk.snapshot(""), "c": 2}, "lead"),
        _data({"type": "title_generation", "title": "Demo", "conversation_id": talk.conversation}, "lead"),
    ]
    path = "/message/content/parts/0"
    rest = [delta({"v": text} if at else {"p": path, "o": "append", "v": text}) for at, text in enumerate(texts)]
    if rewritten:
        rest.append(delta({"p": path, "o": "replace", "v": _TAKEN_BACK + "".join(texts)}))
    finish = [
        {"p": "/message/status", "o": "replace", "v": "finished_successfully"},
        {"p": "/message/end_turn", "o": "replace", "v": True},
        {"p": "/message/metadata", "o": "append", "v": _COMPLETE},
    ]
    end = [
        delta({"p": "", "o": "patch", "v": finish}, "end"),
        _data({"type": "message_stream_complete", "conversation_id": talk.conversation}, "end"),
        _DONE,
    ]
    return lead, rest, end


def _body(visit: Visit) -> Any:
    try:
        return json.loads(visit.request.body)
    except ValueError:
        return None


def _missing(*where: str | int) -> dict[str, Any]:
    return {"loc": list(where), "msg": "field required", "type": "value_error.missing"}


def _text(message: Any) -> str:
    """The text of a message as this service writes them; empty when it is none."""
    content = message.get("content") if isinstance(message, dict) else None
    parts = content.get("parts") if isinstance(content, dict) else None
    return "".join(part for part in parts if isinstance(part, str)) if isinstance(parts, list) else ""


def _checked(visit: Visit) -> dict[str, Any]:
    """The body, once it is right."""
    body = _body(visit)
    if not isinstance(body, dict) or visit.content_type != "application/json":
        raise _Refused(422, [_missing("body")])
    wrong = [_missing("body", name) for name, kind in _FIELDS.items() if not isinstance(body.get(name), kind)]
    if wrong:
        raise _Refused(422, wrong)
    if body["action"] != "next" or not body["messages"]:
        raise _Refused(422, [_missing("body", "action" if body["messages"] else "messages")])
    for at, message in enumerate(body["messages"]):
        author = message.get("author") if isinstance(message, dict) else None
        if not (isinstance(author, dict) and isinstance(message.get("id"), str) and _text(message)):
            raise _Refused(422, [_missing("body", "messages", at)])
    if body["model"] not in MODELS and not body["model"].startswith("fault:"):
        raise _Refused(404, {"message": f"Model {body['model']} not found", "code": "model_not_found"})
    return body


_FIELDS: dict[str, type] = {
    "action": str,
    "messages": list,
    "parent_message_id": str,
    "model": str,
    "conversation_mode": dict,
    "timezone_offset_min": int,
    "history_and_training_disabled": bool,
    "websocket_request_id": str,
}
