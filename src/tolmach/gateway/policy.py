"""What the configuration says of the gateway itself, beside its limits: who may ask, what is logged."""

from hmac import compare_digest

from msgspec import Struct

from tolmach.gateway.cors import CorsRules
from tolmach.gateway.request_target import LOOPBACK_HOSTS

__all__ = ["Policy"]


class Policy(Struct, frozen=True, kw_only=True):
    """Replaced as a whole when the configuration is read again."""

    cors: CorsRules = CorsRules()
    admin_key: str = ""
    """The key that `/metrics` and `/admin/*` ask for; empty for none."""
    metrics_key: str = ""
    """A key for `/metrics` alone; empty for none."""
    loopback: bool = True
    """Whether only this machine reaches the gateway."""
    hosts: frozenset[str] | None = LOOPBACK_HOSTS
    """The names by which it may be asked, in lower case; None for every one."""
    texts: bool = False
    """Whether the bodies of questions and answers are logged."""

    def admits(self, authorization: str, *, callers_need_keys: bool, metrics: bool = False) -> bool:
        """Whether a header `Authorization` opens what is the admin's, or `/metrics`.

        Without a key of theirs they are open only where whoever reaches the gateway may ask it as well: a proxy on
        this machine may stand in front of many.
        """
        keys = [key for key in (self.admin_key, self.metrics_key if metrics else "") if key]
        if not keys:
            return self.loopback and not callers_need_keys
        scheme, _, sent = authorization.partition(" ")
        return scheme.lower() == "bearer" and any(compare_digest(sent.strip().encode(), key.encode()) for key in keys)
