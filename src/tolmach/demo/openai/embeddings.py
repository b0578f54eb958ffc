"""OpenAI's embeddings at `/v1/embeddings`: the same vector for the same text, near ones for texts that share words."""

import base64
import hashlib
import math
import re
import struct
from typing import Any

from tolmach.demo.base import Reply, json_reply
from tolmach.demo.openai.api import EMBEDDING_MODELS, Refused, check_known, check_model, check_number, ids

__all__ = ["embeddings", "vector"]

_KNOWN = frozenset({"model", "input", "encoding_format", "dimensions", "user"})
_MAX_INPUTS = 2048
_WORD = re.compile(r"\w+")
_PLACES = 8


def embeddings(body: dict[str, Any]) -> Reply:
    """The answer to a request."""
    check_known(body, _KNOWN, "Unknown parameter: '{name}'.")
    model = body.get("model")
    check_model(model, (*EMBEDDING_MODELS, "demo"))
    check_number(body, "dimensions", 1, 1 << 31)
    size = EMBEDDING_MODELS.get(str(model), 256)
    wanted = int(body.get("dimensions") or size)
    if wanted > size:
        raise Refused(400, f"Invalid value for 'dimensions' = {wanted}. Must be less than or equal to {size}.")
    form = body.get("encoding_format", "float")
    if form not in ("float", "base64"):
        text = f"Invalid value: '{form}'. Supported values are: 'float', 'base64'."
        raise Refused(400, text, param="encoding_format", code="invalid_value")
    inputs = _inputs(body.get("input"))
    data = []
    for index, words in enumerate(inputs):
        numbers = vector(words, wanted)
        written = base64.b64encode(struct.pack(f"<{wanted}f", *numbers)).decode() if form == "base64" else numbers
        data.append({"object": "embedding", "index": index, "embedding": written})
    spent = sum(max(len(words), 1) for words in inputs)
    usage = {"prompt_tokens": spent, "total_tokens": spent}
    return json_reply(200, {"object": "list", "data": data, "model": model, "usage": usage}, ids())


def _inputs(given: Any) -> list[list[str]]:
    """The words, or the numbers of tokens, of each input."""
    if given is None:
        raise Refused(400, "you must provide an input parameter")
    several = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    if len(several) > _MAX_INPUTS:
        raise Refused(400, f"Invalid 'input': array too long. Expected an array with maximum length {_MAX_INPUTS}.")
    return [_words(item) for item in several]


def _words(item: Any) -> list[str]:
    if isinstance(item, str) and item:
        return [word.lower() for word in _WORD.findall(item)] or [item]
    if isinstance(item, list) and item and all(type(number) is int for number in item):
        return [str(number) for number in item]
    raise Refused(
        400, "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference."
    )


def vector(words: list[str], size: int) -> list[float]:
    """A vector of length 1: each word adds to a few places that its hash says."""
    numbers = [0.0] * size
    for word in words:
        digest = hashlib.sha256(word.encode("utf-8", "replace")).digest()
        for at in range(0, _PLACES * 4, 4):
            (place,) = struct.unpack_from("<I", digest, at)
            numbers[(place >> 1) % size] += 1.0 if place & 1 else -1.0
    length = math.sqrt(sum(number * number for number in numbers))
    if not length:
        return [1.0, *numbers[1:]]
    return [number / length for number in numbers]
