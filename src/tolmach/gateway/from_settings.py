"""Settings into what each part of a gateway needs: read once, at the start and at each reload."""

from collections.abc import Callable, Iterator
from typing import Self
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from tolmach.access.rules import KeyRule, check_workers, require_keys_for
from tolmach.configuration import GatewayTable, Settings
from tolmach.errors import ConfigError
from tolmach.gateway.addresses import is_loopback
from tolmach.gateway.cors import CorsRules
from tolmach.gateway.http import ServerLimits
from tolmach.gateway.key_watch import KnownKeys, known_keys
from tolmach.gateway.policy import Policy
from tolmach.gateway.request_target import LOOPBACK_HOSTS
from tolmach.gateway.reservations import Budgets
from tolmach.ledger.prices import Prices, Rate
from tolmach.protocols.base import Site
from tolmach.providers.base import Access, open_session
from tolmach.routing.from_settings import targets_of
from tolmach.routing.targets import Provider, Targets
from tolmach.session import Session
from tolmach.state import is_shared

__all__ = ["AtStart", "InForce", "policy", "prices_of", "secrets_of", "server_limits"]


class AtStart(Struct, frozen=True, kw_only=True):
    """What a gateway is built with, and keeps as long as it runs."""

    state: str
    """The address of the state."""
    shared: bool
    """Whether other processes have the same state."""
    known: KnownKeys
    """The callers' keys as they are now."""
    loopback: bool
    """Whether only this machine reaches the gateway."""
    ledger: str | None
    """The address of the ledger's database; None where it is switched off."""
    retention_days: float | None
    collector: str
    """OpenTelemetry's, see `open_telemetry`."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Raises `ConfigError` for what cannot be served, and `StorageError` when the keys cannot be read."""
        table, ledger = settings.gateway, settings.ledger
        _check_providers(settings)
        shared, loopback = is_shared(table.state), is_loopback(table.host)
        url = None if ledger.url == "off" else ledger.url
        known = KnownKeys([], False, False) if url is None else known_keys(url, settings.file)
        require_keys_for(table.host, loopback=loopback, keys=len(known.keys))
        check_workers(table.workers, shared=shared, limited=any(key.limited for key in known.keys))
        return cls(
            state=table.state,
            shared=shared,
            known=known,
            loopback=loopback,
            ledger=url,
            retention_days=ledger.retention_days or None,
            collector=table.otel.endpoint,
        )


class InForce(Struct, frozen=True, kw_only=True):
    """What a gateway that runs takes over when its configuration changes."""

    targets: Targets
    prices: Prices
    budgets: Budgets
    limits: ServerLimits
    policy: Policy
    key_rule: KeyRule
    log_level: str
    secrets: set[str]
    """The texts that no log may show."""

    @classmethod
    def of(
        cls,
        settings: Settings,
        previous: Targets | None = None,
        *,
        loopback: bool,
        opened: Callable[[Site, Access], Session] = open_session,
    ) -> Self:
        """Sessions of `previous` go on where their provider is unchanged; `opened` opens new ones.

        `loopback` is whether only this machine reaches what listens now: a changed `gateway.host` changes that only at
        the next start.
        Raises `ConfigError`.
        """
        _check_providers(settings)
        rule = KeyRule(setting=settings.gateway.keys, loopback=loopback)
        rule.check(settings.ledger.url)
        targets = targets_of(settings, previous, opened=opened)
        return cls(
            targets=targets,
            prices=prices_of(settings, targets),
            budgets=Budgets(settings.gateway.budgets.answer_tokens, settings.gateway.budgets.priced_only),
            limits=server_limits(settings.gateway),
            policy=policy(settings.gateway, loopback=loopback),
            key_rule=rule,
            log_level=settings.gateway.log.level,
            secrets=secrets_of(settings, targets),
        )


def _check_providers(settings: Settings) -> None:
    if not settings.providers:
        where = f"{settings.file} names no provider" if settings.file else "there is no tolmach.toml"
        raise ConfigError(f"{where}: write a [providers.NAME] table, or begin with `tolmach init`")


def server_limits(table: GatewayTable) -> ServerLimits:
    """What callers may send, as the settings say."""
    limits = table.limits
    return ServerLimits(
        body_bytes=limits.body_bytes,
        body_seconds=limits.body_seconds,
        depth=limits.depth,
        headers=limits.headers,
        streams=limits.streams,
    )


def policy(table: GatewayTable, *, loopback: bool) -> Policy:
    """Who may ask and what is logged, as the settings say; `loopback` is whether only this machine reaches it."""
    return Policy(
        cors=CorsRules(table.cors.origins, table.cors.max_age),
        admin_key=table.admin_key,
        metrics_key=table.metrics_key,
        loopback=loopback,
        hosts=_hosts(table) if loopback else None,
        texts=table.log.texts,
    )


def _hosts(table: GatewayTable) -> frozenset[str]:
    own = f"[{table.host}]" if ":" in table.host else table.host
    return LOOPBACK_HOSTS | {name.lower() for name in (own, *table.hosts)}


def secrets_of(settings: Settings, targets: Targets) -> set[str]:
    """The texts of the settings that no log may show."""
    urls = (settings.gateway.state, settings.ledger.url)
    passwords = {text for url in urls if (password := urlsplit(url).password) for text in (password, unquote(password))}
    known = {
        settings.gateway.admin_key,
        settings.gateway.metrics_key,
        *passwords,
        *(text for one in targets.providers() for text in _secrets(one)),
    }
    for row in settings.providers.values():
        for key in row.hidden:
            known.update(_texts(getattr(row, key, None) or row.options.get(key)))
    return known


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for below in value.values():
            yield from _texts(below)
    elif isinstance(value, list | tuple):
        for below in value:
            yield from _texts(below)


def _secrets(provider: Provider) -> Iterator[str]:
    access, site = provider.access, provider.site
    yield from (access.api_key, site.api_key or "", *provider.more_keys)
    yield from (access.cookies or {}).values()
    yield from access.headers.values()
    for address in (site.url, access.proxy or ""):
        parts = urlsplit(address)
        for text in (parts.password or "", *(pair.partition("=")[2] for pair in parts.query.split("&"))):
            yield from (text, unquote(text))


def prices_of(settings: Settings, targets: Targets) -> Prices:
    """What tokens of the targets cost, as the settings say."""
    rates = {name: Rate(row.input, row.output, row.cached) for name, row in settings.prices.items()}
    services = {name: row.service for name, row in settings.providers.items() if row.service}
    spellings = {name: one for provider in targets.providers() for name, one in provider.spellings().items()}
    return Prices(rates, services, spellings)
