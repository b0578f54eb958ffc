"""One JSON request, one JSON answer, with the site's cookies: the service of seed `Aichat`."""

import json
from typing import Any, ClassVar

from tolmach.demo.answers import answer, folded_turns, last_question, tokens
from tolmach.demo.base import Reply, Step, Visit, World, json_reply, page_reply, server_page, upstream
from tolmach.demo.faults import wish_in
from tolmach.wire import Request

__all__ = ["JsonText"]

_MISSING = object()


class JsonText:
    """The page stands at the mount, the API at the origin's `/api/text` and below the mount as well."""

    kind: ClassVar[str] = "json_text"
    API = "/api/text"

    def __init__(self, world: World, mount: str) -> None:
        self.mount = mount
        self.title = mount.strip("/")

    def step(self, method: str, path: str, request: Request) -> Step:
        if path == self.API:
            return "chat"
        return "page" if path in ("", "/") else "other"

    def wish(self, visit: Visit) -> str:
        body = _body(visit) if visit.mentions_faults else None
        return wish_in(last_question(str(body.get("message", "")))) if isinstance(body, dict) else ""

    def respond(self, visit: Visit) -> Reply:
        if visit.step == "page":
            return page_reply("<!doctype html><html><head><title>Chat</title></head><body><h1>Chat</h1></body></html>")
        if visit.step != "chat":
            return server_page(404)
        return self._chat(visit)

    def _chat(self, visit: Visit) -> Reply:
        wanted = visit.wanted
        if visit.request.method != "POST":
            return _refusal(405, "Method Not Allowed", [("Allow", "POST")])
        if not visit.header("cookie").strip():
            return _refusal(403, "No session: open the chat in a browser first.")
        if visit.content_type != "application/json":
            return _refusal(415, "The request must be JSON.")
        body = _body(visit)
        if not isinstance(body, dict):
            return _refusal(400, "The request is not valid JSON.")
        message = body.get("message")
        if not isinstance(message, str) or not message.strip():
            return _refusal(200, "The message is empty.")
        wrong = [name for name in _NUMBERS if name in body and not _number(body[name])]
        if wrong:
            return _refusal(200, f"{wrong[0]} must be a number.")
        if "guest-limit" in wanted:
            return _refusal(200, "You have reached the limit of messages for today.")
        if "banned" in wanted or "forbiddenword" in message:
            return _refusal(200, "Your message contains prohibited words.")
        if "upstream-error" in wanted or "upstream-cut" in wanted:
            return _refusal(200, upstream(wanted.get("upstream-error", 500)).text)
        text = "".join(tokens(answer(self.title, message, folded_turns(message)), wanted))
        return json_reply(200, {"response": True, "message": text})

    def failure(self, visit: Visit, status: int) -> Reply:
        return server_page(status)


_NUMBERS = ("temperature", "presence_penalty", "top_p", "frequency_penalty")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _body(visit: Visit) -> Any:
    try:
        return json.loads(visit.request.body)
    except ValueError:
        return _MISSING


def _refusal(status: int, text: str, headers: list[tuple[str, str]] | None = None) -> Reply:
    return json_reply(status, {"response": False, "message": text}, headers)
