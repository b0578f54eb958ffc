"""A gateway as `tolmach.toml` says, and the reading of it again while it runs."""

import asyncio
import logging
import time
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from tolmach.access.rules import check_workers, require_keys_for
from tolmach.configuration import GatewayTable, LiveSettings, Settings
from tolmach.errors import ConfigError
from tolmach.gateway.addresses import is_loopback
from tolmach.gateway.core import Gateway
from tolmach.gateway.cors import CorsRules
from tolmach.gateway.http import ServerLimits
from tolmach.gateway.policy import Policy
from tolmach.gateway.resources import Resources, known_keys
from tolmach.gateway.shared_sessions import open_shared
from tolmach.gateway.telemetry.logs import set_up
from tolmach.providers.base import open_session
from tolmach.routing.from_settings import targets_of
from tolmach.routing.router import Router
from tolmach.routing.targets import Provider, Targets
from tolmach.state import is_shared, open_state

__all__ = ["at_start_only", "build", "check_served", "follow", "policy", "reload", "secrets_of", "server_limits"]

_log = logging.getLogger("tolmach.gateway")

_LOOK_SECONDS = 0.5

_AT_START = ("host", "port", "workers", "state", "otel.endpoint", "limits.header_bytes", "limits.header_seconds")
"""Keys of `[gateway]` that a running server cannot take over."""


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


def policy(table: GatewayTable) -> Policy:
    """Who may ask and what is logged, as the settings say."""
    return Policy(
        cors=CorsRules(table.cors.origins, table.cors.max_age),
        admin_key=table.admin_key,
        open_to_all=is_loopback(table.host),
        texts=table.log.texts,
    )


def secrets_of(settings: Settings, targets: Targets) -> set[str]:
    """The texts of the settings that no log may show."""
    urls = (settings.gateway.state, settings.ledger.url)
    passwords = {text for url in urls if (password := urlsplit(url).password) for text in (password, unquote(password))}
    known = {settings.gateway.admin_key, *passwords, *(text for one in targets.providers() for text in _secrets(one))}
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


def build(settings: Settings) -> Gateway:
    """A gateway as the settings say, with its resources. Raises `ConfigError` when there is nothing to serve."""
    _check_providers(settings)
    state = open_state(settings.gateway.state)
    opened = open_shared(state) if is_shared(settings.gateway.state) else open_session
    targets = targets_of(settings, opened=opened)
    _check_access(settings)
    resources = Resources(settings, targets, state)
    router = Router(on_opened=lambda id, key_only: resources.opened(router.health, id, key_only=key_only))
    gateway = Gateway(targets, router=router, callers=resources.callers, memory=resources.memory(time.time))
    gateway.metrics.ledger, gateway.metrics.state = resources.ledger, resources.state
    gateway.resources = resources
    if resources.recording is not None:
        gateway.observers.append(resources.recording)
    if resources.telemetry is not None:
        gateway.observers.append(resources.telemetry)
    _take_over(gateway, settings)
    return gateway


def check_served(settings: Settings) -> None:
    """Raises `ConfigError` for what cannot be served as it is configured."""
    _check_providers(settings)
    targets_of(settings)
    _check_access(settings)


def _check_providers(settings: Settings) -> None:
    if not settings.providers:
        where = f"{settings.file} names no provider" if settings.file else "there is no tolmach.toml"
        raise ConfigError(f"{where}: write a [providers.NAME] table, or begin with `tolmach init`")


def _check_access(settings: Settings) -> None:
    """Nobody unknown is let in from elsewhere, and limits hold over all workers."""
    table, keys = settings.gateway, known_keys(settings)
    require_keys_for(table.host, loopback=is_loopback(table.host), keys=len(keys))
    check_workers(table.workers, table.state, limited=any(key.limited for key in keys))


def _take_over(gateway: Gateway, settings: Settings) -> None:
    table = settings.gateway
    set_up(table.log.level, secrets_of(settings, gateway.targets))
    gateway.limits = server_limits(table)
    gateway.policy = policy(table)


def reload(gateway: Gateway, live: LiveSettings) -> bool:
    """Read the file again; whether the new settings are in force. What is under way goes on as it began."""
    before = live.settings
    settings = live.reload()
    try:
        if settings is None:
            raise live.last_error or ConfigError("the configuration cannot be read")
        if not settings.providers:
            raise ConfigError(f"{settings.file} names no provider any more")
        gateway.targets = targets_of(settings, gateway.targets, opened=gateway.targets.opened)
    except ConfigError as error:
        gateway.problem = str(error)
        gateway.metrics.reloaded(False)
        _log.error("the configuration is broken; what held before holds on: %s", error)
        return False
    _take_over(gateway, settings)
    if gateway.resources is not None:
        gateway.resources.change(settings, gateway.targets)
    gateway.problem = ""
    gateway.metrics.reloaded(True)
    _log.info("the configuration was read again: %d providers", len(settings.providers))
    for key in at_start_only(before.gateway, settings.gateway):
        _log.warning("gateway.%s takes effect at the next start", key)
    return True


def at_start_only(before: GatewayTable, now: GatewayTable) -> list[str]:
    """The keys that differ and that a running server cannot take over."""
    return [key for key in _AT_START if _value(before, key) != _value(now, key)]


def _value(table: GatewayTable, key: str) -> object:
    value: object = table
    for name in key.split("."):
        value = getattr(value, name)
    return value


async def follow(gateway: Gateway, live: LiveSettings) -> None:
    """Reload whenever the file changes, until cancelled."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if live.changed():
            reload(gateway, live)
