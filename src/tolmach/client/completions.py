"""Answers in the shape of the openai package's: `answer.choices[0].message.content`.

The objects are plain data; `model_dump()` and `to_json()` are there as callers know them. Four
things stand in addition: `provider`, `conversation` (give it back to continue the service's own
conversation), `notices`, and the `attempts` of an answer that was routed.
"""

from typing import Literal

from msgspec import field

from tolmach.chat import (
    AnswerText,
    Conversation,
    Delta,
    Done,
    Event,
    FinishReason,
    Notice,
    Reasoning,
    ToolCallDelta,
    Usage,
)
from tolmach.client.shape import Shape

__all__ = [
    "Attempted",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionMessage",
    "Choice",
    "ChoiceDelta",
    "ChunkChoice",
    "Chunks",
    "CompletionUsage",
    "Function",
    "ToolCall",
    "ToolCallChunk",
    "collect",
]


class CompletionUsage(Shape):
    """Tokens of a question and its answer; `estimated` when the service only guessed."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: None = None
    prompt_tokens_details: None = None
    estimated: bool = False


class Attempted(Shape):
    """One asking of one target of a route.

    `target` is `provider/model`, `key` counts its keys from 1, `why` says why it was asked, `error` what it
    failed with. Times are seconds from the question's beginning, None for what did not come.
    """

    target: str
    key: int
    why: str
    outcome: Literal["answered", "failed", "cancelled", "under way"]
    error: str | None
    started: float
    first_token: float | None
    ended: float | None


class Function(Shape):
    """What a tool call calls; `arguments` is JSON text as the model wrote it."""

    name: str | None = None
    arguments: str = ""


class ToolCall(Shape):
    """A whole tool call."""

    id: str
    function: Function
    type: Literal["function"] = "function"


class ToolCallChunk(Shape):
    """A piece of a tool call."""

    index: int
    id: str | None = None
    function: Function | None = None
    type: Literal["function"] | None = None


class ChatCompletionMessage(Shape):
    """The assistant's message."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    annotations: None = None
    audio: None = None
    function_call: None = None


class Choice(Shape):
    """One answer; tolmach gives one."""

    message: ChatCompletionMessage
    finish_reason: FinishReason
    index: int = 0
    logprobs: None = None


class ChatCompletion(Shape):
    """A whole answer."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage | None = None
    object: Literal["chat.completion"] = "chat.completion"
    metadata: None = None
    moderation: None = None
    service_tier: None = None
    system_fingerprint: None = None
    provider: str = ""
    conversation: Conversation | None = None
    notices: list[Notice] = field(default_factory=list)
    attempts: list[Attempted] = field(default_factory=list)


class ChoiceDelta(Shape):
    """What a piece of an answer adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallChunk] | None = None
    audio: None = None
    function_call: None = None


class ChunkChoice(Shape):
    """The choice of a piece."""

    delta: ChoiceDelta
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: None = None


class ChatCompletionChunk(Shape):
    """A piece of an answer. The last has a `finish_reason`, the attempts, and the conversation where there is one."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    moderation: None = None
    obfuscation: None = None
    service_tier: None = None
    system_fingerprint: None = None
    provider: str = ""
    conversation: Conversation | None = None
    notices: list[Notice] = field(default_factory=list)
    attempts: list[Attempted] = field(default_factory=list)


def _usage(usage: Usage | None) -> CompletionUsage | None:
    if usage is None:
        return None
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        estimated=usage.estimated,
    )


class Chunks:
    """Events into chunks, for one answer. With `include_usage` a chunk without choices ends it, if tokens were counted.

    `model` and `provider` may change on the way, where another target goes on.
    What a service takes back cannot be taken back from those who read along: they are told by the
    notice of kind `rewritten`, whose text is the answer as it is then.
    """

    def __init__(self, *, id: str, created: int, model: str, provider: str, include_usage: bool) -> None:
        self.model = model
        self.provider = provider
        self.attempts: list[Attempted] = []
        """For the last chunk."""
        self._id = id
        self._created = created
        self._include_usage = include_usage
        self._first = True
        self._usage: Usage | None = None
        self._conversation: Conversation | None = None
        self._notices: list[Notice] = []

    def feed(self, event: Event) -> list[ChatCompletionChunk]:
        """The chunks that the event makes; none for those that wait for the last chunk."""
        match event:
            case Delta(text):
                return [self._chunk(ChoiceDelta(content=text))]
            case Reasoning(text):
                return [self._chunk(ChoiceDelta(reasoning_content=text))]
            case ToolCallDelta(index, id, name, arguments):
                call = ToolCallChunk(index=index, function=Function(name=name, arguments=arguments))
                if id is not None:
                    call.id, call.type = id, "function"
                return [self._chunk(ChoiceDelta(tool_calls=[call]))]
            case Usage():
                self._usage = event
            case Conversation():
                self._conversation = event
            case Notice():
                self._notices.append(event)
            case Done(reason):
                return self._last(reason)
        return []

    def _last(self, reason: FinishReason) -> list[ChatCompletionChunk]:
        last = self._chunk(ChoiceDelta(), reason)
        last.conversation, last.attempts = self._conversation, self.attempts
        if not self._include_usage or self._usage is None:
            return [last]
        usage = self._chunk(ChoiceDelta())
        usage.choices, usage.usage = [], _usage(self._usage)
        return [last, usage]

    def _chunk(self, delta: ChoiceDelta, reason: FinishReason | None = None) -> ChatCompletionChunk:
        if self._first:
            delta.role, self._first = "assistant", False
        notices, self._notices = self._notices, []
        return ChatCompletionChunk(
            id=self._id,
            created=self._created,
            model=self.model,
            choices=[ChunkChoice(delta=delta, finish_reason=reason)],
            provider=self.provider,
            notices=notices,
        )


def collect(events: list[Event], *, id: str, created: int, model: str, provider: str) -> ChatCompletion:
    """A whole answer of its events; the last of them is `Done`."""
    calls: dict[int, ToolCall] = {}
    text = AnswerText()
    thoughts: list[str] = []
    notices: list[Notice] = []
    usage: Usage | None = None
    conversation: Conversation | None = None
    reason: FinishReason = "stop"
    for event in events:
        text.feed(event)
        match event:
            case Reasoning(piece):
                thoughts.append(piece)
            case ToolCallDelta(index, call_id, name, arguments):
                call = calls.setdefault(index, ToolCall(id="", function=Function(name="")))
                call.id = call_id or call.id
                call.function.name = name or call.function.name
                call.function.arguments += arguments
            case Usage():
                usage = event
            case Conversation():
                conversation = event
            case Notice():
                notices.append(event)
            case Done(reason):
                pass
    content = str(text)
    message = ChatCompletionMessage(
        content=content if content or not calls else None,
        reasoning_content="".join(thoughts) or None,
        tool_calls=[calls[index] for index in sorted(calls)] or None,
    )
    return ChatCompletion(
        id=id,
        created=created,
        model=model,
        choices=[Choice(message=message, finish_reason=reason)],
        usage=_usage(usage),
        provider=provider,
        conversation=conversation,
        notices=notices,
    )
