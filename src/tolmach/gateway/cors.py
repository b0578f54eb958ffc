"""Which pages in browsers may ask: the Fetch standard's CORS protocol, never with credentials."""

import re
from collections.abc import Mapping

from tolmach.gateway.http import Headers

__all__ = ["EXPOSED", "CorsRules", "is_foreign"]

EXPOSED = ", ".join(
    (
        "x-request-id",
        "x-tolmach-target",
        "x-tolmach-attempts",
        "x-tolmach-route",
        "x-tolmach-degraded",
        "server-timing",
        "retry-after",
        "x-ratelimit-limit-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-requests",
        "x-ratelimit-reset-tokens",
    )
)
"""The headers of answers that scripts may read."""

_METHODS = "GET, POST, OPTIONS"
_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:\s*,\s*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_LONGEST = 2048


class CorsRules:
    """The origins whose pages may ask; `*` is every one. `max_age` is how many seconds a browser keeps the leave."""

    def __init__(self, origins: tuple[str, ...] = (), max_age: int = 600) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._max_age = str(max_age)

    def allows(self, origin: str) -> bool:
        return self._any or origin.lower() in self._origins

    def headers(self, origin: str) -> Headers:
        """What an answer to a page of this origin says; an answer to another one differs in nothing but this."""
        vary: Headers = [] if self._any or not self._origins else [("vary", "origin")]
        if not self.allows(origin):
            return vary
        allowed = ("access-control-allow-origin", "*" if self._any else origin)
        return [allowed, ("access-control-expose-headers", EXPOSED), *vary]

    def preflight(self, wanted: str) -> Headers:
        """What a browser is told that asks first. `wanted` are the headers that the page would send."""
        headers = [("access-control-allow-methods", _METHODS), ("access-control-max-age", self._max_age)]
        if len(wanted) <= _LONGEST and _NAMES.fullmatch(wanted):
            headers.append(("access-control-allow-headers", wanted))
        return headers


def is_foreign(headers: Mapping[str, str], rules: CorsRules) -> bool:
    """Whether a page asks that may not.

    A browser sends a form's kind of request without asking first, and hides only the answer from the
    page; so a question from such a page is not taken at all. Programs send no `Origin`.
    """
    origin = headers.get("origin")
    if origin is None or rules.allows(origin):
        return False
    return origin.partition("://")[2] != headers.get("host", "")
