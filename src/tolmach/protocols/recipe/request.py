"""The requests of recipes: values put into templates, and bodies as browsers write them."""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from tolmach.errors import ConfigError
from tolmach.protocols.base import SessionState, Site
from tolmach.protocols.bodies import clean, encode_json, split_address, web_origin
from tolmach.protocols.pointer import ABSENT
from tolmach.protocols.recipe.tables import BodyTable
from tolmach.protocols.recipe.template import fill, places
from tolmach.wire import Request

__all__ = ["ACCEPT", "address", "check_address", "check_made", "field_text", "made_values", "write"]

ACCEPT = {
    "json": "application/json, text/plain, */*",
    "text": "text/plain, */*",
    "ndjson": "application/x-ndjson, application/json, */*",
    "sse": "text/event-stream, */*",
}
"""Format of an answer -> what is asked for."""

_MADE = re.compile(r"(random|visitor)\.(uuid|hex|digits)([0-9]{0,3})(?:\.[A-Za-z0-9_-]+)?|now\.(seconds|ms|iso)")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def check_made(name: str) -> bool:
    """Whether a place's name is of the values that are made for a question: `random.`, `visitor.`, `now.`."""
    return _MADE.fullmatch(name) is not None


def made_values(names: Iterable[str], state: SessionState) -> dict[str, Any]:
    """The random values and times that a template names; a visitor's stay for the session's life."""
    found: dict[str, Any] = {"null": None}
    for name in names:
        if (match := _MADE.fullmatch(name)) is None:
            continue
        if match[4]:
            found[name] = _time(match[4], state.now())
            continue
        make = _maker(match[2], int(match[3] or 16), state)
        found[name] = state.visitor_id(f"recipe.{name}", make) if match[1] == "visitor" else make()
    return found


def _maker(kind: str, length: int, state: SessionState) -> Callable[[], str]:
    if kind == "uuid":
        return state.uuid
    if kind == "hex":
        return lambda: state.random_hex(length)
    return lambda: "".join(str(int(state.random_hex(4), 16) % 10) for _ in range(length))


def _time(unit: str, now: float) -> Any:
    if unit == "iso":
        return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return int(now * 1000) if unit == "ms" else int(now)


def address(site: Site, table: BodyTable, values: dict[str, Any], chosen: str = "") -> str:
    """The absolute address of a request. Raises `ConfigError` for one that is none."""
    split_address(site.url)
    template = table.url
    if template.startswith(_SITE):
        template = site.url.partition("?")[0].rstrip("/") + template.removeprefix(_SITE)
    written = re.sub(r"\{\{\s*([^{}]*?)\s*\}\}", lambda place: _quoted(values.get(place[1], "")), template)
    return urljoin(site.url, chosen or written)


_SITE = "{{site}}"


def _quoted(value: Any) -> str:
    return quote("" if value is ABSENT else field_text(value), safe="")


def write(
    site: Site, table: BodyTable, values: dict[str, Any], *, accept: str, state: SessionState, chosen: str = ""
) -> Request:
    """The request that a table stands for. Raises `ConfigError` for what cannot be written.

    `chosen` is an address in place of the table's own.
    """
    url = address(site, table, values, chosen)
    headers = {
        "accept": accept,
        "origin": web_origin(site.url),
        "referer": web_origin(site.url) + (urlsplit(site.url).path or "/"),
    }
    if table.method == "GET" and not table.query:
        del headers["origin"]
    if site.api_key:
        headers["authorization"] = f"Bearer {site.api_key}"
    kind, body = _body(table, values, state)
    if kind:
        headers["content-type"] = kind
    for name, template in table.headers.items():
        value = fill(template, values)
        if value is not ABSENT:
            headers[name.lower()] = _CONTROL.sub(" ", clean(field_text(value))).strip()
    if query := _pairs(table.query, values):
        url += f"{'&' if '?' in url else '?'}{query}"
    return Request(table.method, url, headers, body)


def _body(table: BodyTable, values: dict[str, Any], state: SessionState) -> tuple[str, bytes]:
    if table.json is not None:
        return "application/json", encode_json(fill(table.json, values))
    if table.form:
        return "application/x-www-form-urlencoded", _pairs(table.form, values).encode()
    if table.multipart:
        boundary = f"----tolmach{state.random_hex(24)}"
        return f"multipart/form-data; boundary={boundary}", _multipart(fill(table.multipart, values), boundary)
    if table.text:
        filled = fill(table.text, values)
        return "text/plain;charset=UTF-8", b"" if filled is ABSENT else field_text(filled).encode("utf-8", "replace")
    return "", b""


def _pairs(template: dict[str, Any], values: dict[str, Any]) -> str:
    return urlencode([(name, field_text(value)) for name, value in fill(template, values).items()], errors="replace")


def _multipart(fields: dict[str, Any], boundary: str) -> bytes:
    parts = []
    for name, value in fields.items():
        safe = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{safe}"\r\n\r\n{field_text(value)}\r\n')
    return "".join([*parts, f"--{boundary}--\r\n"]).encode("utf-8", "replace")


def field_text(value: Any) -> str:
    """A value as a form field: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else encode_json(value).decode()


def check_address(what: str, url: str) -> None:
    """Raises `ConfigError` for what is neither a path nor a full URL."""
    bare = re.sub(r"\{\{[^{}]*\}\}", "x", url.removeprefix(_SITE))
    try:
        parts = urlsplit(bare)
        full = parts.scheme in ("http", "https") and bool(parts.hostname) and not places(url.partition("/")[0])
    except ValueError:
        full = False
    if not full and (not bare.startswith("/") or bare.startswith("//")):
        raise ConfigError(f"{what}: {url!r} is neither a path such as /api/text nor a full URL")
