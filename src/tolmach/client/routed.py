"""The routing of a client: plans of targets, as in `tolmach.toml`, without a server."""

import os
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from functools import partial
from typing import Any, Literal

from msgspec import structs

from tolmach.chat import ChatRequest, Event
from tolmach.client.completions import Attempted
from tolmach.client.embeddings import CreateEmbeddingResponse, EmbeddingsAsked, fetch_embeddings
from tolmach.configuration import Settings
from tolmach.errors import ConfigError, ModelNotFound, UnsupportedFeature
from tolmach.providers.base import Access, open_session
from tolmach.routing.events import RoutedAnswer
from tolmach.routing.from_settings import targets_of
from tolmach.routing.journal import Attempt, Journal
from tolmach.routing.router import Router
from tolmach.routing.targets import Plan, Target, Targets
from tolmach.session import ChallengeHandler
from tolmach.transport import Timeouts, Transport

__all__ = ["Routed", "Routes", "plan_of", "settings_of"]

_MOST_NAMED = 12


def settings_of(
    routes: Mapping[str, Any] | None,
    providers: Mapping[str, Any] | None,
    config: str | os.PathLike[str] | Literal[True] | Settings | None,
) -> Settings:
    """What the arguments of a client say: tables as those of the file, or a file (True: the one that is found).

    A list of targets stands for a route with no rules; a provider that a target names is there without a
    row of its own. Raises `ConfigError` for what cannot be, with all mistakes.
    """
    if config is None:
        return Settings.of({"providers": _with_named(routes or {}, providers or {}), "routes": _rows(routes or {})})
    if routes or providers:
        raise ConfigError("config= is a file with providers and routes of its own; leave routes= and providers= out")
    settings = config if isinstance(config, Settings) else Settings.load(None if config is True else config)
    if not settings.providers:
        where = f"{settings.file} names no provider" if settings.file else "config=True: there is no tolmach.toml"
        raise ConfigError(f"{where}; `tolmach init` writes one to begin with")
    return settings


def _rows(routes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"targets": row} if isinstance(row, list | tuple) else row for name, row in routes.items()}


def _with_named(routes: Mapping[str, Any], providers: Mapping[str, Any]) -> dict[str, Any]:
    """The rows, and an empty one for each other provider that a target names."""
    rows = dict(providers)
    for route in _rows(routes).values():
        targets = route.get("targets") if isinstance(route, Mapping) else None
        for target in targets if isinstance(targets, list | tuple) else ():
            if isinstance(target, str) and target:
                rows.setdefault(target.partition("/")[0], {})
    return rows


class Routes:
    """The targets of one client, its sessions with them, and how they have been doing.

    `access` is how the client reaches what says nothing else: its proxy, certificates, profile and kind of transport.
    A forked child begins with new sessions.
    """

    def __init__(
        self, settings: Settings, access: Access, transport: Transport | None, on_challenge: ChallengeHandler | None
    ) -> None:
        self._settings = settings
        self._access = access
        self._opened = partial(open_session, transport=transport, on_challenge=on_challenge)
        self._router = Router()
        self.clear()

    def clear(self) -> None:
        """Forget the sessions: tokens, cookies and visitors' ids."""
        self._process = os.getpid()
        self._targets: Targets = targets_of(self._settings, reach=self._reached, opened=self._opened)

    def _reached(self, row: Access) -> Access:
        own = self._access
        return structs.replace(
            row,
            proxy=row.proxy or own.proxy,
            verify=own.verify if row.verify is True else row.verify,
            impersonate=row.impersonate or own.impersonate,
            transport=own.transport,
        )

    @property
    def rows(self) -> Iterable[str]:
        """The names of the providers."""
        return self._settings.providers

    def service_of(self, row: str) -> str:
        """The service of the table that a provider is; empty for any other."""
        return self._settings.providers[row].service

    def models(self) -> list[tuple[str, str]]:
        """The names that may be asked for, and who owns each."""
        return self._targets.models()

    def plan(self, model: str, row: str = "") -> Plan:
        """What may answer to a name; with `row`, of that provider alone.

        Raises as `plan_of`.
        """
        if self._process != os.getpid():
            self.clear()
        if not row:
            return plan_of(self._targets, model)
        return self._targets.plan(model if model.startswith(f"{row}/") else f"{row}/{model}" if model else row)

    async def embed(self, plan: Plan, asked: EmbeddingsAsked) -> CreateEmbeddingResponse:
        """Vectors from the first target that gives them. Raises the last failure."""
        journal = Journal()
        journal.total = asked.timeout if asked.timeout is not None else self._access.timeout

        async def begin(target: Target, attempt: Attempt, timeouts: Timeouts) -> CreateEmbeddingResponse:
            if "embeddings" not in target.forwards:
                raise UnsupportedFeature(f"{target.name} gives no embeddings", feature="model")
            if journal.deadline is not None:
                timeouts = timeouts.within(journal.deadline - time.monotonic())
            made = await fetch_embeddings(
                target.session, target.forward("embeddings", asked.body, {}), asked.inputs, timeouts
            )
            attempt.first = journal.now()
            return made

        made = await self._router.begin(plan, journal, begin)
        self._router.answered(journal, journal.attempts[-1])
        made.attempts = [_told(attempt) for attempt in journal.attempts]
        return made

    def ask(self, plan: Plan, turn: ChatRequest, *, strict: bool, timeout: float | None) -> "Routed":
        """The answer to come. `timeout` is seconds for all attempts together, None for the limits of the targets."""
        total = timeout if timeout is not None else self._access.timeout
        return Routed(RoutedAnswer(self._router, plan, turn, strict=strict, total=total))


def plan_of(targets: Targets, model: str) -> Plan:
    """What may answer to a name: a route, `provider/model`, a model that one provider lists, the route `*`.

    Raises `ModelNotFound`, and `ConfigError` for a model that several providers list and no route names.
    """
    if len(having := _listing(targets, model)) > 1:
        several = f"several providers have {model!r}: {', '.join(having)}"
        raise ConfigError(f"model: {several}; write {having[0]}/{model}, or add a route")
    try:
        return targets.plan(model)
    except ModelNotFound:
        names = [name for name, _ in targets.models()]
        known = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
        raise ModelNotFound(f"no route or provider of this client has the model {model!r}; it has: {known}") from None


def _listing(targets: Targets, model: str) -> list[str]:
    """The providers that a model's name alone may mean."""
    names = [provider.name for provider in targets.providers()]
    if model in targets.routes() or model.partition("/")[0] in names:
        return []
    return [provider.name for provider in targets.providers() if model in provider.models]


class Routed:
    """The answer of a route's targets."""

    def __init__(self, answer: RoutedAnswer) -> None:
        self._answer = answer

    @property
    def model(self) -> str:
        """The service's own name of the model that answers."""
        return self._answer.target.model or self.provider

    @property
    def provider(self) -> str:
        return self._answer.target.provider.name

    def events(self) -> AsyncGenerator[Event, None]:
        return self._answer.events()

    def attempts(self) -> list[Attempted]:
        return [_told(attempt) for attempt in self._answer.journal.attempts]


def _told(attempt: Attempt) -> Attempted:
    error = attempt.error
    return Attempted(
        target=attempt.target.name,
        key=attempt.target.choice.key + 1,
        why=attempt.why,
        outcome=attempt.outcome or "under way",
        error=None if error is None else f"{type(error).__name__}: {error}",
        started=attempt.started,
        first_token=attempt.first,
        ended=attempt.ended,
    )
