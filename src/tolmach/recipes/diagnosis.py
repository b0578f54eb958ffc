"""Why traffic gives no recipe: what it has in the place of a question with an answer."""

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from tolmach.recipes.question import is_noise, may_ask
from tolmach.recipes.traffic import Exchange

__all__ = ["why_nothing"]

_MOST = 3
"""So many exchanges are named."""


def why_nothing(exchanges: Sequence[Exchange], question: str) -> str:
    """The likeliest reasons, in words, and what to do about them."""
    said = [*_lost(exchanges, question), *_sockets(exchanges), *_elsewhere(exchanges, question)][:_MOST]
    if said:
        return "; ".join(said)
    hint = "is the question written as it was sent?" if question else "say with --question what was asked"
    return f"none of the {len(exchanges)} exchanges looks like a question with an answer; {hint}"


def _name(exchange: Exchange) -> str:
    return f"{exchange.request.method} {urlsplit(exchange.request.url).path[:120] or '/'}"


def _lost(exchanges: Sequence[Exchange], question: str) -> Iterator[str]:
    """Questions whose answer was not recorded."""
    for one in exchanges:
        if one.lost is not None and one.head is not None and not is_noise(one) and may_ask(one.request, question):
            size = f", {one.lost} bytes" if one.lost else ""
            kind = one.head.content_type or "of a kind that is not told"
            yield (
                f"the answer of {_name(one)} ({kind}{size}) is not in the HAR: "
                "keep the network panel open until the answer ends, or record with Firefox"
            )


def _sockets(exchanges: Sequence[Exchange]) -> Iterator[str]:
    for one in exchanges:
        parts = urlsplit(one.request.url)
        opened = one.head is not None and one.head.status == 101
        if one.frames or opened or parts.scheme in ("ws", "wss"):
            told = f", {len(one.frames)} messages" if one.frames else ""
            yield f"there is a WebSocket to {parts.netloc}{told}: what is said there no recipe can describe"


def _elsewhere(exchanges: Sequence[Exchange], question: str) -> Iterator[str]:
    """Event streams that answer no question of their own, behind a request that may ask."""
    asked: Exchange | None = None
    for one in exchanges:
        if one.head is None or is_noise(one):
            continue
        if asked is not None and one.request.method == "GET" and one.head.content_type == "text/event-stream":
            yield f"the answer to {_name(asked)} comes by another request, {_name(one)}: no recipe can describe that"
            return
        if one.request.method == "POST" and one.answered and may_ask(one.request, question):
            asked = one
