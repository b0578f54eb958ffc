"""Names for chats that stand on a page and are not known by their protocol: `widgets.toml` is the table of their marks.

A mark is what an embed snippet, a frame, a configuration object or an answer shows. Words that a visitor reads are
none: an article about a widget, with its snippet as an example, does not have it.
"""

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from tolmach.decoding import plain_text
from tolmach.discovery.findings import Evidence, Named, Page
from tolmach.discovery.sight import Sight

__all__ = ["Widget", "name_answer", "name_widgets", "widgets"]

_SCANNED = 512 << 10
"""Bytes of addresses and inline scripts of a page that are looked through."""
_ANSWER = 64 << 10
_ADDRESS_CHARACTERS = 2048
_MOST_IDS = 200
"""Characters of an id or a host; what is longer is none."""

_ADDRESSES = ("script[src]", "iframe", "link[href]", "embed[src]")
_DATA = frozenset((b"application/json", b"application/ld+json", b"text/html", b"text/template", b"text/x-template"))
"""Types of scripts that run nothing. A JSON text for the page's own script is one, too."""
_RAW = re.compile(rb"<(!--|(?:script|style|textarea|title|xmp)(?=[\s/>])[^>]{0,4096}>)", re.I)
"""What a parser reads as text, and not as elements."""
_RAW_ENDS = {b"!--": re.compile(rb"-->")} | {
    name: re.compile(rb"</" + name, re.I) for name in (b"script", b"style", b"textarea", b"title", b"xmp")
}
_TYPE = re.compile(rb"\stype\s*=\s*[\"']?([\w/+-]+)", re.I)

_ABILITIES = {
    "recipe": "an open back end: record its traffic and make a recipe of it (`tolmach recipe`)",
    "closed": "closed protocol; not supported",
    "people": "closed protocol, a person may answer; not supported",
}


class Widget(Struct, frozen=True, forbid_unknown_fields=True):
    """A row of the table; `widgets.toml` says what its fields are."""

    name: str
    asked: Literal["recipe", "closed", "people"]
    address: tuple[str, ...] = ()
    script: tuple[str, ...] = ()
    element: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    id: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    note: str = ""

    @property
    def ability(self) -> str:
        """What can be done with it, in words."""
        return f"{_ABILITIES[self.asked]}; {self.note}" if self.note else _ABILITIES[self.asked]


@cache
def widgets() -> tuple[Widget, ...]:
    """The rows of the table."""
    text = (files("tolmach.discovery") / "widgets.toml").read_text(encoding="utf-8")
    return tuple(msgspec.convert(tomllib.loads(text)["widget"], type=list[Widget]))


@cache
def _all_elements() -> str:
    """One selector for the elements of all rows: a large tree is gone through once."""
    return ", ".join(selector for widget in widgets() for selector in widget.element)


def name_widgets(sight: Sight) -> Iterator[Named]:
    """The widgets whose marks stand on a page."""
    shown = _Shown(sight)
    for widget in widgets():
        if mark := shown.mark_of(widget):
            yield _named(widget, mark, shown.text, sight.url)


def name_answer(page: Page) -> Iterator[Named]:
    """The back ends that answer like this at the root of their API, or with this page."""
    text = page.body[:_ANSWER].decode("utf-8", "replace")
    for widget in widgets():
        for pattern in widget.answer:
            if found := re.search(pattern, text):
                mark = Evidence(urlsplit(page.url).path or "/", _short(found[0]))
                yield _named(widget, mark, text, page.url)
                break


class _Shown:
    """What of a page can be a mark: the addresses that it loads, its inline scripts, its elements."""

    def __init__(self, sight: Sight) -> None:
        self._tree = sight.tree
        self._addresses = list(_addresses(sight))
        self._scripts = _scripts(sight.page.body)
        # As they are searched: whole patterns over half a megabyte for each of a hundred rows would take seconds.
        self._bare = "".join(self._scripts.split()).replace("'", '"')
        self._loaded = "\n".join(address for address, _ in self._addresses)
        self._has_elements = self._tree.css_first(_all_elements()) is not None
        tags = "\n".join(f"{address} {tag}" for address, tag in self._addresses)
        self.text = f"{tags}\n{self._scripts}"
        """All of it, in which ids and hosts are found."""

    def mark_of(self, widget: Widget) -> Evidence | None:
        for part in widget.address:
            if part in self._loaded:
                return Evidence("address", _short(next(one for one, _ in self._addresses if part in one)))
            if part in self._scripts:
                return Evidence("script", _short(part))
        for part in widget.script:
            if part in self._bare:
                return Evidence("script", part)
        for selector in widget.element if self._has_elements else ():
            node = self._tree.css_first(selector)
            if node is not None:
                self.text += f"\n{_tag(node)}"
                return Evidence("element", _short(selector))
        return None


def _addresses(sight: Sight) -> Iterator[tuple[str, str]]:
    """Addresses that a page loads, without their scheme, each with the element's attributes."""
    size = 0
    for selector in _ADDRESSES:
        for node in sight.tree.css(selector):
            for name, value in node.attributes.items():
                if value and (name in ("src", "href") or (name.startswith("data-") and "//" in value)):
                    address = re.sub(r"^https?:", "", value.strip())[:_ADDRESS_CHARACTERS]
                    tag = _tag(node)
                    size += len(address) + len(tag)
                    if size > _SCANNED:
                        return
                    yield address, tag


def _tag(node: Any) -> str:
    """An element's attributes as text."""
    said = " ".join(f'{name}="{value}"' for name, value in node.attributes.items() if value)
    return said[:_ADDRESS_CHARACTERS]


def _scripts(body: bytes) -> str:
    """The inline scripts of a page that run, as they stand: the tree has none of their text.

    What stands in a comment, or in a text field for people to copy, is none.
    """
    pieces: list[bytes] = []
    at = size = 0
    while size < _SCANNED and (begin := _RAW.search(body, at)):
        name = re.match(rb"!--|\w+", begin[1])
        assert name is not None  # `_RAW` begins with one of them
        closing = _RAW_ENDS[name[0].lower()].search(body, begin.end())
        end = closing.start() if closing else len(body)
        at = closing.end() if closing else len(body)
        kind = _TYPE.search(begin[0])
        if name[0].lower() == b"script" and not (kind and kind[1].lower() in _DATA):
            pieces.append(body[begin.end() : min(end, begin.end() + _SCANNED - size)])
            size += end - begin.end()
    return b"\n".join(pieces).decode("utf-8", "replace").replace("\\/", "/")


def _named(widget: Widget, mark: Evidence, text: str, url: str) -> Named:
    host = _first(widget.host, text)
    parts = urlsplit(host if "//" in host else mark.says if mark.says.startswith("//") else url)
    return Named(
        name=widget.name,
        asked=widget.asked,
        ability=widget.ability,
        host=plain_text(parts.netloc.rpartition("@")[2])[:_MOST_IDS],
        id=plain_text(_first(widget.id, text)),
        evidence=(mark,),
    )


def _first(patterns: tuple[str, ...], text: str) -> str:
    """The first group of the first pattern that is found."""
    for pattern in patterns:
        if (found := re.search(pattern, text)) and len(found[1]) <= _MOST_IDS:
            return found[1]
    return ""


def _short(text: str) -> str:
    return " ".join(plain_text(text).split())[:200]
