"""The errors of the OpenAI API and of the many servers that imitate it.

A code says most, then the HTTP status, then the type; words are looked at only where servers are
known to have no code.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from tolmach.decoding import parse_json, plain_text
from tolmach.errors import (
    AuthError,
    BadRequest,
    ContextTooLong,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    error_for_status,
)
from tolmach.protocols.base import challenge_page
from tolmach.protocols.bodies import shown
from tolmach.wire import Head, retry_after

__all__ = ["Fault", "fault_error", "find_fault", "http_error"]


class Fault(NamedTuple):
    """What an error body says."""

    text: str
    code: str | None = None
    type: str | None = None


_BY_CODE: dict[str, type[ProviderError]] = {
    "account_deactivated": AuthError,
    "billing_hard_limit_reached": RateLimited,
    "billing_not_active": AuthError,
    "bio_policy": Refused,
    "content_filter": Refused,
    "content_policy_violation": Refused,
    "context_length_exceeded": ContextTooLong,
    "empty_image_file": BadRequest,
    "engine_overloaded": ProviderUnavailable,
    "exceed_context_size_error": ContextTooLong,
    "failed_to_download_image": BadRequest,
    "image_content_policy_violation": Refused,
    "image_file_not_found": BadRequest,
    "image_file_too_large": BadRequest,
    "image_parse_error": BadRequest,
    "image_too_large": BadRequest,
    "image_too_small": BadRequest,
    "insufficient_quota": RateLimited,
    "invalid_api_key": AuthError,
    "invalid_base64_image": BadRequest,
    "invalid_image": BadRequest,
    "invalid_image_format": BadRequest,
    "invalid_image_mode": BadRequest,
    "invalid_image_url": BadRequest,
    "invalid_prompt": Refused,
    "misalignment_policy_violation": Refused,
    "model_not_found": BadRequest,
    "moderation_blocked": Refused,
    "rate_limit_exceeded": RateLimited,
    "request_too_large": ContextTooLong,
    "responsibleaipolicyviolation": Refused,
    "server_error": ProviderUnavailable,
    "string_above_max_length": ContextTooLong,
    "unsupported_country_region_territory": Refused,
    "unsupported_image_media_type": BadRequest,
}

_BY_TYPE: dict[str, type[ProviderError]] = {
    **_BY_CODE,
    "api_error": ProviderUnavailable,
    "authentication_error": AuthError,
    "badrequesterror": BadRequest,
    "internal_server_error": ProviderUnavailable,
    "invalid_request_error": BadRequest,
    "not_found_error": BadRequest,
    "overloaded_error": ProviderUnavailable,
    "permission_error": AuthError,
    "rate_limit_error": RateLimited,
    "requests": RateLimited,
    "service_unavailable": ProviderUnavailable,
    "timeout_error": ProviderUnavailable,
    "tokens": RateLimited,
}

# vLLM, SGLang and others send a plain 400 here, with no code of their own.
_TOO_LONG = re.compile(r"maximum context length|context (window|length|size)|longer than the model", re.I)


def find_fault(value: Any) -> Fault | None:
    """The error that a JSON value reports, in any of the known shapes; None when it reports none."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    if isinstance(error, dict):
        return _described(error)
    if isinstance(error, str) and error.strip():
        return Fault(shown(error), _code(value.get("code")), _code(value.get("type")))
    if error:
        return Fault(shown(error))
    if "choices" in value:
        return None
    if value.get("object") == "error" or isinstance(value.get("message"), str):
        return _described(value)
    if isinstance(errors := value.get("errors"), list) and errors and isinstance(errors[0], dict):
        return _described(errors[0])
    if detail := value.get("detail"):
        return _described(detail) if isinstance(detail, dict) else Fault(shown(_detail_words(detail)))
    return None


def _described(error: dict[str, Any]) -> Fault:
    message = error.get("message")
    text = shown(message) if isinstance(message, str) and message.strip() else shown(error)
    inner = error.get("innererror")
    code = _code(inner.get("code")) if isinstance(inner, dict) else None
    return Fault(text, code or _code(error.get("code")), _code(error.get("type")))


def _detail_words(detail: Any) -> Any:
    """The words of FastAPI's `detail`: a text, or a list of what was wrong with which field."""
    if isinstance(detail, list) and all(isinstance(item, dict) and isinstance(item.get("msg"), str) for item in detail):
        return "; ".join(item["msg"] for item in detail[:5])
    return detail


def _code(code: Any) -> str | None:
    if isinstance(code, bool) or not isinstance(code, str | int) or code == "":
        return None
    return shown(code, 80)


def fault_error(fault: Fault, head: Head, now: float) -> ProviderError:
    """The error that a fault stands for: in a failed response, or in the middle of a good one."""
    status = head.status
    failed = not 200 <= status < 300
    said = int(fault.code) if fault.code is not None and re.fullmatch("[45][0-9][0-9]", fault.code) else None
    code = fault.code if said is None else fault.type or fault.code
    kind = _BY_CODE.get((fault.code or "").lower()) or _BY_CODE.get((fault.type or "").lower())
    if kind is None:
        if failed or said is not None:
            kind = type(error_for_status(status if failed else said or 500, ""))
        else:
            kind = _BY_TYPE.get((fault.code or "").lower()) or _BY_TYPE.get((fault.type or "").lower())
    if kind in (BadRequest, None) and _TOO_LONG.search(fault.text):
        kind = ContextTooLong
    wait = _wait(head, now)
    return (kind or ProviderUnavailable)(fault.text, status=status, code=code or fault.type, retry_after=wait)


def http_error(head: Head, body: bytes, now: Callable[[], float]) -> ProviderError:
    """The error that a failed response stands for."""
    if page := challenge_page(head, body):
        return page
    try:
        fault = find_fault(parse_json(body))
    except RemoteProtocolError:
        fault = None
    return fault_error(fault or Fault(plain_text(body) or f"HTTP {head.status}"), head, now())


def _wait(head: Head, now: float) -> float | None:
    """Seconds to wait; `retry-after-ms` is the more exact of the two headers."""
    value = head.header("retry-after-ms").strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", value):
        return float(value) / 1000
    return retry_after(head, now)
