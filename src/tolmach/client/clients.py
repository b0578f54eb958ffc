"""`Client` and `AsyncClient`: the calls of the openai package, for every service.

A client is one user: it has a session of its own with each site it asks, and shares none with
other clients.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterator, Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast, overload

import msgspec

from tolmach import blocking
from tolmach.chat import ChatRequest, Event, Messages, parse_messages
from tolmach.client.call import Continued, Direct, Question, parse_conversation, split_call, usage_asked
from tolmach.client.completions import ChatCompletion, ChatCompletionChunk
from tolmach.errors import ConfigError, ModelNotFound
from tolmach.pages.site import PageAssistant, page_site
from tolmach.protocols.base import Site
from tolmach.providers.base import AbstractProvider, Sessions, checked_url, split_options
from tolmach.providers.registry import endpoint, resolve
from tolmach.session import ChallengeHandler
from tolmach.transport import Transport

if TYPE_CHECKING:
    from tolmach.client.routed import Routes
    from tolmach.pages.session import Assistant, PageSession
    from tolmach.routing.targets import Plan

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
        routes: Mapping[str, Any] | None = None,
        providers: Mapping[str, Mapping[str, Any]] | None = None,
        config: str | os.PathLike[str] | Literal[True] | None = None,
        page: str | None = None,
        bot: str = "",
        accept_consent: bool = False,
        **options: Any,
    ) -> None:
        """
        `provider` answers when a call names none. `base_url` with `protocol` is an endpoint that no
        class names, `options` being the protocol's own; `base_url` with `provider` moves it there. A
        client with either keeps `api_key`, `cookies` and `headers` for that; a call that names another
        provider goes there without them.
        `page` is the address of a page with an assistant, which discovery finds at the first question: `bot`
        says which by its id or name, `accept_consent` agrees to what the site asks its visitors to agree to.
        With `base_url` and `protocol` it is the protocol's own option.
        `timeout` is seconds for a whole answer. With `strict=False` options that a provider cannot
        honour are dropped with a notice. `routes` and `providers` are tables as in `tolmach.toml`, `config`
        is such a file (True for the one that `tolmach serve` finds): their model names are answered by plans
        of targets. Raises `ConfigError` that names the argument that is wrong.
        """
        self._endpoint: Site | None = None
        self._provider: type[AbstractProvider] | None = None
        self._base_url = None if base_url is None else checked_url(base_url, "base_url")
        if page is not None and protocol is not None and base_url is not None:
            # Protocols of plugins have an option of this name: the page that their chat stands on.
            options, page = options | {"page": page}, None
        if page is not None:
            if options or not (provider is base_url is protocol is None):
                raise ConfigError("page= goes without provider=, base_url=, protocol= and options of a protocol")
            self._endpoint = page_site(page, {"bot": bot, "accept_consent": accept_consent})
        elif bot or accept_consent:
            raise ConfigError("bot= and accept_consent= go with page=")
        elif protocol is not None:
            if base_url is None or provider is not None:
                raise ConfigError("protocol= goes with base_url= and without provider=")
            self._endpoint = endpoint(base_url, protocol, **options)
        elif options:
            raise ConfigError(f"unknown argument: {', '.join(options)}")
        elif provider is not None:
            self._provider, _ = resolve("", provider)
        elif base_url is not None:
            raise ConfigError("base_url= needs protocol= (see tolmach.protocols.PROTOCOLS) or provider=")
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
        way = None if isinstance(transport, str) else transport
        self._sessions = Sessions(transport=way, on_challenge=on_challenge)
        self._routes: Routes | None = None
        if routes is not None or providers is not None or config is not None:
            # Most clients have no routes, and do without what reads them.
            from tolmach.client import routed

            self._check_credentials()
            settings = routed.settings_of(routes, providers, config)
            self._routes = routed.Routes(settings, self._access, way, on_challenge)

    def _check_credentials(self) -> None:
        """Raises `ConfigError` for what would be sent to every target alike."""
        access = self._access
        given = {"api_key": access.api_key, "cookies": access.cookies, "headers": access.headers}
        misplaced = [name for name, value in given.items() if value]
        if misplaced and not self._names_one:
            raise ConfigError(f"{misplaced[0]}: it would go to every target; give it to the provider, in its row")

    @property
    def _names_one(self) -> bool:
        """Whether the client says who answers when a call does not."""
        return self._endpoint is not None or self._provider is not None

    def _question(
        self,
        model: str,
        messages: Messages,
        stream: bool,
        provider: Provider | None,
        conversation: Continued,
        strict: bool | None,
        options: dict[str, Any],
    ) -> Question:
        timeout, options = split_call(options)
        usage = usage_asked(options, stream)
        strict = self._strict if strict is None else strict
        turn = ChatRequest(
            messages=parse_messages(messages),
            model=model,
            stream=stream,
            conversation=parse_conversation(conversation),
            options={name: value for name, value in options.items() if value is not None},
        )
        if self._routes is not None and provider is None and (plan := self._plan(self._routes, model)) is not None:
            return Question(self._routes.ask(plan, turn, strict=strict, timeout=timeout), usage)
        site, model, own = self._site(model, provider)
        access = self._access if own else self._access.without_credentials()
        if timeout is not None:
            access = msgspec.structs.replace(access, timeout=timeout)
        turn = msgspec.structs.replace(turn, model=model)
        return Question(Direct(self._sessions.get(site, access), turn, strict, access.timeouts(site)), usage)

    def _plan(self, routes: "Routes", model: str) -> "Plan | None":
        """What may answer; None when whoever the client itself names does. Raises `ModelNotFound`."""
        try:
            return routes.plan(model)
        except ModelNotFound:
            if self._names_one:
                return None
            raise

    def _assistant(self) -> "Coroutine[Any, Any, Assistant]":
        site = self._endpoint
        if site is None or not isinstance(site.protocol, PageAssistant):
            raise ConfigError("assistant() is for a client with page=")
        return cast("PageSession", self._sessions.get(site, self._access)).assistant()

    def _forget(self) -> None:
        self._sessions.clear()
        if self._routes is not None:
            self._routes.clear()

    def _site(self, model: str, provider: Provider | None) -> tuple[Site, str, bool]:
        """Where the question goes, the model's name there, and whether the client's credentials are for it."""
        if self._endpoint is not None and provider is None:
            return self._endpoint, model or self._endpoint.default_model, True
        found, model = resolve(model, provider or self._provider)
        if self._endpoint is None and self._provider in (None, found):
            return (found.site() if self._base_url is None else found.site_at(self._base_url)), model, True
        return found.site(), model, False


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
        """The answer as tolmach's own events, for those who want all of it and no one's shape."""
        return self._question(model, messages, stream, provider, conversation, strict, options).events()

    async def assistant(self) -> "Assistant":
        """Whom a client with `page` asks: the assistant that was found there, and the others of the page.

        Raises what stands before it, as a question does, and `ConfigError` for a client without `page`.
        """
        return await self._assistant()

    async def close(self) -> None:
        """Forget the sessions: tokens, cookies and visitors' ids."""
        self._forget()

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
        """The answer as tolmach's own events, for those who want all of it and no one's shape."""
        return blocking.iterate(self._question(model, messages, stream, provider, conversation, strict, options).events)

    def assistant(self) -> "Assistant":
        """Whom a client with `page` asks; as `AsyncClient.assistant`."""
        return blocking.run(self._assistant())

    def close(self) -> None:
        """Forget the sessions: tokens, cookies and visitors' ids."""
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
