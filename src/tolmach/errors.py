"""Every exception that tolmach raises.

```
TolmachError
├─ LocalError               the caller can mend it
│  ├─ ConfigError, ModelNotFound, UnsupportedFeature      also ValueError
│  │  └─ AddressRefused     of ConfigError: a server does not fetch this address for others
│  └─ MissingCookies, MissingDependency, StorageError     also RuntimeError
├─ TransportError           nothing came, or it broke on the way
│  ├─ ConnectFailed, ConnectionLost
│  └─ TimedOut              also TimeoutError; says which: connect, first_byte, idle, total
└─ ProviderError            also RuntimeError; status, code, the service's text, retry_after
   ├─ StaleSession          the nonce or token was refused; the session handles it once
   ├─ AuthError             key, login or guests' access refused
   │  └─ ConsentNeeded      the page asks its visitors to agree to something first; nothing was sent
   ├─ BadRequest            └─ ContextTooLong
   ├─ Refused               this text or this visitor is not wanted
   ├─ RateLimited
   ├─ ChallengeRequired     a CAPTCHA or a challenge page: a person is needed
   ├─ ProviderUnavailable   5xx, a fault of the AI behind the service, an empty answer
   ├─ RemoteProtocolError   outside the protocol's grammar
   │  └─ TruncatedAnswer    the answer broke off
   ├─ ProtocolDrift         a part that the protocol needs is not there any more
   │  └─ AssistantGone      the assistant was removed or switched off
   └─ ProofOfWorkError
```

The second bases keep code working that was written against `RuntimeError` or `ValueError`.
"""

from typing import ClassVar, Literal

__all__ = [
    "AddressRefused",
    "AssistantGone",
    "AuthError",
    "BadRequest",
    "ChallengeRequired",
    "ConfigError",
    "ConnectFailed",
    "ConnectionLost",
    "ConsentNeeded",
    "ContextTooLong",
    "LocalError",
    "MissingCookies",
    "MissingDependency",
    "ModelNotFound",
    "ProofOfWorkError",
    "ProtocolDrift",
    "ProviderError",
    "ProviderUnavailable",
    "RateLimited",
    "Refused",
    "RemoteProtocolError",
    "StaleSession",
    "StorageError",
    "TimedOut",
    "TimeoutPhase",
    "TolmachError",
    "TransportError",
    "TruncatedAnswer",
    "UnsupportedFeature",
    "error_for_status",
]

TimeoutPhase = Literal["connect", "first_byte", "idle", "total"]


class TolmachError(Exception):
    """The base of all errors here.

    `partial` is the text that had arrived before it broke, `provider` the name of the site.
    """

    hint: ClassVar[str] = ""
    """What the user can do about it; one sentence, shown by the command."""

    partial: str = ""
    provider: str = ""


class LocalError(TolmachError):
    """The call cannot be made as it stands; nothing was sent."""


class ConfigError(LocalError, ValueError):
    """A setting or an argument is wrong; the message names it."""


class AddressRefused(ConfigError):
    """A server does not fetch this address for others; nothing was sent.

    `reason` is a short word for why: `url`, `scheme`, `credentials`, `host`, `port`, `address` (it is not a
    public one), `name` (it is a name of a private network), `resolved` (it stands for an address that is not public).
    """

    hint = "Give a public http or https address; the operator permits private ones in [gateway.egress]."

    def __init__(self, message: str, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class ModelNotFound(LocalError, ValueError):
    """No provider has this model, or there is no provider of this name."""

    hint = "See `tolmach models` and `tolmach providers`."


class UnsupportedFeature(LocalError, ValueError):
    """The provider or transport cannot honour `feature`."""

    hint = "Leave it out, choose another provider, or pass strict=False to have it dropped with a notice."

    def __init__(self, message: str, *, feature: str = "") -> None:
        super().__init__(message)
        self.feature = feature


class MissingCookies(LocalError, RuntimeError):
    """The service needs cookies of its site and none were found."""

    hint = "Pass cookies=, call set_cookies(domain, {...}), or put a cookies.txt or HAR file into the cookies folder."


class MissingDependency(LocalError, RuntimeError):
    """An optional package is not installed; the message has the command that brings it, `install` that alone."""

    def __init__(self, message: str, *, install: str = "") -> None:
        super().__init__(message)
        self.install = install


class StorageError(LocalError, RuntimeError):
    """The database of the gateway cannot be reached, read or written; the message has what it said."""

    hint = "See that there is room on the disk, that the server runs, and that this user may write there."

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
        """Whether it will never take these rows; others may be fine."""


class TransportError(TolmachError):
    """Nothing came from the service, or the connection broke on the way."""

    hint = "Check the address, the network and the proxy."


class ConnectFailed(TransportError):
    """No connection: name not found, refused, TLS or proxy failure."""


class ConnectionLost(TransportError):
    """The connection broke after the request had gone out."""


class TimedOut(TransportError, TimeoutError):
    """A time limit passed; `phase` says which, `seconds` how long it was."""

    hint = "Ask again, or raise the time limit."

    def __init__(self, message: str, *, phase: TimeoutPhase = "total", seconds: float | None = None) -> None:
        super().__init__(message)
        self.phase = phase
        self.seconds = seconds


_LONGEST_WAIT = 31 * 86_400.0


class ProviderError(TolmachError, RuntimeError):
    """The service answered, and the answer is a failure.

    `text` is what the service said, `status` its HTTP status, `code` its own or our short code,
    `retry_after` the seconds it asked to wait: a month at most, for a service may say anything.
    """

    def __init__(
        self, text: str = "", *, status: int | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.code = code
        self.retry_after = None if retry_after is None else min(max(0.0, retry_after), _LONGEST_WAIT)


class StaleSession(ProviderError):
    """The nonce or session token was refused. The session shakes hands again once before this reaches a caller."""

    hint = "The site refused a fresh nonce; if this stays, its page is cached or it is closed to guests."


class AuthError(ProviderError):
    """The key, the login or a guest's access was refused."""

    hint = "Check the API key or sign-in; some sites do not serve guests."


class ConsentNeeded(AuthError):
    """The site's page asks visitors to agree to something before they chat, and nobody did; nothing was sent."""

    hint = "Read it, and agree: --accept-consent, accept_consent=True, or accept_consent = true in the configuration."


class BadRequest(ProviderError):
    """The service does not accept this request; `param` is the field it names, such as `messages[0].role`."""

    def __init__(
        self,
        text: str = "",
        *,
        param: str | None = None,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text, status=status, code=code, retry_after=retry_after)
        self.param = param


class ContextTooLong(BadRequest):
    """The message or conversation is longer than the service takes."""

    hint = "Shorten the message or the conversation."


class Refused(ProviderError):
    """This text or this visitor is not wanted: a banned word, moderation, a blocked address."""


class RateLimited(ProviderError):
    """The service's limit for this key or visitor is used up."""

    hint = "Wait and ask again later."


class ChallengeRequired(ProviderError):
    """A CAPTCHA or challenge page: a person is needed. `kind` says which, `url` where."""

    hint = "Open the site in a browser, or pass a challenge handler that asks a person."

    def __init__(
        self,
        text: str = "",
        *,
        kind: str = "challenge",
        url: str = "",
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text, status=status, code=code, retry_after=retry_after)
        self.kind = kind
        self.url = url


class ProviderUnavailable(ProviderError):
    """A fault of the service or of the AI behind it, or an empty answer."""

    hint = "Ask again later, or choose another provider."


class RemoteProtocolError(ProviderError):
    """What came is outside the protocol's grammar, or over a limit."""

    hint = "The service may have changed; `tolmach decode` shows what a recording of it means."


class TruncatedAnswer(RemoteProtocolError):
    """The answer broke off before its end; `partial` is what had come."""

    hint = "Ask again."

    def __init__(
        self,
        text: str = "the answer broke off before its end",
        *,
        partial: str = "",
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text, status=status, code=code, retry_after=retry_after)
        self.partial = partial


class ProtocolDrift(ProviderError):
    """A part that the protocol needs is not there any more; `missing` names it."""

    hint = "The site has changed; look at its page for the chat widget."

    def __init__(
        self,
        text: str = "",
        *,
        missing: str = "",
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text, status=status, code=code, retry_after=retry_after)
        self.missing = missing


class AssistantGone(ProtocolDrift):
    """The page has no assistant that can be asked: it was removed, its plugin is switched off, or it never had one."""

    hint = "Look at the page in a browser; `tolmach discover` says what it found there."


class ProofOfWorkError(ProviderError):
    """No proof of work was found within the attempts allowed."""


_BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthError,
    402: AuthError,
    403: AuthError,
    407: AuthError,
    408: ProviderUnavailable,
    413: ContextTooLong,
    425: RateLimited,
    429: RateLimited,
}


def error_for_status(
    status: int, text: str, *, code: str | None = None, retry_after: float | None = None
) -> ProviderError:
    """The error that an HTTP status stands for when the body says nothing more exact."""
    if status in _BY_STATUS:
        kind = _BY_STATUS[status]
    elif 400 <= status < 500:
        kind = BadRequest
    elif status >= 500:
        kind = ProviderUnavailable
    else:
        kind = RemoteProtocolError
    return kind(text or f"HTTP {status}", status=status, code=code, retry_after=retry_after)
