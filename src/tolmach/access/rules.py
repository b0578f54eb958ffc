"""What must be so before the gateway starts: limits that hold, and nobody let in whom nobody knows."""

from typing import Literal

from msgspec import Struct

from tolmach.errors import ConfigError

__all__ = ["KeyRule", "check_workers", "in_words", "require_keys_for"]


class KeyRule(Struct, frozen=True, kw_only=True):
    """Whether a key is needed while there is none."""

    setting: Literal["", "required", "optional"] = ""
    """`gateway.keys`."""
    loopback: bool = True
    """Whether only this machine reaches the gateway."""

    def requires(self, *, ever: bool) -> bool:
        """`ever` says whether there was a key at any time."""
        return not self.loopback or self.setting == "required" or (ever and self.setting != "optional")

    def check(self, ledger: str) -> None:
        """Raises `ConfigError` for a setting that cannot be kept; `ledger` is `ledger.url`."""
        if self.setting == "optional" and not self.loopback:
            raise ConfigError(
                'gateway.keys = "optional" is for a gateway that only this machine reaches: '
                'listen on "127.0.0.1", or leave it out'
            )
        if self.setting == "required" and ledger == "off":
            raise ConfigError(
                'gateway.keys = "required", and keys stand in the ledger, which is off: name one by [ledger] url'
            )


def in_words(keys: int, *, required: bool) -> str:
    """Who may ask, for people: how many keys there are, or what it means that there is none."""
    if keys:
        return f"{keys} key{'s' * (keys != 1)}"
    if required:
        return "no keys, and one is needed: nobody may ask. Make one with `tolmach keys add NAME`"
    return "no keys: everyone on this machine may ask"


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
