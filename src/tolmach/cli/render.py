"""Markdown on a terminal, while it streams."""

import re
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from tolmach.safe_text import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.live import Live
    from rich.segment import Segment

__all__ = ["MarkdownStream", "markdown", "split_blocks"]

# A fence may stand on a list item's own line. The words after backticks hold none (CommonMark 4.5).
_FENCE = re.compile(r"^\s{0,3}(?:(?:[-*+]|\d{1,9}[.)])\s{1,4})?(`{3,}(?=[^`]*$)|~{3,})")
_ITEM = re.compile(r"([-*+]|\d{1,9}[.)])(\s|$)")

_LARGE = 50_000
"""Characters from which markdown is shown as it stands: laying out more takes longer than reading it."""


def split_blocks(text: str) -> tuple[str, str]:
    """Markdown in two: the blocks that later text cannot change any more, and the rest.

    A block ends at a blank line outside a code fence, unless what follows may still belong to it
    (a list or an indented part).
    """
    cut = position = 0
    fence = ""
    in_item = False
    blank = False
    for line in text.split("\n")[:-1]:
        if blank and not fence and line.strip() and not line[0].isspace() and not _ITEM.match(line):
            cut = position
        mark = _FENCE.match(line)
        if in_item and fence and line.strip() and not line[0].isspace():
            fence = ""  # the list item ends here, and with it the fence in it
        if not fence:
            fence = mark[1] if mark else ""
            in_item = bool(mark) and _ITEM.match(line.lstrip()) is not None
        elif line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            fence = ""
        blank = not line.strip()
        position += len(line) + 1
    return text[:cut], text[cut:]


def markdown(text: str) -> "RenderableType":
    """Markdown laid out for the terminal. Addresses are shown, since a link's words may hide where it leads."""
    from rich.markdown import Markdown
    from rich.text import Text

    text = printable(text)
    if len(text) > _LARGE:
        return Text(text)
    laid_out = Markdown(text, hyperlinks=False)
    _show_tags(laid_out.parsed)
    return laid_out


def _show_tags(tokens: Sequence[Any]) -> None:
    """Show HTML as it stands, in place: it would be left out, and an answer may speak about it."""
    for token in tokens:
        if token.type == "html_inline":
            token.type = "text"
        elif token.type == "html_block":
            token.type, token.tag, token.info = "fence", "code", "html"
        _show_tags(token.children or ())


class MarkdownStream:
    """Markdown on a terminal as it arrives.

    Blocks that are whole are printed once and scroll away; only the last one is drawn again as it
    grows, cropped to the screen.
    """

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._rest = ""
        self._printed = False
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.live import Live
        from rich.spinner import Spinner

        self._live = Live(Spinner("dots", style="dim"), console=self._console, refresh_per_second=12, transient=True)
        self._live.__enter__()
        return self

    def feed(self, text: str) -> None:
        text = printable(text)
        self._rest += text
        whole = ""
        if "\n" in text:
            whole, self._rest = split_blocks(self._rest)
        if self._live is not None:
            # What is printed must be gone from the live part, which is drawn again below it.
            growing = _Block(self._rest, gap=self._printed or bool(whole), growing=True)
            self._live.update(growing, refresh=bool(whole))
        self._print(whole)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None
        self._print(self._rest)
        self._rest = ""

    def _print(self, text: str) -> None:
        if not text.strip():
            return
        self._console.print(_Block(text, gap=self._printed))
        self._printed = True


class _Block:
    """A part of an answer, with an empty line before it if there is a `gap`, and none at its ends.

    Of a `growing` part only the end is drawn, as much as the screen holds.
    """

    def __init__(self, text: str, *, gap: bool, growing: bool = False) -> None:
        self._text = text.strip("\n")
        self._gap = gap
        self._growing = growing

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.segment import Segment, Segments

        text = self._end(console.width * console.height) if self._growing else self._text
        lines = console.render_lines(markdown(text), options.update(height=None), pad=False)
        lines = [_without_padding(line) for line in lines]
        while lines and not lines[0]:
            del lines[0]
        while lines and not lines[-1]:
            del lines[-1]
        if lines and self._gap:
            lines.insert(0, [])
        if self._growing:
            lines = lines[-max(console.height - 2, 1) :]
        yield Segments([part for line in lines for part in (*line, Segment.line())])

    def _end(self, most: int) -> str:
        """The end that can be seen; laying out all of a long block again and again would take too long."""
        if len(self._text) <= most:
            return self._text
        first = self._text.partition("\n")[0]
        return f"{first}\n{self._text[-most:]}" if _FENCE.match(first) else self._text[-most:]


def _without_padding(line: "Sequence[Segment]") -> "list[Segment]":
    """The line without spaces at its end that nobody sees; those of a code block are seen by their colour.

    They would come along when the text is copied, and leave no column for what the terminal echoes.
    """
    kept = list(line)
    while kept and not (kept[-1].style and kept[-1].style.bgcolor):
        last = kept.pop()
        if text := last.text.rstrip(" "):
            kept.append(last._replace(text=text))
            break
    return kept
