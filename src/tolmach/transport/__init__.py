"""Transports: what carries requests to a service. `create` and `shared` give one; `base` says what one is.

`exchange` adds cookies and redirects around any of them. No transport knows of chats.
"""

import os
import threading
from collections.abc import Callable
from importlib import import_module

import msgspec

from tolmach.errors import ConfigError
from tolmach.transport.base import Exchange, Timeouts, Transport, TransportOptions, read
from tolmach.transport.exchange import open_exchange

__all__ = [
    "KINDS",
    "Exchange",
    "Timeouts",
    "Transport",
    "TransportOptions",
    "create",
    "open_exchange",
    "read",
    "shared",
]

KINDS = {
    "auto": "tolmach.transport.default:DefaultTransport",
    "wreq": "tolmach.transport.wreq:WreqTransport",
    "aiohttp": "tolmach.transport.aiohttp:AiohttpTransport",
}
"""The transports that reach the network, by the names that `create` and `TOLMACH_TRANSPORT` take."""

_shared: dict[tuple[str, bytes], Transport] = {}
_lock = threading.Lock()


def create(options: TransportOptions = TransportOptions(), kind: str | None = None) -> Transport:
    """A new transport: `kind`, else the environment's `TOLMACH_TRANSPORT`, else "auto".

    Raises `ConfigError` for an unknown kind or wrong options, `UnsupportedFeature` for options that
    this kind cannot honour, `MissingDependency` when its package is not installed.
    """
    place = KINDS.get(_kind(kind))
    if place is None:
        raise ConfigError(f"there is no transport {_kind(kind)!r}, only {', '.join(KINDS)}")
    module, _, name = place.partition(":")
    make: Callable[[TransportOptions], Transport] = getattr(import_module(module), name)
    return make(options)


def shared(options: TransportOptions = TransportOptions(), kind: str | None = None) -> Transport:
    """The process's transport for these options, made at first use and never closed. Errors as in `create`."""
    key = (_kind(kind), msgspec.msgpack.encode(options, order="deterministic"))
    with _lock:
        transport = _shared.get(key)
        if transport is None:
            transport = _shared[key] = create(options, kind)
    return transport


def _kind(kind: str | None) -> str:
    return kind or os.environ.get("TOLMACH_TRANSPORT") or "auto"


def _after_fork() -> None:
    # A forked child has the objects, but none of the threads that make them work; and the lock may have been held.
    global _lock
    _lock = threading.Lock()
    _shared.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
