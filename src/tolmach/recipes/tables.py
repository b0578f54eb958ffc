"""The tables of a recipe that stand beside the request and the answer."""

import re
from typing import Any

from tolmach.recipes.traffic import Exchange, Path, Written, expand, json_of, key_of, leaves, pointer, written

__all__ = ["answer_errors", "conversation_of", "stale_rules"]

_FLAGS = re.compile(r"^(ok|success|successful|succeeded|response)$", re.I)
_STATES = re.compile(r"^(status|state|result)$", re.I)
_GOOD = frozenset({"success", "ok", "done", "completed", "succeeded"})
_IDS = re.compile(r"(conversation|thread|chat|dialog|session|parent|context|previous|discussion|room)", re.I)
_WHAT = r"(nonce|token|csrf|xsrf|session|signature)"
_WRONG = r"(invalid|expired|missing|wrong|mismatch|stale|refused|bad|unknown|not valid)"
_STALE_WORDS = rf"{_WHAT}\W.{{0,40}}{_WRONG}|{_WRONG}\W.{{0,20}}{_WHAT}|cookie check failed|page expired"


def answer_errors(exchange: Exchange) -> dict[str, Any]:
    """The recipe's `[errors]`, from the flags of a good answer."""
    value = json_of(exchange.body)
    if not isinstance(value, dict):
        return {}
    for key, flag in value.items():
        if flag is True and _FLAGS.match(key):
            return {"ok": pointer((key,))}
    for key, flag in value.items():
        if isinstance(flag, str) and flag.lower() in _GOOD and _STATES.match(key):
            return {"ok": pointer((key,)), "ok_values": [flag]}
    return {}


def stale_rules(exchanges: list[Exchange], chat: int) -> list[dict[str, Any]]:
    """The recipe's `[[stale]]`: what recorded refusals show, and what is common."""
    own = written(exchanges[chat].request).path
    seen = {
        exchange.head.status
        for exchange in exchanges
        if exchange.head is not None
        and exchange.head.status in (401, 403, 409, 419, 440)
        and written(exchange.request).path == own
    }
    rules: list[dict[str, Any]] = [{"status": sorted({401, 419} | seen)}]
    return [*rules, {"text": _STALE_WORDS}]


def conversation_of(exchanges: list[Exchange], chat: int, asked: Written) -> dict[Path, tuple[str, bool]]:
    """The places of a request for a value that an earlier answer of the same API gives, each with where it gives it.

    The flag says whether a later question of the recording shows it.
    """
    found: dict[Path, tuple[str, bool]] = {}
    tree = {"query": asked.query, "body": asked.body}
    for index, exchange in enumerate(exchanges):
        if index == chat or not exchange.answered:
            continue
        later = written(exchange.request)
        if later.path != asked.path or later.kind != asked.kind or index < chat:
            continue
        for path, value in leaves({"query": later.query, "body": later.body}):
            given = _given(exchanges[chat], value)
            if given and dict(leaves(tree)).get(path) != value:
                found[path] = (given, True)
    if not found:
        for path, value in leaves(tree):
            if value in (None, "") and _IDS.search(key_of(path)):
                place = _named(exchanges[chat], key_of(path))
                if place:
                    found[path] = (place, False)
    return found


def _values(exchange: Exchange) -> list[tuple[Path, Any]]:
    """The values of an answer: of its JSON, or of every event of its stream."""
    whole = json_of(exchange.body)
    if isinstance(whole, dict | list):
        return list(leaves(expand(whole)))
    found: list[tuple[Path, Any]] = []
    for line in exchange.body.decode("utf-8", "replace").splitlines():
        value = json_of(re.sub(r"^(data: ?|[A-Za-z0-9]{1,3}:)", "", line))
        if isinstance(value, dict | list):
            found += leaves(expand(value))
    return found


def _given(exchange: Exchange, value: Any) -> str:
    """Where an answer gives a value; empty where it does not."""
    if not isinstance(value, str) or len(value) < 4 or " " in value:
        return ""
    place = next((path for path, leaf in _values(exchange) if leaf == value or str(leaf) == value), None)
    return "" if place is None else pointer(place)


def _named(exchange: Exchange, key: str) -> str:
    bare = re.sub(r"[^a-z]", "", key.lower())
    for path, leaf in _values(exchange):
        own = re.sub(r"[^a-z]", "", key_of(path).lower())
        if (
            isinstance(leaf, str)
            and leaf
            and own
            and (own == bare or (own == "id" and len(path) > 1 and _IDS.search(str(path[-2]))))
        ):
            return pointer(path)
    return ""
