"""Running a request that has no recorded response, once: for a `curl` command."""

from urllib.parse import quote

from tolmach.cookies import CookieJar
from tolmach.recipes.tokens import is_token, origin_of, origin_of_name
from tolmach.recipes.tracing import COMMON
from tolmach.recipes.traffic import Exchange, Path, key_of, leaves, site_of, written
from tolmach.transport.base import Timeouts, Transport, read
from tolmach.transport.exchange import open_exchange
from tolmach.wire import Limits, Request

__all__ = ["run_once"]

_NOT_SENT = frozenset({"content-length", "host", "accept-encoding", "connection"})


async def run_once(
    request: Request, transport: Transport, *, timeouts: Timeouts = Timeouts(), limits: Limits = Limits()
) -> list[Exchange]:
    """The page that the request names as its referer, fetched anew, and the request with its answer.

    Tokens that the page gives anew are put in place of the old ones. Raises `TransportError`.
    """
    jar = CookieJar()
    found: list[Exchange] = []
    page = request.headers.get("referer", "")
    if page.startswith(("http://", "https://")) and site_of(page) == site_of(request.url):
        visit = Request("GET", page.partition("#")[0], {"accept": "text/html"})
        found.append(await _exchange(visit, transport, jar, timeouts, limits))
    headers = {name: value for name, value in request.headers.items() if name not in _NOT_SENT}
    request = Request(request.method, request.url, headers, request.body)
    request = _renewed(request, found)
    answered = await _exchange(request, transport, jar, timeouts, limits)
    return [*found, answered]


async def _exchange(
    request: Request, transport: Transport, jar: CookieJar, timeouts: Timeouts, limits: Limits
) -> Exchange:
    exchange = await open_exchange(transport, request, jar, timeouts, limits)
    body = await read(exchange, limits.response_bytes)
    return Exchange(request=request, head=exchange.head, body=body)


def _renewed(request: Request, pages: list[Exchange]) -> Request:
    """The request with the values that a page gives under the same names, and without the cookies that it set."""
    if not pages or pages[0].head is None:
        return request
    changes: dict[str, str] = {}
    for path, value in leaves(written(request).tree()):
        text = value.rpartition(" ")[2] if path[0] == "headers" and isinstance(value, str) else value
        if not isinstance(text, str) or not is_token(key_of(path), text) or _is_common(path):
            continue
        if origin_of(text, pages, len(pages)) is None and (new := origin_of_name(key_of(path), pages, len(pages))):
            changes[text] = new.value
    headers = {name: _changed(value, changes) for name, value in request.headers.items()}
    set_anew = {line.partition("=")[0].strip() for line in pages[0].head.cookies}
    kept = [pair for pair in headers.pop("cookie", "").split(";") if pair.partition("=")[0].strip() not in set_anew]
    if any(pair.strip() for pair in kept):
        headers["cookie"] = ";".join(kept).strip()
    body = request.body.decode("utf-8", "surrogateescape")
    return Request(
        request.method,
        _changed(request.url, changes),
        headers,
        _changed(body, changes).encode("utf-8", "surrogateescape"),
    )


def _is_common(path: Path) -> bool:
    """Whether a value is that of a header which every browser sends."""
    return path[0] == "headers" and COMMON.fullmatch(str(path[1])) is not None


def _changed(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        text = text.replace(old, new).replace(quote(old, safe=""), quote(new, safe=""))
    return text
