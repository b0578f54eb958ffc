"""Addresses that the gateway listens on: resolved, told from those of other machines, and written as URLs."""

import socket
from ipaddress import ip_address

from tolmach.errors import ConfigError

__all__ = ["is_loopback", "resolve", "url_of"]


def resolve(host: str) -> tuple[str, socket.AddressFamily]:
    """The address of a name, the older kind first. Raises `ConfigError`."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot listen on {host}: there is no such address") from error
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return str(address[0]), family


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address. Raises `ConfigError` for one that there is not."""
    return ip_address(resolve(host)[0].partition("%")[0]).is_loopback


def url_of(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
