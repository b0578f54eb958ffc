"""A request body of the OpenAI Responses API as a question.

Items become messages, settings become options by their names in chat completions; what has no such
name keeps its own, and the target says whether it knows it. Where there is no translation at all:

- built-in and custom tools, their items, files, item references, stored prompts, conversations and
  background responses are refused by name;
- reasoning of earlier turns is left out, and told in `dropped` when it was encrypted: only the
  service that encrypted it can read it;
- `include` of what only built-in tools have, and of encrypted reasoning, asks for nothing here.

Instructions are a system message before all others. They hold for one response only: who goes on
from an earlier response puts its messages behind them (`continued`).
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from tolmach.chat import AnswerText, ChatRequest, Event, Image, Message, Part, Text, ToolCall, ToolCallDelta
from tolmach.errors import UnsupportedFeature
from tolmach.gateway.surfaces.base import Asked, Label
from tolmach.gateway.surfaces.bodies import check_shape, read_object, wrong

__all__ = ["call_id", "continued", "read_request", "remembered"]


class _Text(Struct):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class _Reasoning(Struct):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class _Body(Struct, kw_only=True):
    """The fields whose shape is checked here; whether a value is in range the target says."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    previous_response_id: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    background: bool | None = None
    truncation: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None


_TRANSLATED = frozenset(
    {"model", "input", "instructions", "previous_response_id", "stream", "stream_options", "max_output_tokens"}
    | {"max_tool_calls", "tools", "tool_choice", "text", "reasoning", "include", "metadata", "store", "background"}
    | {"truncation", "conversation", "prompt"}
)
"""Fields that do not become options by their own names."""

_REFUSED = {
    "background": "background responses",
    "conversation": "conversations kept by the API",
    "prompt": "stored prompts",
}

_NOTHING_TO_INCLUDE = frozenset(
    {"reasoning.encrypted_content", "code_interpreter_call.outputs", "computer_call_output.output.image_url"}
    | {"file_search_call.results", "web_search_call.results", "web_search_call.action.sources"}
    | {"message.input_image.image_url"}
)


def read_request(body: bytes) -> Asked:
    """The question in a body.

    In `echo`: `response`, the settings as the answer repeats them; `previous_response_id`, `store` and
    `instructions`; `dropped`, the names of what the turn has no place for. Raises `BadRequest` or
    `UnsupportedFeature` that names the field.
    """
    value = read_object(body)
    fields = check_shape(value, _Body)
    if not fields.model:
        raise wrong("model", "the name of a model is needed")
    for name, what in _REFUSED.items():
        if value.get(name):
            raise UnsupportedFeature(f"{name}: {what} are not supported here", feature=name)
    if fields.max_output_tokens is not None and fields.max_output_tokens < 1:
        raise wrong("max_output_tokens", "a number of at least 1")
    dropped: list[str] = []
    messages = _input(fields.input, dropped)
    if not messages and not fields.previous_response_id:
        raise wrong("input", "a text or at least one message is needed", "missing_required_parameter")
    if fields.instructions:
        messages.insert(0, Message("system", fields.instructions))
    options = {name: item for name, item in value.items() if name not in _TRANSLATED and item is not None}
    options |= _options(fields, value, dropped)
    stream = fields.stream is True
    turn = ChatRequest(messages=tuple(messages), model=fields.model, stream=stream, options=options)
    return Asked(turn=turn, stream=stream, echo=_echo(fields, value, dropped))


# Settings


def _options(fields: _Body, value: dict[str, Any], dropped: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if fields.max_output_tokens is not None:
        # The name that every server knows; at OpenAI's own address the protocol writes the newer one.
        made["max_tokens"] = fields.max_output_tokens
    if fields.truncation not in (None, "disabled"):
        made["truncation"] = fields.truncation
    if fields.tools:
        made["tools"] = [_tool(tool, f"tools[{i}]", dropped) for i, tool in enumerate(fields.tools)]
    if fields.tool_choice is not None:
        made["tool_choice"] = _tool_choice(fields.tool_choice)
    streaming = fields.stream_options or {}
    dropped.extend(f"stream_options.{name}" for name in sorted(streaming.keys() - {"include_obfuscation"}))
    return made | _text(fields.text, value) | _reasoning(fields.reasoning, value) | _include(fields.include)


def _rest(value: Any, shape: type[Struct]) -> dict[str, Any]:
    """The fields of an object that its shape does not know."""
    return {name: item for name, item in value.items() if name not in shape.__struct_fields__ and item is not None}


def _text(text: _Text | None, value: dict[str, Any]) -> dict[str, Any]:
    if text is None:
        return {}
    made: dict[str, Any] = {} if text.verbosity is None else {"verbosity": text.verbosity}
    match text.format:
        case None | {"type": "text"}:
            pass
        case {"type": "json_object"}:
            made["response_format"] = {"type": "json_object"}
        case {"type": "json_schema", "name": str(name), "schema": dict()} if name:
            form = {key: item for key, item in text.format.items() if key != "type" and item is not None}
            made["response_format"] = {"type": "json_schema", "json_schema": form}
        case {"type": "json_schema"}:
            raise wrong("text.format", "a json_schema has a name and a schema")
        case _:
            raise wrong("text.format.type", "text, json_object or json_schema")
    if rest := _rest(value["text"], _Text):
        made["text"] = rest
    return made


def _reasoning(reasoning: _Reasoning | None, value: dict[str, Any]) -> dict[str, Any]:
    """The effort. What a model tells of its reasoning is shown as its summary, whatever `summary` asks for."""
    if reasoning is None:
        return {}
    made: dict[str, Any] = {} if reasoning.effort is None else {"reasoning_effort": reasoning.effort}
    if rest := _rest(value["reasoning"], _Reasoning):
        made["reasoning"] = rest
    return made


def _include(include: list[str] | None) -> dict[str, Any]:
    wanted = [name for name in include or () if name not in _NOTHING_TO_INCLUDE]
    if "message.output_text.logprobs" not in wanted:
        return {"include": wanted} if wanted else {}
    wanted.remove("message.output_text.logprobs")
    return {"logprobs": True, **({"include": wanted} if wanted else {})}


_TOOL_FIELDS = frozenset({"type", "name", "description", "parameters", "strict"})


def _tool(tool: dict[str, Any], where: str, dropped: list[str]) -> dict[str, Any]:
    kind, name, parameters = tool.get("type"), tool.get("name"), tool.get("parameters")
    if not isinstance(kind, str):
        raise wrong(f"{where}.type", "function, the only type of tool that is served here")
    if kind != "function":
        raise UnsupportedFeature(f"{where}: tools of type {kind!r} are not supported, only functions", feature=kind)
    if not isinstance(name, str) or not name:
        raise wrong(f"{where}.name", "the name of the function is needed")
    if not isinstance(parameters, dict | None):
        raise wrong(f"{where}.parameters", "a JSON schema")
    if not isinstance(tool.get("description"), str | None):
        raise wrong(f"{where}.description", "a text")
    if not isinstance(tool.get("strict"), bool | None):
        raise wrong(f"{where}.strict", "true or false")
    dropped.extend(f"{where}.{extra}" for extra in sorted(tool.keys() - _TOOL_FIELDS) if tool[extra] is not None)
    function = {key: tool[key] for key in ("name", "description", "parameters", "strict") if tool.get(key) is not None}
    return {"type": "function", "function": function}


def _tool_choice(choice: str | dict[str, Any]) -> str | dict[str, Any]:
    match choice:
        case "auto" | "none" | "required":
            return choice
        case {"type": "function", "name": str(name)} if name:
            return {"type": "function", "function": {"name": name}}
        case {"type": "function"}:
            raise wrong("tool_choice.name", "the name of one of the functions is needed")
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(tools)}:
            allowed = [_allowed(tool, f"tool_choice.tools[{i}]") for i, tool in enumerate(tools)]
            return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": allowed}}
        case {"type": "allowed_tools"}:
            raise wrong("tool_choice", "allowed_tools has a mode, auto or required, and a list of tools")
        case {"type": str(kind)}:
            raise UnsupportedFeature(f"tool_choice: tools of type {kind!r} are not supported", feature=kind)
    raise wrong("tool_choice", 'auto, none, required, or {"type": "function", "name": ...}')


def _allowed(tool: Any, where: str) -> dict[str, Any]:
    match tool:
        case {"type": "function", "name": str(name)} if name:
            return {"type": "function", "function": {"name": name}}
        case {"type": str(kind)} if kind != "function":
            raise UnsupportedFeature(f"{where}: tools of type {kind!r} are not supported", feature=kind)
    raise wrong(where, "a function with its name")


def _echo(fields: _Body, value: dict[str, Any], dropped: list[str]) -> dict[str, Any]:
    reasoning, text = fields.reasoning or _Reasoning(), fields.text or _Text()
    told: dict[str, Any] = {
        "background": False,
        "instructions": fields.instructions,
        "max_output_tokens": fields.max_output_tokens,
        "max_tool_calls": fields.max_tool_calls,
        "metadata": fields.metadata or {},
        "parallel_tool_calls": fields.parallel_tool_calls is not False,
        "previous_response_id": fields.previous_response_id,
        "reasoning": {"effort": reasoning.effort, "summary": reasoning.summary},
        "store": fields.store is not False,
        "temperature": fields.temperature,
        "text": {"format": text.format or {"type": "text"}},
        "tool_choice": "auto" if fields.tool_choice is None else fields.tool_choice,
        "tools": fields.tools or [],
        "top_p": fields.top_p,
        "truncation": fields.truncation or "disabled",
        "user": fields.user,
    }
    if text.verbosity is not None:
        told["text"]["verbosity"] = text.verbosity
    for name in ("safety_identifier", "prompt_cache_key", "top_logprobs"):
        if value.get(name) is not None:
            told[name] = value[name]
    echo: dict[str, Any] = {name: told[name] for name in ("previous_response_id", "store", "instructions")}
    if dropped:
        echo["dropped"] = tuple(dropped)
    return {"response": told, **echo}


# Items


def _input(given: str | list[dict[str, Any]], dropped: list[str]) -> list[Message]:
    if isinstance(given, str):
        return [Message("user", given)] if given else []
    made: list[Message] = []
    for i, item in enumerate(given):
        _add_item(made, item, f"input[{i}]", dropped)
    return made


def _add_item(made: list[Message], item: dict[str, Any], where: str, dropped: list[str]) -> None:
    kind = item.get("type")
    if kind is None:
        kind = "item_reference" if "id" in item and "role" not in item else "message"
    if kind == "message":
        made.append(_message(item, where))
    elif kind == "function_call":
        call = _call(item, where)
        if made and made[-1].role == "assistant":
            last = made.pop()
            made.append(msgspec.structs.replace(last, tool_calls=(*last.tool_calls, call)))
        else:
            made.append(Message("assistant", tool_calls=(call,)))
    elif kind == "function_call_output":
        made.append(_call_output(item, where))
    elif kind == "reasoning":
        if item.get("encrypted_content"):
            dropped.append(where)
    elif isinstance(kind, str):
        raise UnsupportedFeature(f"{where}: items of type {kind!r} are not supported here", feature=kind)
    else:
        raise wrong(f"{where}.type", "a text such as message")


_ROLES = frozenset({"user", "assistant", "system", "developer"})


def _message(item: dict[str, Any], where: str) -> Message:
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise wrong(f"{where}.role", f"one of {', '.join(sorted(_ROLES))}")
    return Message(role, _content(item.get("content"), f"{where}.content"))


def _content(content: Any, where: str) -> str | tuple[Part, ...]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong(where, "a text or a list of parts")
    parts = tuple(_part(part, f"{where}[{i}]") for i, part in enumerate(content))
    if not parts:
        return ""
    first = parts[0]
    return first.text if len(parts) == 1 and isinstance(first, Text) else parts


def _part(part: Any, where: str) -> Part:
    match part:
        case {"type": "input_text" | "output_text" | "text", "text": str(text)} | {
            "type": "refusal",
            "refusal": str(text),
        }:
            return Text(text)
        case {"type": "input_text" | "output_text" | "text" | "refusal"}:
            raise wrong(f"{where}.text", "a text is needed")
        case {"type": "input_image", "image_url": str(url)} if url:
            detail = part.get("detail")
            if not isinstance(detail, str | None):
                raise wrong(f"{where}.detail", "low, high or auto")
            return Image(url, detail)
        case {"type": "input_image", "file_id": str()}:
            raise UnsupportedFeature(f"{where}: pictures from files are not supported", feature="file_id")
        case {"type": "input_image"}:
            raise wrong(f"{where}.image_url", "an https address, or a data: URL")
        case {"type": str(kind)}:
            raise UnsupportedFeature(f"{where}: parts of type {kind!r} are not supported here", feature=kind)
    raise wrong(where, 'a part is an object with a type, such as {"type": "input_text", "text": "..."}')


def _call(item: dict[str, Any], where: str) -> ToolCall:
    for field in ("call_id", "name"):
        if not isinstance(item.get(field), str) or not item[field]:
            raise wrong(f"{where}.{field}", "a text is needed")
    if not isinstance(item.get("arguments"), str):
        raise wrong(f"{where}.arguments", "JSON as a text")
    return ToolCall(item["call_id"], item["name"], item["arguments"])


def _call_output(item: dict[str, Any], where: str) -> Message:
    id = item.get("call_id")
    if not isinstance(id, str) or not id:
        raise wrong(f"{where}.call_id", "the id of the call that this answers")
    return Message("tool", _content(item.get("output"), f"{where}.output"), tool_call_id=id)


# Earlier responses


def continued(asked: Asked, earlier: tuple[Message, ...]) -> Asked:
    """The question after an earlier response, whose messages (`remembered`) are put behind the instructions."""
    at = 1 if asked.echo.get("instructions") else 0
    messages = (*asked.turn.messages[:at], *earlier, *asked.turn.messages[at:])
    return msgspec.structs.replace(asked, turn=msgspec.structs.replace(asked.turn, messages=messages))


def call_id(event: ToolCallDelta, label: Label) -> str:
    """The id of a call that begins with this event; made up where the service gave none."""
    return event.id or f"call_{label.id}{event.index}"


def remembered(asked: Asked, events: Iterable[Event], label: Label) -> tuple[Message, ...]:
    """The messages to go on from: all but the instructions, and the answer with this label."""
    text = AnswerText()
    calls: dict[int, ToolCall] = {}
    for event in events:
        text.feed(event)
        if isinstance(event, ToolCallDelta):
            known = calls.get(event.index) or ToolCall(call_id(event, label), event.name or "", "")
            calls[event.index] = ToolCall(known.id, known.name, known.arguments + event.arguments)
    at = 1 if asked.echo.get("instructions") else 0
    answer = Message("assistant", str(text), tool_calls=tuple(calls[index] for index in sorted(calls)))
    return (*asked.turn.messages[at:], answer)
