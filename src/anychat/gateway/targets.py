"""From a model's public name to the target that answers: a site, the gateway's session with it, its model.

A name is looked up as a route first (its first target is used), then as `provider/model`, then as
a model that a provider lists, then as the route `*`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import cast

from msgspec import Struct, structs

from anychat.errors import BadRequest, ModelNotFound
from anychat.protocols.base import Forwarding, Site
from anychat.providers import Access, open_session
from anychat.session import Session
from anychat.transport import Timeouts
from anychat.wire import Call

__all__ = ["Provider", "Target", "Targets"]

_VISIBLE = re.compile(r"[\x20-\x7e]{1,2048}")


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


class Target(Struct, frozen=True):
    """One model of one provider."""

    name: str
    """`provider/model`, as it is told to callers."""
    provider: Provider
    model: str
    """The service's own name of the model."""
    session: Session
    forwards: frozenset[str]
    """The surfaces whose bodies the target takes as they are."""
    header: str
    """The name as a header's value."""
    timeouts: Timeouts | None = None
    """Time limits of its answers; None for those of the session."""

    def forward(self, surface: str, body: bytes, headers: Mapping[str, str]) -> Call:
        """The call that passes a body on, with the service's own name of the model.

        Of the caller's `headers` the listed ones go along. Raises `BadRequest` for one that is no visible ASCII.
        """
        # The session's site: it has the key of whoever opened it.
        site = self.session.site
        protocol = cast(Forwarding, site.protocol)
        along = _listed(headers, protocol.listed_headers) if protocol.listed_headers else {}
        return protocol.forward(surface, site, body, self.model, self.session.state, along)


def _listed(headers: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    along = {name: value for name in sorted(names) if (value := headers.get(name))}
    for name, value in along.items():
        if not _VISIBLE.fullmatch(value):
            raise BadRequest(f"the header {name} is no visible ASCII of at most 2048 characters", status=400)
    return along


class Targets:
    """What is configured to answer. Immutable: a reload makes a new one and keeps the sessions that still fit."""

    def __init__(
        self,
        providers: Iterable[Provider],
        routes: Mapping[str, tuple[str, ...]] | None = None,
        previous: "Targets | None" = None,
        timeouts: Mapping[str, Timeouts] | None = None,
    ) -> None:
        """`timeouts` has those of routes by their names."""
        self._providers = {provider.name: provider for provider in providers}
        self._routes = dict(routes or {})
        self._timeouts = dict(timeouts or {})
        self._sessions: dict[str, Session] = {}
        if previous is not None:
            kept = previous._sessions
            self._sessions = {
                name: kept[name]
                for name, provider in self._providers.items()
                if name in kept and _same_visitor(previous._providers[name], provider)
            }
        self._listing: dict[str, tuple[str, str]] = {}
        for provider in self._providers.values():
            for public in provider.models:
                self._listing.setdefault(public, (provider.name, public))
        self._found: dict[str, Target] = {}

    def find(self, name: str) -> Target:
        """The target of a public name. Raises `ModelNotFound`."""
        target = self._found.get(name)
        if target is None:
            target = self._find(name)
            if len(self._found) < 4096:
                self._found[name] = target
        return target

    def _find(self, name: str) -> Target:
        if name in self._routes:
            return self._routed(name, name)
        if name.partition("/")[0] in self._providers:
            return self._direct(name, name)
        if name in self._listing:
            provider, model = self._listing[name]
            return self._target(self._providers[provider], model)
        if "*" in self._routes:
            return self._routed("*", name)
        raise ModelNotFound(f"the model {name!r} does not exist here")

    def _routed(self, route: str, asked: str) -> Target:
        target = self._direct(self._routes[route][0], asked)
        timeouts = self._timeouts.get(route)
        return target if timeouts is None else structs.replace(target, timeouts=timeouts)

    def _direct(self, target: str, asked: str) -> Target:
        provider, _, model = target.partition("/")
        if provider not in self._providers:
            raise ModelNotFound(f"the model {asked!r} leads to {provider!r}, which is no provider")
        return self._target(self._providers[provider], asked if model == "*" else model)

    def _target(self, provider: Provider, model: str) -> Target:
        own = provider.models.get(model) or provider.site.aliases.get(model) or model
        if own in ("", "default"):
            own = provider.site.default_model
        name = f"{provider.name}/{model}" if model else provider.name
        protocol = provider.site.protocol
        # What is emulated has to be put into words: such a target's bodies cannot go through.
        forwards = protocol.forwards if isinstance(protocol, Forwarding) and not provider.emulate else frozenset()
        return Target(name, provider, own, self._session(provider), forwards, re.sub(r"[^\x20-\x7e]", "?", name)[:256])

    def _session(self, provider: Provider) -> Session:
        session = self._sessions.get(provider.name)
        if session is None:
            session = self._sessions[provider.name] = open_session(provider.site, provider.access)
        session.timeouts = provider.timeouts or provider.access.timeouts(provider.site)
        return session

    def providers(self) -> list[Provider]:
        return list(self._providers.values())

    def models(self) -> list[tuple[str, str]]:
        """Public names and who owns each, for the list of models."""
        listed = {route: "route" for route in self._routes if route != "*"}
        for public, (provider, _) in self._listing.items():
            listed.setdefault(public, provider)
        for name, owner in self._providers.items():
            for model in owner.models or {"default": ""}:
                listed.setdefault(f"{name}/{model}", name)
        return list(listed.items())


def _same_visitor(before: Provider, now: Provider) -> bool:
    """Whether a session with the one goes on for the other: the same place, reached in the same way."""
    return (before.site, before.access) == (now.site, now.access)
