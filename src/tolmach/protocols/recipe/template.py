"""Requests that are declared: a JSON value with `"{{name}}"` where something is put in."""

import re
from typing import Any

from tolmach.chat import ChatRequest, Message, format_prompt
from tolmach.protocols.bodies import encode_json
from tolmach.protocols.pointer import ABSENT

__all__ = ["ITEM_PLACES", "QUESTION_PLACES", "fill", "option_places", "places", "values_of"]

_PLACE = re.compile(r"\{\{\s*(\*?[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_-]+)*)\s*\}\}")
_AS_TEXT = "{{json}}"

QUESTION_PLACES = frozenset({"message", "messages", "history", "system", "model", "stream"})
"""What a question brings along by itself."""

ITEM_PLACES = frozenset({"role", "content"})
"""What one message of a history has."""

# The parameters of the OpenAI chat completions API that have one plain value.
_OPENAI = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "max_completion_tokens",
        "max_tokens",
        "min_p",
        "presence_penalty",
        "reasoning_effort",
        "repetition_penalty",
        "response_format",
        "seed",
        "stop",
        "temperature",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
        "user",
        "verbosity",
    }
)


def option_places(defaults: dict[str, Any]) -> frozenset[str]:
    """The options that a template may name."""
    return _OPENAI | frozenset(defaults)


def places(template: Any) -> frozenset[str]:
    """The names of everything that is put into the template."""
    if isinstance(template, str):
        return frozenset(name.lstrip("*") for name in _PLACE.findall(template))
    if isinstance(template, dict):
        return frozenset().union(*map(places, template.values()))
    if isinstance(template, list | tuple):
        return frozenset().union(*map(places, template))
    return frozenset()


def fill(template: Any, values: dict[str, Any]) -> Any:
    """The template with the values in it; fields and items that name an absent value are left out.

    In a list `"{{*name}}"` stands for all items of a value. An object `{"{{json}}": part}` stands for
    the part as JSON in a text.
    """
    if isinstance(template, str):
        if whole := _PLACE.fullmatch(template):
            return values.get(whole[1].lstrip("*"), ABSENT)
        return _PLACE.sub(lambda place: _text(values.get(place[1].lstrip("*"), ABSENT)), template)
    if isinstance(template, dict):
        if template.keys() == {_AS_TEXT}:
            inner = fill(template[_AS_TEXT], values)
            return ABSENT if inner is ABSENT else _as_json(inner)
        filled = {name: fill(part, values) for name, part in template.items()}
        return {name: part for name, part in filled.items() if part is not ABSENT}
    if isinstance(template, list | tuple):
        return [item for part in template for item in _items(part, values)]
    return template


def _items(part: Any, values: dict[str, Any]) -> list[Any]:
    """What a list's part stands for: an item, none, or all those of a value."""
    item = fill(part, values)
    if item is ABSENT:
        return []
    spliced = isinstance(part, str) and (whole := _PLACE.fullmatch(part)) and whole[1].startswith("*")
    return item if spliced and isinstance(item, list) else [item]


def _text(value: Any) -> str:
    if value is ABSENT:
        return ""
    return value if isinstance(value, str) else _as_json(value)


def _as_json(value: Any) -> str:
    return encode_json(value).decode()


def values_of(
    turn: ChatRequest,
    template: Any,
    defaults: dict[str, Any],
    item: dict[str, Any],
    roles: dict[str, str],
    made: dict[str, Any],
) -> dict[str, Any]:
    """What a question puts into the places of a template; `made` are values that an item may name too."""
    named = places(template)
    messages = turn.messages
    system = "\n\n".join(m.text for m in messages if m.role in ("system", "developer"))
    if "system" in named:
        messages = tuple(m for m in messages if m.role not in ("system", "developer")) or messages

    def items(some: tuple[Message, ...]) -> list[Any]:
        return [fill(item, {**made, "role": roles.get(m.role, m.role), "content": m.text}) for m in some]

    kept_apart = bool(named & {"history", "messages"})
    return {
        **{name: value for name, value in defaults.items() if name not in QUESTION_PLACES},
        **{name: value for name, value in turn.options.items() if value is not None},
        "message": messages[-1].text if kept_apart else format_prompt(messages),
        "messages": items(messages),
        "history": items(messages[:-1]),
        "system": system or ABSENT,
        "stream": turn.stream,
    }
