"""HTTP by aiohttp: a second transport, for places where wreq has no wheel or must not be. An extra.

It speaks HTTP/1.1 and all proxies, and cannot play a browser: `impersonate` is `UnsupportedFeature`,
and so is `resolve` behind a SOCKS proxy. Brotli and zstd are asked for only where Python has them.
"""

import asyncio
import os
import ssl
import threading
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote
from weakref import WeakKeyDictionary

from tolmach.errors import (
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    RemoteProtocolError,
    TolmachError,
    UnsupportedFeature,
)
from tolmach.extras import missing
from tolmach.transport.addresses import check_headers, check_pins, origin, proxy_parts, text_of
from tolmach.transport.base import Timeouts, TransportOptions
from tolmach.transport.body import BodyExchange
from tolmach.transport.content_coding import ACCEPTED, decoded
from tolmach.transport.timeouts import Watch
from tolmach.version import __version__
from tolmach.wire import Head, Request

if TYPE_CHECKING:
    import aiohttp

__all__ = ["AiohttpTransport"]

_POOL_SECONDS = 55.0
_FIELD_BYTES = 64 << 10
"""Longest header that is read: WordPress sites with many plugins send long ones."""


class AiohttpTransport:
    """Sends requests by aiohttp, with one session for each event loop; the session ends with its loop.

    Raises `MissingDependency` without the extra, `UnsupportedFeature` and `ConfigError` for options
    that cannot be honoured.
    """

    def __init__(self, options: TransportOptions = TransportOptions()) -> None:
        _require("aiohttp")
        if options.impersonate:
            raise UnsupportedFeature(
                "the aiohttp transport cannot impersonate a browser; the wreq transport can", feature="impersonate"
            )
        self.options = options
        check_pins(options.resolve)
        self._proxy: SplitResult | None = None
        self._proxy_name = ""
        if options.proxy:
            self._proxy, self._proxy_name = proxy_parts(options.proxy)
        self._socks = self._proxy is not None and self._proxy.scheme.startswith("socks")
        if self._socks:
            _require("aiohttp_socks")
            if options.resolve:
                raise UnsupportedFeature(
                    "the aiohttp transport cannot pin addresses behind a SOCKS proxy", feature="resolve"
                )
        self._tls = _tls(options.verify)
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, _Held] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._closed = False

    async def send(self, request: Request, timeouts: Timeouts) -> BodyExchange:
        """The exchange once its head is there. Redirects are not followed, cookies not kept."""
        what = origin(request.url)
        session = await self._session()
        watch = Watch(what, timeouts)
        watch.begin()
        try:
            response = await self._begin(session, request, timeouts)
        except asyncio.CancelledError as error:
            watch.disarm()
            expired = watch.expired()
            if expired is None:
                raise
            raise expired from error
        except Exception as error:  # `_translated` knows aiohttp's and aiohttp-socks' own, and hands back all others
            watch.disarm()
            told = _translated(error, what, self._proxy_name, watch)
            if told is error:
                raise
            raise told from error
        return _exchange(request.url, response, what, watch)

    async def _begin(
        self, session: "aiohttp.ClientSession", request: Request, timeouts: Timeouts
    ) -> "aiohttp.ClientResponse":
        import aiohttp
        from yarl import URL

        check_headers(request.headers)
        return await session.request(
            request.method,
            URL(request.url, encoded=request.url.isascii()),
            data=request.body or None,
            headers=request.headers,
            allow_redirects=False,
            proxy=self.options.proxy if self._proxy is not None and not self._socks else None,
            timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect),
        )

    async def _session(self) -> "aiohttp.ClientSession":
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._closed:
                raise ConfigError("this transport is closed")
            held = self._sessions.get(loop)
            if held is None:
                held = self._sessions[loop] = _Held(self._open())
        await held.tie()
        return held.session

    def _open(self) -> "aiohttp.ClientSession":
        import aiohttp

        return aiohttp.ClientSession(
            connector=self._connector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            # aiohttp's own decompression takes cut gzip data for a whole body.
            auto_decompress=False,
            headers={"User-Agent": f"tolmach/{__version__}", "Accept-Encoding": ACCEPTED},
            skip_auto_headers=("Accept", "Content-Type"),
            trust_env=self.options.trust_env and self._proxy is None,
            max_line_size=_FIELD_BYTES,
            max_field_size=_FIELD_BYTES,
        )

    def _connector(self) -> "aiohttp.TCPConnector":
        import aiohttp

        settings: dict[str, Any] = {"limit": 0, "ssl": self._tls, "keepalive_timeout": _POOL_SECONDS}
        if self._proxy is not None and self._socks:
            from aiohttp_socks import ProxyConnector, ProxyType

            scheme = self._proxy.scheme
            return ProxyConnector(
                host=self._proxy.hostname or "",
                port=self._proxy.port or 1080,
                proxy_type=ProxyType.SOCKS4 if scheme.startswith("socks4") else ProxyType.SOCKS5,
                username=unquote(self._proxy.username) if self._proxy.username else None,
                password=unquote(self._proxy.password) if self._proxy.password else None,
                rdns=scheme in ("socks4a", "socks5h"),
                **settings,
            )
        if self.options.resolve:
            settings["resolver"] = _pinning(self.options.resolve)
        return aiohttp.TCPConnector(**settings)

    async def aclose(self) -> None:
        """Close this loop's connections; those of other loops end with them."""
        with self._lock:
            self._closed = True
            held = self._sessions.pop(asyncio.get_running_loop(), None)
        if held is not None:
            await held.session.close()


class _Held:
    """A session, closed when its event loop shuts down."""

    def __init__(self, session: "aiohttp.ClientSession") -> None:
        self.session = session
        self._keeper: AsyncGenerator[None, None] | None = None

    async def tie(self) -> None:
        if self._keeper is None:
            # `asyncio.run` closes the asynchronous generators that were started and are not done.
            self._keeper = _keep(self.session)
            await anext(self._keeper)


async def _keep(session: "aiohttp.ClientSession") -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await session.close()


def _exchange(url: str, response: "aiohttp.ClientResponse", what: str, watch: Watch) -> BodyExchange:
    async def pull() -> bytes:
        piece = await response.content.readany()
        if not piece:
            raise StopAsyncIteration
        return piece

    # `close` ends the connection unless the body was read to its end; it is back in the pool then.
    head = _head(url, response)
    try:
        body = decoded(pull, head.headers, what)
    except RemoteProtocolError:
        response.close()
        raise
    return BodyExchange(head, body, response.close, lambda error: _translated(error, what, "", watch), watch)


def _require(module: str) -> None:
    try:
        __import__(module)
    except ImportError as error:
        raise missing(f"the aiohttp transport needs the package {module.replace('_', '-')}", "aiohttp") from error


def _tls(verify: bool | str) -> ssl.SSLContext | bool:
    if isinstance(verify, bool):
        return verify
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:
        # `ssl.SSLError` is an OSError too; its text says which part of the file is wrong.
        raise ConfigError(f"verify: {verify} cannot be read as certificates: {error.strerror or error}") from error


def _pinning(pins: Any) -> Any:
    import socket

    from aiohttp.abc import AbstractResolver, ResolveResult
    from aiohttp.resolver import ThreadedResolver

    class Pinning(AbstractResolver):
        """Gives the addresses pinned for a name, and asks the system for all others."""

        def __init__(self) -> None:
            self._system = ThreadedResolver()

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            if host not in pins:
                return await self._system.resolve(host, port, family)
            return [
                ResolveResult(
                    hostname=host,
                    host=address,
                    port=port,
                    family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                    proto=0,
                    flags=socket.AI_NUMERICHOST,
                )
                for address in pins[host]
            ]

        async def close(self) -> None:
            await self._system.close()

    return Pinning()


def _head(url: str, response: "aiohttp.ClientResponse") -> Head:
    headers: dict[str, str] = {}
    cookies = []
    for raw_name, raw_value in response.raw_headers:
        name, value = raw_name.decode("ascii").lower(), text_of(raw_value)
        if name == "set-cookie":
            cookies.append(value)
        elif name in headers:
            headers[name] = f"{headers[name]}, {value}"
        else:
            headers[name] = value
    return Head(response.status, headers, tuple(cookies), url)


_BROKEN = "{what}: the connection broke: {reason}"
_NO_HTTP = "{what}: what came is not valid HTTP"
_NO_CONNECTION = "{what}: no connection: {reason}"
_NO_PROXY = "{what}: the proxy {proxy} gives no connection: {reason}"


def _translated(error: Exception, what: str, proxy: str, watch: Watch) -> Exception:
    """Our error for one of aiohttp's or aiohttp-socks'; the same error when it is none of theirs.

    Takes the address out of the cause's own text.
    """
    if isinstance(request := getattr(error, "request_info", None), tuple):
        error.request_info = request._replace(real_url=what)  # type: ignore[attr-defined]
    if _is(error, "ServerTimeoutError", "ProxyTimeoutError"):
        return watch.error("connect")
    for names, kind, said in _TABLE:
        if _is(error, *names):
            text = said.format(what=what, proxy=proxy, reason=_reason(error))
            return RemoteProtocolError(text, code="http") if kind is RemoteProtocolError else kind(text)
    return error


# The first row that fits counts: some of these are bases of others.
_TABLE: tuple[tuple[tuple[str, ...], type[TolmachError], str], ...] = (
    (
        ("ClientHttpProxyError", "ClientProxyConnectionError", "ProxyError", "ProxyConnectionError"),
        ConnectFailed,
        _NO_PROXY,
    ),
    (("ClientConnectorError", "ClientConnectorCertificateError"), ConnectFailed, _NO_CONNECTION),
    (("InvalidURL", "ValueError"), ConfigError, "{what}: the request cannot be written: {reason}"),
    (("ClientPayloadError", "ServerDisconnectedError"), ConnectionLost, _BROKEN),
    (("ClientResponseError",), RemoteProtocolError, _NO_HTTP),
    (("ClientError", "OSError"), ConnectionLost, _BROKEN),
)


def _is(error: Exception, *names: str) -> bool:
    return any(base.__name__ in names for base in type(error).__mro__)


def _reason(error: Exception) -> str:
    """What the error says without the address, which may hold a question or a token."""
    status = getattr(error, "status", None)
    if status:
        return f"HTTP {status}"
    inner: object = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {inner.verify_message}"
    if isinstance(inner, OSError) and inner.errno and inner.errno > 0:
        return os.strerror(inner.errno).lower()
    return _REASONS.get(type(error).__name__, type(error).__name__)


_REASONS = {
    "ClientPayloadError": "the body is incomplete",
    "ServerDisconnectedError": "closed without an answer",
    "ProxyError": "it refused",
}
