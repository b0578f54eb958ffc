"""Whom the command asks: a provider that is named, or what the configuration has for a model; never a stranger."""

from typing import Any

from msgspec import Struct

from tolmach.client.routed import plan_of
from tolmach.configuration import Settings
from tolmach.errors import ConfigError, ModelNotFound
from tolmach.providers.base import AbstractProvider
from tolmach.providers.names import Named, find_named, named
from tolmach.providers.registry import get_provider, resolve, sites_having
from tolmach.routing.from_settings import targets_of
from tolmach.routing.targets import Targets

__all__ = ["Whom", "another", "by_name", "choose"]

_MOST_NAMED = 12


class Whom(Struct, frozen=True):
    """Who is asked: the arguments that a client is made with, and the model to name in a question."""

    arguments: dict[str, Any]
    model: str
    named: Named | None = None
    """Who was named; None where the configuration says who has the model."""
    provider: type[AbstractProvider] | None = None
    """The class of a site."""

    @property
    def text(self) -> str:
        """For people: `ChatGptt/gpt-4o`, or the model of a configuration."""
        return "/".join(filter(None, (self.named.name if self.named else "", self.model)))


def choose(model: str, provider: str | None, settings: Settings) -> Whom:
    """Who is asked for a model, where a provider is named and where none is.

    A site that comes with tolmach is asked only when it is named. Raises `ModelNotFound`, and `ConfigError` for a name
    that several have.
    """
    if provider is not None:
        return by_name(named(provider, settings.providers), model, settings)
    targets = targets_of(settings)
    if not model:
        raise ConfigError(f"whom to ask? Give -m MODEL or -p PROVIDER, --url PAGE, or --base-url. {_models(targets)}")
    try:
        if settings.providers:
            plan_of(targets, model)
            return Whom({"config": settings}, model)
    except ModelNotFound:
        """Then somebody else is named in it, or nobody has it."""
    name, slash, rest = model.partition("/")
    found = find_named(name) if slash else None
    if found is None:
        raise ModelNotFound(_nobody(model, settings, targets))
    return by_name(found, rest, settings)


def by_name(found: Named, model: str, settings: Settings) -> Whom:
    """Whoever is named, asked for this model; without one for the default model. Raises `ModelNotFound`."""
    if found.kind == "class":
        provider, model = resolve(model, get_provider(found.name))
        return Whom({"provider": provider}, model, found, provider)
    model = model.removeprefix(f"{found.name}/")
    if found.kind == "row":
        return Whom({"config": settings, "provider": found.name}, model, found)
    return Whom({"provider": found.name}, model, found)


def another(now: Whom, name: str, settings: Settings) -> Whom:
    """Who is asked after `now` when another model is named, or `PROVIDER/MODEL`. Raises as `choose`."""
    if now.named is None:
        return choose(name, None, settings)
    prefix, slash, rest = name.partition("/")
    if slash and prefix != now.named.name:
        found = find_named(prefix, settings.providers)
        if found is None and now.named.kind == "class":
            found = named(prefix, settings.providers)
        if found is not None:
            return by_name(found, rest, settings)
    return by_name(now.named, name, settings)


def _nobody(model: str, settings: Settings, targets: Targets) -> str:
    """Why nobody is asked, and how to name somebody."""
    if settings.providers:
        text = f"{settings.file} has no model {model!r}. {_models(targets)}"
    else:
        where = f"{settings.file} names no provider" if settings.file else "there is no tolmach.toml"
        text = f"nobody is known to have the model {model!r}: {where}; `tolmach init` writes one to begin with."
    if sites := sites_having(model):
        return f"{text} The public sites {' and '.join(sites)} have it; to ask one, name it: -p {sites[0]}"
    return f"{text} A service or a site is named with -p."


def _models(targets: Targets) -> str:
    names = [name for name, _ in targets.models()]
    if not names:
        return "See `tolmach providers`."
    return f"The configuration has: {', '.join(names[:_MOST_NAMED])}{', ...' if len(names) > _MOST_NAMED else ''}."
