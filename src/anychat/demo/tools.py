"""When the demo's model calls tools, and with what."""

from typing import Any

__all__ = ["example_arguments", "tools_called"]

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


def _example(about: Any) -> Any:
    kind = about.get("type") if isinstance(about, dict) else None
    return _EXAMPLES.get(kind, "Париж") if isinstance(kind, str) else "Париж"
