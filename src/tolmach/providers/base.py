"""Providers: the classes that name a site, and the three calls that every one of them has.

A provider class is data: where the site is, which protocol it speaks, its models and flags. Its
`url` may be set to another address at any time. The calls ask through a session; callers who do
not pass one share the process's own session for that site, cookies and proxy, so that a nonce is
fetched once and a visitor stays the same visitor.
"""

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, field

from tolmach import blocking
from tolmach.chat import AnswerText, ChatRequest, Conversation, Delta, Event, Messages, Notice, parse_messages
from tolmach.cookies import CookieJar, get_cookies
from tolmach.egress import SiteTransport
from tolmach.errors import ConfigError, MissingCookies, ModelNotFound
from tolmach.pages.site import PageAssistant
from tolmach.protocols.base import ChatProtocol, Site
from tolmach.session import ChallengeHandler, Session
from tolmach.transport import KINDS, Timeouts, Transport, TransportOptions, shared
from tolmach.transport.addresses import proxy_parts, without_credentials

__all__ = [
    "AbstractProvider",
    "Access",
    "AsyncGeneratorProvider",
    "AsyncProvider",
    "AsyncResult",
    "CreateResult",
    "ProviderModelMixin",
    "Sessions",
    "checked_url",
    "open_session",
    "split_options",
]

AsyncResult: TypeAlias = AsyncIterator[str]
"""The pieces of an answer, asynchronously."""
CreateResult: TypeAlias = Iterator[str]
"""The pieces of an answer."""

_log = logging.getLogger("tolmach")

_REMARKS = {"rewritten": "the service took back what it had said"}
"""What is logged of a notice in place of its text."""


class Access(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a caller reaches a site: everything about a call that is not the question.

    `timeout` is seconds for a whole answer, `proxy` an address with optional credentials, `verify`
    True, a file of CA certificates or False, `impersonate` a browser profile, `transport` `"auto"`,
    `"wreq"` or `"aiohttp"`, `browsers` whether cookies may be looked for in the user's own browsers.
    `repr` names the keys, cookies and headers, and shows none of them.
    """

    proxy: str | None = None
    cookies: dict[str, str] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    timeout: float | None = None
    verify: bool | str = True
    impersonate: str | None = None
    api_key: str = ""
    transport: str | None = None
    browsers: bool = False

    def __repr__(self) -> str:
        return f"Access({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        given = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) or name == "verify"}
        return [(name, _HIDING[name](value) if name in _HIDING else value) for name, value in given.items()]

    def key(self) -> bytes:
        """Equal for accesses that may share a session."""
        return msgspec.json.encode(msgspec.structs.replace(self, timeout=None), order="sorted")

    def timeouts(self, site: Site) -> Timeouts:
        """The time limits at a site: those for parts of an answer are no shorter than that for the whole."""
        return _time_limits(self.timeout if self.timeout is not None else site.timeout)

    def without_credentials(self) -> "Access":
        """The same, without what was meant for one site: key, cookies and headers."""
        return msgspec.structs.replace(self, api_key="", cookies=None, headers={})


def _time_limits(total: float | None) -> Timeouts:
    default = Timeouts()
    if total is None:
        return default
    if not total > 0:
        raise ConfigError(f"timeout: a number of seconds above zero, not {total!r}")
    first_byte, idle = default.first_byte or total, default.idle or total
    return Timeouts(first_byte=max(first_byte, total), idle=max(idle, total), total=total)


_HIDING: dict[str, Callable[[Any], Any]] = {
    "proxy": without_credentials,
    "cookies": sorted,
    "headers": sorted,
    "api_key": lambda key: "…",
}

_ACCESS_FIELDS = frozenset(Access.__struct_fields__)


def split_options(options: Mapping[str, Any]) -> tuple[Access, dict[str, Any]]:
    """What a caller passed, parted into how to reach the site and what to ask of the model.

    Raises `ConfigError` that names the argument that is wrong.
    """
    try:
        access = msgspec.convert({k: v for k, v in options.items() if k in _ACCESS_FIELDS and v is not None}, Access)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise ConfigError(f"{where.rstrip('`')}: {what}" if where else what) from error
    _time_limits(access.timeout)
    if access.proxy:
        proxy_parts(access.proxy)
    if access.transport is not None and access.transport not in KINDS:
        raise ConfigError(f"transport: there is no {access.transport!r}, only {', '.join(KINDS)}")
    return access, {k: v for k, v in options.items() if k not in _ACCESS_FIELDS}


def checked_url(url: Any, what: str = "url") -> str:
    """The address of a site, without a slash at its end. Raises `ConfigError` for what is none, or holds a password."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (TypeError, ValueError, AttributeError):
        is_address = False
    if not is_address:
        raise ConfigError(f"{what}: an http or https address, such as https://shop.example")
    if "@" in parts.netloc:
        raise ConfigError(f"{what}: no name and password in the address; give them as headers= or api_key=")
    text: str = url
    return text.rstrip("/")


def open_session(
    site: Site,
    access: Access | None = None,
    *,
    transport: Transport | None = None,
    on_challenge: ChallengeHandler | None = None,
) -> Session:
    """A new session with the site: no token, cookie or visitor's id is shared with another one.

    A site that is a page (`tolmach.pages.site.page_site`) is asked by a `PageSession`.

    Raises `MissingCookies` when the site cannot do without cookies and there are none.
    """
    access = _with_cookies(site, access or Access())
    if isinstance(site.protocol, PageAssistant):
        return _open_page(site, access, transport, on_challenge)
    if access.headers or access.api_key:
        headers = {**site.headers, **{name.lower(): value for name, value in access.headers.items()}}
        site = msgspec.structs.replace(site, headers=headers, api_key=access.api_key or site.api_key)
    jar = CookieJar()
    if access.cookies:
        jar.set(site.url, access.cookies)
    if transport is None:
        options = TransportOptions(
            proxy=access.proxy, verify=access.verify, impersonate=access.impersonate or site.impersonate
        )
        transport = _way(site, options, access.transport)
    return Session(site, transport, cookies=jar, timeouts=access.timeouts(site), on_challenge=on_challenge)


def _open_page(
    site: Site, access: Access, transport: Transport | None, on_challenge: ChallengeHandler | None
) -> Session:
    """A session with what is found on a page; what is on another origin is sent no key, cookie or header."""
    # Discovery reads pages: who asks none does without what that takes.
    from tolmach.pages.session import PageSession

    options = TransportOptions(
        proxy=access.proxy, verify=access.verify, impersonate=access.impersonate or site.impersonate
    )
    way = transport or _way(site, options, access.transport)

    def opened(found: Site, own: bool) -> Session:
        reach = access if own else access.without_credentials()
        return open_session(found, reach, transport=way, on_challenge=on_challenge)

    headers = {name.lower(): value for name, value in access.headers.items()}
    if access.api_key:
        headers.setdefault("authorization", f"Bearer {access.api_key}")
    if access.cookies:
        headers["cookie"] = "; ".join(f"{name}={value}" for name, value in access.cookies.items())
    return PageSession(
        site, way, opened=opened, headers=headers, timeouts=access.timeouts(site), on_challenge=on_challenge
    )


def _way(site: Site, options: TransportOptions, kind: str | None) -> Transport:
    """How the site is reached: where a server asks it, what is not its own goes past the guard."""
    if site.egress is None:
        return shared(options, kind)
    return SiteTransport(site.addresses, options, site.egress, kind=kind)


def _with_cookies(site: Site, access: Access) -> Access:
    """The access with the cookies that the site cannot do without. Raises `MissingCookies`."""
    if access.cookies or not site.cookie_domain:
        return access
    cookies = get_cookies(site.cookie_domain, browsers=access.browsers)
    if not cookies:
        raise MissingCookies(f"{site.name} needs cookies of {site.cookie_domain}, and there are none")
    return msgspec.structs.replace(access, cookies=cookies)


class Sessions:
    """One user's sessions, by site and access; the least recently used go first.

    A site that asks for other cookies than before gets another session. A forked child begins with
    none: two processes that go on from one state would take each other's tokens away.
    """

    def __init__(
        self, *, transport: Transport | None = None, on_challenge: ChallengeHandler | None = None, most: int = 256
    ) -> None:
        self._transport = transport
        self._on_challenge = on_challenge
        self._most = most
        self.clear()

    def clear(self) -> None:
        """Forget all: tokens, cookies and visitors' ids."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._sessions: OrderedDict[tuple[str, str, bytes], tuple[Site, Session]] = OrderedDict()

    def get(self, site: Site, access: Access) -> Session:
        """The session for this site and access, a new one if there is none."""
        if self._process != os.getpid():
            self.clear()
        access = _with_cookies(site, access)
        key = (site.name, site.url, access.key())
        with self._lock:
            known = self._sessions.get(key)
            if known is not None and known[0] == site:
                self._sessions.move_to_end(key)
                return known[1]
            session = open_session(site, access, transport=self._transport, on_challenge=self._on_challenge)
            self._sessions[key] = (site, session)
            self._sessions.move_to_end(key)
            while len(self._sessions) > self._most:
                self._sessions.popitem(last=False)
        return session


_shared_sessions = Sessions()


class AbstractProvider:
    """A site as a class. Subclasses only declare."""

    url: ClassVar[str] = ""
    protocol: ClassVar[ChatProtocol]
    api_endpoint: ClassVar[str] = ""
    label: ClassVar[str] = ""
    working: ClassVar[bool] = False
    """Whether the public site was seen to answer by a live check. None of the declared ones was."""
    default_model: ClassVar[str] = ""
    models: ClassVar[list[str]] = []
    model_aliases: ClassVar[dict[str, str]] = {}
    supports_stream: ClassVar[bool] = False
    supports_system_message: ClassVar[bool] = False
    supports_message_history: ClassVar[bool] = False
    headers: ClassVar[dict[str, str]] = {}
    """Sent with every request; `{url}` and `{origin}` in a value are those of the site."""
    cookie_domain: ClassVar[str] = ""
    impersonate: ClassVar[str | None] = None
    timeout: ClassVar[float | None] = None

    _declared_url: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "url" in cls.__dict__:
            cls._declared_url = cls.url.rstrip("/")

    @classmethod
    def site(cls) -> Site:
        """The class as data, as it stands now."""
        return cls.site_at(cls.url)

    @classmethod
    def site_at(cls, url: str) -> Site:
        """The class as data, at another address. Raises `ConfigError` for an address that is none."""
        url = checked_url(url, f"{cls.__name__}.url")
        endpoint, declared = cls.api_endpoint, cls._declared_url
        if declared and endpoint.startswith(f"{declared}/"):
            endpoint = url + endpoint[len(declared) :]
        return Site(
            name=cls.__name__,
            url=url,
            protocol=cls.protocol,
            api_endpoint=endpoint,
            default_model=cls.default_model,
            models=tuple(cls.models),
            aliases=dict(cls.model_aliases),
            headers={
                name.lower(): value.replace("{origin}", _origin(url)).replace("{url}", url)
                for name, value in cls.headers.items()
            },
            cookie_domain=cls.cookie_domain,
            impersonate=cls.impersonate,
            timeout=cls.timeout,
        )

    @classmethod
    def get_model(cls, model: str) -> str:
        """The service's name of the model, found by alias, then by name; an empty one gives the default.

        A provider takes any other name as it is; one that is a `ProviderModelMixin` raises `ModelNotFound`.
        """
        if model in cls.model_aliases:
            return cls.model_aliases[model]
        model = model or cls.default_model
        if issubclass(cls, ProviderModelMixin) and model not in cls.get_models():
            raise ModelNotFound(f"{cls.__name__} has no model {model!r}; it has: {', '.join(cls.get_models())}")
        return model

    @classmethod
    async def ask(
        cls,
        model: str,
        messages: Messages,
        *,
        stream: bool = True,
        conversation: Conversation | None = None,
        session: Session | None = None,
        strict: bool = True,
        on_challenge: ChallengeHandler | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[Event, None]:
        """The events of the answer: what the three calls below are made of.

        `kwargs` are the fields of `Access` and the model's options by their OpenAI names.
        """
        access, options = split_options(kwargs)
        if session is not None and (given := _ACCESS_FIELDS & kwargs.keys() - {"timeout"}):
            for name in sorted(given):
                if kwargs[name] is not None:
                    raise ConfigError(f"{name}: session= has its own way to the site; leave {name}= out")
        site = cls.site()
        turn = ChatRequest(
            messages=parse_messages(messages),
            model=cls.get_model(model),
            stream=stream,
            conversation=conversation,
            options=options,
        )
        session = session or _shared_sessions.get(site, access)
        events = session.ask(turn, strict=strict, timeouts=access.timeouts(site), on_challenge=on_challenge)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Notice):
                    # What a rewritten answer says is nobody's business but the caller's.
                    _log.warning("%s: %s: %s", cls.__name__, event.kind, _REMARKS.get(event.kind, event.text))
                yield event

    @classmethod
    async def create_async_generator(
        cls,
        model: str,
        messages: Messages,
        proxy: str | None = None,
        timeout: float | None = None,
        cookies: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[str, None]:
        """The answer's pieces, as they arrive. Closing the generator closes the connection."""
        kwargs |= {"proxy": proxy, "timeout": timeout, "cookies": cookies}
        async with aclosing(cls.ask(model, messages, **kwargs)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    yield event.text

    @classmethod
    async def create_async(
        cls,
        model: str,
        messages: Messages,
        proxy: str | None = None,
        timeout: float | None = None,
        cookies: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> str:
        """The whole answer."""
        kwargs.setdefault("stream", False)
        kwargs |= {"proxy": proxy, "timeout": timeout, "cookies": cookies}
        text = AnswerText()
        async with aclosing(cls.ask(model, messages, **kwargs)) as events:
            async for event in events:
                text.feed(event)
        return str(text)

    @classmethod
    def create_completion(
        cls, model: str, messages: Messages, stream: bool = True, **kwargs: Any
    ) -> Generator[str, None, None]:
        """The answer's pieces, synchronously; with `stream=False` in one piece. Works inside a running loop.

        Closing the generator closes the connection.
        """
        if not stream:
            yield blocking.run(cls.create_async(model, messages, **kwargs))
            return
        yield from blocking.iterate(lambda: cls.create_async_generator(model, messages, **kwargs))


def _origin(url: str) -> str:
    """Scheme and host of an address, as an Origin header has it (RFC 6454, 7)."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class AsyncProvider(AbstractProvider):
    """A provider whose first call is `create_async`: the whole answer."""


class AsyncGeneratorProvider(AbstractProvider):
    """A provider whose first call is `create_async_generator`: the answer in pieces."""

    supports_stream = True


class ProviderModelMixin:
    """A provider that has the models of its list and no other; it stands among the bases at any place."""

    default_model: ClassVar[str]
    models: ClassVar[list[str]]

    @classmethod
    def get_models(cls) -> list[str]:
        """The models, by the service's own names."""
        return list(cls.models) or [cls.default_model]
