"""What the terminal shows: safe text, and markdown while it streams."""

import re
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

__all__ = ["MarkdownStream", "printable", "split_blocks"]

# All control characters but newline and tab: an answer must not move the cursor, rename the
# window or write the clipboard.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")


def printable(text: str) -> str:
    """The text without control characters other than newline and tab."""
    return _CONTROL.sub("", text)


def split_blocks(text: str) -> tuple[str, str]:
    """Markdown in two: the blocks that later text cannot change any more, and the rest.

    A block ends at a blank line outside a code fence, unless what follows may still belong to it
    (a list or an indented part).
    """
    cut = position = 0
    fence = ""
    blank = False
    for line in text.splitlines(keepends=True):
        whole = line.endswith("\n")
        mark = _FENCE.match(line)
        if blank and not fence and whole and not line[:1].isspace() and not re.match(r"([-*+]|\d+[.)])\s", line):
            cut = position
        if mark:
            if not fence:
                fence = mark[1]
            elif mark[1].startswith(fence) and line.strip() == mark[1]:
                fence = ""
        blank = whole and not line.strip()
        position += len(line)
    return text[:cut], text[cut:]


class MarkdownStream:
    """Markdown on a terminal as it arrives.

    Blocks that are whole are printed once and scroll away; only the last one is drawn again as it
    grows, cropped to the screen.
    """

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._rest = ""
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(console=self._console, refresh_per_second=12, transient=True)
        self._live.__enter__()
        return self

    def feed(self, text: str) -> None:
        from rich.markdown import Markdown

        whole, self._rest = split_blocks(self._rest + printable(text))
        if whole.strip():
            self._console.print(Markdown(whole))
            self._console.print()
        if self._live is not None:
            self._live.update(_Tail(self._rest))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from rich.markdown import Markdown

        if self._live is not None:
            self._live.update("")
            self._live.__exit__(None, None, None)
            self._live = None
        if self._rest.strip():
            self._console.print(Markdown(self._rest))
        self._rest = ""


class _Tail:
    """A growing block, drawn so that its last lines are seen when it is higher than the screen."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.markdown import Markdown
        from rich.segment import Segment, Segments

        lines = console.render_lines(Markdown(self._text), pad=False)
        shown = lines[-max(console.height - 2, 1) :]
        yield Segments([part for line in shown for part in (*line, Segment.line())])
