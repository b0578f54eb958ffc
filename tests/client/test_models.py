"""`client.models.list()`: what a service says, what a configuration names, and an error where there is no list."""

from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec
import openai.types
import pytest

from tests.client.rerouted import Rerouted
from tolmach import AbstractProvider, AsyncClient, Chatgpt4o, ChatGptt, Client
from tolmach.client.models import Model, ModelPage
from tolmach.demo.server import ThreadedDemo, serve_in_thread
from tolmach.errors import AuthError, ConnectFailed, ProviderError, RemoteProtocolError, UnsupportedFeature
from tolmach.protocols.recipe.json_text import JsonText
from tolmach.providers import registry


@pytest.fixture(scope="module")
def demo() -> Iterator[ThreadedDemo]:
    with serve_in_thread(delay=0) as running:
        yield running


@pytest.fixture(autouse=True)
def own_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


def rows(demo: ThreadedDemo) -> dict[str, Any]:
    local = {"protocol": "openai", "url": f"{demo.url}/v1", "api_key": "k", "models": {"mine": "gpt-4o"}}
    return {"local": local, "shop": {"protocol": "ai-engine", "url": f"{demo.url}/Chatgpt4Online", "models": ["gpt-4"]}}


@pytest.mark.parametrize(
    ("path", "protocol", "owner", "known"),
    [
        ("v1", "openai", "demo", "gpt-4o"),
        ("v1", "openai-responses", "demo", "gpt-4o"),
        ("anthropic", "anthropic", "anthropic", "claude-sonnet-4-5"),
        ("gemini", "gemini", "google", "gemini-2.5-flash"),
        ("ollama", "ollama", "ollama", "llama3.2:latest"),
    ],
)
async def test_a_service_says_which_models_it_has(demo, path, protocol, owner, known):
    async with AsyncClient(base_url=f"{demo.url}/{path}", protocol=protocol, api_key="k") as client:
        page = await client.models.list()
        assert known in [model.id for model in page]
        assert {(model.object, model.owned_by) for model in page.data} == {("model", owner)}
        assert [model async for model in client.models.list()] == page.data
        assert [model async for model in page] == page.data
    with Client(base_url=f"{demo.url}/{path}", protocol=protocol, api_key="k") as client:
        assert client.models.list() == page


async def test_the_shape_is_that_of_the_openai_package(demo):
    page = await AsyncClient(base_url=f"{demo.url}/v1", protocol="openai", api_key="k").models.list()
    for model in page:
        assert openai.types.Model.model_validate(model.model_dump(), strict=True).id == model.id
        assert model.created > 0
    assert {field.name for field in msgspec.structs.fields(Model)} == set(openai.types.Model.model_fields)
    assert page.to_dict()["object"] == "list"


async def test_a_service_of_the_table_is_asked_with_its_key(demo, monkeypatch):
    monkeypatch.setenv("GROQ_API_KEY", "gsk-1")
    way = Rerouted({"https://api.groq.com/openai/v1": f"{demo.url}/v1"})
    page = await AsyncClient(provider="groq", transport=way).models.list()
    assert "gpt-4o" in [model.id for model in page]
    assert await AsyncClient(transport=way).models.list(provider="groq") == page
    assert [(one.method, one.url, one.headers["authorization"]) for one in way.sent] == [
        ("GET", "https://api.groq.com/openai/v1/models", "Bearer gsk-1")
    ] * 2


def test_a_service_without_a_list(monkeypatch):
    monkeypatch.setenv("AI21_API_KEY", "k")
    way = Rerouted({})
    with pytest.raises(UnsupportedFeature, match="ai21 gives no list of its models") as caught:
        Client(provider="ai21", transport=way).models.list()
    assert (caught.value.feature, way.sent) == ("models", [])


@pytest.mark.parametrize("protocol", ["ai-engine", "chatgpt-web"])
def test_a_protocol_without_a_list(demo, protocol):
    with pytest.raises(UnsupportedFeature, match="gives no list of its models"):
        Client(base_url=f"{demo.url}/Chatgpt4Online", protocol=protocol).models.list()


def test_routes_list_the_names_that_may_be_asked_for(demo):
    client = Client(providers=rows(demo), routes={"assistant": ["local/mine", "shop/gpt-4"]})
    assert [(model.id, model.owned_by) for model in client.models.list()] == [
        ("assistant", "route"),
        ("mine", "local"),
        ("gpt-4", "shop"),
        ("local/mine", "local"),
        ("shop/gpt-4", "shop"),
    ]


def test_a_row_is_asked_itself_where_it_can_be(demo):
    client = Client(providers=rows(demo))
    assert {model.id for model in client.models.list(provider="local")} >= {"gpt-4o", "gpt-4o-mini"}
    assert [(model.id, model.owned_by) for model in client.models.list(provider="shop")] == [("gpt-4", "shop")]
    assert Client(providers=rows(demo), provider="local").models.list() == client.models.list(provider="local")


def test_a_class_lists_what_it_declares():
    names = [model.id for model in Client(provider=ChatGptt).models.list()]
    assert names == [*ChatGptt.models, *ChatGptt.model_aliases]
    listed = Client().models.list(provider=Chatgpt4o)
    assert {model.owned_by for model in listed} == {"Chatgpt4o"}


def test_without_a_provider_only_what_the_program_registers_is_listed():
    assert Client().models.list() == ModelPage(data=[])

    @registry.register
    class Corner(AbstractProvider):
        url = "https://corner.test"
        protocol = JsonText()
        models: ClassVar[list[str]] = ["corner-1"]

    assert [(model.id, model.owned_by) for model in Client().models.list()] == [("corner-1", "Corner")]


@pytest.mark.parametrize(
    ("path", "protocol"), [("v1", "openai"), ("v1", "openai-responses"), ("anthropic", "anthropic")]
)
def test_a_refusal_is_the_error_that_it_is(demo, path, protocol):
    with pytest.raises(AuthError) as caught:
        Client(base_url=f"{demo.url}/{path}", protocol=protocol).models.list()
    assert (caught.value.provider, caught.value.status) == (demo.url.removeprefix("http://"), 401)


def test_what_is_no_list_is_no_list(demo):
    with pytest.raises((RemoteProtocolError, ProviderError)):
        Client(base_url=f"{demo.url}/Chatgpt4o", protocol="openai").models.list()


def test_nobody_there():
    with pytest.raises(ConnectFailed):
        Client(base_url="http://127.0.0.1:1/v1", protocol="openai").models.list(timeout=5)
