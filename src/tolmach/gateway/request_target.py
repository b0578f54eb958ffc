"""Which requests are meant for this gateway: by the host that they name, and by their path.

A page of a stranger can give its own name this machine's address (DNS rebinding); what its scripts ask here then has
the stranger's name as its host. So where only this machine is let in, the host must be a name of this machine. A proxy
in front may guard paths by their text; so each path has one spelling, and any other is no path at all.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from tolmach.gateway.http import BodyRefused

__all__ = ["LOOPBACK_HOSTS", "BadHost", "Misdirected", "check_host", "is_canonical"]

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})

_LONGEST_HOST = 270
"""Characters: a name of DNS has at most 255, and a port is to follow."""
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?", re.A)
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]", re.A)


class BadHost(BodyRefused):
    """The request names no host, several, or what is none."""

    status = 400
    code = "bad_host"


class Misdirected(BodyRefused):
    """The request is for another host (RFC 9110, 15.5.20)."""

    status = 421
    code = "misdirected_request"


def check_host(hosts: Sequence[str], allowed: frozenset[str] | None) -> None:
    """`hosts` are the values of all `Host` headers, `allowed` the names in lower case, None for every one.

    The port may be any: a tunnel or a container has its own. Raises `BadHost` and `Misdirected`.
    """
    if len(hosts) != 1:
        raise BadHost(f"a request has one Host header (RFC 9112, 3.2), and not {len(hosts) or 'none'}")
    name = _name(hosts[0]) if len(hosts[0]) <= _LONGEST_HOST else None
    if name is None:
        raise BadHost("the Host header names no host (RFC 9112, 3.2)")
    if allowed is not None and name not in allowed:
        raise Misdirected("this gateway is not that host; gateway.hosts lists by which names it may be asked")


@lru_cache(maxsize=256)
def _name(host: str) -> str | None:
    """Without the port, in lower case; None for what is no host."""
    found = _HOST.fullmatch(host.lower())
    return found[1] if found else None


def is_canonical(path: str, raw: str | None) -> bool:
    """Whether a path is spelled in the one way that it has; `raw` is as it was sent, None where that is not known.

    No segment is empty, `.` or `..`, and nothing is encoded that means the same when it is not (RFC 3986, 6.2.2).
    """
    if not path.startswith("/"):
        return False
    *inner, last = path[1:].split("/")
    if last in (".", "..") or any(segment in ("", ".", "..") for segment in inner):
        return False
    return raw is None or all(
        escape[1] is not None and not _UNRESERVED.match(chr(int(escape[1], 16))) for escape in _ESCAPE.finditer(raw)
    )
