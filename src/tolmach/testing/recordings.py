"""Recordings of exchanges with real services: one JSON file a case.

The format is that of `tests/captures/README.md`: `case`, `description`, `family`, `observed`, and
`exchanges`, each with a `request` and a `response` whose `chunks` are the bytes as they arrived.
A recording is named by its folder and its file: `aiengine-3.6.2/chat-minimal-body`.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from tolmach.errors import ConfigError, RemoteProtocolError
from tolmach.wire import Head, Request

__all__ = ["Chunk", "Exchange", "Recording", "find", "load"]


class Chunk(Struct, frozen=True):
    """Bytes that arrived together, `t_ms` milliseconds after the request was sent."""

    data: bytes = msgspec.field(name="b64")
    t_ms: float = 0.0


class Exchange(Struct, frozen=True):
    """One request and what came back; `broken` says why the transfer ended early, if it did."""

    request: Request
    head: Head
    chunks: tuple[Chunk, ...]
    broken: str = ""

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrived, decompressed. Raises `RemoteProtocolError` for a damaged compression."""
        coding = self.head.header("content-encoding").strip().lower()
        if coding in ("", "identity"):
            yield from (chunk.data for chunk in self.chunks)
            return
        if coding not in ("gzip", "x-gzip", "deflate"):
            raise RemoteProtocolError(f"the body's content-encoding is {coding!r}; gzip and deflate can be read")
        # 32 + 15: the header, of gzip or zlib, is told by its first bytes.
        inflate = zlib.decompressobj(32 + 15)
        try:
            for chunk in self.chunks:
                if data := inflate.decompress(chunk.data):
                    yield data
            if data := inflate.flush():
                yield data
        except zlib.error as error:
            raise RemoteProtocolError(f"the compressed body is damaged: {error}") from error

    def body(self) -> bytes:
        """The whole body, decompressed."""
        return b"".join(self.pieces())


class Recording(Struct, frozen=True):
    """One case: the exchanges in the order in which they happened.

    `observed` is True when it came from a real service, False when it was written by hand.
    """

    name: str
    case: str
    description: str
    family: str
    observed: bool
    exchanges: tuple[Exchange, ...]


class _Request(Struct):
    method: str
    path: str
    headers: dict[str, str] = {}
    body: str | None = None
    body_b64: bytes | None = None


class _Response(Struct):
    status: int
    headers: list[tuple[str, str]]
    chunks: list[Chunk]
    transport_error: str = ""


class _Exchange(Struct):
    request: _Request
    response: _Response


class _File(Struct):
    case: str
    family: str
    exchanges: list[_Exchange]
    description: str = ""
    observed: bool = False


def load(path: str | Path) -> Recording:
    """The recording in a file. Raises `ConfigError` that names the file and what is wrong with it."""
    path = Path(path)
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a recording: {error}") from error
    return Recording(
        name=f"{path.absolute().parent.name}/{path.stem}",
        case=file.case,
        description=file.description,
        family=file.family,
        observed=file.observed,
        exchanges=tuple(
            Exchange(
                request=_request(exchange.request),
                head=_head(exchange.response, exchange.request),
                chunks=tuple(exchange.response.chunks),
                broken=exchange.response.transport_error,
            )
            for exchange in file.exchanges
        ),
    )


def find(folder: str | Path) -> tuple[Path, ...]:
    """The files of a folder of recordings, `<family>/<case>.json`, sorted. Raises `ConfigError` when there are none."""
    folder = Path(folder)
    paths = tuple(sorted(folder.glob("*/*.json")))
    if not paths:
        raise ConfigError(f"{folder}: no recordings there; a folder with <family>/<case>.json is needed")
    return paths


def _url(request: _Request) -> str:
    if "://" in request.path.partition("?")[0]:
        return request.path
    headers = {name.lower(): value for name, value in request.headers.items()}
    return f"http://{headers.get('host', 'recorded.invalid')}{request.path}"


def _request(request: _Request) -> Request:
    body = request.body_b64 if request.body_b64 is not None else (request.body or "").encode()
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Request(request.method, _url(request), headers, body)


def _head(response: _Response, request: _Request) -> Head:
    headers: dict[str, str] = {}
    cookies = []
    for name, value in response.headers:
        name = name.lower()
        if name == "set-cookie":
            cookies.append(value)
        else:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Head(response.status, headers, tuple(cookies), _url(request))
