"""A gateway as `anychat.toml` says, and the reading of it again while it runs."""

import asyncio
import logging

from anychat.configuration import GatewayTable, LiveSettings, Settings, provider_site
from anychat.errors import ConfigError
from anychat.gateway.core import Gateway
from anychat.gateway.http import ServerLimits
from anychat.gateway.targets import Provider, Targets
from anychat.transport import Timeouts

__all__ = ["build", "follow", "reload", "server_limits", "targets_of"]

_log = logging.getLogger("anychat.gateway")

_LOOK_SECONDS = 1.0


def targets_of(settings: Settings, previous: Targets | None = None) -> Targets:
    """The targets of the settings; sessions of `previous` go on where their provider is unchanged.

    Raises `ConfigError` when a file that the settings name is not there any more.
    """
    times = settings.gateway.timeouts
    providers = []
    for row in settings.providers.values():
        site, access = provider_site(row)
        timeouts = Timeouts(
            connect=times.connect, first_byte=times.first_token, idle=times.idle, total=row.timeout or times.total
        )
        names = row.model_names or {model: model for model in site.models}
        providers.append(
            Provider(
                name=row.name,
                site=site,
                access=access,
                models=names,
                strict=row.strict,
                emulate=frozenset(row.emulate),
                timeouts=timeouts,
            )
        )
    routes = {name: route.targets for name, route in settings.routes.items()}
    return Targets(providers, routes, previous)


def server_limits(table: GatewayTable) -> ServerLimits:
    """What callers may send, as the settings say."""
    return ServerLimits(
        body_bytes=table.limits.body_bytes, body_seconds=table.limits.body_seconds, depth=table.limits.depth
    )


def build(settings: Settings) -> Gateway:
    """A gateway as the settings say. Raises `ConfigError` when there is nothing to serve."""
    if not settings.providers:
        where = f"{settings.file} names no provider" if settings.file else "there is no anychat.toml"
        raise ConfigError(f"{where}: write a [providers.NAME] table, or begin with `anychat init`")
    return Gateway(targets_of(settings), limits=server_limits(settings.gateway))


def reload(gateway: Gateway, live: LiveSettings) -> bool:
    """Read the file again; whether the new settings are in force. What is under way goes on as it began."""
    settings = live.reload()
    if settings is None:
        _log.error("the configuration is broken, what held before holds on:\n%s", live.last_error)
        return False
    try:
        gateway.targets = targets_of(settings, gateway.targets)
    except ConfigError as error:
        _log.error("the configuration cannot be used, what held before holds on: %s", error)
        return False
    gateway.limits = server_limits(settings.gateway)
    _log.info("the configuration was read again: %d providers", len(settings.providers))
    return True


async def follow(gateway: Gateway, live: LiveSettings) -> None:
    """Reload whenever the file changes, until cancelled."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        if live.changed():
            reload(gateway, live)
