"""Cookies and redirects around any transport: the one way in which requests leave tolmach."""

import time
from urllib.parse import urljoin, urlsplit

from tolmach.cookies import CookieJar
from tolmach.errors import RemoteProtocolError
from tolmach.transport.base import Exchange, Timeouts, Transport
from tolmach.wire import Head, Limits, Request

__all__ = ["open_exchange", "redirected"]

# What may follow a redirect to another origin. All else (authorization, cookies, nonces, sentinel
# tokens, API keys under any name) was meant for the first one.
_HARMLESS = frozenset({"accept", "accept-language", "cache-control", "pragma", "user-agent"})

_PORTS = {"http": 80, "https": 443}

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


async def open_exchange(
    transport: Transport, request: Request, jar: CookieJar, timeouts: Timeouts, limits: Limits
) -> Exchange:
    """Send `request` with the jar's cookies, keep what comes back, follow redirects.

    `timeouts.total` covers all of them. Raises `RemoteProtocolError` for too many redirects, or one
    that must not be followed.
    """
    started = time.monotonic()
    for _ in range(limits.redirects + 1):
        exchange = await transport.send(_with_cookies(request, jar), timeouts)
        head = exchange.head
        if head.cookies:
            jar.store(request.url, head.cookies)
        if head.status not in _REDIRECTS or not head.header("location"):
            return exchange
        await exchange.aclose()
        request = redirected(request, head)
        if timeouts.total is not None and timeouts.deadline is None:
            timeouts = timeouts.within(started + timeouts.total - time.monotonic())
    raise RemoteProtocolError(f"more than {limits.redirects} redirects", status=head.status, code="redirects")


def _with_cookies(request: Request, jar: CookieJar) -> Request:
    cookie = jar.header(request.url)
    if not cookie:
        return request
    given = request.headers.get("cookie")
    headers = {**request.headers, "cookie": f"{given}; {cookie}" if given else cookie}
    return Request(request.method, request.url, headers, request.body)


def redirected(request: Request, head: Head) -> Request:
    """The request that a redirect asks for (RFC 9110, 15.4; credentials as in the Fetch standard).

    To another origin it carries no credentials, and only a GET or HEAD goes there: a question is not told to
    strangers, and what they answer is no answer to it.
    """
    try:
        url = urljoin(request.url, head.header("location"))
        old, new = urlsplit(request.url), urlsplit(url)
        ports = (old.port or _PORTS.get(old.scheme), new.port or _PORTS.get(new.scheme))
    except ValueError as error:
        raise RemoteProtocolError("redirect to an address that is none", status=head.status) from error
    if new.scheme not in ("http", "https") or not new.hostname or new.username or new.password:
        raise RemoteProtocolError(f"redirect to {new.scheme}: is not followed", status=head.status, code="redirects")
    upgrade = (old.scheme, new.scheme) == ("http", "https") and ports == (80, 443)
    same = old.hostname == new.hostname and (upgrade or (old.scheme == new.scheme and ports[0] == ports[1]))
    method, body, headers = request.method, request.body, request.headers
    if head.status == 303 or (head.status in (301, 302) and method == "POST"):
        method, body = ("HEAD" if method == "HEAD" else "GET"), b""
        headers = {k: v for k, v in headers.items() if k not in ("content-type", "content-length")}
    if not same:
        if request.method not in ("GET", "HEAD"):
            raise RemoteProtocolError(
                f"the site redirects the question to another origin ({new.scheme}://{new.hostname})",
                status=head.status,
                code="redirects",
            )
        headers = {k: v for k, v in headers.items() if k in _HARMLESS}
    return Request(method, url, headers, body)
