"""Foreign text made safe for where it is put: a terminal, a name on a line, a cell of a table, a line of JSON.

A model's name, an answer, an error of a service: others choose them, and what they hold may be meant for the
program that shows them. Nothing else in tolmach does any of this.

| characters | why |
| --- | --- |
| C0 but tab and newline, DEL (U+0000-001F, U+007F) | they move the cursor, rename the window, write the clipboard |
| C1 (U+0080-009F) | the same in one character: U+009B is ESC [, U+009D is ESC ] (ECMA-48, 5.3) |
| U+2028, U+2029 | line ends for some readers of logs, and in older JavaScript |
| U+202A-202E, U+2066-2069 | they turn the direction of what follows, so that a text reads as another (CVE-2021-42574) |
| in a name, also all that is not visible, and line ends | two names must not look like one, nor one like two lines |
| in a cell, also a first =, +, -, @ or its full-width form | spreadsheets run such cells (OWASP, CSV injection) |

They are written as escapes, so that one sees what came: `\\x1b`, `\\u202e`. A carriage return is left out of a
text: it belongs to the line ends of some systems. In JSON the escapes are JSON's own, and mean the same text.
Joiners and marks of direction that scripts and emoji need (U+200C-200F) stay in texts.
"""

import re

__all__ = ["csv_cell", "json_text", "one_line", "printable", "without_controls"]

_BIDI = "\u202a-\u202e\u2066-\u2069"
_LINE_ENDS = "\u2028\u2029"
_HARMFUL = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_LINE_ENDS}{_BIDI}]")
_HARMFUL_IN_JSON = re.compile(f"[\x7f-\x9f{_LINE_ENDS}{_BIDI}]")
"""Those that JSON does not have escaped anyway. They stand in its texts alone: the rest of it is ASCII."""
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
_SHORT = {"\t": "\\t", "\n": "\\n", "\r": "\\r"}


def printable(text: str) -> str:
    """The text as a terminal may show it, in as many lines as it has."""
    return _HARMFUL.sub(_visible, text)


def one_line(text: str) -> str:
    """A name as it may stand on a line with others: each character that cannot be seen is an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def csv_cell(value: object) -> object:
    """The value of a cell; a text is on one line, and behind a ' where a spreadsheet would take it for a formula."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def json_text(encoded: str) -> str:
    """JSON that means the same, with nothing in it that a terminal would obey."""
    if encoded.isascii() and "\x7f" not in encoded:
        return encoded
    return _HARMFUL_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", encoded)


def without_controls(text: str) -> str:
    """The text with nothing in the place of what `printable` escapes, for text that is laid out already."""
    return _HARMFUL.sub("", text)


def _visible(match: re.Match[str]) -> str:
    return "" if match[0] == "\r" else _escape(match[0])


def _escape(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
