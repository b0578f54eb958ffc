"""Tools and JSON answers for services that know only text: asked for in words, read out of the answer, checked.

What the caller asks for by `tools` and `response_format` goes into the conversation as an
instruction; calls and results of earlier turns stand in it as text. The answer is checked: calls
against their tools' schemas, JSON against the schema asked for. What does not hold is asked for
once more, with the reason. A second failure is an error where the caller insisted (`tool_choice`
of `required` or a name, JSON), else the broken block goes out as text, with a notice.

Text before a call goes out as it comes. Where the whole answer must be right (JSON, or a call that
must come) it is held back until it has been checked.
"""

import json
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct

from tolmach.chat import (
    ChatRequest,
    Conversation,
    Delta,
    Done,
    Event,
    FinishReason,
    Image,
    Message,
    Notice,
    Part,
    Text,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from tolmach.errors import ProviderUnavailable, TruncatedAnswer, UnsupportedFeature
from tolmach.gateway.emulation.schema import Schema
from tolmach.gateway.emulation.written_calls import BrokenCalls, CallScanner, WrittenCall, parse_strictly, read_calls
from tolmach.gateway.surfaces.bodies import wrong
from tolmach.protocols.bodies import clean

__all__ = ["EMULATED", "AnswerReader", "Emulation", "answer", "emulate"]

EMULATED = frozenset({"tools", "json"})
"""What can be emulated."""

_TOOL_OPTIONS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})

Ask = Callable[[ChatRequest], AsyncGenerator[Event, None]]


class _Tool(Struct, frozen=True):
    name: str
    described: dict[str, Any]
    """Name, description and parameters, as the model is told."""
    schema: Schema


class _Json(Struct, frozen=True):
    """The JSON that the answer must be; any object without a schema."""

    schema: Schema | None = None
    written: Any = None


def emulate(turn: ChatRequest, what: frozenset[str] = EMULATED) -> "Emulation | None":
    """The turn with tools and JSON put into words; None where it asks for nothing that `what` names.

    Raises `BadRequest` or `UnsupportedFeature` that names the field, for tools, choices and schemas.
    """
    tools: dict[str, _Tool] = {}
    choice = "auto"
    spoken = "tools" in what and any(m.tool_calls or m.role in ("tool", "function") for m in turn.messages)
    if "tools" in what and turn.options.get("tools"):
        tools = _tools(turn.options["tools"])
        choice = _choice(turn.options.get("tool_choice"), tools)
    form = _json_form(turn.options.get("response_format")) if "json" in what else None
    if not (tools or spoken or form):
        return None
    return Emulation(turn, tools if choice != "none" else {}, choice, form, what)


def _tools(raw: Any) -> dict[str, _Tool]:
    if not isinstance(raw, list | tuple):
        raise wrong("tools", "a list of tools")
    tools = {}
    for i, item in enumerate(raw):
        where = f"tools[{i}]"
        match item:
            case {"type": "function", "function": {"name": str(name), **rest}} if name:
                parameters = rest.get("parameters")
                schema = Schema({} if parameters is None else parameters, f"{where}.function.parameters")
                described = {"name": name, "description": rest.get("description"), "parameters": parameters}
                tools[name] = _Tool(name, {k: v for k, v in described.items() if v is not None}, schema)
            case {"type": "function"}:
                raise wrong(f"{where}.function.name", "a tool has a name")
            case {"type": str(kind)}:
                raise UnsupportedFeature(f"{where}: tools of type {kind!r} cannot be emulated", feature=where)
            case _:
                raise wrong(where, "an object with type and function")
    return tools


def _choice(raw: Any, tools: dict[str, _Tool]) -> str:
    """`auto`, `none`, `required`, or `=` and the name of the tool that must be called."""
    match raw:
        case None:
            return "auto"
        case "auto" | "none" | "required":
            return str(raw)
        case {"type": "function", "function": {"name": str(name)}}:
            if name not in tools:
                raise wrong("tool_choice", f"there is no tool {name!r}")
            return f"={name}"
    raise wrong("tool_choice", 'auto, none, required, or {"type": "function", "function": {"name": ...}}')


def _json_form(raw: Any) -> _Json | None:
    match raw:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return _Json()
        case {"type": "json_schema", "json_schema": {"schema": schema}} if schema is not None:
            return _Json(Schema(schema, "response_format.json_schema.schema"), schema)
        case {"type": "json_schema"}:
            raise wrong("response_format.json_schema.schema", "the schema of the answer is needed")
    raise wrong("response_format", "its type is text, json_object or json_schema")


# The question in words

_TOOLS = """\
You can call tools. These are the tools, one in a line, each with the JSON schema of its arguments:
{tools}

To call tools, write a block of exactly this form at the end of your answer, and nothing behind it:
```tool_calls
[{{"name": "<name of the tool>", "arguments": {{<arguments that fit the tool's schema>}}}}]
```
The block holds valid JSON: a list with {count}. Its first and last line stand alone. Call only the tools \
listed above, and only where you need them; else answer as usual, without such a block. You are then given what \
they returned in a `tool_results` block; never write one of these yourself."""

_MUST = "You must call {which} now: answer with a `tool_calls` block in the form you were told."
_AS_JSON = "Answer with one JSON {kind} and nothing else: no other words, and no code fence.{schema}"
_AGAIN_CALLS = """\
Your last answer cannot be used: {problem}.
Answer once more, with nothing but the corrected `tool_calls` block."""
_AGAIN_JSON = """\
Your last answer cannot be used: {problem}.
Answer once more, with nothing but the corrected JSON: no other words, and no code fence."""


def _dump(value: Any) -> str:
    return clean(json.dumps(value, ensure_ascii=False))


def _spoken(messages: Sequence[Message]) -> list[Message]:
    """The messages with calls as the blocks that the model writes, and results as a user's message."""
    out: list[Message] = []
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    results: list[Message] = []
    for message in messages:
        if message.role in ("tool", "function"):
            results.append(message)
            continue
        if results and message.role == "user":
            # One message of the user's, since some services want the roles to take turns.
            given = _results(results, names)
            message = msgspec.structs.replace(message, content=_behind(given.content, message.content))
        elif results:
            out.append(_results(results, names))
        results = []
        if message.tool_calls:
            block = _block("tool_calls", [_written(message.tool_calls)])
            out.append(Message(message.role, f"{message.text}\n\n{block}" if message.text else block))
        else:
            out.append(message)
    return [*out, _results(results, names)] if results else out


def _results(results: Sequence[Message], names: dict[str, str]) -> Message:
    """The results of calls as a user's message, with their pictures behind."""
    lines = []
    pictures: list[Part] = []
    for result in results:
        call_id = result.tool_call_id or ""
        name = result.name or names.get(call_id, "")
        lines.append(_dump({"name": name, "id": call_id, "result": result.text}))
        if not isinstance(result.content, str):
            pictures += [part for part in result.content if isinstance(part, Image)]
    block = _block("tool_results", lines)
    return Message("user", (Text(block), *pictures) if pictures else block)


def _block(language: str, lines: list[str]) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _written(calls: Sequence[ToolCall]) -> str:
    return f"[{', '.join(_dump({'name': call.name, 'arguments': _arguments(call)}) for call in calls)}]"


def _arguments(call: ToolCall) -> Any:
    try:
        return parse_strictly(call.arguments) if call.arguments.strip() else {}
    except ValueError:
        return call.arguments  # as the model wrote it, wrong as it is


def _behind(first: str | tuple[Part, ...], second: str | tuple[Part, ...]) -> str | tuple[Part, ...]:
    """Two contents as one, with an empty line between them."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    before = (Text(first),) if isinstance(first, str) else first
    behind = (Text(second),) if isinstance(second, str) else second
    return (*before, Text("\n\n"), *behind)


def _with_system(messages: list[Message], text: str) -> list[Message]:
    if messages and messages[0].role in ("system", "developer"):
        return [Message(messages[0].role, f"{messages[0].text}\n\n{text}"), *messages[1:]]
    return [Message("system", text), *messages]


def _with_reminder(messages: list[Message], text: str) -> list[Message]:
    """The messages with words of the caller's behind the last one, where the model heeds them most."""
    last = messages[-1]
    if last.role != "user":
        return [*messages, Message("user", text)]
    return [*messages[:-1], msgspec.structs.replace(last, content=_behind(last.content, text))]


class Emulation:
    """One turn whose tools or JSON are emulated.

    `turn` is what to ask the service; `notices` is what the caller should know.
    """

    def __init__(
        self, turn: ChatRequest, tools: dict[str, _Tool], choice: str, form: _Json | None, what: frozenset[str]
    ) -> None:
        self.tools = tools
        self.form = form
        self.must_call = bool(tools) and choice != "auto"
        self.only = choice[1:] if choice.startswith("=") else None
        self.parallel = turn.options.get("parallel_tool_calls") is not False
        gone = (_TOOL_OPTIONS if "tools" in what else frozenset()) | ({"response_format"} if "json" in what else set())
        options = {name: value for name, value in turn.options.items() if name not in gone}
        self.turn = msgspec.structs.replace(turn, messages=self._messages(turn, "tools" in what), options=options)
        schemas = [tool.schema for tool in tools.values()] + ([form.schema] if form and form.schema else [])
        unchecked = sorted({keyword for schema in schemas for keyword in schema.unchecked})
        notices = [Notice("emulated", "tools are emulated")] if tools else []
        notices += [Notice("emulated", "JSON answers are emulated")] if form else []
        if unchecked:
            text = f"the check of the schema's {' and '.join(unchecked)} was left out; the model was told of it"
            notices.append(Notice("dropped", text))
        self.notices = tuple(notices)

    def _messages(self, turn: ChatRequest, speak: bool) -> tuple[Message, ...]:
        messages = _spoken(turn.messages) if speak else list(turn.messages)
        if self.tools:
            count = "one object for each call" if self.parallel else "exactly one object"
            tools = "\n".join(_dump(tool.described) for tool in self.tools.values())
            messages = _with_system(messages, _TOOLS.format(tools=tools, count=count))
        if reminder := self._reminder():
            messages = _with_reminder(messages, reminder)
        return tuple(messages)

    def _reminder(self) -> str:
        if self.must_call:
            return _MUST.format(which=f"the tool `{self.only}`" if self.only else "at least one of your tools")
        if self.form is None:
            return ""
        schema = self.form.written
        words = _AS_JSON.format(
            kind="object" if self.form.schema is None else "value",
            schema="" if self.form.schema is None else f" It must fit this JSON schema:\n{_dump(schema)}",
        )
        return f"Unless you call a tool: {words}" if self.tools else words

    def reader(self, make_id: Callable[[], str], first: "AnswerReader | None" = None) -> "AnswerReader":
        """What reads the answer; for the answer to `repair`, with the reader of the first one.

        `make_id` gives the ids of calls, such as `call_` and 24 random characters.
        """
        return AnswerReader(self, make_id, first)

    def repair(self, reader: "AnswerReader") -> ChatRequest:
        """The question that asks once more, after an answer with a `problem`."""
        again = _AGAIN_JSON if self.form is not None and not reader.called and not self.must_call else _AGAIN_CALLS
        asked = Message("user", again.format(problem=reader.problem))
        messages = (*self.turn.messages, Message("assistant", reader.answer), asked)
        conversation = reader.conversation or self.turn.conversation
        return msgspec.structs.replace(self.turn, messages=messages, conversation=conversation)


class AnswerReader:
    """Reads one answer of a text-only service: its events in, the events that the caller was promised out.

    When the answer has ended without `Done`, `problem` says what is wrong with it: ask for a repair.
    The reader of a repair has no problem: it raises `ProviderUnavailable` with the code
    `invalid_json`, or gives the first answer's block as text.
    """

    def __init__(self, emulation: Emulation, make_id: Callable[[], str], first: "AnswerReader | None") -> None:
        self._emulation = emulation
        self._make_id = make_id
        self._first = first
        self._usage: Usage | None = None
        self._refused = False
        self._names = frozenset(emulation.tools)
        # A repair's words are for us; the answer to be checked must not go out before.
        self._holding = first is not None or emulation.form is not None or emulation.must_call
        self.problem: str | None = None
        self.conversation: Conversation | None = None
        self._restart()

    def _restart(self) -> None:
        self._scanner = CallScanner(self._names)
        self._whole: list[str] = []
        self._kept: list[str] = []
        self._sent = False

    @property
    def answer(self) -> str:
        """The text of the answer, as the service gave it."""
        return "".join(self._whole)

    @property
    def called(self) -> bool:
        """Whether the answer has what looks like a call."""
        return bool(self._scanner.held)

    def feed(self, event: Event) -> Iterator[Event]:
        match event:
            case Delta(text):
                yield from self._text(text)
            case Notice("rewritten", text):
                sent = self._sent
                self._restart()
                again = "".join(e.text for e in self._text(text) if isinstance(e, Delta))
                self._sent = sent or self._sent
                if sent:
                    yield Notice("rewritten", again)
                elif again:
                    yield Delta(again)
            case Usage():
                self._usage = event
            case Conversation():
                self.conversation = event
            case Done(reason):
                yield from self._end(reason)
            case _:
                self._refused = self._refused or (isinstance(event, Notice) and event.kind == "refusal")
                yield event

    def _text(self, piece: str) -> Iterator[Event]:
        self._whole.append(piece)
        out = self._scanner.feed(piece) if self._names else piece
        if out and self._holding:
            self._kept.append(out)
        elif out:
            self._sent = True
            yield Delta(out)

    def _end(self, reason: FinishReason) -> Iterator[Event]:
        text = "".join(self._kept) + self._scanner.close()
        cut_short = reason in ("length", "content_filter")
        calls: list[WrittenCall] = []
        notices: list[Notice] = []
        try:
            if self._scanner.held:
                calls, behind = self._read(notices)
                if calls and behind:
                    notices.append(Notice("dropped", "what the model wrote behind its calls was left out"))
                elif behind:
                    text += behind
            if self._refused or (cut_short and not calls):
                pass  # the service's own end says why there is no more
            elif not calls:
                text = self._checked_text(text)
        except BrokenCalls as error:
            if not cut_short:
                yield from self._failed(str(error), reason)
                return
            text += self._scanner.held
            notices.append(Notice("tool_calls", "the answer ended inside a tool call; it is given as text"))
        yield from self._good(text, calls, notices, "tool_calls" if calls else reason)

    def _good(
        self, text: str, calls: list[WrittenCall], notices: list[Notice], reason: FinishReason
    ) -> Iterator[Event]:
        yield from notices
        if text and not (calls and self._first is not None):
            yield Delta(text)
        for index, call in enumerate(calls):
            yield ToolCallDelta(index, self._make_id(), call.name, _dump(call.arguments))
        yield from self._close(reason)

    def _close(self, reason: FinishReason) -> Iterator[Event]:
        usage = self._usage
        if self._first is not None:
            usage = _added(self._first._usage, usage)
        if usage is not None:
            yield usage
        conversation = self.conversation or (self._first.conversation if self._first else None)
        if conversation is not None:
            yield conversation
        yield Done(reason)

    def _read(self, notices: list[Notice]) -> tuple[list[WrittenCall], str]:
        """The calls in the answer, checked. Raises `BrokenCalls`."""
        emulation = self._emulation
        calls, behind = read_calls(self._scanner.held, self._names)
        for call in calls:
            tool = emulation.tools.get(call.name)
            if tool is None:
                raise BrokenCalls(f"there is no tool {call.name!r}; there are: {', '.join(sorted(self._names))}")
            if emulation.only and call.name != emulation.only:
                raise BrokenCalls(f"the tool to call is {emulation.only!r}, not {call.name!r}")
            if problem := tool.schema.problem(call.arguments):
                raise BrokenCalls(f"the arguments of {call.name} do not fit its schema: {problem}")
        if len(calls) > 1 and not emulation.parallel:
            notices.append(Notice("dropped", "more calls than the one allowed; the first counts"))
            calls = calls[:1]
        return calls, behind

    def _checked_text(self, text: str) -> str:
        """The text of an answer without calls, where that is allowed. Raises `BrokenCalls`."""
        emulation = self._emulation
        if emulation.must_call:
            raise BrokenCalls(f"the tool {emulation.only!r} was not called" if emulation.only else "no tool was called")
        return text if emulation.form is None else _checked_json(text, emulation.form)

    def _failed(self, problem: str, reason: FinishReason) -> Iterator[Event]:
        if self._first is None:
            self.problem = clean(problem)
            return
        if self._emulation.must_call or self._emulation.form is not None:
            raise ProviderUnavailable(f"the model's answer cannot be used: {clean(problem)}", code="invalid_json")
        first = self._first
        notice = Notice("tool_calls", f"the model's call cannot be used ({clean(problem)}); it is given as text")
        yield from self._good(first._scanner.held, [], [notice], reason)


def _added(first: Usage | None, second: Usage | None) -> Usage | None:
    if first is None or second is None:
        return None  # half of it would be wrong
    return Usage(
        first.prompt_tokens + second.prompt_tokens,
        first.completion_tokens + second.completion_tokens,
        first.total_tokens + second.total_tokens,
        first.estimated or second.estimated,
        first.cached_tokens + second.cached_tokens,
        first.reasoning_tokens + second.reasoning_tokens,
    )


def _checked_json(text: str, form: _Json) -> str:
    """The JSON in a text. Raises `BrokenCalls` that says why there is none, or what does not fit."""
    problem = ""
    for candidate in _candidates(text):
        try:
            value = parse_strictly(candidate)
        except ValueError as error:
            problem = problem or f"it is not valid JSON: {error}"
            continue
        if form.schema is None:
            found = None if isinstance(value, dict) else "it must be a JSON object"
        else:
            found = form.schema.problem(value)
        if found is None:
            return candidate
        raise BrokenCalls(found)
    raise BrokenCalls(problem)


def _candidates(text: str) -> Iterator[str]:
    """The text itself, without a fence around it, and from its first bracket to its last."""
    text = text.strip()
    yield text
    if text.startswith("```") and text.endswith("```"):
        yield text.partition("\n")[2].removesuffix("```").strip()
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    if starts:
        start = min(starts)
        yield text[start : text.rfind("}" if text[start] == "{" else "]") + 1]


async def answer(emulation: Emulation, ask: Ask, make_id: Callable[[], str]) -> AsyncGenerator[Event, None]:
    """The events of the answer, with one repair where it is needed. `ask` puts a question to the service."""
    for notice in emulation.notices:
        yield notice
    reader = emulation.reader(make_id)
    turn = emulation.turn
    while True:
        async with aclosing(ask(turn)) as events:
            async for event in events:
                for out in reader.feed(event):
                    yield out
                    if isinstance(out, Done):
                        return
        if reader.problem is None:
            raise TruncatedAnswer(partial=reader.answer)
        turn, reader = emulation.repair(reader), emulation.reader(make_id, reader)
