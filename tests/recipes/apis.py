"""Chat APIs of many shapes, each with the page that talks to it: strict, and on real sockets.

Each answers only what its own page would send: its tokens, its cookies, its fields. What it
answers depends on the question, so an answer shows that the question arrived whole.
"""

import asyncio
import json
import re
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

__all__ = ["APIS", "KEY", "Api", "answer", "serve"]

Ask = Callable[["Api", web.Request], Awaitable[web.StreamResponse]]

KEY = "key-of-a-person-5f1c"
"""The key that the `keyed` API wants in a header: a secret of its user."""


def answer(question: str) -> str:
    """What every API answers."""
    letters = sum(char.isalpha() for char in question)
    return f"That question has {letters} letters, “{question[::-1]}” is it backwards. Ça va? 🚀"


def pieces(question: str) -> list[str]:
    return re.findall(r"\S+\s*", answer(question))


class Api:
    """One API: its page's script, and what it does with a question."""

    def __init__(self, name: str, script: str, ask: Ask, extra: str = "") -> None:
        self.name = name
        self.script = script
        self.extra = extra
        self._ask = ask
        self.given: set[str] = set()
        self.questions = 0
        self.talks: dict[str, int] = {}

    def give(self) -> str:
        token = secrets.token_hex(8)
        self.given.add(token)
        return token

    def check(self, token: str | None, status: int = 403) -> None:
        if token not in self.given:
            text = json.dumps({"error": "invalid token: the session is expired"})
            kind = {401: web.HTTPUnauthorized, 403: web.HTTPForbidden}[status]
            raise kind(text=text, content_type="application/json")

    async def page(self, request: web.Request) -> web.Response:
        token, api_session = self.give(), self.give()
        html = (
            "<!doctype html><html><head><title>Chat</title><link rel=stylesheet href='style.css'>"
            f"{self.extra.replace('@@', token)}</head><body><h1>Ask us</h1>"
            "<p>We answer within a minute, every day of the week.</p>"
            f"<script>{_COMMON}{self.script.replace('@@', token)}</script></body></html>"
        )
        response = web.Response(text=html, content_type="text/html")
        response.set_cookie("sid", api_session, path=f"/{self.name}/", httponly=True)
        if self.name == "double":
            response.set_cookie("XSRF-TOKEN", token, path=f"/{self.name}/")
        return response

    async def ask(self, request: web.Request) -> web.StreamResponse:
        self.questions += 1
        return await self._ask(self, request)


_COMMON = """
const post = (url, body, headers) => fetch(url, {method: 'POST', headers: headers || {}, body: body});
const asJson = (url, value, headers) =>
  post(url, JSON.stringify(value), Object.assign({'content-type': 'application/json'}, headers || {}));
const seen = () => post('analytics/collect', JSON.stringify({event: 'question asked by a visitor', page: 'chat'}));
"""


def bad(text: str) -> web.HTTPBadRequest:
    return web.HTTPBadRequest(text=json.dumps({"error": text}), content_type="application/json")


def said(value: Any) -> str:
    """The question, which has to be a text."""
    if not isinstance(value, str) or not value.strip():
        raise bad("no question")
    return value


async def body_of(request: web.Request, *keys: str) -> dict[str, Any]:
    """The JSON object of a request with exactly these keys."""
    if request.content_type != "application/json":
        raise bad("the body has to be JSON")
    value = await request.json()
    if not isinstance(value, dict) or (keys and set(value) != set(keys)):
        raise bad(f"the body has other fields: {value}")
    return value


async def stream(request: web.Request, kind: str, parts: list[str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": kind})
    await response.prepare(request)
    for part in parts:
        await response.write(part.encode())
    await response.write_eof()
    return response


def event(value: Any, name: str = "") -> str:
    data = value if isinstance(value, str) else json.dumps(value)
    return (f"event: {name}\n" if name else "") + f"data: {data}\n\n"


# The APIs


async def plain(api: Api, request: web.Request) -> web.StreamResponse:
    value = await body_of(request, "message", "lang")
    return web.json_response({"id": 7, "reply": answer(said(value["message"])), "lang": value["lang"]})


async def form(api: Api, request: web.Request) -> web.StreamResponse:
    fields = await request.post()
    if request.content_type != "application/x-www-form-urlencoded" or fields.get("action") != "ask_bot":
        raise bad("not the form")
    if fields.get("_nonce") not in api.given:
        return web.json_response({"success": False, "data": {"message": "The nonce is invalid or expired."}})
    return web.json_response({"success": True, "data": {"text": answer(said(fields.get("question")))}})


async def ndjson(api: Api, request: web.Request) -> web.StreamResponse:
    api.check(request.headers.get("x-csrf-token"))
    if request.cookies.get("sid") not in api.given:
        raise web.HTTPUnauthorized(text="no session")
    value = await body_of(request, "prompt", "stream", "temperature")
    rows = [{"response": part, "done": False} for part in pieces(said(value["prompt"]))]
    return await stream(
        request, "application/x-ndjson", [json.dumps(row) + "\n" for row in [*rows, {"response": "", "done": True}]]
    )


async def guest(api: Api, request: web.Request) -> web.StreamResponse:
    return web.json_response({"access_token": api.give(), "token_type": "Bearer", "expires_in": 3600})


async def openai(api: Api, request: web.Request) -> web.StreamResponse:
    api.check(request.headers.get("authorization", "").removeprefix("Bearer "), 401)
    value = await body_of(request, "model", "messages", "stream")
    if value["model"] != "house-1" or value["messages"][0]["role"] != "system":
        raise bad("model or messages")
    question = said(value["messages"][-1]["content"])
    parts = [event({"id": "c-1", "choices": [{"index": 0, "delta": {"role": "assistant"}}]})]
    parts += [event({"id": "c-1", "choices": [{"index": 0, "delta": {"content": p}}]}) for p in pieces(question)]
    parts += [event({"id": "c-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), event("[DONE]")]
    return await stream(request, "text/event-stream", parts)


async def snapshots(api: Api, request: web.Request) -> web.StreamResponse:
    value = await body_of(request, "text", "conversationId")
    talk = value["conversationId"]
    if talk is None:
        talk = secrets.token_hex(12)
        api.talks[talk] = 0
    elif talk not in api.talks:
        raise bad("no such conversation")
    api.talks[talk] += 1
    parts = [event({"type": "start", "conversationId": talk, "text": "Thinking about what you asked ..."})]
    text = ""
    for part in pieces(said(value["text"])):
        text += part
        parts.append(event({"type": "partial", "conversationId": talk, "text": text}))
    return await stream(request, "text/event-stream", [*parts, event({"type": "end", "conversationId": talk})])


async def multipart(api: Api, request: web.Request) -> web.StreamResponse:
    if request.content_type != "multipart/form-data":
        raise bad("not multipart")
    fields = await request.post()
    api.check(str(fields.get("csrf")))
    return await stream(request, "text/plain; charset=utf-8", pieces(said(fields.get("query"))))


async def start(api: Api, request: web.Request) -> web.StreamResponse:
    return web.json_response({"ready": True}, headers={"X-Session": api.give()})


async def escaped(api: Api, request: web.Request) -> web.StreamResponse:
    api.check(request.headers.get("x-session"), 401)
    value = await body_of(request, "payload")
    inner = json.loads(value["payload"])
    if set(inner) != {"prompt", "options"}:
        raise bad("payload")
    return web.json_response({"d": json.dumps({"answer": answer(said(inner["prompt"])), "code": "A1"})})


async def graphql(api: Api, request: web.Request) -> web.StreamResponse:
    value = await body_of(request, "operationName", "query", "variables")
    api.check(value["variables"].get("token"))
    text = answer(said(value["variables"].get("input")))
    return web.json_response({"data": {"ask": {"__typename": "Answer", "body": {"text": text}, "cost": 3}}})


async def query(api: Api, request: web.Request) -> web.StreamResponse:
    api.check(request.query.get("key"))
    parts = [event(part.replace("\n", " "), "token") for part in pieces(said(request.query.get("q")))]
    return await stream(request, "text/event-stream", [*parts, event("bye", "finish")])


async def sdk(api: Api, request: web.Request) -> web.StreamResponse:
    value = await body_of(request, "id", "messages")
    if not re.fullmatch(r"[0-9a-f-]{36}", value["id"]):
        raise bad("id")
    last = value["messages"][-1]
    if last["role"] != "user" or last["parts"][0]["type"] != "text":
        raise bad("parts")
    parts = [
        'f:{"messageId":"msg-1"}\n',
        *(f"0:{json.dumps(part)}\n" for part in pieces(said(last["parts"][0]["text"]))),
    ]
    return await stream(request, "text/plain; charset=utf-8", [*parts, 'd:{"finishReason":"stop"}\n'])


async def double(api: Api, request: web.Request) -> web.StreamResponse:
    if request.headers.get("x-xsrf-token") != request.cookies.get("XSRF-TOKEN"):
        raise web.HTTPForbidden(text="CSRF token mismatch")
    api.check(request.headers.get("x-xsrf-token"))
    value = await request.json()
    if not isinstance(value, list) or len(value) != 3 or value[0] != "ask":
        raise bad("list")
    return web.json_response([["ok", 200], [None, [[answer(said(value[1]))]]]])


async def human(api: Api, request: web.Request) -> web.StreamResponse:
    value = await body_of(request, "history", "thread_id", "sent_at")
    if abs(value["sent_at"] / 1000 - time.time()) > 86400:
        raise bad("an old question")
    if not re.fullmatch(r"[0-9a-f-]{36}", value["thread_id"]):
        raise bad("thread_id")
    last = value["history"][-1]
    if last["from"] != "human":
        raise bad("from")
    return web.json_response(
        {"status": "success", "result": {"thread": value["thread_id"], "output": answer(said(last["text"]))}}
    )


async def keyed(api: Api, request: web.Request) -> web.StreamResponse:
    if request.headers.get("x-api-key") != KEY:
        raise web.HTTPUnauthorized(text=json.dumps({"error": "wrong key"}), content_type="application/json")
    value = await body_of(request, "q", "site_key")
    api.check(value["site_key"])
    return web.json_response({"ok": True, "answers": [{"text": answer(said(value["q"])), "rank": 1}]})


_MESSAGES = "[{role:'system',content:'You are the assistant of a small shop in Ghent.'},{role:'user',content:q}]"
_GRAPHQL = "mutation Ask($input: String!, $token: String!) { ask(input: $input, token: $token) { body { text } } }"

APIS: dict[str, Api] = {
    api.name: api
    for api in (
        Api(
            "plain",
            "var ask = async q => { seen(); return (await asJson('api', {message: q, lang: 'en'})).text(); };",
            plain,
        ),
        Api(
            "form",
            "var ask = async q => { const n = document.querySelector('#chat').dataset.nonce; return (await post('api', "
            "new URLSearchParams({action: 'ask_bot', _nonce: n, question: q}))).text(); };",
            form,
            "<script>0</script><div id=chat class='w' data-nonce='@@' data-title='Ask us'></div>",
        ),
        Api(
            "ndjson",
            "var ask = async q => { const c = document.querySelector('meta[name=csrf-token]').content; seen(); return "
            "(await asJson('api', {prompt: q, stream: true, temperature: 0.4}, {'X-CSRF-Token': c})).text(); };",
            ndjson,
            "<meta name='csrf-token' content='@@'>",
        ),
        Api(
            "openai",
            "var ask = async q => { const t = (await (await asJson('auth/guest', {})).json()).access_token; return "
            f"(await asJson('api', {{model: 'house-1', messages: {_MESSAGES}, stream: true}}, "
            "{authorization: 'Bearer ' + t})).text(); };",
            openai,
        ),
        Api(
            "snapshots",
            "var talk = null; var ask = async q => { const t = await (await asJson('api', {text: q, "
            "conversationId: talk}))"
            '.text(); talk = /"conversationId": "(\\w+)"/.exec(t)[1]; return t; };',
            snapshots,
        ),
        Api(
            "multipart",
            "var ask = async q => { const f = new FormData(document.forms[0]); f.set('query', q); return "
            "(await post('api', f)).text(); };",
            multipart,
            "</head><body><form><input type=hidden name=csrf value='@@'><input name=query></form>",
        ),
        Api(
            "escaped",
            "var ask = async q => { const s = (await fetch('start')).headers.get('x-session'); return "
            "(await asJson('api', "
            "{payload: JSON.stringify({prompt: q, options: {n: 1}})}, {'X-Session': s})).text(); };",
            escaped,
        ),
        Api(
            "graphql",
            'window.__CONFIG__ = {"locale": "en", "auth": {"token": "@@"}}; var ask = async q => (await asJson('
            f"'api', {{operationName: 'Ask', query: '{_GRAPHQL}', variables: {{input: q, "
            "token: window.__CONFIG__.auth.token}})).text();",
            graphql,
        ),
        Api(
            "query",
            "const KEY = '@@'; var ask = async q => (await fetch('api?' + new URLSearchParams({q: q, "
            "key: KEY}))).text();",
            query,
        ),
        Api(
            "sdk",
            "var id = crypto.randomUUID(); var turns = []; var ask = async q => { turns.push({id: "
            "crypto.randomUUID(), role: 'user', parts: [{type: 'text', text: q}]}); "
            "return (await asJson('api', {id: id, messages: turns})).text(); };",
            sdk,
        ),
        Api(
            "double",
            "var ask = async q => { const c = /XSRF-TOKEN=(\\w+)/.exec(document.cookie)[1]; "
            "return (await asJson('api', ['ask', q, {v: 2}], {'X-XSRF-TOKEN': c})).text(); };",
            double,
        ),
        Api(
            "human",
            "var thread = crypto.randomUUID(); var ask = async q => (await asJson('api', {history: "
            "[{from: 'bot', text: 'Hello, how can I help?'}, {from: 'human', text: q}], thread_id: thread, "
            "sent_at: Date.now()})).text();",
            human,
        ),
        Api(
            "keyed",
            "const settings = JSON.parse(document.getElementById('settings').textContent); var ask = async q => (await "
            "asJson('api', {q: q, site_key: settings.site.key}, {'X-Api-Key': localStorage.getItem('key')})).text();",
            keyed,
            '<script type=\'application/json\' id=\'settings\'>{"site": {"key": "@@"}}</script>',
        ),
    )
}

_STEPS: dict[str, tuple[str, str, Ask]] = {
    "openai": ("POST", "auth/guest", guest),
    "escaped": ("GET", "start", start),
}


def make_app() -> web.Application:
    app = web.Application()
    for api in APIS.values():
        app.router.add_get(f"/{api.name}/", api.page)
        app.router.add_route("GET" if api.name == "query" else "POST", f"/{api.name}/api", api.ask)
        app.router.add_post(f"/{api.name}/analytics/collect", _nothing)
        app.router.add_get(f"/{api.name}/style.css", _style)
        if api.name in _STEPS:
            method, path, step = _STEPS[api.name]
            app.router.add_route(method, f"/{api.name}/{path}", _bound(api, step))
    return app


def _bound(api: Api, step: Ask) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await step(api, request)

    return handler


async def _nothing(request: web.Request) -> web.StreamResponse:
    return web.Response(status=204)


async def _style(request: web.Request) -> web.StreamResponse:
    return web.Response(text="body { color: black }", content_type="text/css")


@contextmanager
def serve() -> Iterator[str]:
    """The APIs on a port of this machine, in a thread of their own; gives the address."""
    loop = asyncio.new_event_loop()
    ready: list[str] = []
    started = threading.Event()

    async def run() -> web.AppRunner:
        runner = web.AppRunner(make_app())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ready.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        return runner

    def work() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(run())
        started.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait(10)
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
