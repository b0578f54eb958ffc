"""`client.embeddings`: vectors for texts, in the shapes of the openai package."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from tolmach import blocking
from tolmach.client.call import Provider
from tolmach.client.completions import Attempted
from tolmach.client.shape import Shape
from tolmach.errors import ConfigError, RemoteProtocolError, TolmachError
from tolmach.session import Session
from tolmach.transport import Timeouts, read
from tolmach.wire import Call

__all__ = [
    "AsyncEmbeddings",
    "CreateEmbeddingResponse",
    "Embedding",
    "EmbeddingUsage",
    "Embeddings",
    "EmbeddingsAsked",
    "fetch_embeddings",
]

Input = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]


class Embedding(Shape):
    """The vector of one input: numbers, or as it came where `base64` was asked for."""

    embedding: list[float] | str
    index: int
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(Shape):
    """Tokens of the inputs."""

    prompt_tokens: int
    total_tokens: int


class CreateEmbeddingResponse(Shape):
    """The vectors, in the order of the inputs; `usage` is None where the service counts nothing."""

    data: list[Embedding]
    model: str
    usage: EmbeddingUsage | None = None
    object: Literal["list"] = "list"
    provider: str = ""
    attempts: list[Attempted] = field(default_factory=list)


class EmbeddingsAsked(Struct, frozen=True, kw_only=True):
    """A question for vectors. `body` is that of the API, with the model as the caller calls it."""

    model: str
    inputs: int
    """How many vectors have to come."""
    body: bytes
    provider: Provider | None = None
    timeout: float | None = None
    """Seconds for all of it."""


Ask = Callable[[EmbeddingsAsked], Coroutine[Any, Any, CreateEmbeddingResponse]]


class AsyncEmbeddings:
    """`client.embeddings`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def create(
        self,
        *,
        input: Input,
        model: str = "",
        dimensions: int | None = None,
        encoding_format: Literal["float", "base64"] = "float",
        user: str | None = None,
        provider: Provider | None = None,
        timeout: float | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> CreateEmbeddingResponse:
        """A vector for each input: a text, or the tokens of one. `timeout` is in seconds.

        Raises `UnsupportedFeature` where whoever is asked has no embeddings, and what the service raises.
        """
        further = {"dimensions": dimensions, "encoding_format": encoding_format, "user": user, **(extra_body or {})}
        return await self._ask(_asked(input, model, further, provider, timeout))


class Embeddings:
    """`client.embeddings`, synchronously."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def create(
        self,
        *,
        input: Input,
        model: str = "",
        dimensions: int | None = None,
        encoding_format: Literal["float", "base64"] = "float",
        user: str | None = None,
        provider: Provider | None = None,
        timeout: float | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> CreateEmbeddingResponse:
        """A vector for each input; as `AsyncEmbeddings.create`."""
        further = {"dimensions": dimensions, "encoding_format": encoding_format, "user": user, **(extra_body or {})}
        return blocking.run(self._ask(_asked(input, model, further, provider, timeout)))


def _asked(
    input: Input, model: str, further: dict[str, Any], provider: Provider | None, timeout: float | None
) -> EmbeddingsAsked:
    """Raises `ConfigError` for an input that is none."""
    if not isinstance(input, str | Sequence) or not input:
        raise ConfigError("input: a text, or a list of texts or of tokens, with something in it")
    single = isinstance(input, str) or all(isinstance(item, int) for item in input)
    body = {"model": model, "input": input, **{name: value for name, value in further.items() if value is not None}}
    try:
        encoded = msgspec.json.encode(body)
    except (TypeError, UnicodeError, msgspec.MsgspecError) as error:
        raise ConfigError(f"input or extra_body: not to be written as JSON: {error}") from error
    return EmbeddingsAsked(
        model=model, inputs=1 if single else len(input), body=encoded, provider=provider, timeout=timeout
    )


class _Vector(Struct):
    embedding: list[float] | str
    index: int | None = None


class _Count(Struct):
    prompt_tokens: int = 0
    total_tokens: int = 0


class _Body(Struct):
    data: list[_Vector]
    model: str = ""
    usage: _Count | None = None


async def fetch_embeddings(session: Session, call: Call, inputs: int, timeouts: Timeouts) -> CreateEmbeddingResponse:
    """The vectors that a call brings. Raises `RemoteProtocolError` for another number of them than of inputs."""
    try:
        exchange = await session.exchange(call.request, timeouts)
        body = await read(exchange, session.limits.response_bytes)
        decoder = call.decoder(exchange.head)
        for _ in (*decoder.feed(body), *decoder.close()):
            """The decoder only looks whether it is an answer: it raises what a refusal means."""
        return _read(body, inputs, exchange.head.status, session.site.name)
    except TolmachError as error:
        error.provider = error.provider or session.site.name
        raise


def _read(body: bytes, inputs: int, status: int, provider: str) -> CreateEmbeddingResponse:
    try:
        made = msgspec.json.decode(body, type=_Body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise RemoteProtocolError(f"no list of embeddings came: {error}", status=status) from error
    if len(made.data) != inputs:
        raise RemoteProtocolError(f"{len(made.data)} embeddings came for {inputs} inputs", status=status)
    vectors = [
        Embedding(embedding=vector.embedding, index=at if vector.index is None else vector.index)
        for at, vector in enumerate(made.data)
    ]
    usage = None
    if made.usage is not None:
        prompt, total = made.usage.prompt_tokens, made.usage.total_tokens
        usage = EmbeddingUsage(prompt_tokens=prompt, total_tokens=total or prompt)
    ordered = sorted(vectors, key=lambda vector: vector.index)
    if [vector.index for vector in ordered] != list(range(inputs)):
        raise RemoteProtocolError("the embeddings that came are not those of the inputs", status=status)
    return CreateEmbeddingResponse(data=ordered, model=made.model, usage=usage, provider=provider)
