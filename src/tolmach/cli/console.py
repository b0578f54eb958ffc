"""rich's console, for texts that others chose."""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tolmach.safe_text import without_controls

__all__ = ["SafeConsole"]


class SafeConsole(Console):
    """A console whose texts have no control characters in them; those that it writes itself are its own.

    What is printed is made visible before it is laid out. This takes away what comes in between: markdown decodes
    `%1b` in addresses, and a cell may have been forgotten.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=without_controls(segment.text))
