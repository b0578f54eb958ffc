"""`curl` commands as browsers copy them, for bash and for Windows, into the request that they send."""

import base64
import re
from urllib.parse import quote

from tolmach.errors import ConfigError
from tolmach.wire import Request

__all__ = ["is_curl", "parse_curl"]

_BOUNDARY = "----tolmachcurl"

_WITH_VALUE = frozenset(
    [
        "-H",
        "--header",
        "-d",
        "--data",
        "--data-raw",
        "--data-binary",
        "--data-ascii",
        "--data-urlencode",
        "-F",
        "--form",
        "--form-string",
        "-X",
        "--request",
        "-b",
        "--cookie",
        "-A",
        "--user-agent",
        "-e",
        "--referer",
        "-u",
        "--user",
        "--json",
        "--url",
        "-o",
        "--output",
        "-x",
        "--proxy",
        "-m",
        "--max-time",
        "--connect-timeout",
        "--cacert",
        "-E",
        "--cert",
        "--key",
        "--resolve",
        "-w",
        "--write-out",
        "-c",
        "--cookie-jar",
        "--retry",
        "-r",
        "--range",
        "--oauth2-bearer",
        "-T",
        "--upload-file",
        "-D",
        "--dump-header",
    ]
)
_FLAGS = frozenset(
    [
        "--compressed",
        "-k",
        "--insecure",
        "-s",
        "--silent",
        "-S",
        "--show-error",
        "-L",
        "--location",
        "-i",
        "--include",
        "-v",
        "--verbose",
        "-N",
        "--no-buffer",
        "-f",
        "--fail",
        "-g",
        "--globoff",
        "--http1.1",
        "--http2",
        "--http3",
        "-4",
        "-6",
        "-#",
        "--progress-bar",
        "-O",
        "--raw",
        "--tr-encoding",
    ]
)


def is_curl(text: str) -> bool:
    """Whether a text is a curl command."""
    return re.match(r"\s*(?:\$ )?curl(?:\.exe)?\s", text) is not None


def parse_curl(text: str) -> Request:
    """The request that a curl command sends. Raises `ConfigError` for a command that is none, or names files."""
    words = _words(text.strip().removeprefix("$ "))
    if not words or words[0] not in ("curl", "curl.exe"):
        raise ConfigError("not a curl command: it begins with curl")
    return _Command(words[1:]).request()


def _words(text: str) -> list[str]:
    """The words of a command line. A caret before the first quotation, or at a line's end, is of Windows' shell."""
    first = re.search(r"\^?[\"']", text)
    mark = first[0] if first else ""
    if mark == '^"' or (mark != "'" and re.search(r"\^[ \t]*\r?\n", text)):
        return _cmd_words(text)
    try:
        return _bash_words(text)
    except ValueError as error:
        raise ConfigError(f"the curl command cannot be read: {error}") from None


_ANSI = re.compile(r"\\(x[0-9a-fA-F]{1,2}|u[0-9a-fA-F]{1,4}|U[0-9a-fA-F]{1,8}|[0-7]{1,3}|.)", re.S)
_SHORT = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "e": "\x1b", "E": "\x1b"}
_PIECE = re.compile(
    r"""(?P<space>(?:\s|\\\r?\n)+)|\$'(?P<ansi>(?:[^'\\]|\\.)*)'|'(?P<raw>[^']*)'|"(?P<quoted>(?:[^"\\]|\\.)*)"|"""
    r"""\\(?P<escaped>.)|(?P<plain>[^\s'"\\$]+|\$)""",
    re.S,
)


def _bash_words(text: str) -> list[str]:
    """Words as bash splits them. Raises ValueError for a quotation that does not end."""
    words: list[str] = []
    open_word = False
    at = 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None:
            raise ValueError(f"a quotation does not end: {text[at : at + 20]!r}")
        at = piece.end()
        if piece["space"] is not None:
            open_word = False
            continue
        if not open_word:
            words.append("")
        open_word = True
        words[-1] += _meant(piece)
    return words


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


def _cmd_words(text: str) -> list[str]:
    """Words as Windows' shell and its programs split them: carets escape, quotes inside are \\" or \"\"."""
    text = re.sub(r"\^\s*\r?\n\s*", " ", text)
    text = re.sub(r"\^(.)", r"\1", text, flags=re.S)
    words: list[str] = []
    word: list[str] | None = None
    quoted = False
    at = 0
    while at < len(text):
        char = text[at]
        if char == "\\" and text[at + 1 : at + 2] in ('"', "\\") and quoted:
            at += 1
            word = [*(word or []), text[at]]
        elif char == '"' and quoted and text[at + 1 : at + 2] == '"':
            at += 1
            word = [*(word or []), '"']
        elif char == '"':
            quoted = not quoted
            word = word or []
        elif char.isspace() and not quoted:
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            word = [*(word or []), char]
        at += 1
    return [*words, "".join(word)] if word is not None else words


class _Command:
    """The options of one command, as they are read."""

    def __init__(self, words: list[str]) -> None:
        self.url = ""
        self.method = ""
        self.headers: dict[str, str] = {}
        self.data: list[str] = []
        self.parts: list[tuple[str, str]] = []
        self.in_query = False
        waiting = list(words)
        while waiting:
            self._take(waiting.pop(0), waiting)

    def _take(self, word: str, rest: list[str]) -> None:
        name, equals, value = word.partition("=")
        if word.startswith("--") and equals and name in _WITH_VALUE:
            self._option(name, value)
        elif word in _WITH_VALUE:
            if not rest:
                raise ConfigError(f"the curl command ends behind {word}")
            self._option(word, rest.pop(0))
        elif word[:2] in _WITH_VALUE and len(word) > 2 and not word.startswith("--"):
            self._option(word[:2], word[2:])
        elif word in ("-G", "--get"):
            self.in_query = True
        elif word in ("-I", "--head"):
            self.method = "HEAD"
        elif word.startswith("-") and word not in _FLAGS and not set(word[1:]) <= set("ksSLivNfgO46"):
            raise ConfigError(f"curl's option {word} is not known here; leave it out")
        elif not word.startswith("-"):
            self.url = self.url or word

    def _option(self, name: str, value: str) -> None:
        if name in ("-H", "--header"):
            key, _, text = value.partition(":")
            self.headers[key.strip().lower()] = text.strip()
        elif name in ("-d", "--data", "--data-ascii", "--data-binary", "--json", "--data-raw"):
            self._add_data(name, value)
        elif name == "--data-urlencode":
            key, equals, text = value.partition("=")
            self.data.append(f"{key}={quote(text, safe='')}" if equals else quote(value, safe=""))
        elif name in ("-F", "--form", "--form-string"):
            self._add_part(name, value)
        elif name in ("-X", "--request"):
            self.method = value.upper()
        elif name == "--url":
            self.url = value
        elif name in ("-u", "--user"):
            self.headers["authorization"] = "Basic " + base64.b64encode(value.encode()).decode()
        elif name == "--oauth2-bearer":
            self.headers["authorization"] = f"Bearer {value}"
        elif (
            header := {"-b": "cookie", "-A": "user-agent", "-e": "referer"}.get(name[:2] if name[1] != "-" else name)
        ) or (header := {"--cookie": "cookie", "--user-agent": "user-agent", "--referer": "referer"}.get(name)):
            self.headers[header] = value

    def _add_data(self, name: str, value: str) -> None:
        if value.startswith("@") and name != "--data-raw":
            raise ConfigError(f"{name} {value}: write the body into the command in place of the file's name")
        if name == "--json":
            self.headers.setdefault("content-type", "application/json")
            self.headers.setdefault("accept", "application/json")
        self.data.append(value)

    def _add_part(self, name: str, value: str) -> None:
        key, equals, text = value.partition("=")
        if not equals or (text[:1] in ("@", "<") and name != "--form-string"):
            raise ConfigError(f"{name} {value}: files cannot be sent; write NAME=VALUE")
        self.parts.append((key, text if name == "--form-string" else text.partition(";type=")[0].strip('"')))

    def request(self) -> Request:
        url = self.url if "://" in self.url else f"http://{self.url}"
        if not self.url or not re.match(r"https?://[^/\s]+", url):
            raise ConfigError("the curl command names no http or https address")
        headers, body = dict(self.headers), "&".join(self.data).encode()
        if self.in_query and body:
            url, body = f"{url}{'&' if '?' in url else '?'}{body.decode()}", b""
        if self.parts:
            headers["content-type"] = f"multipart/form-data; boundary={_BOUNDARY}"
            rows = (
                f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{text}\r\n'
                for key, text in self.parts
            )
            body = ("".join(rows) + f"--{_BOUNDARY}--\r\n").encode()
        elif body:
            headers.setdefault("content-type", "application/x-www-form-urlencoded")
        return Request(self.method or ("POST" if body else "GET"), url, headers, body)
