"""Which HTTP status a caller of the gateway sees for each of our errors: one table for all surfaces."""

from tolmach.errors import (
    AddressRefused,
    AuthError,
    BadRequest,
    ChallengeRequired,
    ConfigError,
    ConnectFailed,
    ContextTooLong,
    LocalError,
    MissingCookies,
    ModelNotFound,
    ProviderError,
    RateLimited,
    Refused,
    TimedOut,
    TolmachError,
    TransportError,
    UnsupportedFeature,
)

__all__ = ["status_of"]

_STATUS: dict[type[TolmachError], int] = {
    ModelNotFound: 404,
    UnsupportedFeature: 400,
    AddressRefused: 502,
    ConfigError: 400,
    MissingCookies: 502,
    LocalError: 500,
    TimedOut: 504,
    ConnectFailed: 502,
    TransportError: 502,
    ContextTooLong: 400,
    BadRequest: 400,
    Refused: 403,
    RateLimited: 429,
    AuthError: 401,
    ChallengeRequired: 502,
    ProviderError: 502,
}
"""The first that fits counts."""


def status_of(error: TolmachError) -> int:
    """The status for an error: 4xx when the caller can mend it, 5xx when the gateway or the service failed."""
    if isinstance(error, BadRequest) and error.status == 404:
        return 404  # the service has no such model, which is what programs look for
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
