"""What a protocol is given and what it gives.

A protocol is a frozen struct of its own options, with methods that are pure: requests as values,
bytes into events. It never touches a socket, the clock, randomness, the environment or asyncio;
`SessionState` hands out the time and random digits, so that tests can fix both.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Protocol, runtime_checkable
from urllib.parse import urljoin, urlsplit

from msgspec import Struct, field

from tolmach.chat import ChatRequest, Delta, Done, Event, FinishReason
from tolmach.decoding import SurrogateJoiner, plain_text
from tolmach.errors import (
    ChallengeRequired,
    ProviderUnavailable,
    RemoteProtocolError,
    TruncatedAnswer,
    error_for_status,
)
from tolmach.wire import Call, Decoder, Handshake, Head, Limits, Request, Steps, retry_after

__all__ = [
    "Addressed",
    "Answer",
    "ChatProtocol",
    "Forwarding",
    "SessionState",
    "Site",
    "Token",
    "challenge_page",
    "failure",
    "origin",
    "same_origin",
]


class Site(Struct, frozen=True, kw_only=True):
    """A protocol at a place, as data: a provider class or a row of the configuration."""

    name: str
    url: str
    protocol: "ChatProtocol"
    api_endpoint: str = ""
    default_model: str = ""
    models: tuple[str, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    api_key: str = ""
    cookie_domain: str = ""
    """The domain whose cookies the site cannot do without; empty when it needs none."""
    impersonate: str | None = None
    """The browser profile to use, such as `chrome131`."""
    timeout: float | None = None
    """Seconds for a whole answer, where the site has a limit of its own."""
    egress: tuple[str, ...] | None = None
    """What a server that asks for others may ask beside the site's own `addresses` and public ones, as
    `[gateway.egress] allow` has it; None where nothing is guarded."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """What whoever named the site named with it: its address, and those that the protocol's options have."""
        more = self.protocol.addresses if isinstance(self.protocol, Addressed) else ()
        return (self.url, self.api_endpoint, *more)

    def __repr__(self) -> str:
        """Without headers, key and the protocol's options: these may be secret."""
        return f"Site(name={self.name!r}, url={self.url!r}, protocol={self.protocol.name!r})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("name", self.name), ("url", self.url), ("protocol", self.protocol.name)]


class Token(Struct, frozen=True):
    """A nonce or session token: since when we have it and when it ends (seconds since 1970), if known."""

    value: str
    since: float
    expires: float | None = None

    def __repr__(self) -> str:
        return f"Token(since={self.since!r}, expires={self.expires!r})"

    def __rich_repr__(self) -> list[tuple[str, float | None]]:
        return [("since", self.since), ("expires", self.expires)]


class SessionState:
    """What one user of one site has learnt: tokens with their age, and the visitor's own ids.

    Tokens are dropped when they are refused; the visitor's ids stay for the life of the session.
    """

    def __init__(
        self, *, now: Callable[[], float], random_hex: Callable[[int], str], limits: Limits = Limits()
    ) -> None:
        self.now = now
        """Seconds since 1970."""
        self.random_hex = random_hex
        """`random_hex(n)` gives n hexadecimal digits."""
        self.limits = limits
        """What the decoders of this session put up with."""
        self.tokens: dict[str, Token] = {}
        self.visitor: dict[str, str] = {}

    def token(self, name: str, margin: float = 30.0) -> str | None:
        """The token's value; None when there is none or it ends within `margin` seconds."""
        token = self.tokens.get(name)
        if token is None or (token.expires is not None and token.expires - margin <= self.now()):
            return None
        return token.value

    def keep(self, name: str, value: str, expires: float | None = None) -> None:
        self.tokens[name] = Token(value, self.now(), expires)

    def visitor_id(self, name: str, make: Callable[[], str]) -> str:
        """The visitor's id of this name, made at its first use."""
        if name not in self.visitor:
            self.visitor[name] = make()
        return self.visitor[name]

    def uuid(self) -> str:
        """A random UUID, version 4 (RFC 9562, 5.4)."""
        digits = list(self.random_hex(32))
        digits[12] = "4"
        digits[16] = "89ab"[int(digits[16], 16) & 3]
        text = "".join(digits)
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


class ChatProtocol(Protocol):
    """One way to talk to a chat service.

    `ready` says whether the state holds all the tokens that turns share; when it does not, the
    session runs `prepare`, one at a time for each session. `open` is one turn's own handshake.
    """

    name: ClassVar[str]
    """Its name in the configuration."""
    title: ClassVar[str]
    """What speaks it, with versions."""

    @property
    def features(self) -> frozenset[str]:
        """The options it honours, by their OpenAI names; `images`; `*` for all."""

    @property
    def traits(self) -> frozenset[str]:
        """What the service does by itself: `stream`, `history`, `system`, `conversation`."""

    def ready(self, site: Site, state: SessionState) -> bool: ...

    def prepare(self, site: Site, state: SessionState) -> Steps: ...

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake: ...

    def reader(self, request: Request) -> Callable[[Head], Decoder] | None:
        """How to read the answer to a recorded request; None when it is not a question of this protocol."""


@runtime_checkable
class Addressed(Protocol):
    """A protocol whose options name addresses beside the site's."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Absolute addresses; what is a path stands below the site's."""


@runtime_checkable
class Forwarding(Protocol):
    """A protocol that is a public API: a caller who speaks it has the body passed on as it is."""

    @property
    def forwards(self) -> frozenset[str]:
        """The APIs, as the gateway's surfaces are called; `embeddings` for `POST /v1/embeddings`."""

    @property
    def listed_headers(self) -> frozenset[str]:
        """The headers of the caller that go along with a body, in lower case; no other does."""

    def forward(
        self,
        api: str,
        site: Site,
        body: bytes,
        model: str,
        state: SessionState,
        headers: Mapping[str, str] = {},
        limit: int | None = None,
    ) -> Call:
        """The call for this body, in which only the model is another; its decoder only watches.

        `headers` are those of the caller that are listed. `limit` is the most tokens of an answer; None for what the
        body says.
        Raises `BadRequest` for a body that is no JSON object.
        """


class Answer:
    """The common half of the decoders: the text so far, its limits, and how an answer ends.

    A decoder yields `self.delta(...)`'s events, ends with `self.finish()`, and says at the end of
    the body, by `self.check_ended()`, whether it had ended.
    """

    preparatory: ClassVar[bool] = False
    """True for what reads the recorded answer to a step before the question: its success has no events."""

    def __init__(self, head: Head, limits: Limits = Limits()) -> None:
        self.head = head
        self.limits = limits
        self.ended = False
        self._pieces: list[str] = []
        self._size = 0
        self._joiner = SurrogateJoiner()

    @property
    def partial(self) -> str:
        return "".join(self._pieces)

    def delta(self, text: str) -> Iterator[Event]:
        """The piece as an event; none for a piece with nothing in it."""
        text = self._joiner.feed(text)
        if text:
            self._size += len(text)
            if self._size > self.limits.answer_bytes:
                raise RemoteProtocolError(f"the answer is longer than {self.limits.answer_bytes} bytes")
            self._pieces.append(text)
            yield Delta(text)

    def finish(self, reason: FinishReason = "stop", *, empty_ok: bool = False) -> Iterator[Event]:
        """The end of a whole answer. An empty one is a fault of the service (`ProviderUnavailable`)."""
        if rest := self._joiner.close():
            self._pieces.append(rest)
            yield Delta(rest)
        if not self._pieces and not empty_ok:
            raise ProviderUnavailable("the service gave an empty answer", status=self.head.status, code="empty")
        self.ended = True
        yield Done(reason)

    def check_ended(self) -> None:
        if not self.ended:
            raise TruncatedAnswer(partial=self.partial, status=self.head.status)


_CHALLENGE = re.compile(
    rb"cf[-_]chl|challenge-platform|cf-turnstile|g-recaptcha|h-captcha|hcaptcha\.com|<title>\s*just a moment|"
    rb"_incapsula_resource|ddos-guard|px-captcha",
    re.I,
)


def challenge_page(head: Head, body: bytes) -> ChallengeRequired | None:
    """The error for a page that asks for a person instead of answering; None when it is no such page."""
    html = head.content_type in ("text/html", "") or body[:64].lstrip()[:1] == b"<"
    marked = head.header("cf-mitigated") == "challenge" or (html and _CHALLENGE.search(body[:65536]) is not None)
    if not marked or head.status not in (401, 403, 429, 503):
        return None
    words = plain_text(body, 120)
    return ChallengeRequired(
        f"the site shows a challenge page: {words}" if words else "the site shows a challenge page",
        kind="page",
        url=head.url,
        status=head.status,
    )


def failure(head: Head, body: bytes, now: float, *, text: str = "", code: str | None = None) -> Exception:
    """The error for a response with a status of 400 or more about which the protocol knows nothing better."""
    return challenge_page(head, body) or error_for_status(
        head.status, text or plain_text(body), code=code, retry_after=retry_after(head, now)
    )


def origin(url: str) -> str:
    """Scheme, host and port of an address, for comparing: `https://example.org:443`."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def same_origin(base: str, url: str) -> str | None:
    """`url` made absolute against `base`; None when it leads to another origin."""
    try:
        absolute = urljoin(base, url)
        return absolute if origin(absolute) == origin(base) else None
    except ValueError:
        return None
