"""Other programs before the gateway: LangChain, Pydantic AI, LiteLLM's SDK, and curl."""

import asyncio
import gc
import importlib
import json
import os
import shutil
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio

from tests.gateway.served import served
from tolmach.demo import Demo
from tolmach.gateway.core import Gateway

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # What these packages deprecate of each other is not ours to mend.
    pytest.mark.filterwarnings("ignore"),
]

Served = tuple[str, Demo, Gateway]

MODELS = ("openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here() -> AsyncGenerator[Served, None]:
    async with served("rsgi") as made:
        yield made
        gc.collect()  # clients that these packages leave open are let go of here, where that warns nobody


def weather(city: str) -> str:
    """The weather in a city."""
    return f"In {city} the sun shines."


# LangChain


def langchain(here: Served, model: str, **options: Any) -> Any:
    from langchain_openai import ChatOpenAI

    key: Any = "any"  # a plain text, as its documentation gives it
    return ChatOpenAI(base_url=f"{here[0]}/v1", api_key=key, model=model, max_retries=0, **options)


@pytest.mark.parametrize("responses", [False, True])
@pytest.mark.parametrize("model", [*MODELS, "ChatGptt/default"])
async def test_langchain_asks_whole_and_in_pieces(here: Served, model: str, responses: bool):
    chat = langchain(here, model, use_responses_api=responses)
    whole = await chat.ainvoke([("system", "Be kind."), ("human", "Whole?")])
    assert "Whole?" in whole.text
    assert whole.usage_metadata["output_tokens"] > 10
    pieces = [chunk.text async for chunk in chat.astream("In pieces?")]
    assert "In pieces?" in "".join(pieces)
    assert len(pieces) > 5


@pytest.mark.parametrize("responses", [False, True])
@pytest.mark.parametrize("model", MODELS)
async def test_langchain_binds_tools(here: Served, model: str, responses: bool):
    chat = langchain(here, model, use_responses_api=responses).bind_tools([weather])
    message = await chat.ainvoke("use tool weather")
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("weather", {"city": "Париж"})]
    result = {"role": "tool", "tool_call_id": message.tool_calls[0]["id"], "content": weather("Париж")}
    after = await chat.ainvoke([("human", "use tool weather"), message, result])
    assert "the sun shines" in after.text


async def test_langchain_embeds(here: Served):
    from langchain_openai import OpenAIEmbeddings

    key: Any = "any"
    embeddings = OpenAIEmbeddings(
        base_url=f"{here[0]}/v1", api_key=key, model="openai/text-embedding-3-small", check_embedding_ctx_length=False
    )
    assert [len(vector) for vector in await embeddings.aembed_documents(["one", "two"])] == [1536, 1536]


# Pydantic AI


def agent(here: Served, api: str, model: str) -> Any:
    from pydantic_ai import Agent
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.anthropic import AnthropicProvider
    from pydantic_ai.providers.openai import OpenAIProvider

    if api == "messages":
        made: Any = AnthropicModel(model, provider=AnthropicProvider(base_url=here[0], api_key="any"))
    else:
        kind = OpenAIChatModel if api == "chat" else OpenAIResponsesModel
        made = kind(model, provider=OpenAIProvider(base_url=f"{here[0]}/v1", api_key="any"))
    return Agent(made, tools=[weather] if not model.startswith("ChatGptt") else [])


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
@pytest.mark.parametrize("model", [*MODELS, "ChatGptt/default"])
async def test_pydantic_ai_runs_and_streams(here: Served, model: str, api: str):
    asking = agent(here, api, model)
    assert "Whole?" in (await asking.run("Whole?")).output
    async with asking.run_stream("In pieces?") as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    assert "In pieces?" in "".join(pieces)
    assert len(pieces) > 5


@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
@pytest.mark.parametrize("model", MODELS)
async def test_pydantic_ai_calls_tools(here: Served, model: str, api: str):
    result = await agent(here, api, model).run("use tool weather")
    assert "In Париж the sun shines." in result.output


# LiteLLM's SDK


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def litellm() -> AsyncGenerator[Any, None]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the internet when it is imported
    module: Any = importlib.import_module("litellm")
    module.telemetry = False
    yield module
    await module.close_litellm_async_clients()
    module.in_memory_llm_clients_cache.flush_cache()
    gc.collect()


@pytest.mark.parametrize("model", [*MODELS, "ChatGptt/default"])
@pytest.mark.parametrize("api", ["openai", "anthropic"])
async def test_litellm_asks_whole_and_in_pieces(here: Served, litellm: Any, api: str, model: str):
    where = {"api_base": f"{here[0]}/v1" if api == "openai" else here[0], "api_key": "any", "max_retries": 0}
    question = [{"role": "user", "content": "Well?"}]
    whole = await litellm.acompletion(model=f"{api}/{model}", messages=question, **where)
    assert "Well?" in whole.choices[0].message.content
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.completion_tokens > 10
    stream = await litellm.acompletion(model=f"{api}/{model}", messages=question, stream=True, **where)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len(pieces) > 5


@pytest.mark.parametrize("api", ["openai", "anthropic"])
async def test_litellm_maps_errors(here: Served, litellm: Any, api: str):
    where = {"api_base": f"{here[0]}/v1" if api == "openai" else here[0], "api_key": "any", "max_retries": 0}
    question = [{"role": "user", "content": "Well?"}]
    with pytest.raises(litellm.RateLimitError):
        await litellm.acompletion(model=f"{api}/openai/fault:429", messages=question, **where)
    with pytest.raises(litellm.NotFoundError):
        await litellm.acompletion(model=f"{api}/nothing/of-this", messages=question, **where)


# curl


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["rsgi", "asgi"])
async def either(request: pytest.FixtureRequest) -> AsyncGenerator[str, None]:
    async with served(request.param) as (url, _, _):
        yield url


async def curl(*arguments: str) -> tuple[int, str]:
    program = shutil.which("curl")
    assert program is not None, "curl is not installed"
    process = await asyncio.create_subprocess_exec(
        program, "-sS", "--max-time", "10", *arguments, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


BODY = json.dumps({"model": "ChatGptt/default", "messages": [{"role": "user", "content": "Hm?"}], "max_tokens": 500})


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
@pytest.mark.parametrize("path", ["chat/completions", "messages"])
async def test_curl_by_every_version_of_http(either: str, path: str, version: str):
    url = f"{either}/v1/{path}"
    code, said = await curl(version, "-d", BODY, "-H", "Content-Type: application/json", url)
    assert code == 0
    assert "Hm?" in said
    json.loads(said)
    streamed = json.dumps({**json.loads(BODY), "stream": True})
    code, said = await curl(version, "-N", "-d", streamed, "-H", "Content-Type: application/json", url)
    assert code == 0
    assert said.rstrip().endswith("[DONE]" if path == "chat/completions" else '{"type":"message_stop"}')


async def test_curl_without_a_content_type_and_with_a_body_in_pieces(either: str):
    code, said = await curl("-d", BODY, "-H", "Transfer-Encoding: chunked", f"{either}/v1/chat/completions")
    assert code == 0
    assert "Hm?" in said
    code, said = await curl("--fail", f"{either}/v1/models")
    assert code == 0
    assert len(json.loads(said)["data"]) > 10
    assert (await curl("--fail", f"{either}/v1/nothing"))[0] == 22
