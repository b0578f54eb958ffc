"""A question and the events of its answer, in words that no protocol owns.

The option names are those of the OpenAI chat completions API, which most callers know.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct, field

from tolmach.errors import ConfigError, UnsupportedFeature

__all__ = [
    "AnswerText",
    "ChatRequest",
    "Conversation",
    "Delta",
    "Done",
    "Event",
    "FinishReason",
    "Image",
    "Message",
    "Messages",
    "Notice",
    "Part",
    "Reasoning",
    "Text",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
    "admit",
    "fold_system",
    "format_prompt",
    "new_messages",
    "parse_messages",
]

Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""Messages as callers write them: `[{"role": "user", "content": "Hello"}]`."""

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Text(Struct, frozen=True, tag="text"):
    """A part of a message that is text."""

    text: str


class Image(Struct, frozen=True, tag="image"):
    """A part of a message that is a picture: an https address, or a `data:` URL with base64."""

    url: str
    detail: str | None = None


Part = Text | Image


class ToolCall(Struct, frozen=True):
    """A call that the model asked for; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


class Message(Struct, frozen=True, omit_defaults=True):
    """One turn of a conversation."""

    role: str
    content: str | tuple[Part, ...] = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text of all parts, joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, Text))


class Conversation(Struct, frozen=True, tag="conversation"):
    """The service's own conversation after this answer; give it back with the next question."""

    state: dict[str, str]


class ChatRequest(Struct, frozen=True, kw_only=True):
    """One question. `options` are the caller's further parameters by their OpenAI names."""

    messages: tuple[Message, ...]
    model: str = ""
    stream: bool = True
    conversation: Conversation | None = None
    options: dict[str, Any] = field(default_factory=dict)


# Events are made for every piece of every answer: frozen structs, and outside the garbage
# collector where they hold nothing that could form a cycle.


class Delta(Struct, frozen=True, gc=False, tag="delta"):
    """A piece of the answer's text. It always encodes to UTF-8."""

    text: str


class Reasoning(Struct, frozen=True, gc=False, tag="reasoning"):
    """A piece of what the model thinks aloud; not part of the answer."""

    text: str


class ToolCallDelta(Struct, frozen=True, gc=False, tag="tool_call"):
    """A piece of a tool call: the first of an `index` names it, the others add `arguments`."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class Usage(Struct, frozen=True, gc=False, tag="usage"):
    """Tokens counted by the service; `estimated` when it says that it guessed.

    `cached_tokens` are those of the prompt that came out of the service's cache, `reasoning_tokens` those of
    the completion that the model spent thinking; 0 where the service does not say.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    estimated: bool = False
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Notice(Struct, frozen=True, gc=False, tag="notice"):
    """Something the caller should know that is not part of the answer."""

    kind: str
    text: str


class Done(Struct, frozen=True, gc=False, tag="done"):
    """The answer is whole. Nothing follows."""

    reason: FinishReason = "stop"


Event = Delta | Reasoning | ToolCallDelta | Usage | Conversation | Notice | Done


class AnswerText:
    """The answer's text, from its events: the pieces joined.

    A notice of the kind `rewritten` holds the whole text so far, where the service took back what
    it had sent; what came before it no longer counts.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def feed(self, event: Event) -> None:
        if isinstance(event, Delta):
            self._pieces.append(event.text)
        elif isinstance(event, Notice) and event.kind == "rewritten":
            self._pieces = [event.text]

    def __str__(self) -> str:
        return "".join(self._pieces)


def _parse_part(part: Any, where: str) -> Part:
    match part:
        case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
            return Text(_whole_characters(text))
        case {"type": "image_url", "image_url": {"url": str(url), **rest}}:
            detail = rest.get("detail")
            return Image(url, detail if isinstance(detail, str) else None)
        case {"type": "image_url" | "input_image", "image_url": str(url)}:
            return Image(url)
        case {"type": "text" | "input_text" | "output_text" | "image_url" | "input_image"}:
            raise ConfigError(f"{where}: a text part has a text, a picture part an image_url with a url")
        case {"type": str(kind)}:
            raise UnsupportedFeature(f"{where}: parts of type {kind!r} are not supported", feature=kind)
    raise ConfigError(f"{where}: a part is an object with a type, such as {{'type': 'text', 'text': ...}}")


def _parse_content(content: Any, where: str) -> str | tuple[Part, ...]:
    if content is None:
        return ""
    if isinstance(content, str):
        return _whole_characters(content)
    if isinstance(content, Sequence):
        return tuple(_parse_part(part, f"{where}[{i}]") for i, part in enumerate(content))
    raise ConfigError(f"{where}: text or a list of parts, not {type(content).__name__}")


def _whole_characters(text: str) -> str:
    """The text with halves of surrogate pairs joined, and lone ones replaced by U+FFFD: it encodes to UTF-8."""
    if text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _parse_tool_calls(calls: Any, where: str) -> tuple[ToolCall, ...]:
    if calls is None:
        return ()
    if not isinstance(calls, Sequence) or isinstance(calls, str | bytes):
        raise ConfigError(f"{where}: a list of tool calls, not {type(calls).__name__}")
    out = []
    for i, call in enumerate(calls):
        match call:
            case {"id": str(id), "function": {"name": str(name), "arguments": str(arguments)}}:
                out.append(ToolCall(id, name, _whole_characters(arguments)))
            case _:
                raise ConfigError(f"{where}[{i}]: a tool call has id and function.name, function.arguments")
    return tuple(out)


def parse_messages(messages: Messages | Iterable[Message]) -> tuple[Message, ...]:
    """Messages as values. Raises `ConfigError` that names the place of what is wrong."""
    if isinstance(messages, str | bytes | Mapping):
        raise ConfigError('messages: a list such as [{"role": "user", "content": "..."}]')
    out = []
    for i, message in enumerate(messages):
        if isinstance(message, Message):
            out.append(message)
            continue
        where = f"messages[{i}]"
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ConfigError(f"{where}: an object with a role and content")
        name, call_id = message.get("name"), message.get("tool_call_id")
        out.append(
            Message(
                role=message["role"],
                content=_parse_content(message.get("content"), f"{where}.content"),
                name=name if isinstance(name, str) else None,
                tool_calls=_parse_tool_calls(message.get("tool_calls"), f"{where}.tool_calls"),
                tool_call_id=call_id if isinstance(call_id, str) else None,
            )
        )
    if not out:
        raise ConfigError("messages: at least one message is needed")
    return tuple(out)


def format_prompt(messages: Messages | Iterable[Message], add_special_tokens: bool = False) -> str:
    """The conversation as one text, for services that take only one.

    One message stands for itself; several become `Role: text` lines that end with `Assistant:`.
    """
    parsed = parse_messages(messages)
    if len(parsed) == 1 and not add_special_tokens:
        return parsed[0].text
    lines = "\n".join(f"{message.role.capitalize()}: {message.text}" for message in parsed)
    return f"{lines}\nAssistant:"


def fold_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """User and assistant turns only: system and developer texts go in front of the first user message."""
    system = "\n\n".join(m.text for m in messages if m.role in ("system", "developer") and m.text)
    turns = [m for m in messages if m.role not in ("system", "developer")]
    if system:
        at = next((i for i, m in enumerate(turns) if m.role == "user"), None)
        if at is None:
            turns.insert(0, Message("user", system))
        else:
            turns[at] = msgspec.structs.replace(turns[at], content=_prefixed(system, turns[at].content))
    return tuple(turns)


def _prefixed(text: str, content: str | tuple[Part, ...]) -> str | tuple[Part, ...]:
    if isinstance(content, str):
        return f"{text}\n\n{content}"
    return (Text(f"{text}\n\n"), *content)


def new_messages(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """What the caller added since the last answer: the messages after the last assistant's."""
    for i in range(len(messages) - 1, -1, -1):
        if messages[i].role == "assistant":
            return messages[i + 1 :] or messages[-1:]
    return messages


# A value that asks for nothing: passing it is not using the feature.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "stream_options": ({}, {"include_usage": True}, {"include_usage": False}),
    "tools": ([], ()),
    "functions": ([], ()),
    "tool_choice": ("auto", "none"),
    "stop": ([], ""),
    "response_format": ({"type": "text"},),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "top_p": (1,),
    "store": (False,),
    "modalities": (["text"],),
    "thinking": ({"type": "disabled"},),
}


def admit(
    turn: ChatRequest, features: frozenset[str], *, who: str, strict: bool | Set[str] = True
) -> tuple[ChatRequest, tuple[Notice, ...]]:
    """The turn with only what the provider honours, and a notice for each thing dropped.

    `features` are option names, `images`, or `*` for all. In strict mode what cannot be honoured
    raises `UnsupportedFeature` that names it; as a set, `strict` holds for these names only (options,
    `images`, `tool messages`). A neutral value (`n=1`, `tools=[]`) asks for nothing.
    """
    if "*" in features:
        return turn, ()
    dropped = []
    kept = {}
    for name, value in turn.options.items():
        if name in features and value is not None:
            kept[name] = value
        elif value is not None and value not in _NEUTRAL.get(name, ()):
            dropped.append(name)
    messages = turn.messages
    if "images" not in features and any(_has_image(m) for m in messages):
        dropped.append("images")
        messages = tuple(_without_images(m) for m in messages)
    if "tools" not in features and any(m.tool_calls or m.role in ("tool", "function") for m in messages):
        dropped.append("tool messages")
        messages = tuple(m for m in messages if not (m.tool_calls or m.role in ("tool", "function")))
    refused = [name for name in dropped if strict is True or (strict is not False and name in strict)]
    if refused:
        raise UnsupportedFeature(f"{who} cannot honour: {', '.join(refused)}", feature=refused[0])
    if not messages:
        raise UnsupportedFeature(f"{who}: nothing is left to send without {', '.join(dropped)}", feature=dropped[0])
    notices = tuple(Notice("dropped", f"{who} cannot honour {name!r}; it was left out") for name in dropped)
    if kept != turn.options or messages != turn.messages:
        turn = msgspec.structs.replace(turn, options=kept, messages=messages)
    return turn, notices


def _has_image(message: Message) -> bool:
    return not isinstance(message.content, str) and any(isinstance(part, Image) for part in message.content)


def _without_images(message: Message) -> Message:
    return msgspec.structs.replace(message, content=message.text) if _has_image(message) else message
