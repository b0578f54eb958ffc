"""The conversation in a request: turns before the question, and the question among them."""

import re
from typing import Any

from msgspec import Struct, field

from tolmach.recipes.traffic import AS_TEXT, Path, at, leaves

__all__ = ["History", "find_history"]

_ROLES = {
    "user": ("user", "human", "visitor", "customer", "client", "you", "me", "question"),
    "assistant": ("assistant", "bot", "ai", "model", "agent", "gpt", "answer"),
    "system": ("system",),
}
_LISTS = re.compile(r"^(history|messages|chat_?history|conversation|context|turns|past|previous|dialog)$", re.I)


class History(Struct, kw_only=True):
    """What is put where, and how one message is written."""

    places: dict[Path, Any]
    item: dict[str, Any]
    roles: dict[str, str] = field(default_factory=dict)
    where: str = ""
    sure: float = 0.9
    reason: str = ""


def find_history(tree: dict[str, Any], path: Path, question: str) -> History | None:
    """The turns of a request whose question stands at `path`; None when it has the question alone."""
    for depth in range(len(path) - 1, 0, -1):
        if isinstance(path[depth], int) and isinstance(items := at(tree, path[:depth]), list):
            found = _messages(items, path[:depth], path[depth:], question)
            if found is not None:
                return found
    for where, turns in _lists(tree):
        found = _past(turns, where, path, at(tree, path), question)
        if found is not None:
            return found
    return None


def _role_of(item: Any) -> tuple[Path, str, str] | None:
    """Where the role of a message stands, what it says, and what that means."""
    for path, leaf in leaves(item):
        if isinstance(leaf, str):
            for role, names in _ROLES.items():
                if leaf.lower() in names:
                    return path, leaf, role
    return None


def _written(item: Any, content: Path, role: Path) -> dict[str, Any]:
    template = _copy(item)
    for path, value in ((content, "{{content}}"), (role, "{{role}}")):
        parent = at(template, path[:-1])
        parent[path[-1]] = value
    return template if isinstance(template, dict) else {}


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    return [_copy(part) for part in value] if isinstance(value, list) else value


def _messages(items: list[Any], where: Path, inside: Path, question: str) -> History | None:
    """A list of turns that ends with the question."""
    item, content = items[inside[0]] if isinstance(inside[0], int) else None, inside[1:]
    if not isinstance(item, dict) or inside[0] != len(items) - 1 or at(item, content) != question:
        return None
    found = _role_of(item)
    if found is None or found[0] == content:
        return None
    role, _, meaning = found
    roles = _names(items, role)
    fixed = []
    for turn in items[:-1]:
        if _meaning(at(turn, role)) != "system":
            break
        fixed.append(_copy(turn))
    template: Any = [*fixed, "{{*messages}}"] if fixed else "{{messages}}"
    return History(
        places={where: template},
        item=_written(item, content, role),
        roles=roles,
        where="/".join(map(str, where)),
        sure=0.9 if meaning == "user" else 0.6,
        reason="a list of messages with roles that ends with the question"
        + ("; the site's own system message stays in front" if fixed else ""),
    )


def _meaning(said: Any) -> str:
    return next((role for role, names in _ROLES.items() if str(said).lower() in names), "")


def _names(items: list[Any], role: Path) -> dict[str, str]:
    """Our names of the roles -> the service's, where they differ."""
    found = {_meaning(at(item, role)): str(at(item, role)) for item in items}
    if found.get("user", "").lower() == "human":
        found.setdefault("assistant", "ai" if found["user"].islower() else "AI")
    return {ours: theirs for ours, theirs in found.items() if ours and ours != theirs}


def _lists(tree: Any, path: Path = ()) -> list[tuple[Path, list[Any]]]:
    """The lists of a tree that may be turns."""
    found: list[tuple[Path, list[Any]]] = []
    if isinstance(tree, dict):
        for key, part in tree.items():
            if isinstance(part, list) and part and all(isinstance(item, dict) for item in part):
                found.append(((*path, key), part))
            found += _lists(part, (*path, key))
    return found


def _past(turns: list[Any], where: Path, path: Path, text: Any, question: str) -> History | None:
    """A list of earlier turns beside the question."""
    if path[: len(where)] == where:
        return None
    found = _role_of(turns[0])
    if found is None or not (_LISTS.match(str(where[-1])) or where[-1] == AS_TEXT):
        return None
    role = found[0]
    texts = [p for p, leaf in leaves(turns[0]) if isinstance(leaf, str) and p != role]
    if not texts:
        return None
    content = max(texts, key=lambda p: len(str(at(turns[0], p))))
    return History(
        places={path: str(text).replace(question, "{{message}}"), where: "{{history}}"},
        item=_written(turns[0], content, role),
        roles=_names(turns, role),
        where="/".join(map(str, where)),
        sure=0.8,
        reason="a list of earlier messages with roles beside the question",
    )
