"""When the demo's model calls tools, and with what."""

import json
import re
from typing import Any

__all__ = ["example_arguments", "tools_called", "written_answer"]

_EXAMPLES: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}


def tools_called(question: str, count: int) -> int:
    """How many of `count` tools a question calls: `use tool ...` the first, `use tools ...` each of them once."""
    question = question.lower()
    if question.startswith("use tools"):
        return count
    return min(count, 1) if question.startswith("use tool") else 0


def example_arguments(schema: Any) -> dict[str, Any]:
    """Arguments with an example for each property of a tool's schema."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return {}
    return {name: _example(about) for name, about in properties.items()}


_AGAIN = "Your last answer cannot be used:"
_TOLD = re.compile(r'\{"name": "')
_WISH = re.compile(r"\b(use tools?\b.*)", re.I)
_FIT = re.compile(r"It must fit this JSON schema:\s")
_ANY = "Answer with one JSON object"


def written_answer(question: str, said: str) -> str | None:
    """What a model that knows only text writes where the question tells it of tools or wants JSON; else None.

    `said` is the whole conversation. With `badly` in the question the first answer is broken and the
    second, after a complaint, right; with `hopelessly` both are broken.
    """
    if "```tool_results" in question:
        return None
    again = question.startswith(_AGAIN)
    said = said.replace("”", '"')  # as one of the plugins keeps quotes in its history
    asked = said if again else question
    broken = "hopelessly" in asked or ("badly" in asked and not again)
    tools = {tool["name"]: tool for at in _TOLD.finditer(said) if (tool := _described(said, at.start()))}
    if tools and (wishes := _WISH.findall(asked)):
        chosen = list(tools.values())[: tools_called(wishes[-1], len(tools))]
        calls = [{"name": tool["name"], "arguments": example_arguments(tool.get("parameters"))} for tool in chosen]
        block = json.dumps(calls, ensure_ascii=False)
        return f"I look it up. 🔎\n\n```tool_calls\n{block[:-2] if broken else block}\n```"
    schemas = [_json_at(asked, at.end()) for at in _FIT.finditer(asked)]
    if not schemas and _ANY not in asked:
        return None
    value = _example(schemas[-1]) if schemas else {"answer": 42}
    return "Here you are: {answer}" if broken else f"```json\n{json.dumps(value, ensure_ascii=False)}\n```"


def _json_at(text: str, at: int) -> Any:
    """The JSON value that begins there; None for none."""
    try:
        return json.JSONDecoder().raw_decode(text, at)[0]
    except ValueError:
        return None


def _described(text: str, at: int) -> dict[str, Any] | None:
    """The tool that is described there; None for what only looks like it: a call, a result."""
    value = _json_at(text, at)
    return value if isinstance(value, dict) and not {"arguments", "result"} & value.keys() else None


def _example(about: Any) -> Any:
    if isinstance(about, dict) and about.get("enum"):
        return about["enum"][0]
    if isinstance(about, dict) and about.get("properties"):
        return example_arguments(about)
    kind = about.get("type") if isinstance(about, dict) else None
    return _EXAMPLES.get(kind, "Париж") if isinstance(kind, str) else "Париж"
