"""The arguments of a tool call as they come in, for APIs that must know where a call ends."""

from typing import Any

import msgspec
from msgspec import Struct, field

from tolmach.errors import RemoteProtocolError

__all__ = ["OpenCall", "read_arguments"]


def read_arguments(text: str) -> dict[str, Any] | None:
    """The object that the arguments are, empty for none at all; None when they are no whole object."""
    if not text.strip():
        return {}
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class OpenCall(Struct):
    """A tool call of an answer, so far. `at` is the place of its block or item in the answer."""

    id: str
    name: str
    at: int
    pieces: list[str] = field(default_factory=list)
    closed: bool = False

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    def add(self, piece: str) -> bool:
        """Add a piece; false when there is nothing in it to pass on, as in white space before the first.

        Raises `RemoteProtocolError` for text behind the end of the arguments.
        """
        if self.closed:
            if piece.strip():
                raise RemoteProtocolError(f"the service went on with the tool call {self.name!r} after its end")
            return False
        if not piece or (not self.pieces and not piece.strip()):
            return False
        self.pieces.append(piece)
        return True

    def is_whole(self) -> bool:
        """Whether the arguments are a whole JSON object; not known of a call that has none yet."""
        last = next((piece for piece in reversed(self.pieces) if piece.strip()), "")
        return last.rstrip().endswith("}") and read_arguments(self.arguments) is not None

    def is_valid(self) -> bool:
        """Whether the arguments, now at their end, are an object."""
        return read_arguments(self.arguments) is not None
