"""What a recipe takes out of the response to a step."""

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tolmach.decoding import parse_json
from tolmach.errors import ProtocolDrift, RemoteProtocolError
from tolmach.protocols.bodies import clean
from tolmach.protocols.pointer import ABSENT
from tolmach.protocols.recipe.tables import Extractor, find_at, parse_place
from tolmach.wire import Response

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser

__all__ = ["cookie_of", "extract", "json_after", "page_tree"]

_LONGEST = 16384
_PAGE_BYTES = 4 << 20


def page_tree(body: bytes) -> "LexborHTMLParser":
    """A page as a tree, with its scripts, which may hold JSON; of its first 4 MiB. Never fails."""
    from selectolax.lexbor import LexborHTMLParser

    return LexborHTMLParser(body[:_PAGE_BYTES].decode("utf-8", "replace"))


def extract(name: str, wanted: Extractor, response: Response) -> str:
    """The value. Raises `ProtocolDrift` that says where it was looked for when it is not there."""
    part = _part(wanted, response)
    if part is not None and wanted.json is not None:
        part = _value(part, wanted.json)
    if isinstance(part, str) and wanted.pattern:
        found = re.search(wanted.pattern, part)
        part = (found[1] if found.re.groups else found[0]) if found else None
    if isinstance(part, int | float) and not isinstance(part, bool):
        part = json.dumps(part)
    if not isinstance(part, str) or not part.strip() or len(part) > _LONGEST:
        where = response.head.url.partition("?")[0] or "the site"
        text = f"{where} gives no {name} ({_described(wanted)}); the site has changed, or wants a login"
        raise ProtocolDrift(text, missing=name, status=response.head.status)
    return clean(unquote(part.strip()) if wanted.decode else part.strip())


def _described(wanted: Extractor) -> str:
    parts = {key: getattr(wanted, key) for key in ("html", "attribute", "header", "cookie", "after", "json", "pattern")}
    return ", ".join(f"{key} {value!r}" for key, value in parts.items() if value)


def _part(wanted: Extractor, response: Response) -> Any:
    """The part of the response that is looked at; None when it is not there."""
    if wanted.header:
        return response.head.headers.get(wanted.header.lower())
    if wanted.cookie:
        return cookie_of(response, wanted.cookie)
    if wanted.html:
        node = page_tree(response.body).css_first(wanted.html)
        if node is None:
            return None
        return node.attributes.get(wanted.attribute) if wanted.attribute else node.text_lexbor()
    if wanted.after:
        return json_after(response.body.decode("utf-8", "replace"), wanted.after)
    return response.body.decode("utf-8", "replace")


def _value(part: Any, place: str) -> Any:
    if isinstance(part, str):
        try:
            part = parse_json(part)
        except RemoteProtocolError:
            return None
    found = find_at(part, parse_place(place))
    return None if found is ABSENT else found


def cookie_of(response: Response, name: str) -> str | None:
    """The value that the response sets for a cookie."""
    for line in reversed(response.head.cookies):
        key, equals, value = line.partition(";")[0].partition("=")
        if equals and key.strip() == name:
            return value.strip().strip('"')
    return None


def json_after(text: str, mark: str) -> Any:
    """The JSON value behind the first place of a text at which one stands; None when there is none."""
    at = text.find(mark)
    decoder = json.JSONDecoder()
    while at >= 0:
        start = at + len(mark)
        rest = text[start : start + (1 << 20)].lstrip(" \t\r\n=:(")
        try:
            return decoder.raw_decode(rest)[0]
        except (ValueError, RecursionError):
            at = text.find(mark, start)
    return None
