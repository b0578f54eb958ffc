"""`client.embeddings.create()`: the openai package's shapes, through services and routes, and typed errors."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import openai.types
import pytest
from openai.types.create_embedding_response import Usage as OpenAIUsage

from tests.client.rerouted import Rerouted
from tolmach import AsyncClient, ChatGptt, Client
from tolmach.client.embeddings import CreateEmbeddingResponse, Embedding, EmbeddingUsage
from tolmach.demo.server import ThreadedDemo, serve_in_thread
from tolmach.errors import (
    AuthError,
    BadRequest,
    ConfigError,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
    RemoteProtocolError,
    TimedOut,
    UnsupportedFeature,
)
from tolmach.transport.memory import MemoryTransport
from tolmach.wire import Head, Request

MODEL = "text-embedding-3-small"


@pytest.fixture(scope="module")
def demo() -> Iterator[ThreadedDemo]:
    with serve_in_thread(delay=0) as running:
        yield running


def api(demo: ThreadedDemo, **more: Any) -> Client:
    return Client(base_url=f"{demo.url}/v1", protocol="openai", api_key="k", **more)


async def test_vectors_in_the_shape_of_the_openai_package(demo):
    asked: dict[str, Any] = {"model": MODEL, "input": ["hello world", "goodbye"], "dimensions": 16}
    made = api(demo).embeddings.create(**asked)
    theirs = openai.types.CreateEmbeddingResponse.model_validate(made.to_dict(), strict=True)
    assert [(one.index, len(one.embedding)) for one in theirs.data] == [(0, 16), (1, 16)]
    assert theirs.usage.total_tokens == theirs.usage.prompt_tokens == 3
    assert (made.model, made.provider) == (MODEL, demo.url.removeprefix("http://"))
    async with AsyncClient(base_url=f"{demo.url}/v1", protocol="openai", api_key="k") as client:
        assert await client.embeddings.create(**asked) == made


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (CreateEmbeddingResponse, openai.types.CreateEmbeddingResponse),
        (Embedding, openai.types.Embedding),
        (EmbeddingUsage, OpenAIUsage),
    ],
)
def test_every_field_of_the_openai_package_is_there(ours, theirs):
    assert set(theirs.model_fields) <= {field.name for field in msgspec.structs.fields(ours)}


@pytest.mark.parametrize(
    ("given", "count"), [("one text", 1), (["a", "b", "c"], 3), ([1, 2, 3], 1), ([[1, 2], [3]], 2)]
)
def test_each_kind_of_input(demo, given, count):
    assert [one.index for one in api(demo).embeddings.create(model=MODEL, input=given).data] == list(range(count))


def test_base64_comes_as_it_is(demo):
    made = api(demo).embeddings.create(model=MODEL, input="a", encoding_format="base64")
    assert isinstance(made.data[0].embedding, str)


def test_a_service_by_its_name(demo, monkeypatch):
    monkeypatch.setenv("TOGETHER_API_KEY", "tk")
    way = Rerouted({"https://api.together.xyz/v1": f"{demo.url}/v1"})
    client = Client(transport=way)
    made = [
        Client(provider="together", transport=way).embeddings.create(input="a", model=MODEL),
        client.embeddings.create(input="a", model=f"together/{MODEL}"),
        client.embeddings.create(input="a", model=MODEL, provider="together"),
    ]
    assert [each.provider for each in made] == ["together"] * 3
    assert [(one.url, msgspec.json.decode(one.body)["model"]) for one in way.sent] == [
        ("https://api.together.xyz/v1/embeddings", MODEL)
    ] * 3


# Routes


def routed(demo: ThreadedDemo, *targets: str) -> Client:
    """A client with a route over these: `down`, where nobody listens, `locked`, which wants a key, and `good`."""
    good: dict[str, Any] = {"protocol": "openai", "url": f"{demo.url}/v1", "models": {"vectors": MODEL}}
    providers: dict[str, Any] = {
        "down": {**good, "url": "http://127.0.0.1:1/v1"},
        "locked": good,
        "good": {**good, "api_key": "k"},
        "page": {"protocol": "ai-engine", "url": f"{demo.url}/Chatgpt4Online", "models": ["vectors"]},
    }
    return Client(providers=providers, routes={"vectors": {"targets": list(targets), "attempts": 2}})


def test_a_route_asks_the_next_target_when_one_fails(demo):
    made = routed(demo, "down/vectors", "good/vectors").embeddings.create(model="vectors", input=["a", "b"])
    assert (made.provider, made.model, len(made.data)) == ("good", MODEL, 2)
    assert [(one.target, one.outcome) for one in made.attempts] == [
        ("down/text-embedding-3-small", "failed"),
        ("good/text-embedding-3-small", "answered"),
    ]


def test_a_target_without_embeddings_is_passed_over(demo):
    client = routed(demo, "page/vectors", "good/vectors")
    assert client.embeddings.create(model="vectors", input="a").provider == "good"
    with pytest.raises(UnsupportedFeature, match="page/vectors gives no embeddings"):
        client.embeddings.create(model="page/vectors", input="a")


def test_the_last_failure_is_told(demo):
    with pytest.raises(AuthError) as caught:
        routed(demo, "down/vectors", "locked/vectors").embeddings.create(model="vectors", input="a")
    assert caught.value.provider == "locked"


@pytest.mark.parametrize("name", ["service", "routed"])
def test_a_time_limit(name):
    async def silent(request: Request) -> tuple[Head, AsyncIterator[bytes]]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError(request)

    way = MemoryTransport(handler=silent)
    row = {"protocol": "openai", "url": "http://service.test/v1", "models": [MODEL]}
    client = Client(providers={"row": row}, transport=way)
    if name == "service":
        client = Client(base_url="http://service.test/v1", protocol="openai", transport=way)
    with pytest.raises(TimedOut):
        client.embeddings.create(model=MODEL, input="a", timeout=0.05)


# Errors


@pytest.mark.parametrize(
    ("status", "kind"), [(500, ProviderUnavailable), (401, AuthError), (429, RateLimited), (404, BadRequest)]
)
def test_a_refusal_is_the_error_that_it_is(status, kind):
    with pytest.raises(kind) as caught:
        _answered_with(b'{"error": {"message": "no"}}', status).embeddings.create(model=MODEL, input="a")
    assert (caught.value.provider, caught.value.status) == ("service.test", status)


def test_what_the_service_does_not_take_is_a_bad_request(demo):
    with pytest.raises(BadRequest, match="dimensions"):
        api(demo).embeddings.create(model=MODEL, input="a", dimensions=99_999)
    with pytest.raises(BadRequest, match="odd"):
        api(demo).embeddings.create(model=MODEL, input="a", extra_body={"odd": 1})


@pytest.mark.parametrize("given", ["", [], None, 7, {"a": 1}])
def test_an_input_that_is_none(demo, given):
    with pytest.raises(ConfigError, match="input: a text, or a list"):
        api(demo).embeddings.create(model=MODEL, input=given)


def test_whoever_has_no_embeddings_says_so_before_anything_is_sent():
    way = Rerouted({})
    clients = [
        Client(provider=ChatGptt, transport=way),
        Client(base_url="http://127.0.0.1:1", protocol="anthropic", transport=way),
        Client(base_url="http://127.0.0.1:1", protocol="ollama", transport=way),
    ]
    for client in clients:
        with pytest.raises(UnsupportedFeature, match="gives no embeddings"):
            client.embeddings.create(input="a", model="gpt-4o" if client is clients[0] else "m")
    with pytest.raises(ModelNotFound):
        Client(transport=way).embeddings.create(model="gpt-4o", input="a")
    assert way.sent == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"data": [{"embedding": [1.0], "index": 0}]}', "1 embeddings came for 2 inputs"),
        (b'{"data": [{"embedding": [1], "index": 0}, {"embedding": [1], "index": 0}]}', "are not those of the inputs"),
        (b'{"data": [{"embedding": {"a": 1}, "index": 0}]}', "no list of embeddings came"),
        (b'{"data": []}', "no embeddings came"),
        (b"<html>", "no list of embeddings came"),
    ],
)
def test_an_answer_that_is_none_is_an_error(body, says):
    with pytest.raises(RemoteProtocolError, match=says):
        _answered_with(body).embeddings.create(model=MODEL, input=["a", "b"])


def test_vectors_are_in_the_order_of_the_inputs_and_usage_is_none_where_nothing_is_counted():
    body = b'{"data": [{"embedding": [2.0], "index": 1}, {"embedding": [1.0], "index": 0}]}'
    made = _answered_with(body).embeddings.create(model=MODEL, input=["a", "b"])
    assert [one.embedding for one in made.data] == [[1.0], [2.0]]
    assert made.usage is None


def _answered_with(body: bytes, status: int = 200) -> Client:
    async def handler(request: Request) -> tuple[Head, AsyncIterator[bytes]]:
        async def pieces() -> AsyncIterator[bytes]:
            yield body

        return Head(status, {"content-type": "application/json"}, (), request.url), pieces()

    way = MemoryTransport(handler=handler)
    return Client(base_url="http://service.test/v1", protocol="openai", transport=way)
