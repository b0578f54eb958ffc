"""HAR files: what a browser's network panel saves (HTTP Archive 1.2)."""

import base64
import binascii
import zlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct, field

from tolmach.errors import ConfigError
from tolmach.recipes.traffic import Exchange, Frame
from tolmach.wire import Head, Request

__all__ = ["read_har"]

_DEPTH = 8
"""So deep are the fields of an entry that are read."""
_MOST_BYTES = 64 << 20
"""Of a body that was saved compressed."""


class _Pair(Struct, frozen=True):
    name: str = ""
    value: str = ""


class _EventMessage(Struct, frozen=True):
    """A server-sent event as Chrome keeps it beside a response (`_eventSourceMessages`)."""

    eventName: str = ""
    eventId: str = ""
    data: str = ""


class _Frame(Struct, frozen=True):
    """A message of a WebSocket as Chrome and Playwright keep it (`_webSocketMessages`)."""

    type: str = ""
    time: float = 0.0
    opcode: int = 1
    data: str = ""


class _Post(Struct, frozen=True):
    mimeType: str = ""
    text: str = ""
    params: list[_Pair] = []
    encoding: str = ""


class _Request(Struct, frozen=True):
    method: str
    url: str
    headers: list[_Pair] = []
    cookies: list[_Pair] = []
    postData: _Post | None = None


class _Content(Struct, frozen=True):
    mimeType: str = ""
    text: str = ""
    encoding: str = ""
    size: float = 0
    file: str = field(default="", name="_file")
    """Playwright: the body stands beside the HAR file, in a file of this name."""


class _Response(Struct, frozen=True):
    status: int = 0
    headers: list[_Pair] = []
    content: _Content = _Content()
    bodySize: float = 0
    transferSize: float = field(default=0, name="_transferSize")


class _Entry(Struct, frozen=True):
    request: _Request
    response: _Response = _Response()
    startedDateTime: str = ""
    events: list[_EventMessage] = field(default_factory=list, name="_eventSourceMessages")
    frames: list[_Frame] = field(default_factory=list, name="_webSocketMessages")


def read_har(data: bytes, beside: Callable[[str], bytes | None] | None = None) -> list[Exchange]:
    """The exchanges of a HAR file in the order in which they began. Raises `ConfigError` for what is none.

    An entry that cannot be read, as of a request that was never sent, is passed over. `beside` gives the body that a
    HAR file keeps in a file of this name beside itself.
    """
    try:
        value = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ConfigError(f"not a HAR file: {error}") from error
    log = value.get("log") if isinstance(value, dict) else None
    listed = log.get("entries") if isinstance(log, dict) else None
    if not isinstance(listed, list):
        raise ConfigError("not a HAR file: it has no `log` with `entries`")
    found = [_exchange(entry, beside) for one in listed if (entry := _entry(one)) is not None]
    return sorted(found, key=lambda exchange: exchange.started)


def _entry(value: Any) -> _Entry | None:
    try:
        entry = msgspec.convert(_without_null(value), _Entry, strict=False)
    except (msgspec.ValidationError, ValueError, RecursionError):
        return None
    return entry if entry.request.url.startswith(("http://", "https://", "ws://", "wss://")) else None


def _without_null(value: Any, depth: int = 0) -> Any:
    """The value without fields that are null, which several programs write for what is not there; pairs as texts."""
    if isinstance(value, dict) and "name" in value and isinstance(value.get("value"), int | float):
        return value | {"value": str(value["value"])}
    if isinstance(value, dict) and depth < _DEPTH:
        return {key: _without_null(part, depth + 1) for key, part in value.items() if part is not None}
    if isinstance(value, list) and depth < _DEPTH:
        return [_without_null(part, depth + 1) for part in value if part is not None]
    return value


def _exchange(entry: _Entry, beside: Callable[[str], bytes | None] | None) -> Exchange:
    headers = {pair.name.lower(): pair.value for pair in entry.request.headers if not pair.name.startswith(":")}
    if entry.request.cookies and "cookie" not in headers:
        headers["cookie"] = "; ".join(f"{pair.name}={pair.value}" for pair in entry.request.cookies)
    post = entry.request.postData
    if post is not None and post.mimeType and "content-type" not in headers:
        headers["content-type"] = post.mimeType
    request = Request(entry.request.method.upper(), entry.request.url, headers, _posted(post))
    started = _seconds(entry.startedDateTime)
    if entry.response.status <= 0:
        return Exchange(request=request, started=started, frames=_frames(entry))
    head = _head(entry)
    body = _body(entry, head, beside)
    lost = None if body or not 200 <= head.status < 300 or head.status in (204, 205) else _size(entry.response)
    return Exchange(request=request, head=head, body=body, started=started, frames=_frames(entry), lost=lost)


def _frames(entry: _Entry) -> tuple[Frame, ...]:
    return tuple(
        Frame(sent=frame.type == "send", text=frame.data, binary=frame.opcode != 1)
        for frame in entry.frames
        if frame.opcode in (1, 2)
    )


def _size(response: _Response) -> int:
    """How many bytes a body had that was not recorded, as far as that is told."""
    return int(max(response.content.size, response.bodySize, response.transferSize, 0))


def _body(entry: _Entry, head: Head, beside: Callable[[str], bytes | None] | None) -> bytes:
    content = entry.response.content
    if content.text:
        return _plain(_content(content), head)
    if content.file and beside is not None and (kept := beside(content.file)) is not None:
        return _plain(kept, head)
    return "".join(map(_event, entry.events)).encode("utf-8", "replace")


def _event(message: _EventMessage) -> str:
    """A server-sent event as it stood in the stream; one without a name is `message`."""
    name = "" if message.eventName in ("", "message") else f"event: {message.eventName}\n"
    number = f"id: {message.eventId}\n" if message.eventId else ""
    return name + number + "".join(f"data: {line}\n" for line in message.data.split("\n")) + "\n"


def _plain(data: bytes, head: Head) -> bytes:
    """The body as a page sees it: some programs save it compressed, as it crossed the wire."""
    if not data.startswith(b"\x1f\x8b") or head.header("content-encoding").lower() not in ("gzip", "x-gzip", ""):
        return data
    inflating = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        return inflating.decompress(data, _MOST_BYTES)
    except zlib.error:
        return data


def _posted(post: _Post | None) -> bytes:
    if post is None:
        return b""
    if post.text:
        return _decoded(post.text, post.encoding)
    if not post.params:
        return b""
    if "multipart" in post.mimeType:
        boundary = post.mimeType.partition("boundary=")[2].strip('"') or "boundary"
        parts = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{pair.name}"\r\n\r\n{pair.value}\r\n'
            for pair in post.params
        )
        return ("".join(parts) + f"--{boundary}--\r\n").encode()
    # As they stand: browsers write the names and values of `params` percent-encoded.
    return "&".join(f"{pair.name}={pair.value}" for pair in post.params).encode()


def _head(entry: _Entry) -> Head:
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for pair in entry.response.headers:
        name = pair.name.lower()
        if name == "set-cookie":
            cookies.extend(line for line in pair.value.split("\n") if line.strip())
        else:
            headers[name] = f"{headers[name]}, {pair.value}" if name in headers else pair.value
    if entry.response.content.mimeType:
        headers.setdefault("content-type", entry.response.content.mimeType)
    return Head(entry.response.status, headers, tuple(cookies), entry.request.url)


def _content(content: _Content) -> bytes:
    if content.encoding != "base64" and "charset" not in content.mimeType.lower():
        return _reread(content.text)
    return _decoded(content.text, content.encoding)


def _reread(text: str) -> bytes:
    """The bytes of a text; browsers read one of UTF-8 that does not say so as Windows-1252."""
    try:
        data = b"".join(_byte(char) for char in text)
        data.decode("utf-8")
    except UnicodeError:
        return text.encode("utf-8", "replace")
    return data


def _byte(char: str) -> bytes:
    try:
        return char.encode("cp1252")
    except UnicodeEncodeError:
        return char.encode("latin-1")


def _decoded(text: str, encoding: str) -> bytes:
    if encoding != "base64":
        return text.encode("utf-8", "replace")
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""


def _seconds(text: Any) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return 0.0
