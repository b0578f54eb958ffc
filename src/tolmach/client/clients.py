"""`Client` and `AsyncClient`: the calls of the openai package, for every service.

A client is one user: it has a session of its own with each site it asks, and shares none with
other clients.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from tolmach import blocking
from tolmach.chat import Event, Messages
from tolmach.client.asking import Asker
from tolmach.client.call import Continued, Provider
from tolmach.client.completions import ChatCompletion, ChatCompletionChunk
from tolmach.client.embeddings import AsyncEmbeddings, Embeddings
from tolmach.client.models import AsyncModels, Models

if TYPE_CHECKING:
    from tolmach.pages.session import Assistant

__all__ = ["AsyncChat", "AsyncClient", "AsyncCompletions", "AsyncStream", "Chat", "Client", "Completions", "Stream"]


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


class AsyncClient(Asker):
    """Asks any service, asynchronously: `await client.chat.completions.create(model=..., messages=...)`."""

    @cached_property
    def chat(self) -> AsyncChat:
        return AsyncChat(self)

    @cached_property
    def models(self) -> AsyncModels:
        return AsyncModels(self._list_models)

    @cached_property
    def embeddings(self) -> AsyncEmbeddings:
        return AsyncEmbeddings(self._embed)

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


class Client(Asker):
    """Asks any service: `client.chat.completions.create(model=..., messages=...)`."""

    @cached_property
    def chat(self) -> Chat:
        return Chat(self)

    @cached_property
    def models(self) -> Models:
        return Models(self._list_models)

    @cached_property
    def embeddings(self) -> Embeddings:
        return Embeddings(self._embed)

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
