"""What may be fetched: public addresses, and those that the operator's configuration lists. No I/O."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from tolmach.egress.addresses import IP, Address, check_url, is_private_name, is_public, normal_host, refuse
from tolmach.errors import AddressRefused, ConfigError

__all__ = ["Allowed"]


class Allowed:
    """Judges addresses. `entries` are what is allowed besides public ones.

    An entry is a network (`10.0.0.0/8`), an address (`192.168.1.7`), a name (`intranet.example`), or all
    names below one (`*.intranet.example`). A name that is listed may stand for any address. Raises
    `ConfigError` for an entry that is none of these.
    """

    def __init__(self, entries: Sequence[str] = ()) -> None:
        self._networks: list[IPv4Network | IPv6Network] = []
        self._names: set[str] = set()
        self._below: list[str] = []
        for entry in entries:
            self._add(entry.strip())

    def _add(self, entry: str) -> None:
        try:
            self._networks.append(ip_network(entry))
            return
        except ValueError as error:
            if "/" in entry or ":" in entry:
                raise ConfigError(f"{entry!r} is no network: {error}") from error
        try:
            host, ip = normal_host(entry.removeprefix("*."))
        except AddressRefused as error:
            raise ConfigError(f"{entry!r} is no network, no address and no name of a host") from error
        if ip is not None:
            raise ConfigError(f"{entry!r}: write the address as {ip}")
        if entry.startswith("*."):
            self._below.append(f".{host}")
        else:
            self._names.add(host)

    def names(self, host: str) -> bool:
        """Whether the configuration lists this name."""
        return host in self._names or any(host.endswith(below) for below in self._below)

    def permits(self, ip: IP) -> bool:
        """Whether this address may be asked: it is public, or in a network that is listed."""
        return is_public(ip) or any(ip in network for network in self._networks)

    def check(self, text: str) -> Address:
        """`check_url`, and what can be said of the host without resolving it. Raises `AddressRefused`."""
        address = check_url(text)
        if self.names(address.host):
            return address
        if address.ip is not None and not self.permits(address.ip):
            refuse(f"{address.host} is no public address; this server asks only those", "address")
        if address.ip is None and is_private_name(address.host) and not self._networks:
            refuse(f"{address.host} is a name of a private network; this server asks only public ones", "name")
        return address

    def check_resolved(self, host: str, addresses: Iterable[str]) -> tuple[str, ...]:
        """The addresses of a host, each once. Raises `AddressRefused` unless all of them may be asked.

        One that may not is enough: an honest public name has none. The message does not show it, since it
        may tell a stranger about this network.
        """
        found = tuple(dict.fromkeys(addresses))
        if not self.names(host) and not all(self.permits(_unmapped(address)) for address in found):
            refuse(f"{host} stands for an address that is not public; this server asks only public ones", "resolved")
        return found


def _unmapped(text: str) -> IP:
    ip = ip_address(text)
    return getattr(ip, "ipv4_mapped", None) or ip
