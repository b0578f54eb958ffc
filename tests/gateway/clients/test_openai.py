"""The openai package before the gateway: what its users do, with what they get back."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai.lib.streaming.chat import FunctionToolCallArgumentsDoneEvent
from pydantic import BaseModel

from tests.gateway.served import forget_failures, served
from tolmach.demo import Demo
from tolmach.gateway.core import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

Served = tuple[str, Demo, Gateway]

OPENAI, RESPONSES = "openai/gpt-4o-mini", "responses/gpt-5-mini"
WITH_TOOLS = (OPENAI, RESPONSES, "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash", "ollama/qwen3")

PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9Q"
    "DwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Weather(BaseModel):
    """The weather in a city."""

    city: str


class Clock(BaseModel):
    """The time in a zone."""

    zone: str
    precise: bool


TOOLS: list[Any] = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Clock)]
CALLED = {"Weather": {"city": "Париж"}, "Clock": {"zone": "Париж", "precise": True}}
"""What the demo's model calls them with."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["rsgi", "asgi"])
async def here(request: pytest.FixtureRequest) -> AsyncGenerator[Served, None]:
    async with served(request.param) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(here: Served) -> AsyncGenerator[openai.AsyncOpenAI, None]:
    async with openai.AsyncOpenAI(base_url=f"{here[0]}/v1", api_key="any", max_retries=0) as made:
        yield made


def user(text: Any) -> list[Any]:
    return [{"role": "user", "content": text}]


# Chat completions


async def test_the_sync_client_in_a_thread(here: Served):
    def ask() -> tuple[str, str, str]:
        with openai.OpenAI(base_url=f"{here[0]}/v1", api_key="any", max_retries=0) as api:
            whole = api.chat.completions.create(model="ChatGptt/default", messages=user("Whole?"))
            stream = api.chat.completions.create(model="ChatGptt/default", messages=user("In pieces?"), stream=True)
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
            response = api.responses.create(model="ChatGptt/default", input="A response?")
        return whole.choices[0].message.content or "", "".join(pieces), response.output_text

    whole, streamed, response = await asyncio.to_thread(ask)
    assert "Whole?" in whole
    assert "In pieces?" in streamed
    assert "A response?" in response


async def calls_whole(api: openai.AsyncOpenAI, model: str, messages: list[Any]) -> Any:
    answer = await api.chat.completions.create(model=model, messages=messages, tools=TOOLS)
    return answer.choices[0]


async def calls_streamed(api: openai.AsyncOpenAI, model: str, messages: list[Any]) -> Any:
    async with api.chat.completions.stream(model=model, messages=messages, tools=TOOLS) as stream:
        done = [event async for event in stream if isinstance(event, FunctionToolCallArgumentsDoneEvent)]
        choice = (await stream.get_final_completion()).choices[0]
    assert [event.index for event in done] == list(range(len(choice.message.tool_calls or ())))
    return choice


@pytest.mark.parametrize("ask", [calls_whole, calls_streamed])
@pytest.mark.parametrize("model", WITH_TOOLS)
async def test_parallel_tool_calls_and_their_results(api: openai.AsyncOpenAI, model: str, ask: Callable[..., Any]):
    messages = user("use tools, please")
    choice = await ask(api, model, messages)
    assert choice.finish_reason == "tool_calls"
    calls = choice.message.tool_calls
    assert {call.function.name: json.loads(call.function.arguments) for call in calls} == CALLED
    assert len({call.id for call in calls}) == 2
    results = [{"role": "tool", "tool_call_id": call.id, "content": f"done: {call.function.name}"} for call in calls]
    messages = [*messages, choice.message.model_dump(exclude_none=True, exclude={"parsed"}), *results]
    for call in messages[1]["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
    after = await ask(api, model, messages)
    assert after.finish_reason == "stop"
    assert "done: Clock" in after.message.content


async def test_parse_gives_tools_their_types(api: openai.AsyncOpenAI):
    answer = await api.chat.completions.parse(model="gemini/gemini-2.5-flash", messages=user("use tools"), tools=TOOLS)
    calls = answer.choices[0].message.tool_calls or []
    assert [call.function.parsed_arguments for call in calls] == [
        Weather(city="Париж"),
        Clock(zone="Париж", precise=True),
    ]


@pytest.mark.parametrize("model", WITH_TOOLS)
async def test_pictures(api: openai.AsyncOpenAI, model: str):
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    answer = await api.chat.completions.create(model=model, messages=user(content))
    assert "What is this?" in (answer.choices[0].message.content or "")


async def test_pictures_are_refused_by_name_where_they_cannot_go(api: openai.AsyncOpenAI):
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    with pytest.raises(openai.BadRequestError, match=r"image|picture"):
        await api.chat.completions.create(model="ChatGptt/default", messages=user(content))


@pytest.mark.parametrize("model", [OPENAI, "anthropic/claude-sonnet-4-5", "ChatGptt/default"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_several_answers(api: openai.AsyncOpenAI, model: str, streamed: bool):
    texts = {0: "", 1: "", 2: ""}
    reasons = {}
    if streamed:
        stream = await api.chat.completions.create(model=model, messages=user("Three?"), n=3, stream=True)
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                reasons[choice.index] = choice.finish_reason
    else:
        answer = await api.chat.completions.create(model=model, messages=user("Three?"), n=3)
        for whole in answer.choices:
            texts[whole.index] += whole.message.content or ""
            reasons[whole.index] = whole.finish_reason
    assert reasons == dict.fromkeys(range(3), "stop")
    assert ["Three?" in text for text in texts.values()] == [True] * 3


async def test_reasoning(api: openai.AsyncOpenAI):
    stream = await api.chat.completions.create(
        model="ollama/qwen3", messages=user("Why?"), reasoning_effort="low", stream=True
    )
    thought = "".join(
        [getattr(chunk.choices[0].delta, "reasoning_content", None) or "" async for chunk in stream if chunk.choices]
    )
    whole = await api.chat.completions.create(model="ollama/qwen3", messages=user("Why?"), reasoning_effort="low")
    assert thought
    assert thought == whole.choices[0].message.model_dump()["reasoning_content"]


async def test_raw_responses_show_the_headers(api: openai.AsyncOpenAI):
    raw = await api.chat.completions.with_raw_response.create(
        model="ChatGptt/default", messages=user("Hi"), extra_headers={"x-request-id": "mine-1"}
    )
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.headers["x-tolmach-target"] == "ChatGptt/gpt-4o"
    assert raw.parse().choices[0].message.content


# Responses


@pytest.mark.parametrize("model", ["ChatGptt/default", "Chatgpt4Online/default", "anthropic/claude-sonnet-4-5"])
async def test_a_response_goes_on_from_an_earlier_one(api: openai.AsyncOpenAI, model: str):
    first = await api.responses.create(model=model, input="My name is Ada.", instructions="Be brief.")
    async with api.responses.stream(model=model, input="And yours?", previous_response_id=first.id) as stream:
        second = await stream.get_final_response()
    assert second.previous_response_id == first.id
    assert "And yours?" in second.output_text
    third = await api.responses.create(model=model, input="Again?", previous_response_id=second.id)
    assert "Again?" in third.output_text
    with pytest.raises(openai.BadRequestError, match="resp_nothing") as caught:
        await api.responses.create(model=model, input="On.", previous_response_id="resp_nothing")
    assert caught.value.code == "previous_response_not_found"


RESPONSE_TOOLS: list[Any] = [{"type": "function", "strict": True, **tool["function"]} for tool in TOOLS]


@pytest.mark.parametrize("model", WITH_TOOLS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_of_responses(api: openai.AsyncOpenAI, model: str, streamed: bool):
    asked: list[Any] = user("use tools")
    if streamed:
        async with api.responses.stream(model=model, input=asked, tools=RESPONSE_TOOLS) as stream:
            kinds = [event.type async for event in stream]
            answer: Any = await stream.get_final_response()
        assert kinds.count("response.function_call_arguments.done") == 2
    else:
        answer = await api.responses.create(model=model, input=asked, tools=RESPONSE_TOOLS)
    calls = [item for item in answer.output if item.type == "function_call"]
    assert {call.name: json.loads(call.arguments) for call in calls} == CALLED
    results: list[Any] = [
        {"type": "function_call_output", "call_id": c.call_id, "output": f"done: {c.name}"} for c in calls
    ]
    further = [{"type": "function_call", "call_id": c.call_id, "name": c.name, "arguments": c.arguments} for c in calls]
    after = await api.responses.create(model=model, input=asked + further + results, tools=RESPONSE_TOOLS)
    assert "done: Clock" in after.output_text


# Embeddings


async def test_embeddings(api: openai.AsyncOpenAI):
    made = await api.embeddings.create(model="openai/text-embedding-3-small", input=["one", "two"], dimensions=64)
    assert [len(row.embedding) for row in made.data] == [64, 64]
    assert made.usage.total_tokens > 0
    with pytest.raises(openai.BadRequestError, match=r"gemini/gemini-2\.5-flash gives no embeddings"):
        await api.embeddings.create(model="gemini/gemini-2.5-flash", input="one")
    with pytest.raises(openai.BadRequestError, match="input"):
        await api.embeddings.create(model="openai/text-embedding-3-small", input=[])
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        await api.embeddings.create(model="openai/text-embedding-3-small", input="one", dimensions=100_000)


# What goes wrong


ERRORS: dict[str, tuple[str, type[openai.APIError]]] = {
    "no such model": ("nothing/of-this", openai.NotFoundError),
    "key refused": ("{}/fault:401", openai.AuthenticationError),
    "rate limit": ("{}/fault:429-retry-after=9", openai.RateLimitError),
    "fault": ("{}/fault:500", openai.InternalServerError),
    "html": ("{}/fault:502-html", openai.InternalServerError),
    "reset": ("{}/fault:reset", openai.InternalServerError),
}


async def chat(api: openai.AsyncOpenAI, model: str) -> str:
    answer = await api.chat.completions.create(model=model, messages=user("Well?"))
    return answer.choices[0].message.content or ""


async def chat_streamed(api: openai.AsyncOpenAI, model: str) -> str:
    stream = await api.chat.completions.create(model=model, messages=user("Well?"), stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


async def respond(api: openai.AsyncOpenAI, model: str) -> str:
    return (await api.responses.create(model=model, input="Well?")).output_text


async def respond_streamed(api: openai.AsyncOpenAI, model: str) -> str:
    async with api.responses.stream(model=model, input="Well?") as stream:
        return (await stream.get_final_response()).output_text


ASKING = [chat, chat_streamed, respond, respond_streamed]
Ask = Callable[[openai.AsyncOpenAI, str], Any]


@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize("target", ["openai", "responses", "anthropic", "gemini", "ollama"])
@pytest.mark.parametrize("case", ERRORS)
async def test_errors_are_the_packages_own(here: Served, api: openai.AsyncOpenAI, case: str, target: str, ask: Ask):
    model, error = ERRORS[case]
    forget_failures(here[2])
    with pytest.raises(error) as caught:
        await ask(api, model.format(target))
    assert isinstance(caught.value, openai.APIStatusError)
    assert caught.value.response.headers["x-request-id"]
    assert "127.0.0.1" not in caught.value.response.text
    if case == "rate limit":
        assert caught.value.response.headers["retry-after"] == "9"


@pytest.mark.parametrize("ask", [chat_streamed, respond_streamed])
@pytest.mark.parametrize("target", ["openai", "responses", "anthropic", "gemini", "ollama"])
@pytest.mark.parametrize("fault", ["cut=9", "malformed=9", "upstream-event=9"])
async def test_a_stream_that_breaks_raises(api: openai.AsyncOpenAI, fault: str, target: str, ask: Ask):
    with pytest.raises((openai.APIError, RuntimeError)) as caught:
        await ask(api, f"{target}/fault:{fault}")
    assert "127.0.0.1" not in str(caught.value)


@pytest.mark.parametrize("ask", ASKING)
async def test_how_often_a_retrying_client_asks(here: Served, ask: Ask, monkeypatch: pytest.MonkeyPatch):
    url, demo, _ = here
    before = demo.log.chats("/v1")
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=2) as api:
        monkeypatch.setattr(api, "_calculate_retry_timeout", lambda *_: 0.0)
        with pytest.raises(openai.InternalServerError):
            await ask(api, "openai/fault:500")
        assert demo.log.chats("/v1") - before == 3
        demo.faults["/v1"] = "500*1"
        assert "Well?" in await ask(api, OPENAI)
        assert demo.log.chats("/v1") - before == 5
        del demo.faults["/v1"]


@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize("mount", ["openai", "anthropic"])
async def test_a_client_that_runs_out_of_time_hangs_up_on_the_target(here: Served, ask: Ask, mount: str):
    url, demo, _ = here
    hangups = demo.log.hangups
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0, timeout=0.1) as api:
        with pytest.raises(openai.APITimeoutError):
            await ask(api, f"{mount}/fault:silence")
        await demo.log.wait_hangups(hangups + 1)


@pytest.mark.parametrize("model", ["openai/fault:stall=9", "gemini/fault:stall=9", "ChatGpt/fault:stall=9"])
async def test_a_closed_stream_hangs_up_on_the_target(here: Served, api: openai.AsyncOpenAI, model: str):
    _, demo, _ = here
    hangups = demo.log.hangups
    stream = await api.chat.completions.create(model=model, messages=user("Stop me"), stream=True)
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    await stream.close()
    await demo.log.wait_hangups(hangups + 1)
    assert demo.log.hangups == hangups + 1
    async with api.responses.stream(model=model, input="Stop me") as events:
        async for event in events:
            if event.type == "response.output_text.delta":
                break
    await demo.log.wait_hangups(hangups + 2)
