"""Cookies of a session, by the standard library's jar (RFC 6265 by way of `http.cookiejar`)."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from http.cookiejar import Cookie
    from http.cookiejar import CookieJar as StandardJar

__all__ = ["CookieJar"]


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

            self._jar = StandardJar()
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
        lines = list(lines)
        if lines:
            self._standard().extract_cookies(_Answered(lines), _Asked(url))  # type: ignore[arg-type]

    def set(self, url: str, cookies: Mapping[str, str]) -> None:
        """Cookies that the caller hands in, for the host of `url` and all its paths."""
        for name, value in cookies.items():
            self._standard().set_cookie(make_cookie(name, value, _Asked(url).host))

    def __iter__(self) -> "Iterator[Cookie]":
        return iter(self._jar or ())

    def __len__(self) -> int:
        return len(self._jar) if self._jar is not None else 0


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
