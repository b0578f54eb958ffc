"""`curl` commands, as browsers copy them and as people write them, into the requests that they send."""

import base64
import re
from urllib.parse import quote

from tolmach.decoding import parse_json
from tolmach.errors import ConfigError, RemoteProtocolError
from tolmach.recipes.copies.shells import bash_commands, cmd_commands, may_be_cmd, must_be_cmd
from tolmach.wire import Request

__all__ = ["is_curl", "read_curl"]

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
    """Whether a text begins as a curl command does."""
    return re.match(r"\s*(?:[$>] )?curl(?:\.exe)?\s", text) is not None


def read_curl(text: str) -> list[Request]:
    """The requests that curl commands send, in their order. Raises `ConfigError` for what cannot be read.

    No file is read, whatever a command says of one: it may have been copied from a stranger.
    """
    text = re.sub(r"^[$>] (?=curl)", "", text.strip(), flags=re.M)
    if must_be_cmd(text):
        return _requests(cmd_commands(text))
    found = _requests(bash_commands(text))
    if may_be_cmd(text) and not all(map(_is_sound, found)):
        # Firefox on Windows copies without carets.
        windows = _requests(cmd_commands(text))
        return windows if all(map(_is_sound, windows)) else found
    return found


def _requests(commands: list[list[str]]) -> list[Request]:
    asked = [words for words in commands if words[0] in ("curl", "curl.exe")]
    if not asked:
        raise ConfigError("not a curl command: it begins with curl")
    if rest := [words for words in commands if words not in asked]:
        raise ConfigError(f"between the curl commands stands {rest[0][0][:80]!r}: copy the commands alone")
    return [_Command(words[1:]).request() for words in asked]


def _is_sound(request: Request) -> bool:
    """Whether a body that says that it is JSON, or looks like it, is."""
    if "json" not in request.headers.get("content-type", "") and request.body.lstrip()[:1] not in (b"{", b"["):
        return True
    try:
        parse_json(request.body)
    except RemoteProtocolError:
        return False
    return True


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
            self._no_file(name, value)
            key, _, text = value.partition(":")
            self.headers[key.strip().lower()] = text.strip()
        elif name in ("-d", "--data", "--data-ascii", "--data-binary", "--json", "--data-raw"):
            self._add_data(name, value)
        elif name == "--data-urlencode":
            key, equals, text = value.partition("=")
            if not equals and "@" in value:
                raise ConfigError(f"{name}: no file is read; write the text into the command in its place")
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
            if header == "cookie" and "=" not in value:
                raise ConfigError(f"{name}: no file of cookies is read; write them as NAME=VALUE; NAME=VALUE")
            self.headers[header] = value
        elif name in ("-T", "--upload-file"):
            raise ConfigError(f"{name}: no file is read; write the body with --data-raw")

    @staticmethod
    def _no_file(name: str, value: str) -> None:
        if value.startswith("@"):
            raise ConfigError(f"{name}: no file is read; write its text into the command in its place")

    def _add_data(self, name: str, value: str) -> None:
        if name != "--data-raw":
            self._no_file(name, value)
        if name == "--json":
            self.headers.setdefault("content-type", "application/json")
            self.headers.setdefault("accept", "application/json")
        self.data.append(value)

    def _add_part(self, name: str, value: str) -> None:
        key, equals, text = value.partition("=")
        if not equals or (text[:1] in ("@", "<") and name != "--form-string"):
            raise ConfigError(f"{name}: no file is read; write NAME=VALUE")
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
        elif body and "multipart/form-data" in headers.get("content-type", ""):
            # Shells' copies part its lines by line feeds alone.
            body = re.sub(rb"(?<!\r)\n", b"\r\n", body)
        elif body:
            headers.setdefault("content-type", "application/x-www-form-urlencoded")
        return Request(self.method or ("POST" if body else "GET"), url, headers, body)
