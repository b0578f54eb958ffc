"""Where a value of a request came from: an earlier response that gave it."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from tolmach.protocols.recipe.extract import cookie_of, page_tree
from tolmach.recipes.traffic import Exchange, Path, expand, json_of, leaves, pointer
from tolmach.wire import Response

__all__ = ["Origin", "is_token", "looks_made", "origin_of", "origin_of_name", "same_name"]

_NAMES = re.compile(
    r"nonce|token|csrf|xsrf|session|sess_?id|\bsid\b|auth|signature|\bsig\b|hash|ticket|secret|api.?key", re.I
)
_ASSIGNED = re.compile(r"(?:[\w$.\[\]\"']{1,60})\s*[=:]\s*(?=[{\[])")
_SAFE = re.compile(r"[A-Za-z_][\w-]*")


class Origin(Struct, kw_only=True):
    """What gives a value: the exchange, and how it is taken out of its response."""

    index: int
    extractor: dict[str, Any]
    where: str
    """In words."""
    sure: float
    value: str = ""


def looks_made(value: str) -> bool:
    """Whether a text looks as if a machine had made it: an id, a hash, a random value."""
    if not re.fullmatch(r"[A-Za-z0-9_=+/.:|%~-]{6,4096}", value):
        return False
    if re.fullmatch(r"[0-9a-f]{8,}|[0-9A-F]{8,}|[0-9]{6,}", value):
        return True
    switches = len(re.findall(r"(?<=[A-Za-z])\d|(?<=\d)[A-Za-z]", value))
    cases = len(re.findall(r"[a-z][A-Z]", value))
    return (len(value) >= 8 and switches >= 2) or (len(value) >= 16 and switches + cases >= 2)


def is_token(key: str, value: str) -> bool:
    """Whether a value with this name is one that a service gives out."""
    if len(value) < 4 or value.startswith(("http://", "https://", "{{")):
        return False
    return looks_made(value) or (_NAMES.search(key) is not None and len(value) >= 6 and " " not in value)


def same_name(one: str, two: str) -> bool:
    """Whether two names mean the same value: `X-CSRF-Token`, `csrf_token`, `data-csrf`."""
    return bool(_bare(one)) and _bare(one) == _bare(two)


def _bare(name: str) -> str:
    name = re.sub(r"[^a-z0-9]", "", re.sub(r"^(x|data)[-_]", "", name.lower()))
    name = name.replace("xsrf", "csrf").replace("wpnonce", "nonce")
    return re.sub(r"(token|value|key|id)$", "", name) or name


def origin_of(value: str, exchanges: list[Exchange], before: int) -> Origin | None:
    """The latest exchange before another whose response gave a value."""
    for index in range(before - 1, -1, -1):
        head = exchanges[index].head
        if head is None or head.status >= 400:
            continue
        found = _in_response(value, exchanges[index])
        if found is not None:
            found.index = index
            return found
    return None


def _in_response(value: str, exchange: Exchange) -> Origin | None:
    assert exchange.head is not None
    for line in exchange.head.cookies:
        name, _, given = line.partition(";")[0].partition("=")
        plain = given.strip().strip('"')
        if plain in (value, unquote(value)) or unquote(plain) == value:
            decoded = {"decode": True} if plain != value and unquote(plain) == value else {}
            how = ", decoded" if decoded else ""
            return _origin({"cookie": name.strip()} | decoded, f"the cookie {name.strip()}{how}", 0.95, value)
    for name, given in exchange.head.headers.items():
        if given == value and name not in ("date", "content-length", "content-type", "etag"):
            return _origin({"header": name}, f"the header {name}", 0.95, value)
    tree = json_of(exchange.body)
    if isinstance(tree, dict | list):
        path = _path_of(value, tree)
        return None if path is None else _origin({"json": pointer(path)}, f"{pointer(path)} of its JSON", 0.97, value)
    text = exchange.body.decode("utf-8", "replace")
    if value not in text and value.replace("/", "\\/") not in text:
        return _in_attributes(value, exchange.body) if b"&" in exchange.body and b"<" in exchange.body else None
    return _in_attributes(value, exchange.body) or _in_script(value, text) or _by_words(value, text)


def _origin(extractor: dict[str, Any], where: str, sure: float, value: str) -> Origin:
    return Origin(index=-1, extractor=extractor, where=where, sure=sure, value=value)


def _path_of(value: str, tree: Any) -> Path | None:
    return next((path for path, leaf in leaves(expand(tree)) if _same(leaf, value)), None)


def _same(leaf: Any, value: str) -> bool:
    return leaf == value or (isinstance(leaf, int) and not isinstance(leaf, bool) and str(leaf) == value)


def _in_attributes(value: str, body: bytes) -> Origin | None:
    """An attribute of an element, or JSON in one, or in a script that is JSON."""
    tree = page_tree(body)
    for node in tree.css("*"):
        for name, given in node.attributes.items():
            if not given or (value not in given and not given.lstrip().startswith("{")):
                continue
            selector = _selector(node, name)
            if given.strip() == value:
                return _origin({"html": selector, "attribute": name}, f"{name} of {selector}", 0.95, value)
            inner = json_of(given) if given.lstrip()[:1] in ("{", "[") else None
            if isinstance(inner, dict | list) and (path := _path_of(value, inner)) is not None:
                extractor = {"html": selector, "attribute": name, "json": pointer(path)}
                return _origin(extractor, f"{pointer(path)} of the JSON in {name} of {selector}", 0.95, value)
    for node in tree.css('script[type*="json"]'):
        inner = json_of(node.text_lexbor() or "")
        if isinstance(inner, dict | list) and (path := _path_of(value, inner)) is not None:
            selector = _selector(node, "type")
            return _origin({"html": selector, "json": pointer(path)}, f"{pointer(path)} of {selector}", 0.95, value)
    return None


def _selector(node: Any, attribute: str) -> str:
    """A CSS selector for an element: by what names it, and never by the value."""
    attributes = node.attributes
    tag = node.tag
    if (name := attributes.get("id")) and _SAFE.fullmatch(name) and not looks_made(name):
        return f"{tag}#{name}"
    for key in ("name", "property", "itemprop"):
        if (given := attributes.get(key)) and '"' not in given and key != attribute:
            return f'{tag}[{key}="{given}"]'
    classes = [c for c in (attributes.get("class") or "").split() if _SAFE.fullmatch(c) and not looks_made(c)]
    return f"{tag}{'.' + classes[0] if classes else ''}[{attribute}]"


def _in_script(value: str, text: str) -> Origin | None:
    """JSON that a script assigns to a name."""
    for after, tree in _assigned(text):
        path = _path_of(value, tree)
        if path is not None:
            where = f"{pointer(path)} of the JSON behind {after}"
            return _origin({"after": after, "json": pointer(path)}, where, 0.93, value)
    return None


def _assigned(text: str) -> Iterator[tuple[str, Any]]:
    """The names to which a page's scripts assign JSON, and what it is."""
    decoder = json.JSONDecoder()
    for match in _ASSIGNED.finditer(text):
        try:
            tree, _ = decoder.raw_decode(text, match.end())
        except (ValueError, RecursionError):
            continue
        yield re.sub(r"[\s=:]+$", "", match[0]), tree


def _by_words(value: str, text: str) -> Origin | None:
    """A text in quotes, found again by the words before it."""
    for at in (match.start() for match in re.finditer(re.escape(value), text)):
        before = re.search(r"[\w$.\[\]\"'-]{1,40}\s*[:=,(]\s*[\"'`]$", text[max(0, at - 60) : at])
        if before is None:
            continue
        quote = before[0][-1]
        pattern = re.sub(r"(?:\\ |\s)+", r"\\s*", re.escape(before[0])) + f"([^{quote}]+)"
        found = re.search(pattern, text)
        if found and found[1] == value:
            return _origin({"pattern": pattern}, f"the text behind {before[0]} in its source", 0.8, value)
    return None


def origin_of_name(key: str, exchanges: list[Exchange], before: int) -> Origin | None:
    """The latest earlier response that gives another value under the same name."""
    for index in range(before - 1, -1, -1):
        exchange = exchanges[index]
        if exchange.head is None or exchange.head.status >= 400:
            continue
        for value in _named_values(key, exchange):
            if value and (found := _in_response(value, exchange)) is not None:
                found.index, found.sure = index, 0.6
                return found
    return None


def _named_values(key: str, exchange: Exchange) -> list[str]:
    assert exchange.head is not None
    found: list[str] = []
    for line in exchange.head.cookies:
        name = line.partition("=")[0].strip()
        if same_name(key, name):
            found.append(cookie_of(Response(exchange.head, b""), name) or "")
    found += [value for name, value in exchange.head.headers.items() if same_name(key, name)]
    tree = json_of(exchange.body)
    if isinstance(tree, dict | list):
        return found + _named_leaves(key, tree)
    page = page_tree(exchange.body)
    for script in page.css('script[type*="json"]'):
        found += _named_leaves(key, json_of(script.text_lexbor() or ""))
    for node in page.css("*"):
        attributes = {name: value or "" for name, value in node.attributes.items()}
        if same_name(key, attributes.get("name", "")):
            found.append(attributes.get("value") or attributes.get("content") or "")
        found += [value for name, value in attributes.items() if name.startswith("data-") and same_name(key, name)]
    text = exchange.body.decode("utf-8", "replace")
    for _, value in _assigned(text):
        found += _named_leaves(key, value)
    pairs = re.findall(r"[\"']?([A-Za-z_][\w-]{1,40})[\"']?\s*[:=]\s*[\"']([^\"'\s]{4,400})[\"']", text)
    return found + [value for name, value in pairs if same_name(key, name)]


def _named_leaves(key: str, tree: Any) -> list[str]:
    """The values of JSON under a name, or under one that is made of two: `{"site": {"key": ...}}` is `site_key`."""
    found = []
    for path, leaf in leaves(expand(tree)):
        names = [part for part in path if isinstance(part, str)]
        if isinstance(leaf, str) and leaf and any(same_name(key, "_".join(names[-n:])) for n in (1, 2)):
            found.append(leaf)
    return found
