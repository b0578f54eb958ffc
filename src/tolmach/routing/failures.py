"""What an error means for routing: who may be asked next, and whose fault it was."""

from typing import Literal

from tolmach.errors import (
    AddressRefused,
    AuthError,
    BadRequest,
    ChallengeRequired,
    ContextTooLong,
    LocalError,
    MissingCookies,
    ModelNotFound,
    ProofOfWorkError,
    ProtocolDrift,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    StaleSession,
    TimedOut,
    TolmachError,
    TransportError,
    UnsupportedFeature,
)

__all__ = ["Kind", "classify", "passes"]

Kind = Literal["transient", "rate_limited", "silent", "credentials", "too_long", "unsupported", "gone", "final"]
"""What a failure means.

| kind | next |
|---|---|
| `transient` | another target; the same one again only when the others have failed too |
| `rate_limited` | the target's next key, then another target; this key rests for its Retry-After |
| `silent` | another target; never the same one where there is another |
| `credentials` | the target's next key, then another target; never this key again |
| `too_long` | another target; never this one again |
| `unsupported` | another target; it was not asked, so it is no attempt |
| `gone` | another target; the circuit opens at once |
| `final` | nobody: the fault is in the request, or its author is not to have an answer |
"""

_KINDS: tuple[tuple[tuple[type[TolmachError], ...], Kind], ...] = (
    ((TimedOut,), "silent"),
    ((TransportError, StaleSession, RemoteProtocolError), "transient"),
    ((RateLimited,), "rate_limited"),
    ((AuthError, MissingCookies), "credentials"),
    ((ContextTooLong,), "too_long"),
    ((UnsupportedFeature,), "unsupported"),
    ((ModelNotFound, ProtocolDrift, ChallengeRequired, ProofOfWorkError), "gone"),
    ((AddressRefused,), "gone"),  # where the site leads to is no fault of who asks
    ((BadRequest, Refused, LocalError), "final"),
    ((ProviderError,), "transient"),
)
"""The first row that fits counts, so a class stands before its bases."""


def classify(error: TolmachError) -> Kind:
    """What an error means for the next step; `final` for one that nothing is known about."""
    for classes, kind in _KINDS:
        if isinstance(error, classes):
            return kind
    return "final"


def passes(error: TolmachError) -> bool:
    """Whether the same target may well answer in a moment: after a 5xx, or a refusal that says when to come back."""
    if not isinstance(error, ProviderUnavailable | RateLimited):
        return False
    return (error.status or 0) >= 500 or error.retry_after is not None
