"""A request body of the Anthropic Messages API as a question.

What it says goes into options by OpenAI's names (`stop_sequences` becomes `stop`, a tool one of
type function, `metadata.user_id` is `user`); what has no such name keeps its own, and the target
says whether it knows it. Where there is no translation at all:

- server tools, documents and the blocks of server tools are refused by name;
- a tool result with `is_error` begins with "Error: ", since no other API has a mark for it;
- thinking of earlier turns is left out, and told in `dropped` when it was signed: only the API that
  signed it can read it. What this gateway's answers showed as thinking has an empty signature;
- `cache_control` is a hint about price, not about the answer: it is passed over.
"""

import re
from typing import Any

import msgspec
from msgspec import Struct

from tolmach.chat import ChatRequest, Image, Message, Part, Text, ToolCall
from tolmach.errors import BadRequest, UnsupportedFeature
from tolmach.gateway.surfaces.bodies import check_shape, read_object, wrong

__all__ = ["Request", "read_request", "thinking_as_effort"]


class Request(Struct, frozen=True):
    """A question, and what of it the turn does not carry."""

    turn: ChatRequest
    dropped: tuple[str, ...] = ()


class _Metadata(Struct):
    user_id: str | None = None


class _Output(Struct):
    effort: str | None = None
    format: dict[str, Any] | None = None


class _ToolChoice(Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Tool(Struct):
    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class _Body(Struct, kw_only=True):
    """The fields whose shape is checked here; whether a value is in range the target says."""

    model: str
    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: _ToolChoice | None = None
    thinking: dict[str, Any] | None = None
    metadata: _Metadata | None = None
    output_config: _Output | None = None


_TRANSLATED = frozenset({"model", "messages", "system", "stream", "cache_control"}) | {
    "stop_sequences",
    "tools",
    "tool_choice",
    "metadata",
    "output_config",
}
"""Fields that do not become options by their own names."""


_NO_THINKING = {"type": "disabled"}
"""What this API does when it is not asked to think: no wish of the caller's."""


def read_request(body: bytes, *, limited: bool = True) -> Request:
    """The question in a body. With `limited` false it may go without `max_tokens`, as for counting.

    Raises `BadRequest` or `UnsupportedFeature` that names the field.
    """
    value = read_object(body)
    fields = check_shape(value, _Body)
    if not fields.model:
        raise wrong("model", "the name of a model is needed")
    if not fields.messages:
        raise wrong("messages", "at least one message is needed")
    if limited and fields.max_tokens is None:
        raise wrong("max_tokens", "it is required", "missing_required_parameter")
    if fields.max_tokens is not None and fields.max_tokens < 1:
        raise wrong("max_tokens", "a number of at least 1")
    dropped: list[str] = []
    messages = _system(fields.system)
    for i, message in enumerate(fields.messages):
        messages += _messages(message, f"messages[{i}]", dropped)
    options = {name: item for name, item in value.items() if name not in _TRANSLATED and item is not None}
    if options.get("thinking") == _NO_THINKING:
        del options["thinking"]
    options |= _stop(fields.stop_sequences) | _tools(fields.tools, dropped) | _choice(fields.tool_choice)
    options |= _metadata(fields.metadata, value.get("metadata")) | _output(fields, value.get("output_config"))
    turn = ChatRequest(messages=tuple(messages), model=fields.model, stream=fields.stream is True, options=options)
    return Request(turn, tuple(dropped))


_EFFORTS = ((16384, "high"), (4096, "medium"))
"""From how many tokens for thinking; `low` below. They lie between the budgets that Google's OpenAI endpoint has."""


def thinking_as_effort(turn: ChatRequest, features: frozenset[str]) -> ChatRequest:
    """The turn with `reasoning_effort` for `thinking`, where a target has the one and does not know the other.

    Adaptive thinking leaves the effort to the model, and so does a turn without either.
    """
    thinking = turn.options.get("thinking")
    if thinking is None or "thinking" in features or not features & {"reasoning_effort", "*"}:
        return turn
    options = {name: item for name, item in turn.options.items() if name != "thinking"}
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if isinstance(budget, int) and "reasoning_effort" not in options:
        options["reasoning_effort"] = next((effort for least, effort in _EFFORTS if budget >= least), "low")
    return msgspec.structs.replace(turn, options=options)


# Options


def _stop(sequences: list[str] | None) -> dict[str, Any]:
    return {"stop": sequences} if sequences else {}


def _tools(tools: list[dict[str, Any]] | None, dropped: list[str]) -> dict[str, Any]:
    return {"tools": [_tool(tool, f"tools[{i}]", dropped) for i, tool in enumerate(tools)]} if tools else {}


_TOOL_FIELDS = frozenset({"type", "cache_control", *_Tool.__struct_fields__})


def _tool(tool: dict[str, Any], where: str, dropped: list[str]) -> dict[str, Any]:
    kind = tool.get("type")
    if kind is not None and kind != "custom":
        if not isinstance(kind, str):
            raise wrong(f"{where}.type", "custom, the only type of tool that is served here")
        raise UnsupportedFeature(f"{where}: tools of type {kind!r} are not supported, only custom ones", feature=kind)
    known = _part_of(tool, _Tool, where)
    if not known.name:
        raise wrong(f"{where}.name", "the name of the tool is needed")
    dropped.extend(f"{where}.{name}" for name in sorted(tool.keys() - _TOOL_FIELDS) if tool[name] is not None)
    function: dict[str, Any] = {"name": known.name}
    if known.description is not None:
        function["description"] = known.description
    function["parameters"] = known.input_schema
    if known.strict is not None:
        function["strict"] = known.strict
    return {"type": "function", "function": function}


def _part_of(value: dict[str, Any], shape: type[_Tool], where: str) -> _Tool:
    try:
        return check_shape(value, shape)
    except BadRequest as error:
        field, _, text = error.text.rpartition(": ")
        raise wrong(f"{where}.{field}" if field else where, text, error.code) from error


_MODES = {"auto": "auto", "any": "required", "none": "none"}


def _choice(choice: _ToolChoice | None) -> dict[str, Any]:
    if choice is None:
        return {}
    made: dict[str, Any] = {}
    if choice.type == "tool":
        if not choice.name:
            raise wrong("tool_choice.name", "the name of one of the tools is needed")
        made["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice.type in _MODES:
        made["tool_choice"] = _MODES[choice.type]
    else:
        raise wrong("tool_choice.type", "one of auto, any, tool, none")
    if choice.disable_parallel_tool_use:
        made["parallel_tool_calls"] = False
    return made


def _metadata(known: _Metadata | None, raw: Any) -> dict[str, Any]:
    if known is None:
        return {}
    made: dict[str, Any] = {} if known.user_id is None else {"user": known.user_id}
    if rest := {name: item for name, item in raw.items() if name != "user_id" and item is not None}:
        made["metadata"] = rest
    return made


def _output(fields: _Body, raw: Any) -> dict[str, Any]:
    known = fields.output_config
    if known is None:
        return {}
    made: dict[str, Any] = {} if known.effort is None else {"reasoning_effort": known.effort}
    match known.format:
        case None:
            pass
        case {"type": "json_schema", "schema": dict(schema)}:
            form = {"name": "answer", "schema": schema, "strict": True}
            made["response_format"] = {"type": "json_schema", "json_schema": form}
        case _:
            raise wrong("output_config.format", "an object of type json_schema with its schema")
    if rest := {name: item for name, item in raw.items() if name not in ("effort", "format") and item is not None}:
        made["output_config"] = rest
    return made


# Messages


def _system(system: str | list[dict[str, Any]] | None) -> list[Message]:
    if not system:
        return []
    if isinstance(system, str):
        return [Message("system", system)]
    return [Message("system", "\n\n".join(_text_of(block, f"system[{i}]") for i, block in enumerate(system)))]


def _text_of(block: Any, where: str) -> str:
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "text"}:
            raise wrong(f"{where}.text", "a text is needed")
    raise wrong(where, "a block of type text")


def _messages(message: dict[str, Any], where: str, dropped: list[str]) -> list[Message]:
    """The messages that one is: a user's tool results are messages of their own."""
    role = message.get("role")
    if role not in ("user", "assistant", "system"):
        raise wrong(f"{where}.role", "user or assistant")
    content = message.get("content")
    if isinstance(content, str):
        return [Message(role, content)]
    if not isinstance(content, list):
        raise wrong(f"{where}.content", "a text or a list of blocks")
    where = f"{where}.content"
    if role == "system":
        return _system(content)
    if role == "assistant":
        return [_assistant(content, where, dropped)]
    return _user(content, where)


def _user(blocks: list[Any], where: str) -> list[Message]:
    made: list[Message] = []
    parts: list[Part] = []
    for i, block in enumerate(blocks):
        place = f"{where}[{i}]"
        if _type_of(block, place) == "tool_result":
            if parts:
                made.append(Message("user", _content(parts)))
                parts = []
            made.append(_tool_result(block, place))
        else:
            parts.append(_part(block, place))
    if parts or not made:
        made.append(Message("user", _content(parts)))
    return made


def _assistant(blocks: list[Any], where: str, dropped: list[str]) -> Message:
    parts: list[Part] = []
    calls: list[ToolCall] = []
    for i, block in enumerate(blocks):
        place = f"{where}[{i}]"
        kind = _type_of(block, place)
        if kind == "tool_use":
            calls.append(_tool_use(block, place))
        elif kind in ("thinking", "redacted_thinking"):
            if block.get("signature") or block.get("data"):
                dropped.append(place)
        else:
            parts.append(_part(block, place))
    return Message("assistant", _content(parts), tool_calls=tuple(calls))


def _content(parts: list[Part]) -> str | tuple[Part, ...]:
    if not parts:
        return ""
    first = parts[0]
    return first.text if len(parts) == 1 and isinstance(first, Text) else tuple(parts)


def _type_of(block: Any, where: str) -> str:
    match block:
        case {"type": str(kind)}:
            return kind
    raise wrong(where, 'a block is an object with a type, such as {"type": "text", "text": "..."}')


def _part(block: dict[str, Any], where: str) -> Part:
    kind = _type_of(block, where)
    if kind == "text":
        return Text(_text_of(block, where))
    if kind == "image":
        return _image(block.get("source"), f"{where}.source")
    raise UnsupportedFeature(f"{where}: blocks of type {kind!r} are not supported here", feature=kind)


_MEDIA_TYPE = re.compile(r"image/[A-Za-z0-9.+-]{1,60}")


def _image(source: Any, where: str) -> Image:
    match source:
        case {"type": "base64", "media_type": str(kind), "data": str(data)} if _MEDIA_TYPE.fullmatch(kind) and data:
            return Image(f"data:{kind};base64,{data}")
        case {"type": "url", "url": str(url)} if url[:8].lower().startswith(("https://", "http://")):
            return Image(url)
        case {"type": "base64"}:
            raise wrong(where, "a base64 source has a media_type such as image/png, and data")
        case {"type": "url"}:
            raise wrong(f"{where}.url", "an address that begins with https://")
        case {"type": str(kind)}:
            raise UnsupportedFeature(f"{where}: pictures from a {kind!r} are not supported", feature=f"image {kind}")
    raise wrong(where, "an object of type base64 or url")


def _tool_use(block: dict[str, Any], where: str) -> ToolCall:
    for field in ("id", "name"):
        if not isinstance(block.get(field), str) or not block[field]:
            raise wrong(f"{where}.{field}", "a text is needed")
    if not isinstance(block.get("input"), dict):
        raise wrong(f"{where}.input", "an object is needed")
    try:
        return ToolCall(block["id"], block["name"], msgspec.json.encode(block["input"]).decode())
    except (OverflowError, RecursionError) as error:
        raise wrong(f"{where}.input", "numbers of 64 bits, not nested too deeply") from error


def _tool_result(block: dict[str, Any], where: str) -> Message:
    id, content, failed = block.get("tool_use_id"), block.get("content"), block.get("is_error")
    if not isinstance(id, str) or not id:
        raise wrong(f"{where}.tool_use_id", "the id of the tool_use that this answers")
    if not isinstance(failed, bool | None):
        raise wrong(f"{where}.is_error", "true or false")
    if isinstance(content, list):
        parts = [_part(part, f"{where}.content[{i}]") for i, part in enumerate(content)]
    elif isinstance(content, str | None):
        parts = [Text(content)] if content else []
    else:
        raise wrong(f"{where}.content", "a text or a list of blocks")
    if failed:
        parts.insert(0, Text("Error: "))
        if len(parts) == 2 and isinstance(parts[1], Text):
            parts = [Text(f"Error: {parts[1].text}")]
    return Message("tool", _content(parts), tool_call_id=id)
