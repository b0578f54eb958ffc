"""Checks and spellings of addresses that all transports share."""

from urllib.parse import SplitResult, urlsplit

from anychat.errors import ConfigError

__all__ = ["PROXY_SCHEMES", "origin", "proxy_parts", "text_of"]

PROXY_SCHEMES = frozenset({"http", "https", "socks4", "socks4a", "socks5", "socks5h"})
_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}


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


def _spelled(scheme: str, host: str, port: int | None) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port or _PORTS[scheme]}"


def text_of(value: bytes) -> str:
    """A header's text: UTF-8 where it is that, else ISO-8859-1 (RFC 9110, 5.5)."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
