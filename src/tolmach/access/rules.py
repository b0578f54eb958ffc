"""What must be so before the gateway starts: limits that hold, and nobody let in whom nobody knows."""

from tolmach.errors import ConfigError

__all__ = ["check_workers", "require_keys_for"]


def check_workers(workers: int, *, shared: bool, limited: bool) -> None:
    """Raises `ConfigError` where several workers would each count a limit for themselves.

    `shared` says whether they have one state, `limited` whether any key has a limit.
    """
    if workers > 1 and limited and not shared:
        raise ConfigError(
            f"gateway.workers = {workers}, and there are keys with limits: each worker would count for itself, so "
            f'{workers} times as much would be let through. Let them share a server: gateway.state = "redis://...", '
            "or use one worker"
        )


def require_keys_for(host: str, *, loopback: bool, keys: int) -> None:
    """Raises `ConfigError` where others than this machine could ask and no key is needed.

    `loopback` says whether only this machine reaches `host`, `keys` how many keys there are.
    """
    if not loopback and not keys:
        raise ConfigError(
            f"gateway.host = {host!r} lets in whoever reaches this machine, and there are no keys for callers: "
            'make one with `tolmach keys add NAME`, or listen on "127.0.0.1"'
        )
