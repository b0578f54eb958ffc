"""From a model's public name to what may answer it: targets in order, each a site, a session with it, its model.

A name is looked up as a route first, then as `provider/model`, then as a model that a provider
lists, then as the route `*`. What is found is a `Plan`: the targets and the rules for asking them.

A target has one name, however it is spelled: its provider and the service's own name of the model. Prices, circuits,
metrics and the ledger go by that.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import cast

from msgspec import Struct, structs

from tolmach.errors import BadRequest, ModelNotFound
from tolmach.protocols.base import Forwarding, Site
from tolmach.providers.base import Access, open_session
from tolmach.routing.health import Circuit
from tolmach.routing.policy import Choice, Rules
from tolmach.session import Session
from tolmach.transport import Timeouts
from tolmach.wire import Call

__all__ = ["Plan", "Provider", "Route", "Target", "Targets"]

_VISIBLE = re.compile(r"[\x20-\x7e]{1,2048}")


_MOST_FOUND = 4096
"""So many names that were asked for are remembered with their plans."""

_ONCE = Rules(attempts=1)
"""A name that no route names is asked once: what is asked again, and where, is for a route to say."""


class Provider(Struct, frozen=True, kw_only=True):
    """One configured provider. `models` maps public names to the service's own."""

    name: str
    site: Site
    access: Access
    models: Mapping[str, str] = {}
    strict: bool = False
    emulate: frozenset[str] = frozenset()
    """What is emulated for a text-only service: `tools`, `json`."""
    timeouts: Timeouts | None = None
    """Time limits of its answers; None for those of the site."""
    more_keys: tuple[str, ...] = ()
    """API keys beside that of `access`; each has a session of its own."""
    prefill: bool = False
    """Whether its models go on from a last message of the assistant."""
    answer_tokens: int | None = None
    """The limit of an answer to a key with a budget, where its question has none; None for the gateway's."""

    def own(self, model: str) -> str:
        """The service's own name of a model; empty for the only one of a service that names none."""
        own = self.models.get(model) or self.site.aliases.get(model) or model
        return self.site.default_model if own in ("", "default") else own

    def target(self, model: str) -> str:
        """The one name of a model, whatever callers call it: `provider/model` with the service's own name."""
        return f"{self.name}/{self.own(model) or 'default'}"

    def spellings(self) -> dict[str, str]:
        """Every name that callers may call a model of it by, as far as that is known -> its one name."""
        names = ("", "default", *self.site.aliases, *self.models)
        return {f"{self.name}/{name}" if name else self.name: self.target(name) for name in names}


class Route(Struct, frozen=True, kw_only=True):
    """A public model name: `provider/model` names in order, and the rules for asking them."""

    targets: tuple[str, ...]
    weights: tuple[float, ...] = ()
    """One for each target; empty for equal ones."""
    rules: Rules = Rules()
    timeouts: Timeouts | None = None
    """Time limits beside those of the targets: what is None here is theirs."""
    circuit: Circuit | None = None
    """When a target that fails in answering for this route is left alone; None as `Health` has it."""


class Target(Struct, frozen=True):
    """One model of one provider, asked with one of its keys."""

    name: str
    """`provider/model`, with the service's own name of the model, as it is told to callers."""
    provider: Provider
    model: str
    """The service's own name of the model."""
    opened: Callable[[], Session]
    """Gives the session with the provider; opens it at the first use."""
    forwards: frozenset[str]
    """The surfaces whose bodies the target takes as they are."""
    header: str
    """The name as a header's value."""
    choice: Choice
    """As the routing policy knows it."""
    timeouts: Timeouts
    """Time limits of its answers."""
    circuit: Circuit | None = None
    """When it is left alone after failures; None as `Health` has it."""

    @property
    def session(self) -> Session:
        """The session with the provider. Raises `MissingCookies` where it cannot do without and there are none."""
        return self.opened()

    def forward(self, surface: str, body: bytes, headers: Mapping[str, str], limit: int | None = None) -> Call:
        """The call that passes a body on, with the service's own name of the model.

        `limit` is put into it as the most tokens of an answer, None for what its caller says. Of the caller's `headers`
        the listed ones go along. Raises `BadRequest` for one that is no visible ASCII.
        """
        # The session's site: it has the key of whoever opened it.
        site = self.session.site
        protocol = cast(Forwarding, site.protocol)
        along = _listed(headers, protocol.listed_headers) if protocol.listed_headers else {}
        return protocol.forward(surface, site, body, self.model, self.session.state, along, limit)


def _listed(headers: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    along = {name: value for name in sorted(names) if (value := headers.get(name))}
    for name, value in along.items():
        if not _VISIBLE.fullmatch(value):
            raise BadRequest(f"the header {name} is no visible ASCII of at most 2048 characters", status=400)
    return along


class Plan(Struct, frozen=True):
    """What may answer a question: one choice for each target and key, in order."""

    name: str
    """The route, or the target where no route names the model."""
    rules: Rules
    choices: tuple[Choice, ...]
    targets: Mapping[str, Target]
    """By the ids of the choices."""

    @property
    def first(self) -> Target:
        return self.targets[self.choices[0].id]


class Targets:
    """What is configured to answer. Immutable: a reload makes a new one and keeps the sessions that still fit."""

    def __init__(
        self,
        providers: Iterable[Provider],
        routes: Mapping[str, Route] | None = None,
        previous: "Targets | None" = None,
        *,
        opened: Callable[[Site, Access], Session] = open_session,
    ) -> None:
        self.opened = opened
        """How sessions are opened; those after a reload in the same way."""
        self._providers = {provider.name: provider for provider in providers}
        self._routes = dict(routes or {})
        self._sessions: dict[tuple[str, int], Session] = {}
        if previous is not None:
            self._sessions = {
                (name, key): session
                for (name, key), session in previous._sessions.items()
                if name in self._providers and _same_visitor(previous._providers[name], self._providers[name])
            }
            for (name, _), session in self._sessions.items():
                provider = self._providers[name]
                session.timeouts = provider.timeouts or provider.access.timeouts(provider.site)
        self._listing: dict[str, tuple[str, str]] = {}
        for provider in self._providers.values():
            for public in provider.models:
                self._listing.setdefault(public, (provider.name, public))
        self._found: dict[str, Plan] = {}

    def plan(self, name: str) -> Plan:
        """What may answer to a public name. Raises `ModelNotFound`."""
        plan = self._found.get(name)
        if plan is None:
            plan = self._find(name)
            if len(self._found) >= _MOST_FOUND:
                # Names that callers made up must not keep those that are asked for out.
                self._found.clear()
            self._found[name] = plan
        return plan

    @cached_property
    def configured(self) -> frozenset[str]:
        """The names of the targets that the configuration names, as a provider's model or in a route."""
        found = {target for route in self._routes.values() for target in route.targets if not target.endswith("/*")}
        for name, provider in self._providers.items():
            known = (provider.models, provider.site.aliases)
            models = {model for table in known for pair in table.items() for model in pair}
            found |= {name, *(f"{name}/{model}" for model in models | {"default", provider.site.default_model})}
        return frozenset(found)

    def find(self, name: str) -> Target:
        """The first target of a public name. Raises `ModelNotFound`."""
        return self.plan(name).first

    def _find(self, name: str) -> Plan:
        if name in self._routes:
            return self._routed(name, name)
        if name.partition("/")[0] in self._providers:
            return _made(name, _ONCE, self._direct(name, name))
        if name in self._listing:
            provider, model = self._listing[name]
            return _made(name, _ONCE, self._all_keys(self._providers[provider], model))
        if "*" in self._routes:
            return self._routed("*", name)
        raise ModelNotFound(f"the model {name!r} does not exist here")

    def _routed(self, name: str, asked: str) -> Plan:
        route = self._routes[name]
        weights = route.weights or (1.0,) * len(route.targets)
        targets = [
            target
            for named, weight in zip(route.targets, weights, strict=True)
            for target in self._direct(named, asked, weight, route)
        ]
        return _made(name, route.rules, targets)

    def _direct(self, target: str, asked: str, weight: float = 1.0, route: Route | None = None) -> list[Target]:
        provider, _, model = target.partition("/")
        if provider not in self._providers:
            raise ModelNotFound(f"the model {asked!r} leads to {provider!r}, which is no provider")
        return self._all_keys(self._providers[provider], asked if model == "*" else model, weight, route)

    def _all_keys(
        self, provider: Provider, model: str, weight: float = 1.0, route: Route | None = None
    ) -> list[Target]:
        name = provider.target(model)
        protocol = provider.site.protocol
        # What is emulated has to be put into words: such a target's bodies cannot go through.
        forwards = protocol.forwards if isinstance(protocol, Forwarding) and not provider.emulate else frozenset()
        limits = provider.timeouts or provider.access.timeouts(provider.site)
        if route is not None:
            limits = _stricter(route.timeouts, limits)
        header = re.sub(r"[^\x20-\x7e]", "?", name)[:256]
        return [
            Target(
                name,
                provider,
                provider.own(model),
                partial(self._session, provider, key),
                forwards,
                header,
                Choice(name, key, weight),
                limits,
                None if route is None else route.circuit,
            )
            for key in range(1 + len(provider.more_keys))
        ]

    def _session(self, provider: Provider, key: int) -> Session:
        session = self._sessions.get((provider.name, key))
        if session is None:
            access = provider.access
            if key:
                access = structs.replace(access, api_key=provider.more_keys[key - 1])
            session = self._sessions[provider.name, key] = self.opened(provider.site, access)
            session.timeouts = provider.timeouts or provider.access.timeouts(provider.site)
        return session

    def providers(self) -> list[Provider]:
        return list(self._providers.values())

    def routes(self) -> list[str]:
        """The names of the routes."""
        return list(self._routes)

    def plans(self) -> list[Plan]:
        """Of every name in the list of models."""
        return [self.plan(name) for name, _ in self.models()]

    def models(self) -> list[tuple[str, str]]:
        """Public names and who owns each, for the list of models."""
        listed = {route: "route" for route in self._routes if route != "*"}
        for public, (provider, _) in self._listing.items():
            listed.setdefault(public, provider)
        for name, owner in self._providers.items():
            for model in owner.models or {"default": ""}:
                listed.setdefault(f"{name}/{model}", name)
        return list(listed.items())


def _made(name: str, rules: Rules, targets: list[Target]) -> Plan:
    # A target that a route names twice, by two spellings, is one.
    found = {one.choice.id: one for one in reversed(targets)}
    return Plan(name, rules, tuple(dict.fromkeys(found[one.choice.id].choice for one in targets)), found)


def _stricter(route: Timeouts | None, provider: Timeouts) -> Timeouts:
    """The time limits of a route, and where it has none those of the provider."""
    if route is None:
        return provider
    given = {name: value for name in ("connect", "first_byte", "idle", "total") if (value := getattr(route, name))}
    return structs.replace(provider, **given)


def _same_visitor(before: Provider, now: Provider) -> bool:
    """Whether a session with the one goes on for the other: the same place, reached in the same way."""
    return (before.site, before.access, before.more_keys) == (now.site, now.access, now.more_keys)
