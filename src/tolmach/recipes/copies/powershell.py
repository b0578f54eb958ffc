"""`Invoke-WebRequest` commands, as Chrome and Edge copy them for PowerShell."""

import re

from tolmach.errors import ConfigError
from tolmach.wire import Request

__all__ = ["is_powershell", "read_powershell"]

_COMMANDS = r"(?:Invoke-WebRequest|Invoke-RestMethod|iwr|irm)\b"
_STRING = r"\"((?:[^\"`]|`.|\"\")*)\""
_SHORT = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "e": "\x1b"}
_AGENT = re.compile(rf"\.UserAgent\s*=\s*{_STRING}", re.S)
_COOKIE = re.compile(rf"New-Object System\.Net\.Cookie\({_STRING},\s*{_STRING}", re.S)
_HEADER = re.compile(rf"{_STRING}\s*=\s*{_STRING}", re.S)
_CHARACTER = re.compile(r"\$\(\[char\](\d{1,7}|0x[0-9a-fA-F]{1,6})\)")


def is_powershell(text: str) -> bool:
    """Whether a text has a command of PowerShell's that asks the web."""
    return re.search(rf"(?:^|\n)\s*(?:\$\w+\s*=\s*)?{_COMMANDS}", text[:65536]) is not None


def read_powershell(text: str) -> list[Request]:
    """The requests of the commands, in their order. Raises `ConfigError` for a command without an address."""
    found: list[Request] = []
    at = 0
    for command in re.finditer(_COMMANDS, text):
        if command.start() >= at:
            following = re.compile(rf"\n\s*(?:\$session\b|{_COMMANDS})").search(text, command.end())
            end = following.start() if following else len(text)
            found.append(_request(text[at : command.start()], text[command.end() : end]))
            at = end
    return found


def _request(before: str, command: str) -> Request:
    """The request of one command; the user agent and cookies of its session stand `before` it."""
    url = _option(command, "Uri")
    if not re.match(r"https?://[^/\s]+", url):
        raise ConfigError("the PowerShell command names no http or https address (-Uri)")
    headers: dict[str, str] = {}
    if table := re.search(r"-Headers\s+@\{(.*?)\n?\}", command, re.S):
        headers = {_meant(pair[1]).lower(): _meant(pair[2]) for pair in _HEADER.finditer(table[1])}
    if agent := _AGENT.search(before):
        headers.setdefault("user-agent", _meant(agent[1]))
    if cookies := [f"{_meant(pair[1])}={_meant(pair[2])}" for pair in _COOKIE.finditer(before)]:
        headers.setdefault("cookie", "; ".join(cookies))
    if kind := _option(command, "ContentType"):
        headers["content-type"] = kind
    body = _option(command, "Body")
    method = _option(command, "Method") or ("POST" if body else "GET")
    # HTTP/2's own names, which some browsers copy, are no headers.
    headers = {name: value for name, value in headers.items() if not name.startswith(":")}
    return Request(method.upper(), url, headers, body.encode("utf-8", "replace"))


def _option(command: str, name: str) -> str:
    """The text behind an option, also one that is turned into bytes first."""
    found = re.search(rf"-{name}\s+(?:\(\[System\.Text\.Encoding\]::UTF8\.GetBytes\()?{_STRING}", command, re.S)
    return _meant(found[1]) if found else ""


def _meant(text: str) -> str:
    """What stands in a quotation: a backtick escapes, and so does a doubled quote."""

    def plain(match: re.Match[str]) -> str:
        if match[0] == '""':
            return '"'
        return _SHORT.get(match[1], match[1])

    # The characters last: what they stand for is no escape.
    said = re.sub(r"`(.)|\"\"", plain, text, flags=re.S)
    said = _CHARACTER.sub(lambda match: chr(min(int(match[1], 0), 0x10FFFF)), said)
    return said.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
