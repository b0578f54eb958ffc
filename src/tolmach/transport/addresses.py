"""Checks and spellings of addresses that all transports share."""

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit

from tolmach.errors import ConfigError

__all__ = ["PROXY_SCHEMES", "check_headers", "check_pins", "origin", "proxy_parts", "text_of", "without_credentials"]

PROXY_SCHEMES = frozenset({"http", "https", "socks4", "socks4a", "socks5", "socks5h"})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}


@lru_cache(1024)
def origin(url: str) -> str:
    """`scheme://host:port` of an address, for messages: no credentials, path or query.

    Raises `ConfigError` when it is no absolute http or https address.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError("the request's url is no address") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError("the request's url is no absolute http or https address")
    return _spelled(parts.scheme, host, port)


def proxy_parts(url: str) -> tuple[SplitResult, str]:
    """A proxy's address in its parts, and how to call it in messages (without credentials).

    Raises `ConfigError` for what is no proxy address.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        # `from None`: the cause would show the address, and it may hold a password.
        raise ConfigError("the proxy's address cannot be read; write scheme://user:password@host:port") from None
    if parts.scheme not in PROXY_SCHEMES or not host:
        raise ConfigError(f"a proxy is {', '.join(sorted(PROXY_SCHEMES))} ://host:port, not {parts.scheme}:")
    return parts, _spelled(parts.scheme, host, port)


def without_credentials(url: str) -> str:
    """An address as it may be shown, whether it is a good one or not."""
    before, _, rest = url.rpartition("@")
    scheme, there, _ = before.partition("://")
    return f"{scheme}://{rest}" if there else rest


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises `ConfigError` for a header that cannot be written (RFC 9110, 5.1 and 5.5)."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise ConfigError(f"{name!r} is no name of a header")
        if _CONTROL.search(value):
            raise ConfigError(f"the header {name} holds a control character")


def check_pins(pins: Mapping[str, tuple[str, ...]]) -> dict[str, list[IPv4Address | IPv6Address]]:
    """The pinned addresses of host names. Raises `ConfigError` for what is no IP address."""
    try:
        return {host: [ip_address(address) for address in addresses] for host, addresses in pins.items()}
    except ValueError as error:
        raise ConfigError(f"resolve: {error}") from error


def _spelled(scheme: str, host: str, port: int | None) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port or _PORTS[scheme]}"


def text_of(value: bytes | memoryview) -> str:
    """A header's text: UTF-8 where it is that, else ISO-8859-1 (RFC 9110, 5.5)."""
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        return str(value, "latin-1")
