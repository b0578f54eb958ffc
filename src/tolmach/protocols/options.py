"""What callers ask for by its OpenAI name, read and checked once for the APIs that write it in another way."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from tolmach.chat import Image, Message, Notice, ToolCall
from tolmach.decoding import parse_json
from tolmach.errors import ConfigError, RemoteProtocolError, UnsupportedFeature

__all__ = [
    "SHARED_FEATURES",
    "FunctionTool",
    "JsonOutput",
    "ToolChoice",
    "called_names",
    "data_image",
    "function_tools",
    "json_output",
    "max_tokens",
    "name_notices",
    "renamed",
    "stop_sequences",
    "system_text",
    "tool_choice",
    "tool_input",
    "unsupported",
]

SHARED_FEATURES = frozenset(
    {
        "images",
        "max_completion_tokens",
        "max_tokens",
        "reasoning_effort",
        "response_format",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
    }
)
"""What all the official APIs honour."""


def unsupported(who: str, feature: str, what: str) -> UnsupportedFeature:
    """The error for a value of an option, or a message, that the API has no counterpart for."""
    return UnsupportedFeature(f"{who} cannot honour {what}", feature=feature)


class FunctionTool(Struct, frozen=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


def function_tools(options: Mapping[str, Any], who: str) -> tuple[FunctionTool, ...]:
    """The `tools`. Raises `ConfigError` for a wrong shape, `UnsupportedFeature` for tools that are no functions."""
    tools = options.get("tools")
    if tools is None:
        return ()
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        raise ConfigError(f"tools: a list of tools, not {type(tools).__name__}")
    return tuple(_function_tool(tool, f"tools[{i}]", who) for i, tool in enumerate(tools))


def _function_tool(tool: Any, where: str, who: str) -> FunctionTool:
    match tool:
        case {"type": "function", "function": {"name": str(name), **rest}}:
            description, parameters, strict = (rest.get(key) for key in ("description", "parameters", "strict"))
        case {"type": str(kind)} if kind != "function":
            raise unsupported(who, "tools", f"{where}, a tool of type {kind!r}")
        case _:
            raise ConfigError(f'{where}: a tool is {{"type": "function", "function": {{"name": ...}}}}')
    if not isinstance(description, str | None) or not isinstance(parameters, dict | None):
        raise ConfigError(f"{where}.function: the description is a text, the parameters a JSON schema")
    return FunctionTool(name, description, parameters, strict if isinstance(strict, bool) else None)


class ToolChoice(Struct, frozen=True):
    """Whether tools may, must or must not be called, and which; no `names` stands for all."""

    mode: Literal["auto", "none", "required"]
    names: tuple[str, ...] = ()


def tool_choice(options: Mapping[str, Any], who: str) -> ToolChoice | None:
    """The `tool_choice`; None when there is none. Raises `ConfigError`, `UnsupportedFeature`."""
    match options.get("tool_choice"):
        case None:
            return None
        case "auto" | "none" | "required" as mode:
            return ToolChoice(mode)
        case {"type": "function", "function": {"name": str(name)}}:
            return ToolChoice("required", (name,))
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(tools)}}:
            return ToolChoice(mode, tuple(_allowed(tool, i) for i, tool in enumerate(tools)))
        case {"type": str(kind)} if kind not in ("function", "allowed_tools"):
            raise unsupported(who, "tool_choice", f"a tool_choice of type {kind!r}")
    raise ConfigError('tool_choice: "auto", "none", "required", or {"type": "function", "function": {"name": ...}}')


def _allowed(tool: Any, at: int) -> str:
    match tool:
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return name
    raise ConfigError(f"tool_choice.allowed_tools.tools[{at}]: a function with its name")


class JsonOutput(Struct, frozen=True):
    """An answer that is JSON, by a schema or (with none) of any kind."""

    schema: dict[str, Any] | None = None
    name: str = "answer"
    description: str | None = None
    strict: bool | None = None


def json_output(options: Mapping[str, Any], who: str) -> JsonOutput | None:
    """The `response_format`; None for plain text. Raises `ConfigError`, `UnsupportedFeature`."""
    match options.get("response_format"):
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return JsonOutput()
        case {"type": "json_schema", "json_schema": {"schema": dict(schema), **rest}}:
            name, description, strict = (rest.get(key) for key in ("name", "description", "strict"))
            return JsonOutput(
                schema,
                name if isinstance(name, str) and name else "answer",
                description if isinstance(description, str) else None,
                strict if isinstance(strict, bool) else None,
            )
        case {"type": str(kind)} if kind != "json_schema":
            raise unsupported(who, "response_format", f"a response_format of type {kind!r}")
    raise ConfigError('response_format: {"type": "json_schema", "json_schema": {"name": ..., "schema": {...}}}')


def stop_sequences(options: Mapping[str, Any]) -> list[str]:
    """The `stop` texts as a list. Raises `ConfigError`."""
    stop = options.get("stop")
    if not stop:
        return []
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ConfigError("stop: a text or a list of texts")
    return list(texts)


def max_tokens(options: Mapping[str, Any]) -> Any:
    """The limit of the answer by its newer or its older name; None when there is none. The server checks it."""
    limit = options.get("max_completion_tokens")
    return options.get("max_tokens") if limit is None else limit


def renamed(options: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The options of these names by the API's own names; the server checks the values."""
    return {theirs: options[ours] for ours, theirs in names.items() if options.get(ours) is not None}


_DATA_URL = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),", re.I)


def data_image(image: Image) -> tuple[str, str] | None:
    """Media type and base64 of a `data:` URL (RFC 2397); None for an address. Raises `ConfigError`."""
    if image.url[:5].lower() != "data:":
        return None
    head = _DATA_URL.match(image.url)
    if head is None or not head[2].lower().endswith(";base64") or not head[1].lower().startswith("image/"):
        raise ConfigError("a picture in a data: URL is written as data:image/png;base64,...")
    kind = head[1].lower()
    data = image.url[head.end() :]
    if "%" in data:
        data = unquote_to_bytes(data).decode("ascii", "replace")
    return "image/jpeg" if kind == "image/jpg" else kind, data


def tool_input(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call as an object. Raises `ConfigError` for arguments that are none."""
    try:
        value = parse_json(call.arguments) if call.arguments.strip() else {}
    except RemoteProtocolError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError(f"the arguments of the tool call {call.id!r} ({call.name}) are no JSON object")
    return value


def called_names(messages: Sequence[Message]) -> dict[str, str]:
    """The function's name for each id of a tool call; the last call of an id counts."""
    return {call.id: call.name for message in messages for call in message.tool_calls}


def system_text(messages: Sequence[Message]) -> str:
    """The system and developer messages, wherever they stand, as one text."""
    return "\n\n".join(m.text for m in messages if m.role in ("system", "developer") and m.text)


def name_notices(messages: Sequence[Message], who: str) -> tuple[Notice, ...]:
    """A notice when messages name their authors, for an API that has no place for that."""
    if any(message.name and message.role not in ("tool", "function") for message in messages):
        return (Notice("dropped", f"{who} has no place for the names of messages; they were left out"),)
    return ()
