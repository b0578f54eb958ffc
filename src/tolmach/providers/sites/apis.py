"""A table of services and self-hosted servers with an API: an address, a key's variable, what is odd about each.

It stands in `apis.toml` beside this module and is read at its first use.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, field

from tolmach.errors import ConfigError
from tolmach.protocols import create
from tolmach.protocols.base import Site

__all__ = ["Api", "api", "api_site", "apis"]


class Api(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of the table."""

    title: str
    url: str
    key: str = ""
    """The environment variable that holds the key; empty where none is needed."""
    protocol: str = "openai"
    models: str = "/models"
    """Where the list of models is, below the address; empty when there is none."""
    options: dict[str, Any] = field(default_factory=dict)
    """The protocol's own options that the service needs."""

    @property
    def local(self) -> bool:
        """Whether it is a server on this machine, which may do without a key."""
        host = urlsplit(self.url).hostname or ""
        try:
            return host == "localhost" or ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def models_url(self) -> str:
        """Where the list of models is; empty when there is none."""
        return self.url.rstrip("/") + self.models if self.models else ""


@cache
def apis() -> Mapping[str, Api]:
    """All rows by name. Raises `ConfigError` for a table that is not as it should be."""
    text = (files("tolmach.providers.sites") / "apis.toml").read_text(encoding="utf-8")
    try:
        return MappingProxyType(msgspec.convert(tomllib.loads(text), dict[str, Api]))
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"apis.toml: {error}") from error


def api(name: str) -> Api:
    """The row of this name. Raises `ConfigError` for one that there is not."""
    try:
        return apis()[name]
    except KeyError:
        raise ConfigError(f"no service {name!r} in the table; there are: {', '.join(sorted(apis()))}") from None


def api_site(
    name: str,
    environ: Mapping[str, str],
    *,
    url: str = "",
    api_key: str = "",
    options: Mapping[str, Any] | None = None,
) -> Site:
    """The service as a site, with its key from `environ`.

    `url`, `api_key` and `options` (of the protocol) stand above those of the table. Raises `ConfigError`
    for a name that is not in the table, a wrong option, and a service whose key's variable is not set.
    """
    row = api(name)
    key = api_key or (environ.get(row.key, "").strip() if row.key else "")
    if row.key and not key and not row.local and not url:
        raise ConfigError(f"{name} ({row.title}): set the environment variable {row.key} to its key, or api_key")
    protocol = create(row.protocol, {**row.options, **(options or {})})
    return Site(name=name, url=url or row.url, protocol=protocol, api_key=key)
