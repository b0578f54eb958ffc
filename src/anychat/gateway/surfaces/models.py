"""The bodies of `GET /v1/models` and `GET /v1/models/{id}` in the shape of the OpenAI API."""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from anychat.errors import ModelNotFound

__all__ = ["ModelEntry", "model_body", "models_body"]


class ModelEntry(Struct, frozen=True, kw_only=True):
    """A model in the list. `created` is seconds since 1970; `owned_by` the provider that has it."""

    id: str
    object: str = "model"
    created: int
    owned_by: str


class _ModelList(Struct, frozen=True, kw_only=True):
    """The body of `GET /v1/models`."""

    object: str = "list"
    data: list[ModelEntry]


_encode = msgspec.json.Encoder().encode


def models_body(models: Iterable[ModelEntry]) -> bytes:
    """The body of `GET /v1/models`."""
    return _encode(_ModelList(data=list(models)))


def model_body(models: Iterable[ModelEntry], id: str) -> bytes:
    """The body of `GET /v1/models/{id}`. Raises `ModelNotFound`."""
    for model in models:
        if model.id == id:
            return _encode(model)
    raise ModelNotFound(f"The model {id!r} does not exist")
