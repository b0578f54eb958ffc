"""HTTP by wreq: the transport that tolmach uses unless told otherwise. The only module that imports wreq."""

import asyncio
import difflib
import os
import re
import threading
from collections import OrderedDict
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tolmach.errors import (
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    RemoteProtocolError,
    TolmachError,
    UnsupportedFeature,
)
from tolmach.transport.addresses import check_pins, origin, proxy_parts, text_of
from tolmach.transport.base import Timeouts, TransportOptions
from tolmach.transport.body import BodyExchange
from tolmach.transport.timeouts import Watch
from tolmach.version import __version__
from tolmach.wire import Head, Request

if TYPE_CHECKING:
    import wreq

__all__ = ["WreqTransport"]

_MOST_CLIENTS = 8
"""Pools at one time; there is one for each time limit on connecting."""

_POOL_SECONDS = 55.0
"""How long an idle connection is kept: less than the 60 s after which most servers and balancers close it."""

_SMALL = 64 << 10
"""Bytes; a body of known length up to this is waited for once, as a whole."""

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
"""These say their length even when it is 0: some servers refuse them without (RFC 9110, 8.6)."""


class WreqTransport:
    """Sends requests by wreq: HTTP/1.1 and HTTP/2, proxies, browser profiles, compression.

    One object serves any number of event loops and threads. Nothing is opened before the first
    request. With `verify=True` Mozilla's authorities count that wreq brings along, not the system's;
    an authority of one's own is given as a file. Raises `ConfigError` or `UnsupportedFeature` for
    options that cannot be honoured, at the latest at the first request.
    """

    def __init__(self, options: TransportOptions = TransportOptions()) -> None:
        self.options = options
        self._proxy_name = _checked_proxy(options.proxy) if options.proxy else ""
        check_pins(options.resolve)
        if options.impersonate:
            _profile(options.impersonate)
        self._clients: OrderedDict[float | None, wreq.Client] = OrderedDict()
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._closed = False

    async def send(self, request: Request, timeouts: Timeouts) -> BodyExchange:
        """The exchange once its head is there. Redirects are not followed, cookies not kept."""
        what = origin(request.url)
        client = self._client(timeouts.connect)
        watch = Watch(what, timeouts)
        watch.begin()
        try:
            response = await _begin(client, request)
        except asyncio.CancelledError as error:
            watch.disarm()
            expired = watch.expired()
            if expired is not None:
                raise expired from error
            if self._closed:
                raise ConnectionLost(f"{what}: the transport was closed") from error
            raise
        except Exception as error:  # wreq's exceptions have no common base; `_translated` knows them, or raises
            watch.disarm()
            told = _translated(error, what, self._proxy_name, watch)
            if told is error:
                raise
            raise told from error
        return _exchange(request.url, response, what, watch)

    def _client(self, connect: float | None) -> "wreq.Client":
        if self._process != os.getpid():
            # A forked child: the parent's connections are not its own, and the lock may have been held.
            self._lock, self._clients, self._process = threading.Lock(), OrderedDict(), os.getpid()
        with self._lock:
            if self._closed:
                raise ConfigError("this transport is closed")
            client = self._clients.get(connect)
            if client is None:
                client = self._clients[connect] = _build(self.options, connect)
                if len(self._clients) > _MOST_CLIENTS:
                    # What is under way on it holds it; the last response lets go of it.
                    self._clients.popitem(last=False)
        return client

    async def aclose(self) -> None:
        """Close the idle connections and end requests that wait for their head. Answers in progress go on."""
        with self._lock:
            self._closed = True
            clients = list(self._clients.values())
            self._clients.clear()
        for client in clients:
            client.close()


def _exchange(url: str, response: "wreq.Response", what: str, watch: Watch) -> BodyExchange:
    head = _head(url, response)
    if _is_small(head):
        return _small_exchange(head, response, what, watch)
    streamer = response.stream()

    async def pull() -> bytes:
        while True:
            piece = await streamer.__anext__()
            # Trailers (a HeaderMap) mean nothing here.
            if type(piece) is memoryview and piece.nbytes:
                return piece.tobytes()

    def release() -> None:
        # Closes the connection unless the body was read to its end.
        streamer.__exit__(None, None, None)

    return BodyExchange(head, pull, release, lambda error: _translated(error, what, "", watch), watch)


async def _begin(client: "wreq.Client", request: Request) -> "wreq.Response":
    method = _methods().get(request.method)
    if method is None:
        raise ConfigError(f"there is no HTTP method {request.method!r}")
    headers = request.headers
    if request.body:
        return await client.request(method, request.url, headers=headers, body=request.body)
    if request.method in _WITH_BODY and "content-length" not in headers:
        headers = {**headers, "content-length": "0"}
    return await client.request(method, request.url, headers=headers)


def _small_exchange(head: Head, response: "wreq.Response", what: str, watch: Watch) -> BodyExchange:
    """The exchange of a short body, in one piece: each wait is a hand-over between two threads."""
    asked = False

    async def pull() -> bytes:
        nonlocal asked
        asked = True
        piece = await response.bytes()
        if piece.nbytes:
            return piece.tobytes()
        raise StopAsyncIteration

    def release() -> None:
        if not asked:
            response.stream().__exit__(None, None, None)

    return BodyExchange(head, pull, release, lambda error: _translated(error, what, "", watch), watch, one=True)


def _is_small(head: Head) -> bool:
    """Whether the body is short, of known length, and nothing that comes piece by piece."""
    length = head.headers.get("content-length", "")
    return (
        length.isdecimal()
        and int(length) <= _SMALL
        and "content-encoding" not in head.headers
        and not head.headers.get("content-type", "").startswith("text/event-stream")
    )


@cache
def _methods() -> "dict[str, wreq.Method]":
    import wreq

    return {name: getattr(wreq.Method, name) for name in dir(wreq.Method) if name.isupper()}


def _head(url: str, response: "wreq.Response") -> Head:
    headers: dict[str, str] = {}
    cookies: tuple[str, ...] = ()
    for raw_name, raw_value in response.headers:
        name, value = str(raw_name, "ascii"), text_of(raw_value)
        if name not in headers and name != "set-cookie":
            headers[name] = value
        elif name == "set-cookie":
            cookies += (value,)
        else:
            headers[name] = f"{headers[name]}, {value}"
    return Head(response.status.as_int(), headers, cookies, url)


# Building a client


def _build(options: TransportOptions, connect: float | None) -> "wreq.Client":
    import wreq

    settings: dict[str, Any] = {
        "runtime": _runtime(),
        "redirect": wreq.redirect.Policy.none(),
        "referer": False,
        "cookie_store": False,
        "dns_options": _dns(options),
        "tls_verify": _roots(options.verify),
        "pool_idle_timeout": timedelta(seconds=_POOL_SECONDS),
        **dict.fromkeys(("gzip", "brotli", "deflate", "zstd"), True),
    }
    if connect is not None:
        settings["connect_timeout"] = timedelta(seconds=connect)
    if options.impersonate:
        settings["emulation"] = wreq.Emulation(profile=_profile(options.impersonate))
    else:
        settings["user_agent"] = f"tolmach/{__version__}"
    if options.proxy:
        settings["proxies"] = [_proxy(options.proxy)]
    elif not options.trust_env:
        settings["no_proxy"] = True
    return wreq.Client(**settings)


_runtimes: "dict[int, wreq.Runtime]" = {}
"""By process: the thread that wreq works on."""


def _runtime() -> "wreq.Runtime":
    """The thread for this process; a forked child has none of its parent's, and gets another.

    One thread serves any number of connections; more of them only wake each other.
    """
    import wreq

    process = os.getpid()
    if process not in _runtimes:
        # What a parent left is kept: letting go of it would wait for threads that are not here.
        _runtimes[process] = wreq.Runtime(workers=1)
    return _runtimes[process]


def _dns(options: TransportOptions) -> "wreq.DnsOptions":
    import wreq

    dns = wreq.DnsOptions(system_dns=True)
    for host, addresses in check_pins(options.resolve).items():
        dns.add_resolve(host, addresses)
    return dns


def _roots(verify: bool | str) -> "bool | wreq.CertStore":
    """What wreq is told about certificates. A file of CAs takes the place of the built-in ones."""
    import wreq

    if isinstance(verify, bool):
        return verify
    try:
        pem = Path(verify).read_bytes()
    except OSError as error:
        raise ConfigError(f"verify: {verify} cannot be read: {error.strerror}") from error
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise ConfigError(f"verify: {verify} holds no certificate in PEM form")
    try:
        return wreq.CertStore.from_pem_stack(pem)
    except Exception as error:  # wreq's exceptions have no common base; the file is the only input here
        raise ConfigError(f"verify: {verify} cannot be read as certificates: {_reason(error)}") from error


def _checked_proxy(url: str) -> str:
    """The proxy's name for messages, when wreq can use it."""
    parts, name = proxy_parts(url)
    if parts.scheme.startswith("socks4") and parts.username:
        raise UnsupportedFeature(
            f"the wreq transport cannot tell the proxy {name} a user; socks5 and the aiohttp transport can",
            feature="proxy",
        )
    return name


def _proxy(url: str) -> "wreq.Proxy":
    import wreq

    parts, _ = proxy_parts(url)
    address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if parts.username is None:
        return wreq.Proxy.all(address)
    return wreq.Proxy.all(address, username=unquote(parts.username), password=unquote(parts.password or ""))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@cache
def _profiles() -> "dict[str, wreq.Profile]":
    """Profiles by their plain names, and the newest of each family by the family's name."""
    import wreq

    names = sorted(
        (name for name in dir(wreq.Profile) if re.fullmatch(r"[A-Z][A-Za-z]+\d[\d_]*", name)),
        key=lambda name: [int(number) for number in re.findall(r"\d+", name)],
    )
    profiles = {re.sub(r"\d.*", "", name).lower(): getattr(wreq.Profile, name) for name in names}
    return profiles | {_plain(name): getattr(wreq.Profile, name) for name in names}


def _profile(name: str) -> "wreq.Profile":
    profiles = _profiles()
    plain = _plain(name)
    # Safari 18 is also written 18.0.
    profile = profiles.get(plain) or profiles.get(_plain(re.sub(r"[._]0$", "", name)))
    if profile is None:
        near = difflib.get_close_matches(plain, profiles, 5, 0.5) or ["chrome", "firefox", "safari", "edge"]
        raise ConfigError(f"impersonate: no browser profile {name!r}; there are, for example, {', '.join(near)}")
    return profile


# Errors

_HIDDEN = re.compile(r"uri: \S+ ?|, connect_info: .*", re.DOTALL)
_SAYS = re.compile(r'(?:message|error|reason): "([^"]+)"')


def _reason(error: BaseException) -> str:
    """The part of a wreq message that means something to a person; empty when there is none."""
    found: list[str] = _SAYS.findall(str(error))
    if not found:
        return ""
    return found[-1].replace("_", " ").lower().removeprefix("failed to lookup address information: ")


def _translated(error: Exception, what: str, proxy: str, watch: Watch) -> Exception:
    """Our error for one of wreq's. Takes addresses and credentials out of the cause's own text."""
    if isinstance(error, TolmachError):
        return error
    text = str(error)
    error.args = (_HIDDEN.sub("", text),)
    kind = type(error).__name__
    reason = _reason(error)
    because = f": {reason}" if reason else ""
    if kind in ("ConnectionError", "TlsError", "ProxyConnectionError", "TimeoutError"):
        if "TimedOut" in text:
            return watch.error("connect")
        if kind == "ProxyConnectionError":
            return ConnectFailed(f"{what}: the proxy {proxy} gives no connection{because}")
        return ConnectFailed(f"{what}: no connection{because}")
    if kind == "BuilderError" or (kind == "RuntimeError" and text.startswith("Invalid header")):
        return ConfigError(f"{what}: the request cannot be written: {error.args[0]}")
    if kind in ("ConnectionResetError", "BodyError", "RequestError", "DecodingError"):
        if "Parse(" in text or "InvalidInput" in text or "InvalidData" in text:
            return RemoteProtocolError(f"{what}: what came is not valid HTTP{because}", code="http")
        if "IncompleteMessage" in text:
            because = ": closed without an answer"
        return ConnectionLost(f"{what}: the connection broke{because}")
    return error
