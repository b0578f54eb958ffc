"""`POST /v1/embeddings`: the request checked, and the answer's body for vectors from any service."""

import struct
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from tolmach.gateway.answers.estimate import estimate_tokens
from tolmach.gateway.surfaces.bodies import check_shape, read_object, wrong

__all__ = ["EmbeddingsAsked", "embeddings_body", "parse_embeddings"]

_MAX_INPUTS = 2048
"""As OpenAI's API reference has it."""

Input = str | tuple[int, ...]


class EmbeddingsAsked(Struct, frozen=True, kw_only=True):
    """A question for vectors: one for each input, which is a text or the tokens of one."""

    model: str
    inputs: tuple[Input, ...]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """The further fields of the body, by their names."""


class _Body(Struct, kw_only=True):
    model: str
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


def parse_embeddings(body: bytes) -> EmbeddingsAsked:
    """The question in a request's body. Raises `BadRequest` that names the field."""
    value = read_object(body)
    fields = check_shape(value, _Body)
    if not fields.model:
        raise wrong("model", "the name of a model is needed")
    if fields.dimensions is not None and fields.dimensions < 1:
        raise wrong("dimensions", "a number from 1")
    known = ("model", "input", "encoding_format", "dimensions")
    return EmbeddingsAsked(
        model=fields.model,
        inputs=_inputs(fields.input),
        encoding_format=fields.encoding_format or "float",
        dimensions=fields.dimensions,
        options={name: item for name, item in value.items() if name not in known and item is not None},
    )


def _inputs(raw: str | list[Any]) -> tuple[Input, ...]:
    if isinstance(raw, list) and raw and all(_is_token(item) for item in raw):
        return (tuple(raw),)  # the tokens of one text
    items = [raw] if isinstance(raw, str) else raw
    if not 1 <= len(items) <= _MAX_INPUTS:
        raise wrong("input", f"from 1 to {_MAX_INPUTS} texts")
    return tuple(_input(item, "input" if isinstance(raw, str) else f"input[{i}]") for i, item in enumerate(items))


def _input(item: Any, where: str) -> Input:
    if isinstance(item, list) and item and all(_is_token(token) for token in item):
        return tuple(item)
    if not isinstance(item, str):
        raise wrong(where, "a text, or a list of tokens")
    if not item:
        raise wrong(where, "it must not be empty")
    return item


def _is_token(item: Any) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and item >= 0


def embeddings_body(asked: EmbeddingsAsked, vectors: Sequence[Sequence[float]], prompt_tokens: int | None) -> bytes:
    """The body of an answer; tokens that the service did not count (None) are estimated, and marked so."""
    usage: dict[str, Any] = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    if prompt_tokens is None:
        tokens = sum(estimate_tokens(item) if isinstance(item, str) else len(item) for item in asked.inputs)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "estimated": True}
    write = _base64 if asked.encoding_format == "base64" else list
    data = [{"object": "embedding", "index": i, "embedding": write(vector)} for i, vector in enumerate(vectors)]
    return msgspec.json.encode({"object": "list", "data": data, "model": asked.model, "usage": usage})


def _base64(vector: Sequence[float]) -> str:
    """The numbers as 32-bit floats, least significant byte first, in base64: what OpenAI's client asks for."""
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
