"""The configuration of a gateway that runs, read again."""

import asyncio
import logging

from tolmach.configuration import GatewayTable, LiveSettings
from tolmach.errors import ConfigError
from tolmach.gateway.core import Gateway
from tolmach.gateway.from_settings import InForce
from tolmach.gateway.telemetry.logs import set_up

__all__ = ["at_start_only", "follow", "reload", "take_over"]

_log = logging.getLogger("tolmach.gateway")

_LOOK_SECONDS = 0.5

_AT_START = ("host", "port", "workers", "state", "otel.endpoint", "limits.header_bytes", "limits.header_seconds")
"""Keys of `[gateway]` that a running server cannot take over."""


def take_over(gateway: Gateway, now: InForce) -> None:
    """Put in force what the settings say. What is under way goes on as it began."""
    set_up(now.log_level, now.secrets)
    gateway.targets = now.targets
    gateway.limits = now.limits
    gateway.policy = now.policy
    gateway.callers.prices = now.prices
    if gateway.ledger is not None:
        gateway.ledger.prices = now.prices


def reload(gateway: Gateway, live: LiveSettings) -> bool:
    """Read the file again; whether the new settings are in force. What is under way goes on as it began."""
    before = live.settings
    settings = live.reload()
    try:
        if settings is None:
            raise live.last_error or ConfigError("the configuration cannot be read")
        if not settings.providers:
            raise ConfigError(f"{settings.file} names no provider any more")
        now = InForce.of(settings, gateway.targets, loopback=gateway.policy.loopback, opened=gateway.targets.opened)
    except ConfigError as error:
        gateway.problem = str(error)
        gateway.metrics.reloaded(False)
        _log.error("the configuration is broken; what held before holds on: %s", error)
        return False
    take_over(gateway, now)
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
