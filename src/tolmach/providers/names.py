"""Whom a name means: a row of a configuration, a provider class, or a service of the table."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal, NamedTuple

from tolmach.errors import ConfigError, ModelNotFound
from tolmach.providers.registry import provider_names
from tolmach.providers.sites.apis import apis

__all__ = ["Named", "find_named", "named"]


class Named(NamedTuple):
    """Who is meant, by the exact name."""

    kind: Literal["row", "class", "service"]
    name: str


def named(name: str, rows: Iterable[str] = ()) -> Named:
    """Who is meant by a name, where a configuration has these rows: a row, else a class, else a service.

    Upper and lower case count only where several names differ by nothing else. Raises `ModelNotFound` for a name that
    nobody has, and `ConfigError` for one that several have, written as none of them.
    """
    rows = list(rows)
    if (found := find_named(name, rows)) is not None:
        return found
    near = get_close_matches(name, [*rows, *provider_names(), *apis()], 1, 0.6)
    there = f"there are: {', '.join([*rows, *provider_names()])}, and {len(apis())} services such as groq"
    raise ModelNotFound(f"no provider {name!r}; {f'did you mean {near[0]}?' if near else there}")


def find_named(name: str, rows: Iterable[str] = ()) -> Named | None:
    """As `named`, but None for a name that nobody has."""
    known = {
        **{service: Named("service", service) for service in apis()},
        **{provider: Named("class", provider) for provider in provider_names()},
        **{row: Named("row", row) for row in rows},
    }
    if name in known:
        return known[name]
    alike = [one for one in known if one.casefold() == name.casefold()]
    if len(alike) > 1:
        raise ConfigError(f"several providers are called {name!r}: {', '.join(alike)}; write it as one of them")
    return known[alike[0]] if alike else None
