"""Command lines into commands and words, as bash and as Windows' shell split them."""

import re
from collections.abc import Iterator

from tolmach.errors import ConfigError

__all__ = ["bash_commands", "cmd_commands", "may_be_cmd", "must_be_cmd"]

Command = list[str]
"""The words of one command."""


def must_be_cmd(text: str) -> bool:
    """Whether only Windows' shell takes this: a caret stands before the first quotation, or at a line's end."""
    first = re.search(r"\^?[\"']", text)
    mark = first[0] if first else ""
    return mark == '^"' or (mark != "'" and re.search(r"\^[ \t]*\r?\n", text) is not None)


def may_be_cmd(text: str) -> bool:
    """Whether Windows' shell might take it too: no quotation of bash's own kind, and doubled quotes."""
    first = re.search(r"[\"']", text)
    return first is not None and first[0] == '"' and '""' in text


# bash

_ANSI = re.compile(r"\\(x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{1,4}|U[0-9a-fA-F]{1,8}|[0-7]{1,3}|.)", re.S)
_SHORT = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "e": "\x1b", "E": "\x1b"}
_PIECE = re.compile(
    r"""(?P<space>(?:[^\S\n]|\\\r?\n)+)|(?P<end>\n|(?:;|&&?|\|\|?)(?=\s|$))|\$'(?P<ansi>(?:[^'\\]|\\.)*)'|"""
    r"""'(?P<raw>[^']*)'|"(?P<quoted>(?:[^"\\]|\\.)*)"|\\(?P<escaped>.)|(?P<plain>[^\s'"\\$;&|]+|[$;&|])""",
    re.S,
)


def bash_commands(text: str) -> list[Command]:
    """The commands of a bash command line; a line's end ends one. Raises `ConfigError` for an open quotation."""
    commands: list[Command] = [[]]
    open_word = False
    at = 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None:
            raise ConfigError(f"the command cannot be read: a quotation does not end: {text[at : at + 20]!r}")
        at = piece.end()
        if piece["end"] is not None:
            commands.append([])
            open_word = False
        elif piece["space"] is not None:
            open_word = False
        else:
            if not open_word:
                commands[-1].append("")
            open_word = True
            commands[-1][-1] += _meant(piece)
    return [words for words in commands if words]


def _meant(piece: re.Match[str]) -> str:
    """What a piece of a word stands for."""
    if piece["ansi"] is not None:
        return _ansi(piece["ansi"])
    if piece["quoted"] is not None:
        return re.sub(r'\\([$`"\\])|\\\r?\n', lambda match: match[1] or "", piece["quoted"])
    return next(piece[name] for name in ("raw", "escaped", "plain") if piece[name] is not None)


def _ansi(text: str) -> str:
    """What stands in `$'...'`; halves of surrogate pairs are joined, bytes are UTF-8."""

    def plain(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] in "uU" and len(code) > 1:
            return chr(min(int(code[1:], 16), 0x10FFFF))
        if code[0] == "x" and len(code) > 1:
            byte = int(code[1:], 16)
            return chr(0xDC00 + byte if byte > 127 else byte)
        if code[0] in "01234567":
            return chr(int(code, 8) & 0xFF)
        return _SHORT.get(code, code)

    said = _ANSI.sub(plain, text)
    said = said.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return said.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


# Windows

_ESCAPED = re.compile(r"\^(?:[ \t]*\r?\n(?P<line>\r?\n)?|(?P<char>.))", re.S)
_LINE_END = "\ue000"
"""Stands for a line's end that belongs to a word, until the words are split."""


def cmd_commands(text: str) -> list[Command]:
    """The commands of a Windows command line: carets escape, quotes inside a quotation are \\" or \"\".

    A caret at a line's end joins the lines; with an empty line behind it, it is a line's end within a word, as Chrome
    copies bodies of several lines.
    """
    return [words for words in _cmd_words(_ESCAPED.sub(_unescaped, text)) if words]


def _unescaped(match: re.Match[str]) -> str:
    if match["char"] is not None:
        return match["char"]
    return _LINE_END if match["line"] else " "


def _cmd_words(text: str) -> Iterator[Command]:
    words: Command = []
    word: list[str] | None = None
    quoted = False
    at = 0
    while at <= len(text):
        char = text[at : at + 1]
        ends = char in ("", "\n") or (char == "&" and text[at + 1 : at + 2] in ("", "&", " ", "\r", "\n"))
        if char == "\\" and text[at + 1 : at + 2] in ('"', "\\") and quoted:
            at += 1
            word = [*(word or []), text[at]]
        elif char == '"' and quoted and text[at + 1 : at + 2] == '"':
            at += 1
            word = [*(word or []), '"']
        elif char == '"':
            quoted = not quoted
            word = word or []
        elif (ends or char.isspace()) and (not quoted or not char):
            if word is not None:
                words.append("".join(word).replace(_LINE_END, "\n"))
            word = None
            if ends:
                yield words
                words = []
        else:
            word = [*(word or []), char]
        at += 1
