"""`client.models`: which models there are, in the shapes of the openai package."""

from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any, Literal

from tolmach import blocking
from tolmach.client.call import Provider
from tolmach.client.shape import Shape

__all__ = ["AsyncModels", "Model", "ModelPage", "Models", "PendingModels"]

Ask = Callable[[Provider | None, float | None], Coroutine[Any, Any, "list[Model]"]]
"""Finds the models of a provider, or of the client, within so many seconds."""


class Model(Shape):
    """A model by the name that it is asked by. `created` is in seconds since 1970, 0 where nobody says it."""

    id: str
    created: int = 0
    object: Literal["model"] = "model"
    owned_by: str = ""
    shutdown_date: None = None


class ModelPage(Shape):
    """All models at once; it may be gone through as it is."""

    data: list[Model]
    object: Literal["list"] = "list"

    def __iter__(self) -> Iterator[Model]:
        return iter(self.data)

    async def __aiter__(self) -> AsyncIterator[Model]:
        for model in self.data:
            yield model


class PendingModels:
    """The models to come: `await` gives all of them, `async for` one after the other."""

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, list[Model]]]) -> None:
        self._ask = ask

    async def _page(self) -> ModelPage:
        return ModelPage(data=await self._ask())

    def __await__(self) -> Generator[Any, Any, ModelPage]:
        return self._page().__await__()

    async def __aiter__(self) -> AsyncIterator[Model]:
        for model in await self._ask():
            yield model


class AsyncModels:
    """`client.models`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def list(self, *, provider: Provider | None = None, timeout: float | None = None) -> PendingModels:
        """The models of the client, or of this provider: what a service with an API says, else what is known of it.

        Those of a client with routes are the names that it may be asked for. Raises `UnsupportedFeature` where there
        is no list, and what the service raises. `timeout` is in seconds.
        """
        return PendingModels(lambda: self._ask(provider, timeout))


class Models:
    """`client.models`, synchronously."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def list(self, *, provider: Provider | None = None, timeout: float | None = None) -> ModelPage:
        """The models; as `AsyncModels.list`."""
        return ModelPage(data=blocking.run(self._ask(provider, timeout)))
