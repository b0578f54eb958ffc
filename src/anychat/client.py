"""`Client` and `AsyncClient`: the calls of the openai package, for every service.

A client is one user: it has a session of its own with each site it asks, and shares none with
other clients.
"""

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, Self, overload

import msgspec

from anychat import blocking
from anychat.chat import ChatRequest, Conversation, Event, Messages, parse_messages
from anychat.completions import ChatCompletion, ChatCompletionChunk, Chunks, collect
from anychat.errors import ConfigError, UnsupportedFeature
from anychat.protocols.base import Site
from anychat.providers import AbstractProvider, Sessions, checked_url, split_options
from anychat.registry import endpoint, resolve
from anychat.session import ChallengeHandler, Session
from anychat.transport import Timeouts, Transport

__all__ = ["AsyncChat", "AsyncClient", "AsyncCompletions", "AsyncStream", "Chat", "Client", "Completions", "Stream"]

Provider = type[AbstractProvider] | str
Continued = Conversation | Mapping[str, Any] | None
"""The conversation to go on with: as an answer has it, or as its `model_dump()` does."""


class AsyncStream:
    """The chunks of an answer. Closing it, or leaving its `async with`, closes the connection at once."""

    def __init__(self, chunks: AsyncGenerator[ChatCompletionChunk, None]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        return self._chunks

    async def __anext__(self) -> ChatCompletionChunk:
        return await anext(self._chunks)

    async def close(self) -> None:
        await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Stream:
    """The chunks of an answer, synchronously. Closing it, or leaving its `with`, closes the connection at once."""

    def __init__(self, chunks: Generator[ChatCompletionChunk, None, None]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[ChatCompletionChunk]:
        return self._chunks

    def __next__(self) -> ChatCompletionChunk:
        return next(self._chunks)

    def close(self) -> None:
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Question:
    """One call made ready: which session, which turn, and how its answer is labelled."""

    def __init__(self, session: Session, turn: ChatRequest, strict: bool, timeouts: Timeouts, usage: bool) -> None:
        self.session = session
        self.turn = turn
        self.strict = strict
        self.timeouts = timeouts
        self.usage = usage
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.model = turn.model or session.site.name

    def events(self) -> AsyncGenerator[Event, None]:
        return self.session.ask(self.turn, strict=self.strict, timeouts=self.timeouts)

    async def chunks(self) -> AsyncGenerator[ChatCompletionChunk, None]:
        making = Chunks(
            id=self.id,
            created=self.created,
            model=self.model,
            provider=self.session.site.name,
            include_usage=self.usage,
        )
        events = self.events()
        try:
            async for event in events:
                for chunk in making.feed(event):
                    yield chunk
        finally:
            await events.aclose()

    async def whole(self) -> ChatCompletion:
        events = self.events()
        try:
            return collect(
                [event async for event in events],
                id=self.id,
                created=self.created,
                model=self.model,
                provider=self.session.site.name,
            )
        finally:
            await events.aclose()


class AsyncCompletions:
    """`client.chat.completions`."""

    def __init__(self, client: "AsyncClient") -> None:
        self._client = client

    @overload
    async def create(
        self,
        *,
        messages: Messages,
        model: str = ...,
        stream: Literal[False] = ...,
        provider: Provider | None = ...,
        conversation: Continued = ...,
        strict: bool | None = ...,
        **options: Any,
    ) -> ChatCompletion: ...

    @overload
    async def create(
        self,
        *,
        messages: Messages,
        model: str = ...,
        stream: Literal[True],
        provider: Provider | None = ...,
        conversation: Continued = ...,
        strict: bool | None = ...,
        **options: Any,
    ) -> AsyncStream: ...

    @overload
    async def create(
        self,
        *,
        messages: Messages,
        model: str = ...,
        stream: bool,
        provider: Provider | None = ...,
        conversation: Continued = ...,
        strict: bool | None = ...,
        **options: Any,
    ) -> ChatCompletion | AsyncStream: ...

    async def create(
        self,
        *,
        messages: Messages,
        model: str = "",
        stream: bool = False,
        provider: Provider | None = None,
        conversation: Continued = None,
        strict: bool | None = None,
        **options: Any,
    ) -> ChatCompletion | AsyncStream:
        """Ask. `options` are the API's own (`temperature`, `tools`, ...) and `timeout`.

        With `stream=True` the errors of the service come while the stream is read.
        """
        question = self._client._question(model, messages, stream, provider, conversation, strict, options)
        if stream:
            return AsyncStream(question.chunks())
        return await question.whole()


class Completions:
    """`client.chat.completions`, synchronously."""

    def __init__(self, client: "Client") -> None:
        self._client = client

    @overload
    def create(
        self,
        *,
        messages: Messages,
        model: str = ...,
        stream: Literal[False] = ...,
        provider: Provider | None = ...,
        conversation: Continued = ...,
        strict: bool | None = ...,
        **options: Any,
    ) -> ChatCompletion: ...

    @overload
    def create(
        self,
        *,
        messages: Messages,
        model: str = ...,
        stream: Literal[True],
        provider: Provider | None = ...,
        conversation: Continued = ...,
        strict: bool | None = ...,
        **options: Any,
    ) -> Stream: ...

    @overload
    def create(
        self,
        *,
        messages: Messages,
        model: str = ...,
        stream: bool,
        provider: Provider | None = ...,
        conversation: Continued = ...,
        strict: bool | None = ...,
        **options: Any,
    ) -> ChatCompletion | Stream: ...

    def create(
        self,
        *,
        messages: Messages,
        model: str = "",
        stream: bool = False,
        provider: Provider | None = None,
        conversation: Continued = None,
        strict: bool | None = None,
        **options: Any,
    ) -> ChatCompletion | Stream:
        """Ask; as `AsyncCompletions.create`. Works inside a running event loop (Jupyter)."""
        question = self._client._question(model, messages, stream, provider, conversation, strict, options)
        if stream:
            return Stream(blocking.iterate(question.chunks))
        return blocking.run(question.whole())


class AsyncChat:
    """`client.chat`."""

    def __init__(self, client: "AsyncClient") -> None:
        self.completions = AsyncCompletions(client)


class Chat:
    """`client.chat`, synchronously."""

    def __init__(self, client: "Client") -> None:
        self.completions = Completions(client)


class _Asker:
    """What both clients are: their settings, and a session for each site."""

    def __init__(
        self,
        *,
        provider: Provider | None = None,
        base_url: str | None = None,
        protocol: str | None = None,
        api_key: str | None = None,
        proxy: str | None = None,
        cookies: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
        verify: bool | str = True,
        impersonate: str | None = None,
        transport: Transport | str | None = None,
        on_challenge: ChallengeHandler | None = None,
        strict: bool = True,
        **options: Any,
    ) -> None:
        """
        `provider` answers when a call names none. `base_url` with `protocol` is an endpoint that no
        class names, `options` being the protocol's own; `base_url` with `provider` moves it there. A
        client with either keeps `api_key`, `cookies` and `headers` for that; a call that names another
        provider goes there without them.
        `timeout` is seconds for a whole answer. With `strict=False` options that a provider cannot
        honour are dropped with a notice. Raises `ConfigError` that names the argument that is wrong.
        """
        self._endpoint: Site | None = None
        self._provider: type[AbstractProvider] | None = None
        self._base_url = None if base_url is None else checked_url(base_url, "base_url")
        if protocol is not None:
            if base_url is None or provider is not None:
                raise ConfigError("protocol= goes with base_url= and without provider=")
            self._endpoint = endpoint(base_url, protocol, **options)
        elif options:
            raise ConfigError(f"unknown argument: {', '.join(options)}")
        elif provider is not None:
            self._provider, _ = resolve("", provider)
        elif base_url is not None:
            raise ConfigError("base_url= needs protocol= (see anychat.protocols.PROTOCOLS) or provider=")
        self._strict = strict
        given = {
            "api_key": api_key,
            "cookies": cookies,
            "headers": headers,
            "impersonate": impersonate,
            "proxy": proxy,
            "timeout": timeout,
            "transport": transport if isinstance(transport, str) else None,
            "verify": verify,
        }
        self._access, _ = split_options(given)
        self._sessions = Sessions(
            transport=None if isinstance(transport, str) else transport, on_challenge=on_challenge
        )

    def _question(
        self,
        model: str,
        messages: Messages,
        stream: bool,
        provider: Provider | None,
        conversation: Continued,
        strict: bool | None,
        options: dict[str, Any],
    ) -> _Question:
        site, model, own = self._site(model, provider)
        timeout, options = _split_call(options)
        access = self._access if own else self._access.without_credentials()
        if timeout is not None:
            access = msgspec.structs.replace(access, timeout=timeout)
        usage = _usage_asked(options, stream)
        turn = ChatRequest(
            messages=parse_messages(messages),
            model=model,
            stream=stream,
            conversation=_parse_conversation(conversation),
            options={name: value for name, value in options.items() if value is not None},
        )
        session = self._sessions.get(site, access)
        return _Question(session, turn, self._strict if strict is None else strict, access.timeouts(site), usage)

    def _site(self, model: str, provider: Provider | None) -> tuple[Site, str, bool]:
        """Where the question goes, the model's name there, and whether the client's credentials are for it."""
        if self._endpoint is not None and provider is None:
            return self._endpoint, model or self._endpoint.default_model, True
        found, model = resolve(model, provider or self._provider)
        if self._endpoint is None and self._provider in (None, found):
            return (found.site() if self._base_url is None else found.site_at(self._base_url)), model, True
        return found.site(), model, False


def _split_call(given: dict[str, Any]) -> tuple[float | None, dict[str, Any]]:
    """The time limit of one call, and what is asked of the model. Raises `ConfigError` for what only a client takes."""
    access, options = split_options(given)
    if misplaced := given.keys() - options.keys() - {"timeout"}:
        raise ConfigError(f"{min(misplaced)}: give it to the client; a call takes none")
    if misplaced := options.keys() & {"extra_headers", "extra_query"}:
        feature = min(misplaced)
        raise UnsupportedFeature(f"{feature} of one call cannot be sent; give headers= to the client", feature=feature)
    extra = options.pop("extra_body", None) or {}
    if not isinstance(extra, Mapping):
        raise ConfigError(f"extra_body: a mapping, not {type(extra).__name__}")
    return access.timeout, {**options, **extra}


def _usage_asked(options: dict[str, Any], stream: bool) -> bool:
    """Whether the chunks are to end with the tokens. What else `stream_options` asks for stays with the options."""
    wishes = options.pop("stream_options", None)
    if wishes is None:
        return False
    if not isinstance(wishes, Mapping):
        raise ConfigError(f"stream_options: a mapping, not {type(wishes).__name__}")
    if not stream:
        raise ConfigError("stream_options: only with stream=True")
    if wishes.keys() - {"include_usage"}:
        options["stream_options"] = dict(wishes)
    return bool(wishes.get("include_usage"))


def _parse_conversation(conversation: Continued) -> Conversation | None:
    """The conversation of an earlier answer, also as its `model_dump()` has it."""
    try:
        return msgspec.convert(conversation, Conversation | None)
    except msgspec.ValidationError as error:
        raise ConfigError("conversation: what an earlier answer has as its conversation") from error


class AsyncClient(_Asker):
    """Asks any service, asynchronously: `await client.chat.completions.create(model=..., messages=...)`."""

    @cached_property
    def chat(self) -> AsyncChat:
        return AsyncChat(self)

    def events(
        self,
        *,
        messages: Messages,
        model: str = "",
        stream: bool = True,
        provider: Provider | None = None,
        conversation: Continued = None,
        strict: bool | None = None,
        **options: Any,
    ) -> AsyncGenerator[Event, None]:
        """The answer as anychat's own events, for those who want all of it and no one's shape."""
        return self._question(model, messages, stream, provider, conversation, strict, options).events()

    async def close(self) -> None:
        """Forget the sessions: tokens, cookies and visitors' ids."""
        self._sessions.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Client(_Asker):
    """Asks any service: `client.chat.completions.create(model=..., messages=...)`."""

    @cached_property
    def chat(self) -> Chat:
        return Chat(self)

    def events(
        self,
        *,
        messages: Messages,
        model: str = "",
        stream: bool = True,
        provider: Provider | None = None,
        conversation: Continued = None,
        strict: bool | None = None,
        **options: Any,
    ) -> Generator[Event, None, None]:
        """The answer as anychat's own events, for those who want all of it and no one's shape."""
        return blocking.iterate(self._question(model, messages, stream, provider, conversation, strict, options).events)

    def close(self) -> None:
        """Forget the sessions: tokens, cookies and visitors' ids."""
        self._sessions.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
