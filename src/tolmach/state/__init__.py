"""What the processes of a gateway share: in this process, or at a Redis or Valkey server.

`open_state` gives a `State`, of which no call fails; `stores` remembers values of one kind in it.
"""

from tolmach.errors import ConfigError
from tolmach.extras import missing
from tolmach.state.base import Outcome, State, Subscriber, Want
from tolmach.state.memory import MemoryState

__all__ = ["MemoryState", "Outcome", "State", "Subscriber", "Want", "is_shared", "open_state"]

_SCHEMES = ("redis", "rediss", "unix")


def is_shared(url: str) -> bool:
    """Whether the state of this address is shared with other processes. Raises `ConfigError` for one that is none."""
    if url in ("", "memory"):
        return False
    if url.partition("://")[0] not in _SCHEMES or "://" not in url:
        raise ConfigError(
            'gateway.state: "memory", or the address of a Redis or Valkey server: '
            "redis://HOST:PORT, rediss://USER:PASSWORD@HOST:PORT or unix:///PATH"
        )
    return True


def open_state(url: str) -> State:
    """The state of an address: empty or "memory" for this process alone, else that of a server.

    Raises `ConfigError`, and `MissingDependency` where the extra `redis` is not installed.
    """
    if not is_shared(url):
        return MemoryState()
    try:
        from tolmach.state.redis import RedisState
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "redis":
            raise
        raise missing("gateway.state names a server, and the package redis is not installed", "redis") from error
    return RedisState(url)
