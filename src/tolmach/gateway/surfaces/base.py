"""What a surface is: one API's side that callers see.

A surface is pure: bytes of a request into a `ChatRequest`, events into bytes of the answer, errors
into its own shape. It knows no provider, no socket and no clock; ids and times come in a `Label`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from msgspec import Struct, field

from tolmach.chat import ChatRequest, Event
from tolmach.errors import TolmachError

__all__ = ["Asked", "Label", "StreamEncoder", "Surface"]


class Label(Struct, frozen=True, kw_only=True):
    """What an answer says about itself. `created` is seconds since 1970, `id` 24 hexadecimal digits.

    `model` is the name to give back, `provider` the site that answered.
    """

    id: str
    created: int
    model: str
    provider: str = ""


class Asked(Struct, frozen=True, kw_only=True):
    """A request body as a question. `echo` is what the surface needs again for the answer's shape."""

    turn: ChatRequest
    stream: bool = False
    echo: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        return self.turn.model


class StreamEncoder(Protocol):
    """One streamed answer in the API's shape. Each call gives the bytes to send, possibly none.

    `Done` is fed as any event and ends the stream as the API ends one. After `fail` nothing is fed.
    """

    end_mark: ClassVar[bytes]
    """What says that a stream is over and nothing else; empty where its last event says more than that."""

    def open(self) -> bytes:
        """What stands before the first event."""

    def feed(self, event: Event) -> bytes: ...

    def fail(self, error: TolmachError) -> bytes:
        """An error in the API's shape, with no mark of a finished answer before or after it."""

    def keep_alive(self) -> bytes:
        """What may be sent while nothing comes: a comment, or the API's own `ping`."""


class Surface(Protocol):
    """One API."""

    name: ClassVar[str]
    """`openai`, `responses` or `anthropic`."""

    def parse(self, body: bytes) -> Asked:
        """The question in a request's body.

        Raises `BadRequest` or `UnsupportedFeature` that names the field and what is wrong with it.
        """

    def whole(self, asked: Asked, events: Sequence[Event], label: Label) -> bytes:
        """The body of an answer that is not streamed; the last of the events is `Done`."""

    def stream(self, asked: Asked, label: Label) -> StreamEncoder: ...

    def error(self, error: TolmachError, request_id: str) -> tuple[int, bytes]:
        """Status and body of a refusal or failure. Never a stack trace, never a secret."""
