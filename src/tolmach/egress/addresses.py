"""Addresses that somebody named: read as browsers read them, and told public from private. No I/O.

Hosts are read by the WHATWG URL Standard (host parser, IPv4 parser), since libraries differ in what they
take for an IPv4 address; what the standard has repaired silently (tabs, backslashes, missing slashes) is
refused here, so that no two readers can differ over it. Special networks are those of the IANA registries
for special-purpose addresses of IPv4 and IPv6.
"""

import re
import unicodedata
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NoReturn

from msgspec import Struct

from tolmach.errors import AddressRefused

__all__ = ["IP", "Address", "check_url", "is_private_name", "is_public", "normal_host", "refuse"]

IP = IPv4Address | IPv6Address

_LONGEST_URL = 8192
_LONGEST_HOST = 253
_URL = re.compile(r"(https?)://([^/?#]*)([^#]*)(?:#.*)?", re.I | re.S)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.I)
_ODD = re.compile(r"[\x00-\x20\x7f-\xa0\\]|\s")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"(0x[0-9a-f]*)|([0-9]+)")
_PORTS = {"http": 80, "https": 443}

_PORTS_OF_OTHERS = """
    1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110 111 113 115 117 119 123
    135 137 139 143 161 179 389 427 465 512 513 514 515 526 530 531 532 540 548 554 556 563 587 601 636 989 990 993
    995 1719 1720 1723 2049 3659 4045 4190 5060 5061 6000 6379 6566 6665 6666 6667 6668 6669 6679 6697 10080 11211
"""
_BAD_PORTS = frozenset(map(int, _PORTS_OF_OTHERS.split()))
"""Those that browsers do not ask either (Fetch Standard, "bad port"). With 6379 and 11211 besides: Redis and
memcached take commands out of the middle of a request."""

_PRIVATE_NAMES = frozenset({"localhost", "localdomain", "local", "internal", "intranet", "lan", "home", "corp"})
_PRIVATE_NAMES |= {"private", "onion", "svc", "consul"}
"""Last labels of names that mean something in one network only, or nothing at all."""


class Address(Struct, frozen=True):
    """An address as it may be asked for: `url` is its one spelling, without a fragment.

    `host` is in lower case and ASCII, an IPv6 address without its brackets. `ip` is None for a name, of
    which nothing is known before it is resolved.
    """

    url: str
    scheme: str
    host: str
    port: int
    ip: IP | None


def check_url(text: str) -> Address:
    """The parts of an http or https address. Nothing is resolved, and `is_public` is not asked.

    Raises `AddressRefused` for what is no such address, has credentials in it, names the port of another
    protocol, or is longer than 8192 characters. The message shows nothing of the path and the query.
    """
    if not isinstance(text, str) or not text or len(text) > _LONGEST_URL:
        refuse(f"an address has 1 to {_LONGEST_URL} characters", "url")
    if _ODD.search(text):
        refuse("the address has a space, a control character or a backslash in it; leave it out or escape it", "url")
    parts = _URL.fullmatch(text)
    if parts is None:
        other = _SCHEME.match(text)
        if other and other[1].lower() not in _PORTS:
            refuse(f"only http and https addresses are fetched, not {other[1][:20].lower()}:", "scheme")
        refuse("this is no absolute address; write https://host/path", "url")
    scheme, authority, rest = parts[1].lower(), parts[2], parts[3]
    if "@" in authority:
        refuse("the address has credentials in it (before the @); leave them out", "credentials")
    host, port = _host_and_port(authority, _PORTS[scheme])
    host, ip = normal_host(host)
    shown = f"[{host}]" if ":" in host else host
    tail = "" if port == _PORTS[scheme] else f":{port}"
    path = rest if rest.startswith("/") else f"/{rest}"
    return Address(f"{scheme}://{shown}{tail}{path}", scheme, host, port, ip)


def refuse(text: str, reason: str) -> NoReturn:
    """Raise the error of this package."""
    raise AddressRefused(text, reason=reason)


def _host_and_port(authority: str, default: int) -> tuple[str, int]:
    if authority.startswith("["):
        host, bracket, after = authority.partition("]")
        host += bracket
    else:
        host, colon, after = authority.partition(":")
        after = colon + after
    if not after or after == ":":
        return host, default
    number = after[1:]
    if after[0] != ":" or not re.fullmatch("[0-9]{1,9}", number) or not 0 < int(number) < 65536:
        refuse("the port is no number from 1 to 65535", "port")
    if int(number) in _BAD_PORTS:
        refuse(f"port {int(number)} belongs to another protocol than HTTP; it is not asked", "port")
    return host, int(number)


def normal_host(text: str) -> tuple[str, IP | None]:
    """A host in its one spelling, and the IP address that it is or None. Raises `AddressRefused`."""
    if text.startswith("["):
        ip = _ipv6(text)
        return str(ip), ip
    if "%" in text:
        refuse("the host has an escape (%) in it; write it plainly", "host")
    host = _ascii(text).lower().removesuffix(".")
    labels = host.split(".")
    if not host or len(host) > _LONGEST_HOST or not all(map(_LABEL.fullmatch, labels)):
        refuse("the host is no name and no IP address", "host")
    if _NUMBER.fullmatch(labels[-1]):
        ip = _ipv4(labels)
        return str(ip), ip
    return host, None


def _ipv6(text: str) -> IP:
    try:
        ip = IPv6Address(text[1:-1] if text.endswith("]") and "%" not in text else "")
    except ValueError:
        refuse("what stands in brackets is no IPv6 address", "host")
    return ip.ipv4_mapped or ip


def _ascii(text: str) -> str:
    """The host in ASCII, by IDNA. What NFKC or IDNA turns into digits and dots is judged as those."""
    if text.isascii():
        return text
    plain = unicodedata.normalize("NFKC", text)
    # IDNA 2003 and 2008 have different names for these: two readers could ask two hosts.
    if re.search("[\u00df\u03c2\u200b-\u200d\u00ad\u2060\ufeff]", plain + text):
        refuse("the host has a character that is read in two ways; write its ASCII form (xn--...)", "host")
    try:
        return plain.encode("idna").decode("ascii")
    except UnicodeError:
        refuse("the host is no name that IDNA knows", "host")


def _ipv4(labels: list[str]) -> IPv4Address:
    """An IPv4 address in any of the spellings that the URL Standard knows: 127.1, 0x7f000001, 017700000001."""
    numbers = [_number(label) for label in labels]
    last = numbers.pop() if numbers else 256
    if len(numbers) > 3 or any(number > 255 for number in numbers) or last >= 256 ** (4 - len(numbers)):
        refuse("the host is a number, and no IPv4 address", "host")
    for at, number in enumerate(numbers):
        last += number << 8 * (3 - at)
    return IPv4Address(last)


def _number(label: str) -> int:
    base, digits = 10, label
    if label.startswith("0x"):
        base, digits = 16, label[2:] or "0"
    elif label.startswith("0") and len(label) > 1:
        base, digits = 8, label[1:]
    if not _NUMBER.fullmatch(label) or (base == 8 and re.search("[89]", digits)):
        refuse("the host is a number, and no IPv4 address", "host")
    return int(digits, base)


def is_private_name(host: str) -> bool:
    """Whether a name can only mean something inside one network."""
    labels = host.split(".")
    return len(labels) == 1 or labels[-1] in _PRIVATE_NAMES or labels[-2:] == ["home", "arpa"]


# Networks


def _v4(networks: str) -> tuple[IPv4Network, ...]:
    return tuple(IPv4Network(network) for network in networks.split())


def _v6(networks: str) -> tuple[IPv6Network, ...]:
    return tuple(IPv6Network(network) for network in networks.split())


_REFUSED_4 = _v4(
    # This host, private, shared by carriers, loopback, link-local (with the metadata services of clouds).
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16"
    # Protocol assignments, documentation, AS112, AMT, 6to4 relays, benchmarks.
    " 192.0.0.0/24 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.175.48.0/24 198.18.0.0/15"
    " 198.51.100.0/24 203.0.113.0/24"
    # Multicast, reserved, broadcast.
    " 224.0.0.0/4 240.0.0.0/4"
    # Public by its number, and the metadata service of one cloud.
    " 168.63.129.16/32"
)
_PUBLIC_6 = IPv6Network("2000::/3")
"""All that is given out for the public so far; what is outside is private, special or not in use."""
_REFUSED_6 = _v6(
    # Protocol assignments (Teredo, benchmarks, ORCHID among them), documentation, 6to4, AS112.
    "2001::/23 2001:db8::/32 2002::/16 3fff::/20 2620:4f:8000::/48"
)
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = (0x5EFE, 0x02005EFE)


def is_public(ip: IP | str) -> bool:
    """Whether everybody can reach this address, and it is nobody's own network.

    An IPv6 address that stands for an IPv4 one is judged by that: IPv4-mapped, NAT64 (RFC 6052) and ISATAP.
    6to4, Teredo, IPv4-compatible and translated addresses are never public, whatever is in them.
    """
    ip = ip_address(ip)
    if isinstance(ip, IPv4Address):
        return not _within(ip, _REFUSED_4)
    if ip.scope_id:
        return False
    if ip.ipv4_mapped is not None:
        return is_public(ip.ipv4_mapped)
    number = int(ip)
    if ip in _NAT64:
        return is_public(IPv4Address(number & 0xFFFFFFFF))
    if ip not in _PUBLIC_6 or _within(ip, _REFUSED_6):
        return False
    return (number >> 32) & 0xFFFFFFFF not in _ISATAP or is_public(IPv4Address(number & 0xFFFFFFFF))


def _within(ip: IP, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    return any(ip in network for network in networks)
