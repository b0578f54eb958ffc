"""Recorded exchanges as values, and trees of what stands in their requests and responses."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

from tolmach.decoding import parse_json
from tolmach.errors import RemoteProtocolError
from tolmach.protocols.wordpress.common import form_fields
from tolmach.wire import Head, Request

__all__ = [
    "AS_TEXT",
    "Exchange",
    "Frame",
    "Path",
    "Written",
    "at",
    "expand",
    "json_of",
    "key_of",
    "leaves",
    "pointer",
    "put",
    "site_of",
    "written",
]

AS_TEXT = "{{json}}"
"""The key under which the value of a JSON text stands, in a template."""

Path = tuple[str | int, ...]
"""The keys and indexes that lead to a value."""

_DEPTH = 40


class Frame(Struct, frozen=True):
    """A message of a WebSocket. `text` of a binary one is in base64."""

    sent: bool
    text: str
    binary: bool = False


class Exchange(Struct, frozen=True, kw_only=True):
    """A request and what came back; `head` is None when nothing did."""

    request: Request
    head: Head | None = None
    body: bytes = b""
    started: float = 0.0
    """Seconds since 1970; 0 when it is not known."""
    frames: tuple[Frame, ...] = ()
    lost: int | None = None
    """Of a good response whose body was not recorded, its bytes, 0 when these are not told; None where all is there."""

    @property
    def answered(self) -> bool:
        """Whether a good response came, with a body."""
        return self.head is not None and 200 <= self.head.status < 300 and bool(self.body.strip())


class Written(Struct, kw_only=True):
    """What a request says, as trees whose leaves may be put in anew."""

    path: str
    query: dict[str, Any]
    headers: dict[str, Any]
    kind: str
    """`json`, `form`, `multipart`, `text`, or empty for no body."""
    body: Any

    def tree(self) -> dict[str, Any]:
        """All parts as one tree."""
        return {"query": self.query, "headers": self.headers, "body": self.body}


def site_of(url: str) -> str:
    """Scheme, host and port of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def json_of(data: bytes | str) -> Any:
    """The value of a JSON text; None when it is none (or null)."""
    try:
        return parse_json(data)
    except RemoteProtocolError:
        return None


def expand(value: Any, depth: int = 0) -> Any:
    """The value with JSON texts in it opened: `{"{{json}}": inner}`."""
    if depth > _DEPTH:
        return value
    if isinstance(value, dict):
        return {str(key): expand(part, depth + 1) for key, part in value.items()}
    if isinstance(value, list):
        return [expand(part, depth + 1) for part in value]
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        inner = json_of(value)
        if isinstance(inner, dict | list) and inner:
            return {AS_TEXT: expand(inner, depth + 1)}
    return value


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The plain values of a tree, each with its path; empty lists and objects too."""
    if isinstance(tree, dict) and tree and len(path) <= _DEPTH:
        for key, part in tree.items():
            yield from leaves(part, (*path, key))
    elif isinstance(tree, list) and tree and len(path) <= _DEPTH:
        for index, part in enumerate(tree):
            yield from leaves(part, (*path, index))
    else:
        yield path, tree


def at(tree: Any, path: Path) -> Any:
    """What stands at a path; None when nothing does."""
    for key in path:
        if isinstance(tree, dict) and isinstance(key, str):
            tree = tree.get(key)
        elif isinstance(tree, list) and isinstance(key, int) and key < len(tree):
            tree = tree[key]
        else:
            return None
    return tree


def put(tree: Any, path: Path, value: Any) -> None:
    """Set what stands at a path."""
    parent = at(tree, path[:-1])
    if isinstance(parent, dict | list):
        parent[path[-1]] = value  # type: ignore[index]


def key_of(path: Path) -> str:
    """The name nearest to a value."""
    return next((key for key in reversed(path) if isinstance(key, str) and key != AS_TEXT), "")


def pointer(path: Path) -> str:
    """The place of a path: a JSON pointer, or several where JSON stands in texts."""
    parts: list[str] = [""]
    for key in path:
        if key == AS_TEXT:
            parts.append("")
        else:
            parts[-1] += "/" + str(key).replace("~", "~0").replace("/", "~1")
    return " -> ".join(parts)


def written(request: Request) -> Written:
    """What a request says."""
    parts = urlsplit(request.url)
    query: dict[str, Any] = {name: expand(value) for name, value in parse_qsl(parts.query, keep_blank_values=True)}
    kind, body = _body(request)
    path = f"{site_of(request.url)}{parts.path or '/'}"
    return Written(path=path, query=query, headers=dict(request.headers), kind=kind, body=body)


def _body(request: Request) -> tuple[str, Any]:
    data = request.body
    if not data.strip():
        return "", None
    said = request.headers.get("content-type", "").lower()
    value = json_of(data)
    if isinstance(value, dict | list):
        return "json", expand(value)
    if "multipart/form-data" in said or data.startswith(b"--"):
        return "multipart", {name: expand(text) for name, text in form_fields(_bare(request)).items()}
    text = data.decode("utf-8", "replace")
    if "urlencoded" in said and _looks_like_form(text):
        return "form", {name: expand(value) for name, value in parse_qsl(text, keep_blank_values=True)}
    return "text", {"text": text}


def _bare(request: Request) -> Request:
    return Request(request.method, request.url.partition("?")[0], request.headers, request.body)


def _looks_like_form(text: str) -> bool:
    return re.match(r"[^=&\s]+=", text) is not None and len(unquote(text)) > 0
