"""The sites around the demo's pages: each plays one row of `tolmach.demo.pages`."""

from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

from tolmach.demo.base import Headers, Reply, Service, Step, Visit, World, page_reply, text_reply
from tolmach.demo.pages import PAGES, DemoPage, markup
from tolmach.demo.wordpress.ai_engine import START, AiEngine
from tolmach.demo.wordpress.ai_engine import error as rest_error
from tolmach.demo.wordpress.ai_power import AiPower
from tolmach.demo.wordpress.aipkit import NONCE_ACTION, Aipkit
from tolmach.demo.wordpress.common import NonceBook, cache_headers, form_of, wordpress_page
from tolmach.wire import Request

__all__ = ["page_services"]

_RECORDED = "http://wordpress.test"
_AGE = 130_000
"""Seconds that an old page lay in its cache: longer than a nonce is good."""
_LOGIN = "/wp-login.php"
_LOGIN_FORM = (
    '<form name="loginform" id="loginform" action="{base}/wp-login.php" method="post"><label for="user_login">Username '
    'or Email Address</label><input type="text" name="log" id="user_login"><label for="user_pass">Password</label>'
    '<input type="password" name="pwd" id="user_pass"><input type="submit" value="Log In"></form>'
)


def page_services(world: World) -> list[Service]:
    """A site for each page."""
    return [_SITES[page.protocol](world, page) for page in PAGES]


def _shown(page: DemoPage, visit: Visit, nonces: NonceBook) -> Reply:
    """The page with the widget; its nonce is old where a cache keeps it."""
    html = markup(page.markup)
    cached = "cached-page" in visit.wanted and not visit.url.query
    if "{nonce}" in html:
        old = cached or page.outcome == "stale"
        html = html.replace("{nonce}", nonces.old() if old else nonces.issue())
    if page.outcome == "consent":
        # The switch of a paid add-on: no recorded page has it on.
        html = html.replace("requireConsentCompliance&quot;:false", "requireConsentCompliance&quot;:true")
    if page.rest == "/api":
        html = html.replace("wp-json", "api")
    html = html.replace(_RECORDED.replace("/", r"\/"), visit.base.replace("/", r"\/")).replace(_RECORDED, visit.base)
    root = f"{visit.base}/index.php?rest_route=/" if page.rest == "?rest_route=" else f"{visit.base}{page.rest}/"
    headers: Headers = [("Link", f'<{root}>; rel="https://api.w.org/"')]
    if cached or page.outcome == "stale":
        headers += cache_headers(_AGE)
    return page_reply(html, headers=headers)


def _instead(page: DemoPage, visit: Visit) -> Reply | None:
    """What the site shows where it is not the page with the widget: a frame, a login, a file of the plugin."""
    path = visit.path or "/"
    if path == f"/wp-content/plugins/{_PLUGINS[page.protocol]}/readme.txt":
        return text_reply(200, f"=== {page.protocol} ===\nStable tag: {page.version}\nLicense: GPLv3\n")
    if page.outcome == "login":
        if path == _LOGIN:
            return wordpress_page(visit, "Log In", 0, _LOGIN_FORM.format(base=visit.base))
        if path == page.at:
            return Reply(302, [("Location", f"{visit.base}{_LOGIN}?redirect_to=%2F"), ("Content-Type", "text/html")])
    if path == "/" and page.at != "/":
        frame = f'<iframe src="{visit.base}{page.at}" width="400" height="600" title="Chat"></iframe>'
        return wordpress_page(visit, "Talk to us", 2, frame)
    return None


def _is_page(page: DemoPage, path: str) -> bool:
    return (path or "/") in ("/", page.at, _LOGIN)


class _EngineSite(AiEngine):
    def __init__(self, world: World, page: DemoPage) -> None:
        super().__init__(world, page.path)
        self._row = page

    def step(self, method: str, path: str, request: Request) -> Step:
        route = self._route(path, urlsplit(request.url).query)
        if route == path and _is_page(self._row, path):
            return "page"
        return super().step(method, route, request)

    def respond(self, visit: Visit) -> Reply:
        visit.path = self._route(visit.path, visit.url.query)
        if self._row.version == "2.4.3" and visit.path == f"/wp-json{START}":
            return rest_error(visit, 404, "rest_no_route", "No route was found matching the URL and request method.")
        return _instead(self._row, visit) or super().respond(visit)

    def _route(self, path: str, query: str) -> str:
        """The path as a site has it with its REST API where it usually is; what is not there is nowhere."""
        rest = self._row.rest
        if rest == "?rest_route=":
            route = dict(parse_qsl(query)).get("rest_route") if path in ("", "/", "/index.php") else None
            return f"/wp-json{route}" if route else path
        if rest != "/wp-json" and path.startswith(f"{rest}/"):
            return f"/wp-json{path.removeprefix(rest)}"
        return f"/moved{path}" if rest != "/wp-json" and path.startswith("/wp-json") else path

    def _page(self, visit: Visit) -> Reply:
        return _shown(self._row, visit, self.nonces)


class _PowerSite(AiPower):
    def __init__(self, world: World, page: DemoPage) -> None:
        super().__init__(world, page.path, stream=page.streams)
        self._row = page

    def step(self, method: str, path: str, request: Request) -> Step:
        return "page" if _is_page(self._row, path) else super().step(method, path, request)

    def respond(self, visit: Visit) -> Reply:
        return _instead(self._row, visit) or super().respond(visit)

    def _page(self, visit: Visit) -> Reply:
        return _shown(self._row, visit, self.nonces)


class _KitSite(Aipkit):
    def __init__(self, world: World, page: DemoPage) -> None:
        super().__init__(world, page.path, bots=page.bots)
        self._row = page

    def step(self, method: str, path: str, request: Request) -> Step:
        return "page" if _is_page(self._row, path) else super().step(method, path, request)

    def respond(self, visit: Visit) -> Reply:
        if self._row.version == "2.3" and form_of(visit).get("action") == NONCE_ACTION:
            return self.no_action(NONCE_ACTION)
        return _instead(self._row, visit) or super().respond(visit)

    def _page(self, visit: Visit) -> Reply:
        return _shown(self._row, visit, self.nonces)


_SITES: dict[str, Callable[[World, DemoPage], Service]] = {
    "ai-engine": _EngineSite,
    "ai-power": _PowerSite,
    "aipkit": _KitSite,
}
_PLUGINS = {
    "ai-engine": "ai-engine",
    "ai-power": "gpt3-ai-content-generator",
    "aipkit": "gpt3-ai-content-generator",
}
