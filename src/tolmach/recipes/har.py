"""HAR files: what a browser's network panel saves (HTTP Archive 1.2)."""

import base64
import binascii
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from tolmach.errors import ConfigError
from tolmach.recipes.traffic import Exchange
from tolmach.wire import Head, Request

__all__ = ["read_har"]


class _Pair(Struct, frozen=True):
    name: str = ""
    value: str = ""


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


class _Response(Struct, frozen=True):
    status: int = 0
    headers: list[_Pair] = []
    content: _Content = _Content()


class _Entry(Struct, frozen=True):
    request: _Request
    response: _Response = _Response()
    startedDateTime: str = ""


class _Log(Struct, frozen=True):
    entries: list[_Entry]


class _File(Struct, frozen=True):
    log: _Log


def read_har(data: bytes) -> list[Exchange]:
    """The exchanges of a HAR file in the order in which they began. Raises `ConfigError` for what is none."""
    try:
        file = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"), type=_File)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ConfigError(f"not a HAR file: {error}") from error
    found = [_exchange(entry) for entry in file.log.entries if entry.request.url.startswith(("http://", "https://"))]
    return sorted(found, key=lambda exchange: exchange.started)


def _exchange(entry: _Entry) -> Exchange:
    headers = {pair.name.lower(): pair.value for pair in entry.request.headers if not pair.name.startswith(":")}
    if entry.request.cookies and "cookie" not in headers:
        headers["cookie"] = "; ".join(f"{pair.name}={pair.value}" for pair in entry.request.cookies)
    post = entry.request.postData
    if post is not None and post.mimeType and "content-type" not in headers:
        headers["content-type"] = post.mimeType
    request = Request(entry.request.method.upper(), entry.request.url, headers, _posted(post))
    if entry.response.status <= 0:
        return Exchange(request=request, started=_seconds(entry.startedDateTime))
    return Exchange(
        request=request,
        head=_head(entry),
        body=_content(entry.response.content),
        started=_seconds(entry.startedDateTime),
    )


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
