"""What the configuration says of the gateway itself, beside its limits: who may ask, what is logged."""

from hmac import compare_digest

from msgspec import Struct

from tolmach.gateway.cors import CorsRules

__all__ = ["Policy"]


class Policy(Struct, frozen=True, kw_only=True):
    """Replaced as a whole when the configuration is read again."""

    cors: CorsRules = CorsRules()
    admin_key: str = ""
    """The key that `/metrics` and what else is the admin's ask for; empty for none."""
    open_to_all: bool = True
    """Whether they need no key while there is none, because only this machine reaches the gateway."""
    texts: bool = False
    """Whether the bodies of questions and answers are logged."""

    def admits(self, authorization: str) -> bool:
        """Whether a header `Authorization` has the admin's key, or none is needed."""
        if not self.admin_key:
            return self.open_to_all
        scheme, _, key = authorization.partition(" ")
        return scheme.lower() == "bearer" and compare_digest(key.strip().encode(), self.admin_key.encode())
