"""Which provider answers to a name or a model.

Providers are found by name without importing the others. Packages add their own through the entry
point group `anychat.providers` (name -> class), and programs through `register`.
"""

from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from anychat.errors import ConfigError, ModelNotFound
from anychat.protocols import create
from anychat.protocols.base import Site

if TYPE_CHECKING:
    from anychat.providers import AbstractProvider

__all__ = ["endpoint", "get_provider", "provider_names", "providers", "register", "resolve"]

_BUILT_IN: dict[str, str] = {
    "Chatgpt4o": "anychat.sites.wordpress:Chatgpt4o",
    "Chatgpt4Online": "anychat.sites.wordpress:Chatgpt4Online",
    "ChatGptt": "anychat.sites.wordpress:ChatGptt",
    "Aichat": "anychat.sites.json_text:Aichat",
    "ChatGpt": "anychat.sites.chatgpt:ChatGpt",
}

_registered: dict[str, "type[AbstractProvider]"] = {}

Resolved = tuple["type[AbstractProvider]", str]


def register(provider: "type[AbstractProvider]") -> "type[AbstractProvider]":
    """Make a provider known by its class's name; can stand as a decorator."""
    _registered[provider.__name__] = provider
    return provider


def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group="anychat.providers")}


def provider_names() -> list[str]:
    """All names, in the order in which a model is looked for."""
    return list(dict.fromkeys([*_registered, *_BUILT_IN, *_entry_points()]))


def get_provider(name: str) -> "type[AbstractProvider]":
    """The provider of this name; upper and lower case count only where two names differ by nothing else.

    Raises `ModelNotFound`.
    """
    if name in _registered:
        return _registered[name]
    where = _BUILT_IN.get(name) or _entry_points().get(name)
    if where is None:
        alike = [known for known in provider_names() if known.casefold() == name.casefold()]
        if len(alike) == 1:
            return get_provider(alike[0])
        raise ModelNotFound(f"no provider {name!r}; there are: {', '.join(provider_names())}")
    module, _, attribute = where.partition(":")
    provider: type[AbstractProvider] = getattr(import_module(module), attribute)
    return provider


def providers() -> "dict[str, type[AbstractProvider]]":
    """All providers by name."""
    return {name: get_provider(name) for name in provider_names()}


def resolve(model: str, provider: "type[AbstractProvider] | str | None" = None) -> Resolved:
    """The provider that is to answer, and its own name of the model.

    `provider/model` names both; a bare model goes to the first provider that has it, those seen
    working first. Raises `ModelNotFound`.
    """
    if provider is not None:
        found = get_provider(provider) if isinstance(provider, str) else provider
        return found, found.get_model(model.removeprefix(f"{found.__name__}/"))
    name, slash, rest = model.partition("/")
    if slash and any(known.casefold() == name.casefold() for known in provider_names()):
        found = get_provider(name)
        return found, found.get_model(rest)
    if not model:
        raise ModelNotFound("a model or a provider is needed")
    having = [p for p in providers().values() if model in p.models or model in p.model_aliases]
    if not having:
        raise ModelNotFound(f"no provider has a model {model!r}")
    found = next((p for p in having if p.working), having[0])
    return found, found.get_model(model)


def endpoint(url: str, protocol: str, *, api_key: str = "", **options: object) -> Site:
    """A site that no class names: a protocol at a base URL, with the protocol's own options.

    Raises `ConfigError` for an address that is none, or an unknown protocol or option.
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        named = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        named = False
    if not named:
        raise ConfigError("base_url: an http or https address, such as https://shop.example")
    return Site(name=host, url=url.rstrip("/"), protocol=create(protocol, dict(options)), api_key=api_key)
