"""The embeddings of the OpenAI surface: requests in, vectors out."""

import json
from typing import Any

import httpx2
import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from tests.sweeps import examples
from tolmach.errors import BadRequest, TolmachError
from tolmach.gateway.surfaces.embeddings import embeddings_body, parse_embeddings

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("given_input", "inputs"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1], [2, 3]], ((1,), (2, 3)))],
)
def test_inputs_of_embeddings(given_input, inputs):
    got = parse_embeddings(json.dumps({"model": "m", "input": given_input, "user": "u", "odd": 1}).encode())
    assert (got.inputs, got.options) == (inputs, {"user": "u", "odd": 1})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [True]}, "input[0]"),
        ({"input": [[-1]]}, "input[0]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": 7}, "input"),
        ({"model": ""}, "model"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_wrong_embedding_requests_are_named(fields, param):
    with pytest.raises(BadRequest) as caught:
        parse_embeddings(json.dumps({"model": "m", "input": "x", **fields}).encode())
    assert caught.value.param == param


@given(st.dictionaries(st.sampled_from(["model", "input", "dimensions", "encoding_format"]), json_values))
@examples(150)
def test_any_embedding_request_is_read_or_refused(fields):
    try:
        got = parse_embeddings(json.dumps({"model": "m", "input": "x", **fields}).encode())
    except TolmachError:
        return
    assert got.inputs


@pytest.mark.parametrize("form", ["float", "base64"])
def test_vectors_reach_the_client_in_either_form(form):
    vectors = [[0.5, -1.25], [3.0, 0.0]]

    def handle(request: httpx2.Request) -> httpx2.Response:
        sent = parse_embeddings(request.content)
        assert sent.encoding_format == form
        return httpx2.Response(
            200, content=embeddings_body(sent, vectors, None), headers={"content-type": "application/json"}
        )

    client = openai.OpenAI(
        api_key="k", base_url="http://g.test/v1", http_client=httpx2.Client(transport=httpx2.MockTransport(handle))
    )
    arguments: dict[str, Any] = {"encoding_format": "float"} if form == "float" else {}
    got = client.embeddings.create(model="m", input=["one", "two"], **arguments)
    assert [row.embedding for row in got.data] == vectors
    assert got.usage.to_dict()["estimated"] is True


def test_counted_tokens_of_embeddings_are_told():
    sent = parse_embeddings(b'{"model": "m", "input": "x"}')
    value = msgspec.json.decode(embeddings_body(sent, [[1.0]], 5))
    CreateEmbeddingResponse.model_validate(value)
    assert value["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
