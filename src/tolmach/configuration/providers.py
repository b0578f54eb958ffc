"""Checks of `[providers.NAME]` and `[routes.NAME]` that look at more than one key."""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import structs

from tolmach.configuration.checking import BAD, Checker, fields_of
from tolmach.configuration.files import is_file, place
from tolmach.configuration.problems import KeyPath, shortened, unknown
from tolmach.configuration.reading import Origin
from tolmach.configuration.tables import ProviderTable, Route
from tolmach.cookies import load_cookies
from tolmach.errors import ConfigError, TolmachError
from tolmach.pages.site import PAGE, PageAssistant, is_page_address, page_site
from tolmach.protocols import PROTOCOLS, load
from tolmach.providers.base import AbstractProvider, checked_url
from tolmach.providers.registry import configured, get_provider, provider_names
from tolmach.providers.sites.apis import Api, apis
from tolmach.recipes.files import read_recipe
from tolmach.transport import TransportOptions
from tolmach.transport import create as create_transport
from tolmach.transport.addresses import check_headers, proxy_parts

__all__ = ["check_provider", "check_route"]

_KINDS = ("protocol", "service", "type")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]|^\s|\s$")


def check_provider(
    checker: Checker, name: str, row: dict[str, Any], environ: Mapping[str, str]
) -> ProviderTable | None:
    """The provider of a table, with what its name or its service stands for; None when anything is wrong."""
    return _ProviderCheck(checker, name, row, environ).run()


class _ProviderCheck:
    """The check of one provider."""

    def __init__(self, checker: Checker, name: str, row: dict[str, Any], environ: Mapping[str, str]) -> None:
        self._checker = checker
        self._document = checker.document
        self._path: KeyPath = ("providers", name)
        self._name = name
        self._row = row
        self._environ = environ
        self._found: dict[str, Any] = {"name": name}
        self._provider: type[AbstractProvider] | None = None
        self._api: Api | None = None

    def run(self) -> ProviderTable | None:
        before = len(self._document.problems)
        if not self._name or "/" in self._name:
            self._problem((), "a provider's name is a text without /, for callers write NAME/MODEL")
        types = fields_of(ProviderTable)
        self._found |= self._checker.entries(self._path, {k: v for k, v in self._row.items() if k in types}, types)
        protocol = self._kind()
        options = {key: value for key, value in self._row.items() if key not in types}
        if protocol is not None:
            self._options(protocol, options, list(types))
        self._address()
        self._access()
        self._found["hidden"] = self._document.hidden(self._path)
        return ProviderTable(**self._found) if len(self._document.problems) == before else None

    def _problem(self, below: KeyPath, text: str) -> None:
        self._document.problem((*self._path, *below), text)

    def _good(self, key: str) -> Any:
        """The value of a key that is there and right, else None."""
        value = self._found.get(key)
        return None if value is BAD else value

    # What speaks

    def _kind(self) -> str | None:
        """The name of the protocol, from the key that says it or from the provider's name; None when it is wrong."""
        said = [key for key in self._row if key in _KINDS]
        if not said and "url" not in self._row and is_page_address(self._row.get("page")):
            return self._page(self._row["page"])
        for key in said[1:]:
            self._problem((key,), f"{said[0]} stands there already; only one of {', '.join(_KINDS)} says what speaks")
        if not said:
            return self._by_name()
        value = self._good(said[0])
        if value is None:
            return None
        return {"protocol": self._protocol, "service": self._service, "type": self._type}[said[0]](value)

    def _by_name(self) -> str | None:
        if self._name in provider_names():
            return self._type(self._name)
        if self._name in apis():
            return self._service(self._name)
        known = [*provider_names(), *apis()]
        near = get_close_matches(self._name, known, 1, 0.6)
        what = f"neither a provider class nor a service of the table{f'; did you mean {near[0]}?' if near else '.'}"
        self._problem((), f"{what} Any other name needs url and protocol, one of {', '.join(PROTOCOLS)}; or page")
        return None

    def _protocol(self, protocol: str) -> str | None:
        if protocol == "recipe" and "url" not in self._row:
            self._found["url"] = self._address_of_recipe()
        elif "url" not in self._row:
            other = f' (or service = "{protocol}", without protocol)' if protocol in apis() else ""
            self._problem(("url",), f"is missing: the address at which the protocol is spoken{other}")
        if protocol in PROTOCOLS:
            return protocol
        self._problem(
            ("protocol",), unknown(f'there is no protocol "{shortened(protocol)}"', protocol, list(PROTOCOLS))
        )
        return None

    def _page(self, url: str) -> str:
        """A row whose `page` is an address: discovery finds there what speaks."""
        self._found["protocol"] = PAGE
        self._try("page", lambda: self._found.update(url=page_site(url).url))
        if self._row.get("proxy"):
            # It would resolve the names that the page names, and nobody here could judge what they stand for.
            self._problem(("proxy",), "a provider that is a page is asked without one")
        return PAGE

    def _address_of_recipe(self) -> str:
        """The address that the recipe's own file gives; empty, and noted, when it gives none."""
        name = self._row.get("recipe")
        file = place(Path(self._document.file).parent, name) if isinstance(name, str) else None
        if file is not None and not is_file(file):
            return ""  # told where the option is checked
        try:
            url = read_recipe(file, self._environ).url if file is not None else ""
        except ConfigError:
            return ""  # told where the options are checked together
        if not url:
            self._problem(("url",), "is missing: the address of the site, here or in the recipe's file")
        return url

    def _service(self, name: str) -> str | None:
        if name not in apis():
            self._problem(
                ("service",), unknown(f'there is no service "{shortened(name)}" in the table', name, list(apis()))
            )
            return None
        row = self._api = apis()[name]
        self._found |= {"service": name, "protocol": row.protocol}
        self._found.setdefault("url", row.url)
        # The key is for the service's own address: another one gets what the file gives it.
        if not {"api_key", "api_keys"} & self._row.keys() and row.key and "url" not in self._row:
            self._key_of(row)
        return row.protocol

    def _key_of(self, row: Api) -> None:
        key = self._environ.get(row.key, "").strip()
        if key:
            self._found["api_key"] = key
            self._document.keep_secret(key)
            self._document.origins[*self._path, "api_key"] = Origin(variables=(row.key,))
            self._try("api_key", partial(_check_key, key))
        elif not row.local:
            self._problem(
                ("api_key",),
                f"is missing: set the environment variable {row.key} to the key of {row.title}, or give it here",
            )

    def _type(self, name: str) -> str | None:
        if name not in provider_names():
            self._problem(("type",), unknown(f'there is no provider class "{shortened(name)}"', name, provider_names()))
            return None
        try:
            self._provider = get_provider(name)
        except ConfigError as error:
            self._problem(("type",) if "type" in self._row else (), str(error))
            return None
        self._found["type"] = name
        self._found.setdefault("default_model", self._provider.default_model)
        return self._provider.protocol.name

    # Its options

    def _options(self, protocol: str, options: dict[str, Any], known: list[str]) -> None:
        # A struct, which the type of all protocols does not say.
        kind: Any = PageAssistant if protocol == PAGE else load(protocol)
        fields = {field.name: field.type for field in structs.fields(kind)}
        what = f"the protocol is {protocol}"
        if protocol == PAGE:
            options = {key: value for key, value in options.items() if key != PAGE}
            what = "page alone says what speaks"
        good: dict[str, Any] = {}
        for key, value in options.items():
            if key in fields:
                good[key] = self._checker.value((*self._path, key), value, fields[key])
            else:
                self._problem((key,), unknown(f"unknown key ({what})", key, [*known, *fields]))
        if BAD in good.values():
            return
        self._found["options"] = good = msgspec.to_builtins(good)
        if protocol == PAGE:
            return
        try:
            configured(protocol, self._inherited() | good, self._environ)
            if protocol == "recipe" and not ("recipe" in good or "request" in good):
                self._problem(("recipe",), "is missing: the file of the recipe, or a table [request] here")
        except ConfigError as error:
            self._blame(str(error), good)

    def _inherited(self) -> dict[str, Any]:
        """The options that the provider's class or the service has."""
        if self._api is not None:
            return self._api.options
        return {} if self._provider is None else msgspec.to_builtins(self._provider.protocol)

    def _blame(self, said: str, options: dict[str, Any]) -> None:
        """Report what the protocol says of its options together, at the one that it names."""
        said = re.sub(r"^protocol [a-z-]+: ", "", said)
        named = [key for key in options if re.search(rf"(?<![\w.]){re.escape(key)}\b", said)]
        self._problem((named[0],) if named else (), re.sub(r" - at `\$[^`]*`$", "", said))

    # How to get there

    def _address(self) -> None:
        url = self._good("url")
        if url is not None and "url" in self._row:
            self._try("url", lambda: self._found.update(url=checked_url(url)))
        elif self._provider is not None and "url" not in self._row:
            self._found["url"] = self._provider.site().url

    def _access(self) -> None:
        for key, check in _CHECKS.items():
            value = self._good(key)
            if value and key in self._row:
                self._try(key, partial(check, value))
        file = self._good("cookies")
        if isinstance(file, str) and file and self._good("url"):
            self._try("cookies", lambda: self._cookies_of(file))

    def _cookies_of(self, file: str) -> None:
        domain = (self._provider.cookie_domain if self._provider else "") or urlsplit(self._found["url"]).hostname or ""
        if not load_cookies(file, domain):
            raise ConfigError(f"no cookie in {file} is for {domain}")

    def _try(self, key: str, check: Callable[[], object]) -> None:
        try:
            check()
        except TolmachError as error:
            self._problem((key,), str(error).removeprefix(f"{key}: "))


def _check_key(key: str) -> None:
    if _CONTROL.search(key):
        raise ConfigError("a space at an end, a line break or another control character is in it")


def _check_profile(profile: str) -> None:
    create_transport(TransportOptions(impersonate=profile))


def _check_keys(keys: tuple[str, ...]) -> None:
    for key in keys:
        _check_key(key)


_CHECKS: dict[str, Callable[[Any], object]] = {
    "api_key": _check_key,
    "api_keys": _check_keys,
    "headers": check_headers,
    "proxy": proxy_parts,
    "impersonate": _check_profile,
}
"""Key -> what raises an error that says what is wrong with its value."""


def check_route(
    checker: Checker, name: str, row: dict[str, Any], providers: Mapping[str, ProviderTable | None]
) -> Route | None:
    """The route of a table; None when anything is wrong. Its targets must lead to providers that are there."""
    path: KeyPath = ("routes", name)
    if not name:
        checker.document.problem(path, 'a route has the name of a model; "*" is for all others')
    route = checker.table(path, row, Route)
    targets = row.get("targets")
    for at, target in enumerate(targets if isinstance(targets, list) else ()):
        provider = target.partition("/")[0] if isinstance(target, str) else None
        if provider is None or provider in providers or (*path, "targets", at) in checker.document.broken:
            continue
        place = (*path, "targets", at)
        if provider in provider_names() or provider in apis():
            checker.document.problem(place, f"no provider {provider} is configured; add [providers.{provider}]")
        else:
            what = f'"{shortened(target)}" leads to no provider (write PROVIDER/MODEL)'
            checker.document.problem(place, unknown(what, provider, list(providers)))
    if route is not None and route.weights and len(route.weights) != len(route.targets):
        checker.document.problem((*path, "weights"), f"one number for each of the {len(route.targets)} targets")
        return None
    return route
