"""The demo without sockets: a request in, a head and a stream of bytes out.

`App.respond` finds the service at the request's path, the faults that were asked for and the step
they are for, and lets the service answer.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from tolmach.demo.anthropic import Anthropic
from tolmach.demo.base import (
    Break,
    Headers,
    Reply,
    Service,
    Settings,
    Visit,
    World,
    page_reply,
    server_page,
    text_reply,
)
from tolmach.demo.chatgpt.web import ChatgptWeb
from tolmach.demo.delivery import prepare, stream_out
from tolmach.demo.faults import HEADER, Faults, UnknownFault, Wanted
from tolmach.demo.gemini import Gemini
from tolmach.demo.json_text import JsonText
from tolmach.demo.log import Log, Seen
from tolmach.demo.ollama import Ollama
from tolmach.demo.openai.chat import OpenAi
from tolmach.demo.page_sites import page_services
from tolmach.demo.pages import PAGES
from tolmach.demo.wordpress.ai_engine import AiEngine
from tolmach.demo.wordpress.ai_power import AiPower
from tolmach.demo.wordpress.aipkit import Aipkit
from tolmach.wire import Request

__all__ = ["MOUNTS", "App", "Delivery"]

MOUNTS: Mapping[str, str] = {
    "/Chatgpt4o": "AI Power 1.9 (wpaicg): a bot that answers in JSON",
    "/Chatgpt4Online": "AI Engine 3.6 (mwai): JSON and server-sent events",
    "/ChatGptt": "AI Power 1.9 (wpaicg): a bot that streams",
    "/Aichat": "one JSON request, one JSON answer; the API stands at /api/text",
    "/ChatGpt": "chatgpt.com: proof of work, then a conversation as deltas or snapshots",
    "/aipkit": "AI Power 2.4 (aipkit): a question is handed in, then its answer is fetched",
    "/v1": "OpenAI: chat completions, Responses, embeddings",
    "/anthropic": "Anthropic's Messages",
    "/gemini": "Google's Gemini, generateContent",
    "/ollama": "Ollama, /api/chat",
}
"""The services and what they speak, in the order to show them."""

_API_OF_AICHAT = "/api/text"


class Delivery(Struct):
    """What goes back for a request. `body` is to be read to its end or closed; it may end in a `Break`.

    `status` 0 stands for no head at all: only the `Break` in the body counts.
    """

    status: int
    headers: Headers
    body: AsyncGenerator[bytes | Break, None]
    seen: Seen


class App:
    """All services of one demo."""

    def __init__(self, settings: Settings | None = None, faults: Mapping[str, str] | None = None) -> None:
        self.settings = settings or Settings()
        self.log = Log()
        world = World(self.settings, self.log)
        services: list[Service] = [
            AiPower(world, "/Chatgpt4o", stream=False),
            AiEngine(world, "/Chatgpt4Online"),
            AiPower(world, "/ChatGptt", stream=True),
            JsonText(world, "/Aichat"),
            ChatgptWeb(world, "/ChatGpt"),
            Aipkit(world, "/aipkit"),
            OpenAi(world, "/v1"),
            Anthropic(world, "/anthropic"),
            Gemini(world, "/gemini"),
            Ollama(world, "/ollama"),
            *page_services(world),
        ]
        self._services = {service.mount.strip("/"): service for service in services}
        of_pages = {page.path: page.faults for page in PAGES if page.faults}
        self.faults = Faults(of_pages | dict(faults or {}), [*MOUNTS, *(page.path for page in PAGES)])

    async def respond(self, request: Request) -> Delivery:
        """The answer to a request whose header names are in lower case and whose URL is absolute."""
        url = urlsplit(request.url)
        path = unquote(url.path)
        name, slash, rest = path.removeprefix("/").partition("/")
        if path == _API_OF_AICHAT:
            name, slash, rest = "Aichat", "/", path[1:]
        service = self._services.get(name)
        if service is None:
            seen = self.log.seen(request.method, path, "", "other")
            return self._deliver(self._index() if path == "/" else text_reply(404, "Not found\n"), {}, seen)
        below = slash + rest
        visit = Visit(request, url, service.mount, below, service.step(request.method, below, request), {})
        seen = self.log.seen(request.method, path, service.mount, visit.step)
        try:
            visit.wanted = self.faults.wanted(service.mount, service.kind, visit.step, _wishes(service, visit))
        except UnknownFault as error:
            return self._deliver(text_reply(400, f"{error}\n"), {}, seen)
        return await self._answer(service, visit, seen)

    async def _answer(self, service: Service, visit: Visit, seen: Seen) -> Delivery:
        wanted = visit.wanted
        for name, end in _NO_HEAD.items():
            if name in wanted:
                return Delivery(0, [], _only(end), seen)
        gate = next((name for name in _GATES if name in wanted), None)
        if gate is not None:
            reply = _failure(service, visit, gate)
        else:
            reply = service.respond(visit)
            if not reply.stream and "slow-first-token" in wanted:
                try:
                    await asyncio.sleep(wanted["slow-first-token"])
                except asyncio.CancelledError:
                    seen.ended = "hangup"
                    raise
        prepare(reply, wanted)
        return self._deliver(reply, wanted, seen)

    def _deliver(self, reply: Reply, wanted: Wanted, seen: Seen) -> Delivery:
        seen.status = reply.status
        return Delivery(reply.status, reply.headers, self._body(reply, wanted, seen), seen)

    async def _body(self, reply: Reply, wanted: Wanted, seen: Seen) -> AsyncGenerator[bytes | Break, None]:
        whole = False
        try:
            async with aclosing(stream_out(reply, wanted, self.settings.delay)) as pieces:
                async for data in pieces:
                    yield data
                    if isinstance(data, Break):
                        return
            whole = True
        finally:
            if reply.finished is not None:
                reply.finished(whole)
            if whole:
                seen.ended = "done"
                if seen.step == "chat" and reply.status == 200:
                    self.log.answers[seen.mount] += 1
                self.log.changed()

    def _index(self) -> Reply:
        items = "".join(f'<li><a href="{mount}/">{mount}</a>: {about}</li>' for mount, about in MOUNTS.items())
        pages = "".join(
            f'<li><a href="{page.path}/">{page.path}</a>: {page.protocol} {page.version}, {page.special}</li>'
            for page in PAGES
        )
        title = "<!doctype html><title>tolmach demo</title><h1>tolmach demo</h1>"
        return page_reply(f"{title}<ul>{items}</ul><h2>Pages with an assistant</h2><ul>{pages}</ul>")


def _wishes(service: Service, visit: Visit) -> str:
    return ",".join(filter(None, (visit.header(HEADER), service.wish(visit))))


_NO_HEAD = {"reset": Break.RESET, "silence": Break.STALL}
_GATES = {
    "401": 401,
    "403-challenge": 403,
    "429": 429,
    "429-retry-after": 429,
    "500": 500,
    "502-html": 502,
    "html": 200,
}
_CHALLENGE = """<!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title>
<meta http-equiv="Content-Type" content="text/html; charset=UTF-8"><meta name="robots" content="noindex,nofollow">
</head><body><div class="main-wrapper" role="main"><noscript><div class="h2">
<span id="challenge-error-text">Enable JavaScript and cookies to continue</span></div></noscript></div>
<script>(function(){window._cf_chl_opt={cvId:'3',cType:'managed'};var a=document.createElement('script');
a.src='/cdn-cgi/challenge-platform/h/b/orchestrate/chl_page/v1';}());</script></body></html>
"""


def _failure(service: Service, visit: Visit, name: str) -> Reply:
    """The answer of a request that did not get as far as the service's chat code."""
    if name == "403-challenge":
        return page_reply(_CHALLENGE, 403, [("cf-mitigated", "challenge"), ("Cache-Control", "private, max-age=0")])
    if name == "html":
        return page_reply("<!doctype html><html><head><title>Welcome</title></head><body><p>Welcome!</p></body></html>")
    if name == "502-html":
        return server_page(502)
    reply = service.failure(visit, _GATES[name])
    if name == "429-retry-after":
        reply.headers.append(("Retry-After", f"{visit.wanted[name]:g}"))
    return reply


async def _only(end: Break) -> AsyncGenerator[bytes | Break, None]:
    yield end
