"""The configuration of a gateway that runs, read again.

Files are looked at and read in a thread: one that is large, or on a disk that does not answer, keeps nobody waiting.
"""

import asyncio
import logging
from contextlib import suppress

from tolmach.configuration import GatewayTable, LiveSettings
from tolmach.errors import ConfigError
from tolmach.gateway.core import Gateway
from tolmach.gateway.from_settings import InForce
from tolmach.gateway.telemetry.logs import set_up
from tolmach.routing.targets import Targets

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
    gateway.callers.rule = now.key_rule
    gateway.callers.budgets = now.budgets
    if gateway.ledger is not None:
        gateway.ledger.prices = now.prices


async def reload(gateway: Gateway, live: LiveSettings) -> bool:
    """Read the file again; whether the new settings are in force. What is under way goes on as it began.

    One at a time.
    """
    before = live.settings
    try:
        now = await asyncio.to_thread(_read, live, gateway.targets, loopback=gateway.policy.loopback)
    except ConfigError as error:
        _log.error("the configuration is broken; what held before holds on: %s", error)
        return _failed(gateway, str(error))
    except Exception:  # a bug of ours, found by what stands in the file: what is served does not end with it
        _log.exception("the configuration cannot be read; what held before holds on")
        return _failed(gateway, "it cannot be read; the log has more")
    take_over(gateway, now)
    gateway.problem = ""
    gateway.metrics.reloaded(True)
    _log.info("the configuration was read again: %d providers", len(live.settings.providers))
    for key in at_start_only(before.gateway, live.settings.gateway):
        _log.warning("gateway.%s takes effect at the next start", key)
    return True


def _read(live: LiveSettings, previous: Targets, *, loopback: bool) -> InForce:
    settings = live.reload()
    if settings is None:
        raise live.last_error or ConfigError("the configuration cannot be read")
    if not settings.providers:
        raise ConfigError(f"{settings.file} names no provider any more")
    return InForce.of(settings, previous, loopback=loopback, opened=previous.opened)


def _failed(gateway: Gateway, problem: str) -> bool:
    gateway.problem = problem
    gateway.metrics.reloaded(False)
    return False


def at_start_only(before: GatewayTable, now: GatewayTable) -> list[str]:
    """The keys that differ and that a running server cannot take over."""
    return [key for key in _AT_START if _value(before, key) != _value(now, key)]


def _value(table: GatewayTable, key: str) -> object:
    value: object = table
    for name in key.split("."):
        value = getattr(value, name)
    return value


async def follow(gateway: Gateway, live: LiveSettings, wanted: asyncio.Event | None = None) -> None:
    """Reload whenever the file changes, and when it is `wanted`, until cancelled."""
    wanted = wanted or asyncio.Event()
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(wanted.wait(), _LOOK_SECONDS)
        if wanted.is_set() or await asyncio.to_thread(live.changed):
            wanted.clear()
            await reload(gateway, live)
