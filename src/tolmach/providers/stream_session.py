"""Our transport under the names that the seeds' code uses: `StreamSession`, `Session`, `raise_for_status`.

`StreamSession` is for `async with`; `Session` is the same, synchronously.
"""

import json as standard_json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self, overload
from urllib.parse import urlencode, urlsplit, urlunsplit

from msgspec import structs

from tolmach import blocking
from tolmach.cookies import CookieJar
from tolmach.decoding import LineDecoder, ServerSentEvents, parse_json, plain_text
from tolmach.errors import ConfigError, UnsupportedFeature, error_for_status
from tolmach.transport import Exchange, Timeouts, TransportOptions, open_exchange, read, shared
from tolmach.wire import Head, Limits, Request, retry_after

__all__ = ["Response", "Session", "StreamResponse", "StreamSession", "raise_for_status"]

_LIMITS = Limits()

Timeout = float | tuple[float | None, float | None] | None
"""Seconds in total, or a pair of connect and total, as in the requests package."""


def _proxy(proxy: str | None, proxies: Mapping[str, str | None] | None) -> str | None:
    """One proxy of the two ways to name it; a map by scheme must not ask for two different ones."""
    named = {value for value in (proxies or {}).values() if value}
    if proxy:
        named.add(proxy)
    if len(named) > 1:
        raise UnsupportedFeature("one session uses one proxy; give it as proxies={'all': ...}", feature="proxies")
    return named.pop() if named else None


def _timeouts(timeout: Timeout) -> Timeouts:
    pair = timeout if isinstance(timeout, tuple) else (None, timeout)
    if len(pair) != 2:
        raise ConfigError("timeout: seconds, or a pair of connect and total")
    for value in pair:
        if value is not None and not (isinstance(value, int | float) and value > 0):
            raise ConfigError(f"timeout: seconds above zero, not {value!r}")
    connect, total = pair
    default = Timeouts()
    return Timeouts(
        connect=connect if connect is not None else default.connect,
        first_byte=total if total is not None else default.first_byte,
        idle=total if total is not None else default.idle,
        total=total,
    )


def _with_query(url: str, params: Mapping[str, Any] | None) -> str:
    if not params:
        return url
    parts = urlsplit(url)
    query = urlencode([(k, v) for k, v in params.items() if v is not None], doseq=True)
    return urlunsplit(parts._replace(query=f"{parts.query}&{query}" if parts.query else query))


def _body(data: Any, json: Any) -> tuple[bytes, str]:
    """The body and its content type; an empty type for bytes and text, whose sender knows it."""
    if json is not None and data is not None:
        raise ConfigError("data, json: one of them, not both")
    if json is not None:
        try:
            return standard_json.dumps(json, separators=(",", ":")).encode(), "application/json"
        except (TypeError, ValueError) as error:
            raise ConfigError(f"json: {error}") from error
    if data is None:
        return b"", ""
    if isinstance(data, bytes | bytearray):
        return bytes(data), ""
    if isinstance(data, str):
        return data.encode(), ""
    if isinstance(data, Mapping | Sequence):
        try:
            pairs = [(k, v) for k, v in (data.items() if isinstance(data, Mapping) else data) if v is not None]
        except (TypeError, ValueError) as error:
            raise ConfigError("data: a sequence holds pairs of name and value") from error
        return urlencode(pairs, doseq=True).encode(), "application/x-www-form-urlencoded"
    raise ConfigError(f"data: bytes, text, or names with values for a form, not {type(data).__name__}")


class StreamResponse:
    """A response in progress. `read`, `text` and `json` keep the body; the iterators alone give it once."""

    def __init__(self, exchange: Exchange, limits: Limits = _LIMITS) -> None:
        self._exchange = exchange
        self._limits = limits
        self._whole: bytes | None = None

    @property
    def status(self) -> int:
        return self._exchange.head.status

    @property
    def status_code(self) -> int:
        return self._exchange.head.status

    @property
    def ok(self) -> bool:
        return self.status < 400

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case."""
        return self._exchange.head.headers

    @property
    def url(self) -> str:
        """Where the response came from, after redirects."""
        return self._exchange.head.url

    @property
    def head(self) -> Head:
        return self._exchange.head

    async def read(self) -> bytes:
        if self._whole is None:
            self._whole = await read(self._exchange, self._limits.response_bytes)
        return self._whole

    async def text(self) -> str:
        return (await self.read()).decode("utf-8", "replace")

    async def json(self) -> Any:
        """The parsed body. Raises `RemoteProtocolError` when it is not JSON."""
        return parse_json(await self.read())

    def _pieces(self) -> AsyncIterator[bytes]:
        return aiter(self._exchange) if self._whole is None else _once(self._whole)

    async def iter_content(self) -> AsyncGenerator[bytes, None]:
        """The body's pieces, as they arrive."""
        async for data in self._pieces():
            yield data

    async def iter_lines(self) -> AsyncGenerator[bytes, None]:
        """The body's lines without their ends, for any cut of the bytes."""
        lines = LineDecoder(self._limits.event_bytes)
        async for data in self._pieces():
            for line in lines.feed(data):
                yield line
        if rest := lines.rest():
            yield rest

    async def sse(self) -> AsyncGenerator[Any, None]:
        """The parsed data of each server-sent event, up to `[DONE]`."""
        events = ServerSentEvents(self._limits.event_bytes)
        async for data in self._pieces():
            for event in events.feed(data):
                if event.data == b"[DONE]":
                    return
                yield parse_json(event.data)

    async def raise_for_status(self) -> None:
        """Raise the error that the status stands for, with the body's words; nothing below 400."""
        if not self.ok:
            wait = retry_after(self.head, time.time())
            raise error_for_status(self.status, plain_text(await self.read()), retry_after=wait)

    async def aclose(self) -> None:
        await self._exchange.aclose()


async def _once(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


class StreamSession:
    """An asynchronous HTTP session: one pool, one cookie jar.

    `timeout` is seconds in total, or a pair of connect and total. `proxies` is `{"all": "..."}`.
    `impersonate` names a browser profile. Certificates are checked unless `verify=False`.
    `headers` and `cookies` go with every request, and to no other origin by a redirect; they may be
    changed. What sites set is in `jar`, and goes back to them alone.
    """

    def __init__(
        self,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        proxies: Mapping[str, str | None] | None = None,
        proxy: str | None = None,
        timeout: Timeout = None,
        impersonate: str | None = None,
        verify: bool | str = True,
    ) -> None:
        self.headers = dict(headers or {})
        self.cookies = dict(cookies or {})
        self.jar = CookieJar()
        self._timeouts = _timeouts(timeout)
        self._options = TransportOptions(proxy=_proxy(proxy, proxies), verify=verify, impersonate=impersonate)
        shared(self._options)  # what is wrong with them is said here, not at the first request

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Connections belong to the process's pool; each response closes its own."""

    async def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str | None] | None = None,
        params: Mapping[str, Any] | None = None,
        data: Any = None,
        json: Any = None,
        cookies: Mapping[str, str] | None = None,
        timeout: Timeout = None,
        proxy: str | None = None,
    ) -> StreamResponse:
        """The response once its head is there; to be closed by the caller.

        `data` is bytes, text, or names with values (a mapping or pairs) for a form. A header with None is left out.
        """
        body, content_type = _body(data, json)
        request = self._build(method, url, headers or {}, params, cookies or {}, body, content_type)
        timeouts = self._timeouts if timeout is None else _timeouts(timeout)
        options = self._options if proxy is None else structs.replace(self._options, proxy=proxy)
        return StreamResponse(await open_exchange(shared(options), request, self.jar, timeouts, _LIMITS))

    @asynccontextmanager
    async def request(self, method: str, url: str, **kwargs: Any) -> AsyncGenerator[StreamResponse, None]:
        """`async with session.request("PUT", url) as response`; arguments as in `open`."""
        response = await self.open(method, url, **kwargs)
        try:
            yield response
        finally:
            await response.aclose()

    def _build(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str | None],
        params: Mapping[str, Any] | None,
        cookies: Mapping[str, str],
        body: bytes,
        content_type: str,
    ) -> Request:
        url = _with_query(url, params)
        named = {name.lower(): value for name, value in {**self.headers, **headers}.items()}
        merged = {name: value for name, value in named.items() if value is not None}
        if content_type:
            merged.setdefault("content-type", content_type)
        # What the site set since counts more than what was handed in.
        kept = {pair.partition("=")[0] for pair in self.jar.header(url).split("; ")}
        given = {**{name: value for name, value in self.cookies.items() if name not in kept}, **cookies}
        pairs = [f"{name}={value}" for name, value in given.items()]
        if pairs:
            merged["cookie"] = "; ".join([merged["cookie"], *pairs] if merged.get("cookie") else pairs)
        return Request(method.upper(), url, merged, body)

    def get(self, url: str, **kwargs: Any) -> AbstractAsyncContextManager[StreamResponse]:
        """`async with session.get(url) as response`."""
        return self.request("GET", url, **kwargs)

    def post(self, url: str, **kwargs: Any) -> AbstractAsyncContextManager[StreamResponse]:
        """`async with session.post(url, json=...) as response`."""
        return self.request("POST", url, **kwargs)


class Response:
    """A response, synchronously; a context manager. Its body is there already, unless it was asked for as a stream."""

    def __init__(self, stream: StreamResponse) -> None:
        self._stream = stream
        self.status_code = stream.status
        self.headers = stream.headers
        self.url = stream.url
        self.ok = stream.ok

    @property
    def content(self) -> bytes:
        return blocking.run(self._stream.read())

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The parsed body. Raises `RemoteProtocolError` when it is not JSON."""
        return blocking.run(self._stream.json())

    def iter_content(self) -> Generator[bytes, None, None]:
        return blocking.iterate(self._stream.iter_content)

    def iter_lines(self) -> Generator[bytes, None, None]:
        return blocking.iterate(self._stream.iter_lines)

    def sse(self) -> Generator[Any, None, None]:
        return blocking.iterate(self._stream.sse)

    def raise_for_status(self) -> None:
        blocking.run(self._stream.raise_for_status())

    def close(self) -> None:
        blocking.run(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Session:
    """A synchronous HTTP session with the arguments of `StreamSession`; a context manager."""

    def __init__(self, **settings: Any) -> None:
        self._session = StreamSession(**settings)

    @property
    def headers(self) -> dict[str, str]:
        """Sent with every request; may be changed or replaced."""
        return self._session.headers

    @headers.setter
    def headers(self, headers: Mapping[str, str]) -> None:
        self._session.headers = dict(headers)

    @property
    def cookies(self) -> dict[str, str]:
        """Sent with every request; may be changed or replaced. Those of the sites are in `jar`."""
        return self._session.cookies

    @cookies.setter
    def cookies(self, cookies: Mapping[str, str]) -> None:
        self._session.cookies = dict(cookies)

    @property
    def jar(self) -> CookieJar:
        """The cookies that sites have set."""
        return self._session.jar

    def request(self, method: str, url: str, *, stream: bool = False, **kwargs: Any) -> Response:
        """The response; arguments as in `StreamSession.open`.

        With `stream=True` it comes once its head is there; close it, or use it in a `with`, when not
        reading it out.
        """
        return Response(blocking.run(self._request(method, url, stream, kwargs)))

    async def _request(self, method: str, url: str, stream: bool, kwargs: dict[str, Any]) -> StreamResponse:
        response = await self._session.open(method, url, **kwargs)
        if not stream:
            await response.read()
        return response

    def get(self, url: str, **kwargs: Any) -> Response:
        return self.request("GET", url, **kwargs)

    def post(self, url: str, **kwargs: Any) -> Response:
        return self.request("POST", url, **kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Connections belong to the process's pool; each response closes its own."""


@overload
def raise_for_status(response: StreamResponse) -> Awaitable[None]: ...


@overload
def raise_for_status(response: Response) -> None: ...


def raise_for_status(response: StreamResponse | Response) -> Awaitable[None] | None:
    """Raise the error that a status of 400 or more stands for. `await` it for a `StreamResponse`."""
    return response.raise_for_status()
