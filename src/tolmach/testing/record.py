"""Making recordings: a transport around a transport that writes down what crosses it, without secrets.

What is secret never reaches the file: the values of the headers, cookies and fields named here are
replaced wherever they stand, in any request or answer of the recording, by placeholders of the same
length. So the pieces of a body keep their cuts, and a nonce in a page is still the one that the next
request carries.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote_plus, urlsplit

import msgspec
from msgspec import Struct

from tolmach.transport.base import Exchange, Timeouts, Transport
from tolmach.wire import Head, Request

__all__ = ["RecordingTransport"]

_SECRET_HEADERS = re.compile(
    r"cookie|(proxy-)?authorization|x-wp-nonce|(x-)?(goog-)?api-key|openai-sentinel-|oai-"
    r"|x-(csrf|xsrf|auth|access)|.*(token|secret|password|nonce)"
)
"""Names of headers, from their beginning, whose values are secret."""

_SECRET_FIELDS = re.compile(
    r"(?:[a-z0-9_-]*nonce|(?:access|refresh|id|session|csrf|xsrf|auth|bearer)_?-?token|csrfmiddlewaretoken"
    r"|(?:x_?)?api_?-?key|[a-z_]*(?:secret|password|passwd)|authorization|session_?id)",
    re.IGNORECASE,
)
"""Names of fields in queries, forms and JSON whose values are secret; `restNonce` and `_ajax_nonce` among them."""

# A name and a text after it: JSON, JSON within HTML or within a JSON text, a hidden input.
_IN_TEXT = re.compile(
    rf"""(?:"|&quot;|\\"|')(?P<name>{_SECRET_FIELDS.pattern})(?:"|&quot;|\\"|')\s*(?::|\s+value=)\s*"""
    rf"""(?:"|&quot;|\\"|')(?P<value>[^"'&<>\\\s]{{4,4096}})""",
    re.IGNORECASE,
)
_IN_ATTRIBUTE = re.compile(
    rf"""(?<![\w"'])(?P<name>(?:data-)?{_SECRET_FIELDS.pattern})\s*=\s*["'](?P<value>[^"'<>\s]{{4,4096}})["']""",
    re.IGNORECASE,
)
_LONG_TOKEN = re.compile(r'"token"\s*:\s*"(?P<value>[^"\s\\]{16,8192})"')
"""A `token` that is this long and has no space is a credential; shorter ones are pieces of an answer."""

_FORM_PART = re.compile(r'name="(?P<name>[^"]+)"\r\n\r\n(?P<value>[^\r\n]*)\r\n')
_SHORTEST = 6
"""A value shorter than this is looked for nowhere else: it would be found in words."""

_SHORTEST_COOKIE = 12
"""The same for cookies, which hold more words (`en_US`, `consent`)."""


class RecordingTransport:
    """Sends through `transport` and keeps what crossed it, for `save`.

    Bodies are kept as they were given on: decompressed. Up to `most` exchanges are kept; more raise
    nothing and are not kept, `dropped` counts them.
    """

    def __init__(self, transport: Transport, *, most: int = 1000) -> None:
        self.dropped = 0
        self._transport = transport
        self._most = most
        self._kept: list[_Kept] = []

    async def send(self, request: Request, timeouts: Timeouts) -> Exchange:
        """The exchange of the transport within, written down as it is read."""
        started = asyncio.get_running_loop().time()
        exchange = await self._transport.send(request, timeouts)
        if len(self._kept) >= self._most:
            self.dropped += 1
            return exchange
        kept = _Kept(request, exchange.head)
        self._kept.append(kept)
        return _Recorded(exchange, kept, started)

    async def aclose(self) -> None:
        """Close the transport within. What was recorded stays."""
        await self._transport.aclose()

    def save(self, path: str | Path, *, case: str = "", family: str = "", description: str = "") -> None:
        """Write what crossed so far to a file, without secrets. `case` and `family` default to file and folder."""
        path = Path(path)
        redacted = _Redacted(self._kept)
        document = {
            "case": case or path.stem,
            "description": description,
            "family": family or path.absolute().parent.name,
            "observed": True,
            "exchanges": [redacted.exchange(kept) for kept in self._kept],
        }
        text = msgspec.json.format(msgspec.json.encode(document), indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text + b"\n")


class _Kept(Struct):
    request: Request
    head: Head
    chunks: list[tuple[float, bytes]] = []
    broken: str = ""


class _Recorded:
    """An exchange whose pieces are kept as they pass."""

    def __init__(self, exchange: Exchange, kept: _Kept, started: float) -> None:
        self._exchange = exchange
        self._pieces = aiter(exchange)
        self._kept = kept
        self._started = started
        self._over = False

    @property
    def head(self) -> Head:
        return self._exchange.head

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            self._over = True
            raise
        except Exception as error:  # noted, whatever it is, and raised on
            self._end(type(error).__name__)
            raise
        passed = asyncio.get_running_loop().time() - self._started
        self._kept.chunks.append((round(passed * 1000, 1), piece))
        return piece

    async def aclose(self) -> None:
        self._end("client closed on purpose")
        await self._exchange.aclose()

    def _end(self, why: str) -> None:
        if not self._over:
            self._over = True
            self._kept.broken = why


class _Redacted:
    """The exchanges of one recording with the same placeholder for the same secret."""

    def __init__(self, kept: Iterable[_Kept]) -> None:
        found = {value for one in kept for value in _secrets(one) if len(value) >= _SHORTEST}
        # The longest first: one secret may be a part of another.
        self._values: dict[str, str] = {}
        for number, value in enumerate(sorted(found, key=lambda value: (-len(value), value)), 1):
            placeholder = _placeholder(number, len(value))
            for spelled in (value, quote_plus(value), quote(value, safe=""), value.replace("/", "\\/")):
                self._values.setdefault(spelled, placeholder.ljust(len(spelled), "0"))
        spellings = sorted(self._values, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, spellings))) if spellings else None

    def text(self, text: str) -> str:
        """The text with placeholders, as long as before."""
        return text if self._pattern is None else self._pattern.sub(lambda match: self._values[match[0]], text)

    def data(self, data: bytes) -> bytes:
        """The same for bytes of any kind: secrets are ASCII."""
        return self.text(data.decode("latin-1")).encode("latin-1")

    def exchange(self, kept: _Kept) -> dict[str, Any]:
        request, head = kept.request, kept.head
        parts = urlsplit(request.url)
        body = self.data(request.body)
        recorded: dict[str, Any] = {
            "method": request.method,
            "path": self.text((parts.path or "/") + (f"?{parts.query}" if parts.query else "")),
            "headers": {"host": parts.netloc.rpartition("@")[2], **self._headers(request.headers.items())},
        }
        try:
            recorded["body"] = body.decode() if body else None
        except UnicodeDecodeError:
            recorded |= {"body": None, "body_b64": body}
        response: dict[str, Any] = {
            "status": head.status,
            "headers": [
                *self._headers(head.headers.items()).items(),
                *(("set-cookie", self._set_cookie(line)) for line in head.cookies),
            ],
            "chunks": [{"t_ms": t_ms, "b64": data} for t_ms, data in self._cut(kept.chunks)],
        }
        if kept.broken:
            response["transport_error"] = kept.broken
        return {"request": recorded, "response": response}

    def _headers(self, headers: Iterable[tuple[str, str]]) -> dict[str, str]:
        # Whatever a secret header holds goes, also where no value in it was recognised.
        return {
            name: _without_values(name, value) if _SECRET_HEADERS.match(name) else self.text(value)
            for name, value in ((name.lower(), self.text(value)) for name, value in headers)
        }

    def _set_cookie(self, line: str) -> str:
        pair, semicolon, attributes = self.text(line).partition(";")
        name, _, value = pair.partition("=")
        return f"{name}={_zeros(value)}{semicolon}{attributes}"

    def _cut(self, chunks: list[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
        """The chunks with placeholders, also for a secret that is spread over two of them."""
        whole = self.data(b"".join(data for _, data in chunks))
        at = 0
        for t_ms, data in chunks:
            yield t_ms, whole[at : at + len(data)]
            at += len(data)


def _placeholder(number: int, length: int) -> str:
    """Digits, which fit wherever a nonce or a token does."""
    return f"{number:0{length}d}"[-length:]


def _without_values(name: str, value: str) -> str:
    """A secret header that still shows its form: scheme, names of cookies, length."""
    if name == "cookie":
        return "; ".join(
            f"{part.partition('=')[0].strip()}={_zeros(part.partition('=')[2])}" for part in value.split(";")
        )
    scheme, space, rest = value.partition(" ")
    return f"{scheme} {_zeros(rest)}" if space and "authorization" in name else _zeros(value)


def _zeros(value: str) -> str:
    # A placeholder stays: it is only digits.
    return value if value.isdigit() else "0" * len(value)


def _secrets(kept: _Kept) -> Iterator[str]:
    """The secret values that an exchange shows."""
    request, head = kept.request, kept.head
    for name, value in [*request.headers.items(), *head.headers.items()]:
        if _SECRET_HEADERS.match(name.lower()):
            yield from _in_header(name.lower(), value)
    for line in head.cookies:
        yield from _long(line.partition(";")[0].partition("=")[2])
    yield from _in_pairs(urlsplit(request.url).query)
    texts = [request.body.decode("latin-1"), b"".join(data for _, data in kept.chunks).decode("latin-1")]
    if "=" in texts[0] and not texts[0].lstrip().startswith(("{", "[", "--")):
        yield from _in_pairs(texts[0])
    for text in texts:
        yield from (match["value"] for match in _IN_TEXT.finditer(text))
        yield from (match["value"] for match in _IN_ATTRIBUTE.finditer(text))
        yield from (match["value"] for match in _LONG_TOKEN.finditer(text))
        yield from (match["value"] for match in _FORM_PART.finditer(text) if _SECRET_FIELDS.fullmatch(match["name"]))


def _in_header(name: str, value: str) -> Iterator[str]:
    if name == "cookie":
        for part in value.split(";"):
            yield from _long(part.partition("=")[2])
    else:
        yield value.partition(" ")[2].strip() if "authorization" in name and " " in value else value


def _long(value: str) -> Iterator[str]:
    value = value.strip().strip('"')
    if len(value) >= _SHORTEST_COOKIE:
        yield value


def _in_pairs(text: str) -> Iterator[str]:
    for pair in text.split("&"):
        name, _, value = pair.partition("=")
        if _SECRET_FIELDS.fullmatch(unquote_plus(name)):
            yield unquote_plus(value)
