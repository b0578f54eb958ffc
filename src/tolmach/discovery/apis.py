"""API roots: what an OpenAI-compatible server and Ollama answer at their lists of models."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tolmach.decoding import find_json
from tolmach.discovery.findings import Evidence, Found, Missing, Page, Wanted
from tolmach.protocols.bodies import is_page
from tolmach.protocols.wordpress.common import text_in

__all__ = ["find_apis", "wants_lists"]

_MAX_MODELS = 100
_VERSIONED = re.compile(r"/(?:v\d+[a-z]*\d*|openai)$")
"""How the base addresses of OpenAI-compatible APIs end."""
_SERVER_WORDS = re.compile(rb"ollama|llama\.cpp|vllm|litellm|lm studio|localai|swagger|openapi|openai", re.I)
_LOOKED_THROUGH = 65536


def find_apis(pages: Mapping[str, Page]) -> Iterator[Found]:
    """The APIs whose lists of models are among these pages. Ollama's own API goes before its OpenAI-compatible one."""
    ollama = set()
    for page in pages.values():
        if (found := _ollama(page)) is not None:
            ollama.add(found.row["url"])
            yield found
    for page in pages.values():
        if (found := _openai(page)) is not None and _VERSIONED.sub("", found.row["url"]) not in ollama:
            yield found


def _ollama(page: Page) -> Found | None:
    base = _base(page.url, "/api/tags")
    value = find_json(page.body) if base and page.status == 200 and not is_page(page.body) else None
    listed = value.get("models") if value is not None else None
    if not isinstance(listed, list) or not all(text_in(one, "name") for one in listed):
        return None
    models = tuple(text_in(one, "name") for one in listed[:_MAX_MODELS])
    return Found(
        protocol="ollama",
        row=_row("ollama", base, models),
        page=base,
        kind="api",
        stream=True,
        guests=True,
        models=models,
        missing=() if models else (Missing("models", "no model is there yet; pull one with `ollama pull`"),),
        evidence=(Evidence("GET /api/tags", f"{len(listed)} models"),),
    )


def _openai(page: Page) -> Found | None:
    base = _base(page.url, "/models")
    value = find_json(page.body) if base and not is_page(page.body) else None
    if value is None:
        return None
    listed, error = value.get("data"), value.get("error")
    if page.status in (401, 403) and text_in(error, "message") and (text_in(error, "type") or text_in(error, "code")):
        key = Missing("key", "the server wants a key: set `api_key`, or OPENAI_API_KEY for a table of its own")
        return Found(
            protocol="openai",
            row=_row("openai", base, ()),
            page=base,
            kind="api",
            stream=True,
            guests=False,
            missing=(key,),
            evidence=(Evidence(f"GET {urlsplit(page.url).path}", f"HTTP {page.status}, an error of this API"),),
        )
    if page.status != 200 or not isinstance(listed, list) or not all(text_in(one, "id") for one in listed):
        return None
    if value.get("object") != "list" and not any(text_in(one, "object") == "model" for one in listed):
        return None
    models = tuple(text_in(one, "id") for one in listed[:_MAX_MODELS])
    return Found(
        protocol="openai",
        row=_row("openai", base, models),
        page=base,
        kind="api",
        stream=True,
        guests=True,
        models=models,
        missing=() if models else (Missing("models", "the server lists no model"),),
        evidence=(Evidence(f"GET {urlsplit(page.url).path}", f"a list of {len(listed)} models"),),
    )


def _row(protocol: str, url: str, models: tuple[str, ...]) -> dict[str, Any]:
    row: dict[str, Any] = {"protocol": protocol, "url": url}
    if models:
        row |= {"default_model": models[0], "models": list(models)}
    return row


def _base(url: str, route: str) -> str:
    """The address before this route, without a query; empty when the address does not end with it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    path = parts.path.rstrip("/")
    if not path.endswith(route) or not parts.netloc:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path.removesuffix(route), "", ""))


def wants_lists(page: Page) -> Iterator[Wanted]:
    """The lists of models to look at, when this page may be the root of an API; for a common web page none."""
    try:
        parts = urlsplit(page.url)
    except ValueError:
        return
    path = parts.path.rstrip("/")
    if not parts.netloc or path.endswith(("/models", "/api/tags")) or not _may_be_api(page, path):
        return
    base = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path.removesuffix("/api"), "", ""))
    if _VERSIONED.search(path):
        yield Wanted(f"{base}/models", "models")
        return
    yield Wanted(f"{base}/api/tags", "tags")
    yield Wanted(f"{base}/v1/models", "models")


def _may_be_api(page: Page, path: str) -> bool:
    if _VERSIONED.search(path):
        return True
    html = is_page(page.body) or page.head.content_type in ("text/html", "application/xhtml+xml")
    if not html:
        return page.head.content_type in ("", "application/json", "text/plain", "application/problem+json")
    return path in ("", "/docs") and _SERVER_WORDS.search(page.body[:_LOOKED_THROUGH]) is not None
