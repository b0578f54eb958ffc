"""What the objects that a client gives have in common."""

from typing import Any

import msgspec
from msgspec import Struct

__all__ = ["Shape"]


class Shape(Struct, kw_only=True):
    """Plain data. Fields that tolmach has nothing for are there all the same, as None, as in the openai package."""

    def model_dump(self, *, exclude_none: bool = False) -> dict[str, Any]:
        """As nested dicts and lists."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        return _without_none(value) if exclude_none else value

    def to_dict(self) -> dict[str, Any]:
        """As nested dicts and lists, without what is None."""
        return self.model_dump(exclude_none=True)

    def model_dump_json(self, *, indent: int | None = None) -> str:
        text = msgspec.json.encode(self)
        return (msgspec.json.format(text, indent=indent) if indent else text).decode()

    def to_json(self, *, indent: int | None = 2) -> str:
        """JSON text, without what is None."""
        text = msgspec.json.encode(self.to_dict())
        return (msgspec.json.format(text, indent=indent) if indent else text).decode()


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value
