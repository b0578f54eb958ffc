"""Cookies: the jar of a session, and the finding of a user's own cookies.

The jar is the standard library's (RFC 6265 by way of `http.cookiejar`).
"""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from tolmach.errors import ConfigError
from tolmach.extras import missing

if TYPE_CHECKING:
    from http.cookiejar import Cookie
    from http.cookiejar import CookieJar as StandardJar

__all__ = [
    "CookieFileWarning",
    "CookieJar",
    "cookies_dir",
    "get_cookies",
    "load_cookies",
    "make_cookie",
    "set_cookies",
    "set_cookies_dir",
]


class _Asked:
    """A request as `http.cookiejar` wants to see it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._url = url
        self.host = parts.hostname or ""
        self.type = parts.scheme
        self.origin_req_host = self.host
        self.unverifiable = False
        self.cookie = ""

    def get_full_url(self) -> str:
        return self._url

    def get_header(self, name: str, default: str | None = None) -> str | None:
        return default

    def has_header(self, name: str) -> bool:
        return False

    def add_unredirected_header(self, name: str, value: str) -> None:
        if name == "Cookie":
            self.cookie = value


class _Answered:
    """A response as `http.cookiejar` wants to see it."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = list(lines)

    def info(self) -> "_Answered":
        return self

    def get_all(self, name: str, default: Any = None) -> Any:
        return self._lines if name == "Set-Cookie" else default


class CookieJar:
    """The cookies of one session: sent where they belong, stored from `Set-Cookie` lines."""

    def __init__(self) -> None:
        self._jar: StandardJar | None = None

    def _standard(self) -> "StandardJar":
        if self._jar is None:
            from http.cookiejar import CookieJar as StandardJar  # 30 ms of imports that many sites never need
            from http.cookiejar import DefaultCookiePolicy as Policy

            # Left to itself it sends cookies without a Domain to subdomains too (against RFC 6265, 5.4).
            self._jar = StandardJar(Policy(strict_ns_domain=Policy.DomainStrictNonDomain))
        return self._jar

    def header(self, url: str) -> str:
        """The `Cookie` header for a request to `url`; empty for none."""
        if self._jar is None:
            return ""
        asked = _Asked(url)
        self._jar.add_cookie_header(asked)  # type: ignore[arg-type]  # it needs only these methods
        return asked.cookie

    def store(self, url: str, lines: Iterable[str]) -> None:
        """Keep what the `Set-Cookie` lines of a response from `url` say."""
        if not (lines := list(lines)):
            return
        asked = _Asked(url)
        lines = [line for line in lines if not _for_other_address(line, asked.host)]
        if lines:
            self._standard().extract_cookies(_Answered(lines), asked)  # type: ignore[arg-type]

    def set(self, url: str, cookies: Mapping[str, str]) -> None:
        """Cookies that the caller hands in, for the host of `url` and all its paths."""
        host = _Asked(url).host
        domain = f"[{host}]" if ":" in host else host
        for name, value in cookies.items():
            self._standard().set_cookie(make_cookie(name, value, domain))

    def add(self, cookie: "Cookie") -> None:
        self._standard().set_cookie(cookie)

    def __iter__(self) -> "Iterator[Cookie]":
        return iter(self._jar or ())

    def __len__(self) -> int:
        return len(self._jar) if self._jar is not None else 0


_DOMAIN = re.compile(r";\s*domain\s*=\s*([^;]*)", re.IGNORECASE)
_IPV4 = re.compile(r"\d+\.\d+\.\d+\.\d+")


def _for_other_address(line: str, host: str) -> bool:
    """Whether a `Set-Cookie` line from an IPv4 address names a domain: those have none (RFC 6265, 5.1.3)."""
    domain = _DOMAIN.search(line)
    return bool(domain and _IPV4.fullmatch(host) and domain[1].strip().removeprefix(".") != host)


def make_cookie(
    name: str,
    value: str,
    domain: str,
    *,
    path: str = "/",
    secure: bool = False,
    expires: int | None = None,
    host_only: bool = True,
) -> "Cookie":
    """A cookie for the standard jar. `expires` is seconds since 1970; None lasts as long as the session."""
    from http.cookiejar import Cookie

    if host_only and "." not in domain:
        domain = f"{domain}.local"  # how the standard jar writes a host name without dots
    return Cookie(
        version=0,
        name=name,
        value=value,
        port=None,
        port_specified=False,
        domain=domain if host_only or domain.startswith(".") else f".{domain}",
        domain_specified=not host_only,
        domain_initial_dot=not host_only,
        path=path,
        path_specified=True,
        secure=secure,
        expires=expires,
        discard=expires is None,
        comment=None,
        comment_url=None,
        rest={},
    )


class CookieFileWarning(UserWarning):
    """A file in the cookies folder cannot be read; the message names it. It is left out."""


_given: dict[str, dict[str, str]] = {}
_folder: Path | None = None


def set_cookies(domain: str, cookies: Mapping[str, str] | None = None) -> None:
    """Cookies for a domain, for this process. Without `cookies` those of the domain are forgotten.

    They are for that host alone, or, when the domain begins with a dot, for its subdomains too.
    """
    if cookies:
        _given[domain.lower()] = dict(cookies)
    else:
        _given.pop(domain.lower(), None)


def set_cookies_dir(folder: str | os.PathLike[str] | None) -> None:
    """The folder with cookies.txt, JSON and HAR files; None for the default one."""
    global _folder
    _folder = Path(folder) if folder is not None else None


def cookies_dir() -> Path:
    """The cookies folder: as set, else `TOLMACH_COOKIES`, else `tolmach/cookies` in the user's configuration."""
    if _folder is not None:
        return _folder
    if configured := os.environ.get("TOLMACH_COOKIES"):
        return Path(configured).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "tolmach" / "cookies"


def get_cookies(domain: str, *, browsers: bool = False) -> dict[str, str]:
    """The cookies that a browser would send to `https://domain/`, by name.

    Looked for in this order, and the first place that has any wins: cookies set by `set_cookies`,
    the cookies folder (Netscape `cookies.txt`, JSON exports of browser extensions, HAR files), and
    only with `browsers=True` the user's own browsers (extra `tolmach[browsers]`). A cookie counts
    when domain, path and `secure` fit (RFC 6265) and it has not expired. A file that cannot be
    read is a `CookieFileWarning` that names it.
    """
    domain = domain.lstrip(".").lower()
    if given := _given_for(domain):
        return given
    url = f"https://{domain}/"
    if found := _sent_to(url, _folder_cookies(cookies_dir())):
        return found
    return _sent_to(url, _browser_cookies(domain)) if browsers else {}


def _given_for(domain: str) -> dict[str, str]:
    """What was set for the domain; with more than one fitting, the nearer one counts."""
    found: dict[str, str] = {}
    labels = domain.split(".")
    for at in range(len(labels) - 1, -1, -1):
        found |= _given.get("." + ".".join(labels[at:]), {})
    return found | _given.get(domain, {})


def load_cookies(path: str | os.PathLike[str], domain: str) -> dict[str, str]:
    """The cookies of one file that a browser would send to `https://domain/`.

    Raises `ConfigError` that names the file when it is not there or is of no known kind.
    """
    file = Path(path)
    try:
        cookies = _read_file(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: cannot be read as cookies.txt, JSON or HAR: {error}") from error
    return _sent_to(f"https://{domain.lstrip('.').lower()}/", cookies)


def _sent_to(url: str, cookies: Iterable["Cookie"]) -> dict[str, str]:
    jar = CookieJar()
    for cookie in cookies:
        jar.add(cookie)
    pairs = (pair.partition("=") for pair in jar.header(url).split("; ") if pair)
    return {name: value for name, _, value in pairs}


def _folder_cookies(folder: Path) -> Iterator["Cookie"]:
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _PARSERS)
    except OSError:
        return  # no such folder: nobody put cookies there
    for file in files:
        try:
            yield from _read_file(file)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            warnings.warn(f"{file}: left out, it cannot be read: {why}", CookieFileWarning, stacklevel=4)


def _read_file(file: Path) -> "tuple[Cookie, ...]":
    """The cookies of a file; it is parsed again only when it has changed. Raises `OSError` and `ValueError`."""
    if file.suffix.lower() not in _PARSERS:
        raise ValueError(f"its name ends with none of {', '.join(_PARSERS)}")
    state = file.stat()
    return _parse_file(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=32)
def _parse_file(file: Path, _changed: int, _size: int) -> "tuple[Cookie, ...]":
    try:
        return tuple(_PARSERS[file.suffix.lower()](file.read_bytes().removeprefix(b"\xef\xbb\xbf")))
    except msgspec.MsgspecError as error:
        # Its words tell the place and the kinds, never the value.
        raise ValueError(str(error)) from error


def _parse_netscape(data: bytes) -> Iterator["Cookie"]:
    """`domain, subdomains too, path, secure, expires, name, value` with tabs between, as curl writes them."""
    for number, line in enumerate(data.decode().splitlines(), 1):
        line = line.removeprefix("#HttpOnly_")
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 7:
            raise ValueError(f"line {number} has {len(fields)} fields, not 7")
        domain, subdomains, path, secure, expires, name, value = fields
        yield make_cookie(
            name,
            value,
            domain.lstrip(".").lower(),
            path=path,
            secure=secure.upper() == "TRUE",
            expires=_seconds(expires, f"line {number}"),
            host_only=subdomains.upper() != "TRUE",
        )


def _seconds(value: float | str | None, where: str) -> int | None:
    """Seconds since 1970; None for a cookie of the session. Raises `ValueError` that does not show the value."""
    try:
        seconds = int(float(value or 0))
    except (ValueError, OverflowError):
        raise ValueError(f"{where}: the time of expiry is no number") from None
    return seconds if seconds > 0 else None


class _Exported(Struct):
    """A cookie as browser extensions export it."""

    name: str
    value: str
    domain: str
    path: str | None = None
    secure: bool | None = None
    expirationDate: float | str | None = None
    expires: float | str | None = None
    hostOnly: bool | None = None


class _Export(Struct):
    cookies: list[_Exported]


def _parse_json(data: bytes) -> Iterator["Cookie"]:
    """What browser extensions export: a list of cookies, or an object with `cookies`."""
    found = msgspec.json.decode(data, type=list[_Exported] | _Export)
    exported = found.cookies if isinstance(found, _Export) else found
    for number, item in enumerate(exported):
        ends = item.expirationDate if item.expirationDate is not None else item.expires
        domain_too = not item.hostOnly if item.hostOnly is not None else item.domain.startswith(".")
        yield make_cookie(
            item.name,
            item.value,
            item.domain.lstrip(".").lower(),
            path=item.path or "/",
            secure=bool(item.secure),
            expires=_seconds(ends, f"cookie {number}"),
            host_only=not domain_too,
        )


class _Pair(Struct):
    name: str
    value: str


class _HarRequest(Struct):
    url: str
    cookies: list[_Pair] = []
    headers: list[_Pair] = []


class _HarResponse(Struct):
    headers: list[_Pair] = []


class _HarEntry(Struct):
    request: _HarRequest
    response: _HarResponse | None = None


class _HarLog(Struct):
    entries: list[_HarEntry]


class _Har(Struct):
    log: _HarLog


def _parse_har(data: bytes) -> Iterator["Cookie"]:
    """The cookies that the browser sent, and those that answers set, from a HAR file."""
    jar = CookieJar()
    for entry in msgspec.json.decode(data, type=_Har).log.entries:
        request = entry.request
        jar.set(request.url, _sent_in(request))
        headers = entry.response.headers if entry.response else []
        lines = [header.value for header in headers if header.name.lower() == "set-cookie"]
        jar.store(request.url, "\n".join(lines).split("\n"))
    return iter(jar)


def _sent_in(request: _HarRequest) -> dict[str, str]:
    """The cookies of a request; browsers leave out the one list or the other."""
    headers = [header.value for header in request.headers if header.name.lower() == "cookie"]
    pairs = (pair.strip().partition("=") for header in headers for pair in header.split(";") if "=" in pair)
    return {name: value for name, _, value in pairs} | {cookie.name: cookie.value for cookie in request.cookies}


_PARSERS: dict[str, Callable[[bytes], Iterable["Cookie"]]] = {
    ".txt": _parse_netscape,
    ".json": _parse_json,
    ".har": _parse_har,
}


def _browser_cookies(domain: str) -> Iterable["Cookie"]:
    try:
        browser_cookie3: Any = import_module("browser_cookie3")  # without type hints
    except ImportError as error:
        raise missing("cookies of browsers need the package browser-cookie3", "browsers") from error
    try:
        found: list[Cookie] = list(browser_cookie3.load(domain_name=domain))
    except browser_cookie3.BrowserCookieError as error:
        warnings.warn(f"the browsers' cookies cannot be read: {error}", CookieFileWarning, stacklevel=4)
        return []
    return found
