"""What was found out about a chat API: the recipe, and how sure each part of it is."""

from typing import Any

from msgspec import Struct, field

__all__ = ["Draft", "Ignored", "Part"]


class Part(Struct, frozen=True):
    """One thing that was found, where, how sure (0 to 1) and why."""

    name: str
    where: str
    sure: float
    reason: str


class Ignored(Struct, frozen=True):
    """One exchange that the recipe does not need, and why."""

    what: str
    reason: str


class Draft(Struct, kw_only=True):
    """A recipe as it was found out."""

    url: str
    """The address of the page, or of the API's origin."""
    options: dict[str, Any]
    """The recipe's tables."""
    question: str
    answer: str
    parts: list[Part] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    """Variable of the environment that the recipe asks for -> what it stands for."""
    secrets: dict[str, str] = field(default_factory=dict)
    """Variable -> the value that was recorded; it is written nowhere."""

    @property
    def sure(self) -> float:
        """How sure the whole is: as its least sure part."""
        return min((part.sure for part in self.parts), default=0.0)

    def __repr__(self) -> str:
        return f"Draft(url={self.url!r}, sure={self.sure!r})"
