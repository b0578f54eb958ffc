"""Cookies: the jar of a session, and the finding of a user's own cookies.

The jar is the standard library's (RFC 6265 by way of `http.cookiejar`).
"""

import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from anychat.errors import ConfigError, MissingDependency

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
    """Cookies for a domain, for this process. Without `cookies` those of the domain are forgotten."""
    if cookies:
        _given[domain.lstrip(".").lower()] = dict(cookies)
    else:
        _given.pop(domain.lstrip(".").lower(), None)


def set_cookies_dir(folder: str | os.PathLike[str] | None) -> None:
    """The folder with cookies.txt, JSON and HAR files; None for the default one."""
    global _folder
    _folder = Path(folder) if folder is not None else None


def cookies_dir() -> Path:
    """The cookies folder: as set, else `ANYCHAT_COOKIES`, else `anychat/cookies` in the user's configuration."""
    if _folder is not None:
        return _folder
    if configured := os.environ.get("ANYCHAT_COOKIES"):
        return Path(configured)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "anychat" / "cookies"


def get_cookies(domain: str, *, browsers: bool = False) -> dict[str, str]:
    """The cookies that a browser would send to `https://domain/`, by name.

    Looked for in this order, and the first place that has any wins: cookies set by `set_cookies`,
    the cookies folder (Netscape `cookies.txt`, JSON exports of browser extensions, HAR files), and
    only with `browsers=True` the user's own browsers (extra `anychat[browsers]`). A cookie counts
    when domain, path and `secure` fit (RFC 6265) and it has not expired. A file that cannot be
    read is a `CookieFileWarning` that names it.
    """
    domain = domain.lstrip(".").lower()
    if given := _given.get(domain):
        return dict(given)
    url = f"https://{domain}/"
    if found := _sent_to(url, _folder_cookies(cookies_dir())):
        return found
    return _sent_to(url, _browser_cookies(domain)) if browsers else {}


def load_cookies(path: str | os.PathLike[str], domain: str) -> dict[str, str]:
    """The cookies of one file that a browser would send to `https://domain/`.

    Raises `ConfigError` that names the file when it is not there or is of no known kind.
    """
    file = Path(path)
    try:
        cookies = list(_parse_file(file))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: cannot be read as cookies.txt, JSON or HAR: {error}") from error
    return _sent_to(f"https://{domain}/", cookies)


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
            yield from list(_parse_file(file))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(f"{file}: left out, it cannot be read: {error}", CookieFileWarning, stacklevel=4)


def _parse_file(file: Path) -> Iterable["Cookie"]:
    parse = _PARSERS.get(file.suffix.lower())
    if parse is None:
        raise ValueError(f"its name ends with none of {', '.join(_PARSERS)}")
    return parse(file.read_text(encoding="utf-8-sig"))


def _parse_netscape(text: str) -> Iterator["Cookie"]:
    """`domain, subdomains too, path, secure, expires, name, value` with tabs between, as curl writes them."""
    for number, line in enumerate(text.splitlines(), 1):
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
            expires=int(float(expires)) or None,
            host_only=subdomains.upper() != "TRUE",
        )


def _parse_json(text: str) -> Iterator["Cookie"]:
    """What browser extensions export: a list of cookies, or an object with `cookies`."""
    value = json.loads(text)
    for item in value["cookies"] if isinstance(value, dict) else value:
        expires = item.get("expirationDate", item.get("expires"))
        domain = str(item["domain"])
        yield make_cookie(
            str(item["name"]),
            str(item["value"]),
            domain.lstrip(".").lower(),
            path=str(item.get("path") or "/"),
            secure=bool(item.get("secure")),
            expires=int(expires) if isinstance(expires, int | float) and expires > 0 else None,
            host_only=bool(item.get("hostOnly", not domain.startswith("."))),
        )


def _parse_har(text: str) -> Iterator["Cookie"]:
    """The cookies that the browser sent, and those that answers set, from a HAR file."""
    jar = CookieJar()
    for entry in json.loads(text)["log"]["entries"]:
        request = entry["request"]
        host = urlsplit(request["url"]).hostname or ""
        for cookie in request.get("cookies", ()):
            jar.add(make_cookie(str(cookie["name"]), str(cookie["value"]), host))
        headers = entry.get("response", {}).get("headers", ())
        lines = [line for h in headers if h["name"].lower() == "set-cookie" for line in h["value"].split("\n")]
        jar.store(request["url"], lines)
    return iter(jar)


_PARSERS: dict[str, Callable[[str], Iterable["Cookie"]]] = {
    ".txt": _parse_netscape,
    ".json": _parse_json,
    ".har": _parse_har,
}


def _browser_cookies(domain: str) -> Iterable["Cookie"]:
    try:
        browser_cookie3: Any = import_module("browser_cookie3")  # without type hints
    except ImportError as error:
        raise MissingDependency("cookies of browsers need the extra: pip install 'anychat[browsers]'") from error
    try:
        found: list[Cookie] = list(browser_cookie3.load(domain_name=domain))
    except browser_cookie3.BrowserCookieError as error:
        warnings.warn(f"the browsers' cookies cannot be read: {error}", CookieFileWarning, stacklevel=4)
        return []
    return found
