"""Errors in the shape of the OpenAI API: `{"error": {"message", "type", "param", "code"}}`."""

import msgspec
from msgspec import UNSET, Struct, UnsetType

from tolmach.errors import (
    AddressRefused,
    AssistantGone,
    AuthError,
    BadRequest,
    ChallengeRequired,
    ConfigError,
    ConnectionLost,
    ContextTooLong,
    LocalError,
    ModelNotFound,
    ProtocolDrift,
    ProviderError,
    RateLimited,
    Refused,
    RemoteProtocolError,
    TimedOut,
    TolmachError,
    TransportError,
    TruncatedAnswer,
    UnsupportedFeature,
)

__all__ = ["error_body"]


class _ErrorFields(Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class _Body(Struct):
    """The body of an error. `request_id` is left out where there is none."""

    error: _ErrorFields
    request_id: str | UnsetType = UNSET


_encode = msgspec.json.Encoder().encode

_ERRORS: dict[type[TolmachError], tuple[str, str | None]] = {
    ModelNotFound: ("invalid_request_error", "model_not_found"),
    UnsupportedFeature: ("invalid_request_error", "unsupported_parameter"),
    AddressRefused: ("server_error", "address_refused"),
    ConfigError: ("invalid_request_error", None),
    LocalError: ("server_error", None),
    TimedOut: ("server_error", "timeout"),
    ConnectionLost: ("server_error", "connection_lost"),
    TransportError: ("server_error", "connect_failed"),
    ContextTooLong: ("invalid_request_error", "context_length_exceeded"),
    BadRequest: ("invalid_request_error", None),
    Refused: ("invalid_request_error", "content_filter"),
    RateLimited: ("rate_limit_error", "rate_limit_exceeded"),
    AuthError: ("authentication_error", "invalid_api_key"),
    ChallengeRequired: ("server_error", "challenge_required"),
    TruncatedAnswer: ("server_error", "truncated"),
    RemoteProtocolError: ("server_error", "upstream_protocol"),
    AssistantGone: ("server_error", "assistant_gone"),
    ProtocolDrift: ("server_error", "protocol_drift"),
    ProviderError: ("server_error", "upstream"),
}
"""Type and code; the first that fits counts."""

_FIXED = (ModelNotFound, UnsupportedFeature, ContextTooLong, AssistantGone)
"""Errors whose code callers rely on, whatever code the service gave."""

_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


def _fields_of(error: TolmachError) -> _ErrorFields:
    kind, code = next((entry for known, entry in _ERRORS.items() if isinstance(error, known)), ("server_error", None))
    if isinstance(error, ProviderError) and error.code and not isinstance(error, _FIXED):
        code = error.code
    if code in _QUOTA:
        kind = "insufficient_quota"
    param: str | None = None
    if isinstance(error, BadRequest):
        param = error.param
    elif isinstance(error, UnsupportedFeature):
        param = error.feature or None
    elif isinstance(error, ModelNotFound):
        param = "model"
    return _ErrorFields(_encodable(str(error)) or type(error).__name__, kind, param, code and _encodable(code))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def error_body(error: TolmachError, request_id: str = "") -> bytes:
    """The body for an error, with the request's id where there is one; in a stream, the data of its event."""
    return _encode(_Body(_fields_of(error), request_id or UNSET))
