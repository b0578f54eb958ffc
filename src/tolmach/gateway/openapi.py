"""The gateway's routes as an OpenAPI 3.1 document.

Bodies have the fields that are read here; any other field goes on to a target of the same API, so all
objects are open. The services' own references say what the fields mean.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tolmach.version import __version__

__all__ = ["document", "document_body"]

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer"}
_ANY: Schema = {"type": "object"}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    made: Schema = {"type": "object", "properties": {**required, **(optional or {})}}
    return {**made, "required": list(required)} if required else made


def _list(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


def _or_null(fields: Mapping[str, Schema]) -> dict[str, Schema]:
    return {name: {"anyOf": [schema, {"type": "null"}]} for name, schema in fields.items()}


def _either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _exactly(value: str) -> Schema:
    return {"const": value}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_MODEL: Schema = {
    "type": "string",
    "description": "`provider/model`, a model that a provider lists, or a route; `GET /v1/models` has them.",
}

_NAME: Schema = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}
_TEMPERATURE: Schema = {"type": "number", "minimum": 0, "maximum": 2}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_LENGTH: Schema = {"type": "integer", "minimum": 1}

_PICTURE: Schema = {"type": "string", "format": "uri", "description": "An https: or data: URL."}


def _function(fields: Mapping[str, Schema]) -> Schema:
    return _object({"name": _NAME, **fields}, _or_null({"description": _TEXT}))


_CHAT_PARTS = _list(
    _either(
        _object({"type": _exactly("text"), "text": _TEXT}),
        _object({"type": _exactly("image_url"), "image_url": _object({"url": _PICTURE})}),
    ),
    minItems=1,
)
_BLOCKS = _list(
    _either(
        _object({"type": _exactly("text"), "text": _TEXT}),
        _object({"type": {"enum": ["image", "tool_use", "tool_result", "thinking"]}}),
    )
)

_ROLES = ["developer", "system", "user", "assistant", "tool", "function"]

_SCHEMAS: dict[str, Schema] = {
    "ChatQuestion": _object(
        {
            "model": _MODEL,
            "messages": _list(
                _object(
                    {"role": {"enum": _ROLES}},
                    _or_null({"content": _either(_TEXT, _CHAT_PARTS), "name": _TEXT, "tool_calls": _list(_ANY)}),
                ),
                minItems=1,
            ),
        },
        _or_null(
            {
                "stream": _FLAG,
                "stream_options": _object({}, {"include_usage": _FLAG}),
                "n": {"type": "integer", "minimum": 1, "maximum": 128},
                "max_tokens": _LENGTH,
                "max_completion_tokens": _LENGTH,
                "temperature": _TEMPERATURE,
                "top_p": _SHARE,
                "presence_penalty": _NUMBER,
                "frequency_penalty": _NUMBER,
                "stop": _either(_TEXT, _list(_TEXT)),
                "seed": _COUNT,
                "tools": _list(_object({"type": _exactly("function"), "function": _function({})})),
                "tool_choice": _either(_TEXT, _ANY),
                "parallel_tool_calls": _FLAG,
                "response_format": _object({"type": {"enum": ["text", "json_object", "json_schema"]}}),
                "reasoning_effort": {"enum": ["none", "minimal", "low", "medium", "high"]},
                "user": _TEXT,
            }
        ),
    ),
    "ChatCompletion": _object(
        {
            "id": _TEXT,
            "object": _exactly("chat.completion"),
            "created": _COUNT,
            "model": _TEXT,
            "choices": _list(_object({"index": _COUNT, "message": _ANY, "finish_reason": _TEXT}), minItems=1),
        },
        {"usage": _ANY},
    ),
    "ResponseQuestion": _object(
        {"model": _MODEL, "input": _either(_TEXT, _list(_ANY, minItems=1))},
        _or_null(
            {
                "instructions": _TEXT,
                "previous_response_id": _TEXT,
                "stream": _FLAG,
                "max_output_tokens": _LENGTH,
                "temperature": _TEMPERATURE,
                "top_p": _SHARE,
                "tools": _list(_function({"type": _exactly("function"), "parameters": _ANY})),
                "tool_choice": _either(_TEXT, _ANY),
                "parallel_tool_calls": _FLAG,
                "text": _ANY,
                "reasoning": _ANY,
                "store": _FLAG,
                "user": _TEXT,
            }
        ),
    ),
    "Response": _object(
        {
            "id": _TEXT,
            "object": _exactly("response"),
            "created_at": _NUMBER,
            "status": _TEXT,
            "model": _TEXT,
            "output": _list(_ANY),
        }
    ),
    "MessageQuestion": _object(
        {
            "model": _MODEL,
            "max_tokens": _LENGTH,
            "messages": _list(
                _object({"role": {"enum": ["user", "assistant"]}, "content": _either(_TEXT, _BLOCKS)}), minItems=1
            ),
        },
        _or_null(
            {
                "system": _either(_TEXT, _list(_ANY)),
                "stream": _FLAG,
                "temperature": _SHARE,
                "top_p": _SHARE,
                "top_k": _COUNT,
                "stop_sequences": _list(_TEXT),
                "tools": _list(_function({"input_schema": _object({"type": _exactly("object")})})),
                "tool_choice": _ANY,
                "thinking": _ANY,
                "metadata": _ANY,
                "output_config": _ANY,
            }
        ),
    ),
    "Message": _object(
        {
            "id": _TEXT,
            "type": _exactly("message"),
            "role": _exactly("assistant"),
            "model": _TEXT,
            "content": _list(_ANY),
            "stop_reason": _TEXT,
            "usage": _ANY,
        }
    ),
    "TokensQuestion": _object(
        {
            "model": _MODEL,
            "messages": _list(
                _object({"role": {"enum": ["user", "assistant"]}, "content": _either(_TEXT, _BLOCKS)}), minItems=1
            ),
        },
        _or_null({"system": _either(_TEXT, _list(_ANY)), "tools": _list(_ANY)}),
    ),
    "Tokens": _object({"input_tokens": _COUNT}, {"estimated": _FLAG}),
    "EmbeddingsQuestion": _object(
        {"model": _MODEL, "input": _either(_TEXT, _list(_either(_TEXT, _COUNT, _list(_COUNT)), minItems=1))},
        _or_null(
            {
                "encoding_format": {"enum": ["float", "base64"]},
                "dimensions": {"type": "integer", "minimum": 1},
                "user": _TEXT,
            }
        ),
    ),
    "Embeddings": _object({"object": _exactly("list"), "data": _list(_ANY, minItems=1)}, {"usage": _ANY}),
    "Model": _object({"id": _TEXT, "object": _exactly("model"), "created": _COUNT, "owned_by": _TEXT}),
    "Models": _object({"object": _exactly("list"), "data": _list(_ref("Model"))}),
    "Explained": _object(
        {"model": _TEXT, "route": _TEXT, "rules": _ANY, "targets": _list(_ANY, minItems=1), "live": _FLAG}
    ),
    "Status": _object({"status": {"enum": ["live", "ready", "stopping"]}}, {"configuration": _TEXT}),
    "Error": _object(
        {"error": _object({"message": _TEXT}, _or_null({"type": _TEXT, "param": _TEXT, "code": _TEXT}))},
        {"request_id": _TEXT},
    ),
    "MessagesError": _object(
        {"type": _exactly("error"), "error": _object({"type": _TEXT, "message": _TEXT})}, {"request_id": _TEXT}
    ),
}

_REFUSALS = {
    400: "The question is wrong, or the target cannot honour it; the message names the field.",
    401: "The target refuses the key that the gateway has for it.",
    403: "The target refuses this text, or the page that asks is of another origin.",
    404: "There is no such model.",
    408: "The body came too slowly.",
    413: "The body is too long.",
    429: "The target's limit is used up; `retry-after` says for how long, where it is known.",
    431: "Too many headers.",
    502: "The target failed, or its answer broke off.",
    503: "The gateway is being stopped, or as many questions are under way as are allowed.",
    504: "The target did not answer in time.",
}
"""What the surfaces answer when they cannot answer. A target of the same API may have statuses of its own."""

_OVERLOADED = {529: "The target is overloaded."}


def _json(schema: str) -> Schema:
    return {"application/json": {"schema": _ref(schema)}}


def _answer(about: str, content: Schema) -> Schema:
    return {"description": about, "headers": {"x-request-id": {"schema": _TEXT}}, "content": content}


def _question(summary: str, asked: str, answered: str, *, streamed: bool, error: str = "Error") -> Schema:
    """A route whose body is a question to a target."""
    content = _json(answered)
    if streamed:
        content = {**content, "text/event-stream": {}}
    refusals = _REFUSALS if error == "Error" else {**_REFUSALS, **_OVERLOADED}
    own = {str(status): _answer(about, _json(error)) for status, about in refusals.items()}
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": _json(asked)},
            "responses": {
                "200": _answer("The answer." + " With `stream`, its events." * streamed, content),
                **own,
                "default": _answer("What a target of the same API refused with another status.", _json(error)),
            },
        }
    }


def _look(summary: str, answers: Mapping[int, tuple[str, Schema]], parameters: Iterable[Schema] = ()) -> Schema:
    """A route that is only looked at."""
    responses = {str(status): _answer(about, content) for status, (about, content) in answers.items()}
    made: Schema = {"summary": summary, "responses": responses}
    given = list(parameters)
    return {"get": {**made, "parameters": given} if given else made}


def document() -> Schema:
    """The document."""
    listed = ("The models.", _json("Models"))
    id_of_model: Schema = {"name": "id", "in": "path", "required": True, "schema": _TEXT}
    keyless = ("A caller's key is needed, and this is none.", _json("Error"))
    found = {200: ("The model.", _json("Model")), 401: keyless, 404: (_REFUSALS[404], _json("Error"))}
    status = ("How it is.", _json("Status"))
    refused = ("The admin's key is needed.", _json("Error"))
    model: Schema = {"name": "model", "in": "query", "required": True, "schema": {**_TEXT, "minLength": 1}}
    explained = {
        200: ("Its targets in their order, and how they are doing.", _json("Explained")),
        400: ("No model is named.", _json("Error")),
        401: refused,
        404: (_REFUSALS[404], _json("Error")),
    }
    figures = ("Figures in Prometheus' text format.", {"text/plain": {"schema": _TEXT}})
    messages = "MessagesError"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tolmach",
            "version": __version__,
            "description": "Every configured chat service behind the APIs of OpenAI and Anthropic.",
        },
        "paths": {
            "/v1/chat/completions": _question(
                "OpenAI's chat completions", "ChatQuestion", "ChatCompletion", streamed=True
            ),
            "/v1/responses": _question("OpenAI's Responses", "ResponseQuestion", "Response", streamed=True),
            "/v1/embeddings": _question("OpenAI's embeddings", "EmbeddingsQuestion", "Embeddings", streamed=False),
            "/v1/messages": _question(
                "Anthropic's Messages", "MessageQuestion", "Message", streamed=True, error=messages
            ),
            "/v1/messages/count_tokens": _question(
                "How many tokens a question has", "TokensQuestion", "Tokens", streamed=False, error=messages
            ),
            "/v1/models": _look("The models", {200: listed, 401: keyless}),
            "/v1/models/{id}": _look("One model", found, [id_of_model]),
            "/health/live": _look("Whether it runs", {200: status}),
            "/health/ready": _look("Whether it takes questions", {200: status, 503: status}),
            "/admin/explain": _look("Whom a model's name is asked of, and why", explained, [model]),
            "/metrics": _look("What was counted", {200: figures, 401: refused}),
            "/openapi.json": _look("This document", {200: ("It.", {"application/json": {"schema": _ANY}})}),
        },
        "components": {"schemas": _SCHEMAS},
    }


def document_body() -> bytes:
    """The document as the body of an answer."""
    return msgspec.json.encode(document())
