"""`Client` and `AsyncClient`: the calls of the openai package, for every service.

A client is one user: it has a session of its own with each site it asks, and shares none with
other clients.
"""

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, Self, overload

import msgspec

from anychat import blocking
from anychat.chat import ChatRequest, Conversation, Event, Messages, parse_messages
from anychat.completions import ChatCompletion, ChatCompletionChunk, Chunks, collect
from anychat.errors import ConfigError
from anychat.protocols.base import Site
from anychat.providers import AbstractProvider, Access, open_session, split_options
from anychat.registry import endpoint, resolve
from anychat.session import ChallengeHandler, Session
from anychat.transport import Transport

__all__ = ["AsyncChat", "AsyncClient", "AsyncCompletions", "AsyncStream", "Chat", "Client", "Completions", "Stream"]

Provider = type[AbstractProvider] | str


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

    def __init__(self, session: Session, turn: ChatRequest, strict: bool, access: Access, usage: bool) -> None:
        self.session = session
        self.turn = turn
        self.strict = strict
        self.access = access
        self.usage = usage
        self.label = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": turn.model or session.site.name,
            "provider": session.site.name,
        }

    def events(self) -> AsyncGenerator[Event, None]:
        return self.session.ask(self.turn, strict=self.strict, timeouts=self.access.timeouts(self.session.site))

    async def chunks(self) -> AsyncGenerator[ChatCompletionChunk, None]:
        making = Chunks(**self.label, include_usage=self.usage)  # type: ignore[arg-type]
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
            return collect([event async for event in events], **self.label)  # type: ignore[arg-type]
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
        conversation: Conversation | None = ...,
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
        conversation: Conversation | None = ...,
        strict: bool | None = ...,
        **options: Any,
    ) -> AsyncStream: ...

    async def create(
        self,
        *,
        messages: Messages,
        model: str = "",
        stream: bool = False,
        provider: Provider | None = None,
        conversation: Conversation | None = None,
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
        conversation: Conversation | None = ...,
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
        conversation: Conversation | None = ...,
        strict: bool | None = ...,
        **options: Any,
    ) -> Stream: ...

    def create(
        self,
        *,
        messages: Messages,
        model: str = "",
        stream: bool = False,
        provider: Provider | None = None,
        conversation: Conversation | None = None,
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


class _Sessions:
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
        class names, `options` being the protocol's own; `base_url` alone moves the provider there.
        `timeout` is seconds for a whole answer. With `strict=False` options that a provider cannot
        honour are dropped with a notice. Raises `ConfigError` for what does not fit together.
        """
        self._provider = provider
        self._base_url = base_url
        self._endpoint: Site | None = None
        if protocol is not None:
            if base_url is None or provider is not None:
                raise ConfigError("protocol= goes with base_url= and without provider=")
            self._endpoint = endpoint(base_url, protocol, **options)
        elif options:
            raise ConfigError(f"unknown argument: {', '.join(options)}")
        elif base_url is not None and provider is None:
            raise ConfigError("base_url= needs protocol= (see anychat.protocols.PROTOCOLS) or provider=")
        self._strict = strict
        self._on_challenge = on_challenge
        self._transport = None if transport is None or isinstance(transport, str) else transport
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
        self._sessions: dict[tuple[str, str], tuple[Site, Session]] = {}

    def _question(
        self,
        model: str,
        messages: Messages,
        stream: bool,
        provider: Provider | None,
        conversation: Conversation | None,
        strict: bool | None,
        options: dict[str, Any],
    ) -> _Question:
        site, model = self._site(model, provider)
        stream_options = options.pop("stream_options", None) or {}
        timeout = options.pop("timeout", None)
        turn = ChatRequest(
            messages=parse_messages(messages),
            model=model,
            stream=stream,
            conversation=conversation,
            options={name: value for name, value in options.items() if value is not None},
        )
        access = self._access if timeout is None else msgspec.structs.replace(self._access, timeout=timeout)
        return _Question(
            self._session(site),
            turn,
            self._strict if strict is None else strict,
            access,
            bool(stream_options.get("include_usage")),
        )

    def _site(self, model: str, provider: Provider | None) -> tuple[Site, str]:
        if self._endpoint is not None and provider is None:
            return self._endpoint, model or self._endpoint.default_model
        found, model = resolve(model, provider or self._provider)
        site = found.site()
        if self._base_url is not None:
            site = found.site_at(self._base_url)
        return site, model

    def _session(self, site: Site) -> Session:
        known = self._sessions.get((site.name, site.url))
        if known is not None and known[0] == site:
            return known[1]
        session = open_session(site, self._access, transport=self._transport, on_challenge=self._on_challenge)
        self._sessions[site.name, site.url] = (site, session)
        return session


class AsyncClient(_Sessions):
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
        conversation: Conversation | None = None,
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


class Client(_Sessions):
    """Asks any service: `client.chat.completions.create(model=..., messages=...)`."""

    @cached_property
    def chat(self) -> Chat:
        return Chat(self)

    def close(self) -> None:
        """Forget the sessions: tokens, cookies and visitors' ids."""
        self._sessions.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
