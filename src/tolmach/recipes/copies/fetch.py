"""Calls of `fetch`, as Chrome, Firefox and Safari copy them, for a page's console or for Node."""

import json
import re
from typing import Any

from tolmach.errors import ConfigError
from tolmach.wire import Request

__all__ = ["is_fetch", "read_fetch"]

_CALL = re.compile(r"(?:\bawait\s+)?\bfetch\(\s*")


def is_fetch(text: str) -> bool:
    """Whether a text begins with a call of `fetch`."""
    return re.match(r"\s*(?:(?:const|let|var)\s+\w+\s*=\s*)?(?:await\s+)?fetch\(\s*[\"']", text) is not None


def read_fetch(text: str) -> list[Request]:
    """The requests of the calls, in their order. Raises `ConfigError` for a call whose arguments are no JSON."""
    found: list[Request] = []
    at = 0
    while call := _CALL.search(text, at):
        url, at = _value(text, call.end())
        options: Any = {}
        if comma := re.compile(r"\s*,\s*(?=\{)").match(text, at):
            options, at = _value(text, comma.end())
        if not isinstance(url, str) or not isinstance(options, dict):
            raise _unread()
        found.append(_request(url, options))
    if not found:
        raise _unread()
    return found


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return json.JSONDecoder().raw_decode(text, at)
    except (ValueError, RecursionError):
        raise _unread() from None


def _unread() -> ConfigError:
    return ConfigError(
        'a call of fetch is read as browsers copy it ("Copy as fetch"), with JSON alone; '
        'copy the request anew with "Copy as cURL"'
    )


def _request(url: str, options: dict[str, Any]) -> Request:
    if not re.match(r"https?://[^/\s]+", url):
        raise ConfigError(f"fetch({url[:80]!r}): the address is not a whole http or https one")
    headers = options.get("headers") or {}
    if not isinstance(headers, dict):
        raise _unread()
    said = {str(name).lower(): str(value) for name, value in headers.items()}
    if (referrer := options.get("referrer")) and str(referrer).startswith(("http://", "https://")):
        said.setdefault("referer", str(referrer))
    body = options.get("body")
    data = "" if body is None else body
    if not isinstance(data, str):
        raise _unread()
    method = str(options.get("method") or ("POST" if data else "GET")).upper()
    return Request(method, url, said, data.encode("utf-8", "replace"))
