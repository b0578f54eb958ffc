"""What a recipe says about errors, for the answers of all formats."""

import re
from collections.abc import Callable
from typing import Any

from msgspec import Struct, field

from tolmach.decoding import parse_json, plain_text
from tolmach.errors import (
    AuthError,
    BadRequest,
    ChallengeRequired,
    ContextTooLong,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RemoteProtocolError,
    StaleSession,
)
from tolmach.protocols.base import failure
from tolmach.protocols.bodies import shown
from tolmach.protocols.pointer import ABSENT, find, parse_pointer
from tolmach.protocols.recipe.tables import (
    AnswerTable,
    ConversationValue,
    ErrorsTable,
    StaleRule,
    find_at,
    find_first,
    parse_place,
    parse_places,
)
from tolmach.wire import Head, Limits, retry_after

__all__ = ["Faults", "Reading"]

_KINDS: dict[str, type[ProviderError]] = {
    "auth": AuthError,
    "bad_request": BadRequest,
    "context_too_long": ContextTooLong,
    "rate_limited": RateLimited,
    "refused": Refused,
    "stale": StaleSession,
    "unavailable": ProviderUnavailable,
}

# Where services put the words of an error, when the recipe does not say it better.
_WORDS = tuple(parse_pointer(p) for p in ("/message", "/detail", "/error/message", "/error", "/msg"))


class Reading(Struct, frozen=True, kw_only=True):
    """How one answer is to be read."""

    answer: AnswerTable
    errors: ErrorsTable = ErrorsTable()
    stale: tuple[StaleRule, ...] = ()
    conversation: dict[str, ConversationValue] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    """The conversation's values that the question was sent with."""
    limits: Limits = Limits()
    now: Callable[[], float] = lambda: 0.0
    on_stale: Callable[[], None] = lambda: None
    """Told when the service refused a token."""


class Faults:
    """The errors of one answer."""

    def __init__(self, reading: Reading, head: Head) -> None:
        self._reading = reading
        self._head = head
        errors = reading.errors
        self._texts = tuple(map(parse_place, errors.text))
        self._ok = parse_place(errors.ok) if errors.ok else None
        self._code_place = parse_place(errors.code) if errors.code else None
        self._answer = parse_places(reading.answer.text)

    def of_response(self, body: bytes) -> Exception:
        """What a response with a bad status stands for."""
        try:
            value = parse_json(body)
        except RemoteProtocolError:
            value = None
        text = self._text(value) or self._words(value) or plain_text(body)
        code = self._code(value)
        error = failure(self._head, body, self._reading.now(), text=text, code=code)
        if not isinstance(error, ProviderError) or isinstance(error, ChallengeRequired):
            return error
        if stale := self.refusal(text, code, body):
            return stale
        kind = self._kind(text, code)
        return error if kind is None else self._made(kind, text, code, error.retry_after)

    def of_value(self, value: Any, *, always: bool = False) -> ProviderError | None:
        """What a value of a good status says went wrong; None when nothing. `always`: it is an error's event."""
        for place, kind_name in self._reading.errors.flags.items():
            if find_at(value, parse_place(place)) is True:
                wait = retry_after(self._head, self._reading.now())
                return self._made(_KINDS[kind_name], self._words(value) or shown(value), self._code(value), wait)
        text = self._text(value)
        if text is None and (always or self._flagged(value)):
            own = find_first(value, self._answer)
            text = own if isinstance(own, str) and own.strip() else self._words(value) or shown(value)
        if text is None:
            return None
        code = self._code(value)
        if stale := self.refusal(text, code):
            return stale
        kind = self._kind(text, code) or ProviderUnavailable
        return self._made(kind, shown(text), code or "upstream", retry_after(self._head, self._reading.now()))

    def check_body(self, body: bytes) -> None:
        """Raise `StaleSession` for a whole body that a rule knows as a refusal, although its status may be good."""
        said = body[:4096].strip().decode("utf-8", "replace")
        if any(said in rule.body for rule in self._reading.stale) and (stale := self.refusal(said, None, body)):
            raise stale

    def refusal(self, text: str, code: str | None, body: bytes = b"") -> StaleSession | None:
        """The error for a refused token, by the recipe's rules; None when it is none."""
        for rule in self._reading.stale:
            holds = (
                (not rule.status or self._head.status in rule.status)
                and (not rule.code or code in rule.code)
                and (not rule.text or re.search(rule.text, text[:65536], re.I) is not None)
                and (not rule.body or body[:4096].strip().decode("utf-8", "replace") in rule.body)
            )
            if holds:
                self._reading.on_stale()
                return StaleSession(shown(text) or "the service refused a token", status=self._head.status, code=code)
        return None

    def _made(self, kind: type[ProviderError], text: str, code: str | None, wait: float | None) -> ProviderError:
        if kind is StaleSession:
            self._reading.on_stale()
        return kind(text, status=self._head.status, code=code, retry_after=wait)

    def _flagged(self, value: Any) -> bool:
        """Whether the flag that must be true is not; a stream's events need not all have it."""
        if self._ok is None:
            return False
        flag = find_at(value, self._ok)
        if flag is ABSENT:
            return self._reading.answer.format == "json"
        wanted = self._reading.errors.ok_values
        return flag not in wanted if wanted else not flag

    def _text(self, value: Any) -> str | None:
        for place in self._texts:
            error = find_at(value, place)
            if error is not ABSENT and error not in (None, False, "", 0, [], {}):
                return self._words({"error": error}) or shown(value if error is True else error)
        return None

    def _words(self, value: Any) -> str:
        for tokens in _WORDS:
            words = find(value, tokens)
            if isinstance(words, str) and words.strip():
                return shown(words)
        return ""

    def _code(self, value: Any) -> str | None:
        if self._code_place is None:
            return None
        code = find_at(value, self._code_place)
        return shown(code, 80) if isinstance(code, str | int) and code != "" else None

    def _kind(self, text: str, code: str | None) -> type[ProviderError] | None:
        errors = self._reading.errors
        name = (errors.kinds.get(code) if code is not None else None) or errors.kinds.get(str(self._head.status))
        if name is None:
            name = next((kind for words, kind in errors.words.items() if re.search(words, text[:65536], re.I)), None)
        return _KINDS[name] if name else None
