"""Which provider answers to a name or a model.

Providers are found by name without importing the others. Packages add their own through the entry
point group `tolmach.providers.base` (name -> class), and programs through `register`.
"""

import warnings
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from tolmach.errors import ConfigError, ModelNotFound
from tolmach.protocols import create
from tolmach.protocols.base import ChatProtocol, Site

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from tolmach.providers.base import AbstractProvider

__all__ = [
    "ProviderWarning",
    "configured",
    "endpoint",
    "get_provider",
    "provider_names",
    "providers",
    "register",
    "registered",
    "resolve",
    "sites_having",
]

_BUILT_IN: dict[str, str] = {
    "Chatgpt4o": "tolmach.providers.sites.wordpress:Chatgpt4o",
    "Chatgpt4Online": "tolmach.providers.sites.wordpress:Chatgpt4Online",
    "ChatGptt": "tolmach.providers.sites.wordpress:ChatGptt",
    "Aichat": "tolmach.providers.sites.json_text:Aichat",
    "ChatGpt": "tolmach.providers.sites.chatgpt:ChatGpt",
}

_registered: dict[str, "type[AbstractProvider]"] = {}

P = TypeVar("P", bound="type[AbstractProvider]")
Resolved = tuple["type[AbstractProvider]", str]


def register(provider: "P") -> "P":
    """Make a provider known by its class's name, in place of any other of that name; can stand as a decorator."""
    _registered[provider.__name__] = _checked(provider, f"{provider!r}")
    return provider


def _checked(provider: Any, what: str) -> "type[AbstractProvider]":
    from tolmach.providers.base import AbstractProvider

    if not (isinstance(provider, type) and issubclass(provider, AbstractProvider)):
        raise ConfigError(f"{what} is no provider class: a subclass of AbstractProvider")
    return provider


@cache
def _entry_points() -> "dict[str, EntryPoint]":
    """What installed packages offer. Read once: it takes milliseconds, and packages come with a new process."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group="tolmach.providers")}


def provider_names() -> list[str]:
    """All names: those that the program registered first, then tolmach's own, then other packages'."""
    return list(dict.fromkeys([*_registered, *_BUILT_IN, *_entry_points()]))


def get_provider(name: str) -> "type[AbstractProvider]":
    """The provider of this name; upper and lower case count only where two names differ by nothing else.

    Raises `ModelNotFound`, and `ConfigError` for one of another package that cannot be loaded.
    """
    if name in _registered:
        return _registered[name]
    if where := _BUILT_IN.get(name):
        module, _, attribute = where.partition(":")
        return _checked(getattr(import_module(module), attribute), where)
    if point := _entry_points().get(name):
        return _loaded(point)
    alike = [known for known in provider_names() if known.casefold() == name.casefold()]
    if len(alike) != 1:
        raise ModelNotFound(f"no provider {name!r}; there are: {', '.join(provider_names())}")
    return get_provider(alike[0])


def _loaded(point: "EntryPoint") -> "type[AbstractProvider]":
    package = point.dist.name if point.dist else "an unknown package"
    what = f"provider {point.name!r} ({point.value}, of {package})"
    try:
        provider = point.load()
    except Exception as error:  # another package's code: whatever it raises as it is imported
        raise ConfigError(f"{what} cannot be loaded: {type(error).__name__}: {error}") from error
    return _checked(provider, what)


def providers() -> "dict[str, type[AbstractProvider]]":
    """All providers by name. One of another package that cannot be loaded is left out with a `ProviderWarning`."""
    found = {}
    for name in provider_names():
        try:
            found[name] = get_provider(name)
        except ConfigError as error:
            warnings.warn(f"left out: {error}", ProviderWarning, stacklevel=2)
    return found


class ProviderWarning(UserWarning):
    """A provider of another package cannot be loaded; the message names it."""


def resolve(model: str, provider: "type[AbstractProvider] | str | None" = None) -> Resolved:
    """The provider that is to answer, and its own name of the model.

    `provider/model` names both. A bare model is asked of the class that the program itself registered for it, and of
    no other: what comes with tolmach or a package is a stranger's site, and is asked only by its name. Raises
    `ModelNotFound`, and `ConfigError` for a model that several registered classes have.
    """
    if not isinstance(model, str):
        raise ConfigError(f"model: a text such as 'gpt-4o' or 'Chatgpt4o/gpt-4o-mini', not {type(model).__name__}")
    name, slash, rest = model.partition("/")
    if provider is not None:
        found = get_provider(provider) if isinstance(provider, str) else _checked(provider, f"provider: {provider!r}")
        return found, found.get_model(rest if slash and name.casefold() == found.__name__.casefold() else model)
    if slash and any(known.casefold() == name.casefold() for known in provider_names()):
        found = get_provider(name)
        return found, found.get_model(rest)
    if not model:
        raise ModelNotFound("a model or a provider is needed")
    having = [p for p in _registered.values() if _has(p, model)]
    if len(having) > 1:
        names = ", ".join(p.__name__ for p in having)
        raise ConfigError(f"model: several providers have {model!r}: {names}; write {having[0].__name__}/{model}")
    if not having:
        raise ModelNotFound(f"no provider that the program names has a model {model!r}")
    return having[0], having[0].get_model(model)


def _has(provider: "type[AbstractProvider]", model: str) -> bool:
    return model in provider.models or model in provider.model_aliases


def registered() -> "list[type[AbstractProvider]]":
    """The classes that the program itself made known."""
    return list(_registered.values())


def sites_having(model: str) -> list[str]:
    """The names of the sites that have this model and are asked only by their names."""
    return [name for name, provider in providers().items() if name not in _registered and _has(provider, model)]


def endpoint(url: str, protocol: str, *, api_key: str = "", **options: object) -> Site:
    """A site that no class names: a protocol at a base URL, with the protocol's own options.

    Raises `ConfigError` for an address that is none, or an unknown protocol or option.
    """
    from tolmach.providers.base import checked_url

    url = checked_url(url, "base_url")
    name = urlsplit(url).netloc
    return Site(name=name, url=url, protocol=configured(protocol, options), api_key=api_key)


def configured(protocol: str, options: Mapping[str, object], environ: Mapping[str, str] | None = None) -> ChatProtocol:
    """A protocol with its options; those of a recipe's file are read here, with the variables of `environ`.

    They are those of the process by default. Raises `ConfigError`.
    """
    if protocol != "recipe":
        return create(protocol, dict(options))
    from tolmach.recipes.files import with_file

    return create(protocol, with_file(options, environ))
