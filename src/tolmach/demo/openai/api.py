"""What OpenAI's endpoints at `/v1` share: the models, the ids of requests, the errors, the body."""

import json
import secrets
from typing import Any

from tolmach.demo.base import Headers, Reply, Visit, json_reply

__all__ = [
    "EMBEDDING_MODELS",
    "MODELS",
    "Refused",
    "body_of",
    "check_known",
    "check_model",
    "check_number",
    "error",
    "ids",
    "kind_of",
    "object_body",
]

MODELS = ("demo", "gpt-5", "gpt-5-mini", "gpt-4.1", "gpt-4o", "gpt-4o-mini", "gpt-4-turbo", "gpt-4", "gpt-3.5-turbo")
EMBEDDING_MODELS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
"""The models that make vectors, and how long these are."""


class Refused(Exception):
    """A request that the API refuses, with what it answers."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.reply = error(status, message, kind, param, code)


def error(status: int, message: str, kind: str, param: str | None, code: str | None) -> Reply:
    return json_reply(status, {"error": {"message": message, "type": kind, "param": param, "code": code}}, ids())


def ids() -> Headers:
    return [("x-request-id", f"req_{secrets.token_hex(16)}"), ("openai-version", "2020-10-01")]


def body_of(visit: Visit) -> Any:
    """The body as JSON; None when it is none."""
    try:
        return json.loads(visit.request.body)
    except ValueError:
        return None


def object_body(visit: Visit) -> dict[str, Any]:
    """The body, which must be an object."""
    body = body_of(visit) if visit.content_type == "application/json" else None
    if not isinstance(body, dict):
        raise Refused(
            400,
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
            "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)",
        )
    return body


def check_known(body: dict[str, Any], known: frozenset[str], text: str) -> None:
    for name in body:
        if name not in known:
            raise Refused(400, text.format(name=name), param=name, code="unknown_parameter")


def check_model(model: Any, known: Any = MODELS) -> None:
    if not isinstance(model, str) or not model:
        raise Refused(400, "you must provide a model parameter")
    if model not in known and not model.startswith("fault:"):
        text = f"The model `{model}` does not exist or you do not have access to it."
        raise Refused(404, text, code="model_not_found")


def check_number(body: dict[str, Any], name: str, low: float, high: float) -> None:
    value = body.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = f"Invalid type for '{name}': expected a number, but got {kind_of(value)} instead."
        raise Refused(400, text, param=name, code="invalid_type")
    if not low <= value <= high:
        side, bound = ("minimum", low) if value < low else ("maximum", high)
        text = f"Invalid '{name}': number {side} value exceeded. Expected a value within {bound}, but got {value}."
        raise Refused(400, text, param=name, code=f"decimal_{'below_min' if value < low else 'above_max'}_value")


def kind_of(value: Any) -> str:
    kinds = {str: "a string", bool: "a boolean", dict: "an object", list: "an array"}
    return kinds.get(type(value), "another type")
