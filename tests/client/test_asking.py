"""Whom a client asks: what it was told by name, and never a stranger because a model has the right name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.client.rerouted import Rerouted
from tolmach import AbstractProvider, AsyncClient, Chatgpt4o, Client
from tolmach.client.completions import ChatCompletion
from tolmach.configuration import Settings
from tolmach.demo.server import ThreadedDemo, serve_in_thread
from tolmach.errors import AuthError, ConfigError, ModelNotFound
from tolmach.protocols.recipe.json_text import JsonText
from tolmach.providers import registry

HI = [{"role": "user", "content": "hi"}]
GROQ = "https://api.groq.com/openai/v1"


@pytest.fixture(scope="module")
def demo() -> Iterator[ThreadedDemo]:
    with serve_in_thread(delay=0) as running:
        yield running


@pytest.fixture(autouse=True)
def own_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.delenv("GROQ_API_KEY", raising=False)


@pytest.fixture
def way(demo: ThreadedDemo) -> Rerouted:
    """Groq, played by the demo, and nobody else."""
    return Rerouted({GROQ: f"{demo.url}/v1", demo.url: demo.url})


@pytest.fixture
def rows(demo: ThreadedDemo) -> dict[str, Any]:
    row = {"protocol": "openai", "url": f"{demo.url}/v1", "api_key": "row-key", "models": ["gpt-4o", "demo"]}
    return {"local": row, "other": {**row, "models": {"gpt-4o": "gpt-4o-mini"}}}


async def asked(client: AsyncClient, **call: Any) -> ChatCompletion:
    answer = await client.chat.completions.create(messages=HI, stream=False, **call)
    assert isinstance(answer, ChatCompletion)
    return answer


# A stranger


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4", "gpt-4o-mini", "gpt-3.5-turbo", "auto"])
@pytest.mark.parametrize("settings", [{}, {"strict": False}])
async def test_a_model_alone_goes_to_no_public_site(way, model, settings):
    with pytest.raises(ModelNotFound, match=f"no provider of this client has the model '{model}'.*provider='"):
        await asked(AsyncClient(transport=way, **settings), model=model)
    with pytest.raises(ModelNotFound):
        Client(transport=way).chat.completions.create(model=model, messages=HI)
    with pytest.raises(ModelNotFound):
        next(Client(transport=way).events(model=model, messages=HI))
    assert way.sent == []


async def test_the_error_says_who_would_answer_and_how_to_name_them(way):
    with pytest.raises(ModelNotFound) as caught:
        await asked(AsyncClient(transport=way), model="gpt-4o")
    assert "ChatGptt and ChatGpt on the public web would: provider='ChatGptt' asks there" in str(caught.value)
    with pytest.raises(ModelNotFound) as caught:
        await asked(AsyncClient(transport=way), model="gpt-99")
    assert "public web" not in str(caught.value)


@pytest.mark.parametrize(
    "call", [{"provider": Chatgpt4o}, {"provider": "Chatgpt4o"}, {"model": "Chatgpt4o/gpt-4o-mini"}]
)
async def test_a_site_that_is_named_is_asked(way, demo, monkeypatch, call):
    monkeypatch.setattr(Chatgpt4o, "url", f"{demo.url}/Chatgpt4o")
    assert (await asked(AsyncClient(transport=way), **call)).provider == "Chatgpt4o"


async def test_a_class_that_the_program_registers_answers_to_its_models(way, demo):
    @registry.register
    class Corner(AbstractProvider):
        url = f"{demo.url}/Aichat"
        protocol = JsonText(path="/api/text", template={"message": "{{message}}"}, answer="/message")
        models: ClassVar[list[str]] = ["corner-1", "gpt-4o", "groq/corner"]

    client = AsyncClient(transport=way, cookies={"visit": "1"})
    for model in ("corner-1", "gpt-4o", "groq/corner", "Corner/anything"):
        assert (await asked(client, model=model)).provider == "Corner"
    registry.register(type("Second", (Corner,), {}))
    with pytest.raises(ConfigError, match="several providers have 'gpt-4o': Corner, Second; write Corner/gpt-4o"):
        await asked(client, model="gpt-4o")


# Services by name


@pytest.mark.parametrize("name", ["groq", "Groq"])
async def test_a_service_by_its_name_with_the_key_of_its_variable(way, monkeypatch, name):
    monkeypatch.setenv("GROQ_API_KEY", "gsk-1")
    answer = await asked(AsyncClient(provider=name, transport=way), model="gpt-4o")
    assert (answer.provider, answer.model) == ("groq", "gpt-4o")
    assert (way.sent[0].url, way.sent[0].headers["authorization"]) == (f"{GROQ}/chat/completions", "Bearer gsk-1")


async def test_a_service_in_a_call_and_in_a_models_name(way, monkeypatch):
    monkeypatch.setenv("GROQ_API_KEY", "gsk-1")
    client = AsyncClient(transport=way)
    assert (await asked(client, provider="groq", model="gpt-4o")).model == "gpt-4o"
    assert (await asked(client, model="groq/gpt-4o")).model == "gpt-4o"
    assert (await asked(client, provider="groq", model="groq/gpt-4o")).model == "gpt-4o"
    assert {request.url for request in way.sent} == {f"{GROQ}/chat/completions"}


async def test_a_service_without_its_key(way):
    with pytest.raises(ConfigError, match=r"groq .*set the environment variable GROQ_API_KEY"):
        AsyncClient(provider="groq", transport=way)
    with pytest.raises(ConfigError, match="GROQ_API_KEY"):
        await asked(AsyncClient(transport=way), model="groq/x")
    given = AsyncClient(provider="groq", api_key="given", transport=way)
    await asked(given, model="gpt-4o")
    await asked(given, provider="groq", model="gpt-4o")
    assert [request.headers["authorization"] for request in way.sent] == ["Bearer given"] * 2


async def test_the_key_of_a_variable_goes_to_the_services_own_address_alone(way, demo, monkeypatch):
    monkeypatch.setenv("GROQ_API_KEY", "gsk-1")
    with pytest.raises(AuthError):
        await asked(AsyncClient(provider="groq", base_url=f"{demo.url}/v1", transport=way), model="gpt-4o")
    assert "authorization" not in way.sent[0].headers


async def test_the_clients_credentials_go_to_no_service_that_a_call_names(way, demo, monkeypatch):
    monkeypatch.setenv("GROQ_API_KEY", "gsk-1")
    client = AsyncClient(
        base_url=f"{demo.url}/v1", protocol="openai", api_key="mine", headers={"x-a": "b"}, transport=way
    )
    await asked(client, provider="groq", model="gpt-4o")
    assert way.sent[0].headers["authorization"] == "Bearer gsk-1"
    assert "x-a" not in way.sent[0].headers


# Rows of a configuration


async def test_a_row_by_its_name(way, rows):
    client = AsyncClient(provider="local", providers=rows, transport=way)
    for call in ({"model": "gpt-4o"}, {"model": "local/gpt-4o"}):
        answer = await asked(client, **call)
        assert (answer.provider, answer.model) == ("local", "gpt-4o")
    assert (await asked(client, provider="other", model="gpt-4o")).model == "gpt-4o-mini"
    assert (await asked(AsyncClient(providers=rows, transport=way), provider="LOCAL", model="demo")).provider == "local"
    assert {request.headers["authorization"] for request in way.sent} == {"Bearer row-key"}


async def test_a_row_stands_in_the_place_of_a_service_and_of_a_class(way, rows):
    named = {"groq": rows["local"], "ChatGptt": rows["other"]}
    client = AsyncClient(providers=named, transport=way)
    assert (await asked(client, provider="groq", model="gpt-4o")).provider == "groq"
    assert (await asked(client, provider="ChatGptt", model="gpt-4o")).provider == "ChatGptt"
    assert {request.headers["authorization"] for request in way.sent} == {"Bearer row-key"}


async def test_a_model_that_several_rows_have_is_an_error_that_lists_them(way, rows):
    client = AsyncClient(providers=rows, transport=way)
    with pytest.raises(ConfigError, match="several providers have 'gpt-4o': local, other; write local/gpt-4o"):
        await asked(client, model="gpt-4o")
    assert way.sent == []
    assert (await asked(client, model="demo")).provider == "local"
    assert (await asked(client, model="other/gpt-4o")).provider == "other"
    routed = AsyncClient(providers=rows, routes={"gpt-4o": ["other/gpt-4o"]}, transport=way)
    assert (await asked(routed, model="gpt-4o")).provider == "other"


async def test_a_configuration_that_lacks_the_model_asks_nobody(way, rows):
    with pytest.raises(ModelNotFound, match="no route or provider of this client has the model 'auto'"):
        await asked(AsyncClient(providers=rows, transport=way), model="auto")
    assert way.sent == []


async def test_settings_that_are_read_already(way, rows):
    client = AsyncClient(config=Settings.of({"providers": rows}), transport=way)
    assert (await asked(client, model="demo")).provider == "local"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"api_key": "k"}, "api_key: the row of local says it"),
        ({"cookies": {"a": "b"}}, "cookies: the row of local says it"),
        ({"base_url": "http://127.0.0.1:1"}, "base_url: the configuration says where local is"),
    ],
)
def test_what_a_row_says_is_not_said_again(rows, arguments, says):
    with pytest.raises(ConfigError, match=says):
        Client(provider="local", providers=rows, **arguments)


def test_the_configuration_of_the_current_folder_by_its_names(way, demo, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tolmach.toml").write_text(
        f'[providers.local]\nprotocol = "openai"\nurl = "{demo.url}/v1"\napi_key = "k"\nmodels = ["gpt-4o"]\n'
    )
    with Client(config=True, transport=way) as client:
        assert client.chat.completions.create(model="gpt-4o", messages=HI).provider == "local"
    with Client(config=True, provider="local", transport=way) as client:
        assert client.chat.completions.create(messages=HI).model == "gpt-4o"
