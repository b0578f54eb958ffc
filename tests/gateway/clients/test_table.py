"""Every surface before every service, streamed and not, read by the packages that speak the surface's API."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NamedTuple

import anthropic
import openai
import pytest
import pytest_asyncio
from openai.types.responses import ResponseCompletedEvent

from tests.gateway.served import MODELS, served

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUESTION = "What is «the answer»? 🚀"
SAID = ("What is «the answer»? 🚀", "Привет, мир! 🚀👩‍💻", "Готово ✅")
"""What stands at the beginning, in the middle and at the end of the demo's answer."""


class Got(NamedTuple):
    """What a client made of an answer."""

    text: str
    end: str | None
    pieces: int
    prompt_tokens: int
    completion_tokens: int


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["rsgi", "asgi"])
async def url(request: pytest.FixtureRequest) -> AsyncGenerator[str, None]:
    async with served(request.param, delay=0) as (url, _, _):
        yield url


async def chat_whole(url: str, model: str) -> Got:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as api:
        answer = await api.chat.completions.create(model=model, messages=[{"role": "user", "content": QUESTION}])
    [choice] = answer.choices
    assert answer.usage is not None
    usage = answer.usage
    return Got(choice.message.content or "", choice.finish_reason, 1, usage.prompt_tokens, usage.completion_tokens)


async def chat_streamed(url: str, model: str) -> Got:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as api:
        async with api.chat.completions.stream(
            model=model, messages=[{"role": "user", "content": QUESTION}], stream_options={"include_usage": True}
        ) as stream:
            pieces = [event.delta async for event in stream if event.type == "content.delta"]
            answer = await stream.get_final_completion()
    [choice] = answer.choices
    assert answer.usage is not None
    usage = answer.usage
    text = choice.message.content or ""
    assert text == "".join(pieces)
    told = len([piece for piece in pieces if piece])
    return Got(text, choice.finish_reason, told, usage.prompt_tokens, usage.completion_tokens)


async def response_whole(url: str, model: str) -> Got:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as api:
        answer = await api.responses.create(model=model, input=QUESTION)
    assert answer.usage is not None
    return Got(answer.output_text, answer.status, 1, answer.usage.input_tokens, answer.usage.output_tokens)


async def response_streamed(url: str, model: str) -> Got:
    events: list[Any] = []
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as api:
        async with api.responses.stream(model=model, input=QUESTION) as stream:
            events = [event async for event in stream]
            answer = await stream.get_final_response()
    assert isinstance(events[-1], ResponseCompletedEvent)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(pieces) == answer.output_text
    assert answer.usage is not None
    return Got(answer.output_text, answer.status, len(pieces), answer.usage.input_tokens, answer.usage.output_tokens)


async def message_whole(url: str, model: str) -> Got:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as api:
        answer = await api.messages.create(
            model=model, max_tokens=1000, messages=[{"role": "user", "content": QUESTION}]
        )
    [block] = answer.content
    assert block.type == "text"
    return Got(block.text, answer.stop_reason, 1, answer.usage.input_tokens, answer.usage.output_tokens)


async def message_streamed(url: str, model: str) -> Got:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as api:
        async with api.messages.stream(
            model=model, max_tokens=1000, messages=[{"role": "user", "content": QUESTION}]
        ) as stream:
            pieces = [piece async for piece in stream.text_stream]
            answer = await stream.get_final_message()
    [block] = answer.content
    assert block.type == "text"
    assert block.text == "".join(pieces)
    return Got(block.text, answer.stop_reason, len(pieces), answer.usage.input_tokens, answer.usage.output_tokens)


class Way(NamedTuple):
    """A surface, streamed or not. `end` is how it says that an answer is whole."""

    ask: Callable[[str, str], Awaitable[Got]]
    end: str
    streamed: bool


WAYS = {
    "chat": Way(chat_whole, "stop", False),
    "chat streamed": Way(chat_streamed, "stop", True),
    "response": Way(response_whole, "completed", False),
    "response streamed": Way(response_streamed, "completed", True),
    "message": Way(message_whole, "end_turn", False),
    "message streamed": Way(message_streamed, "end_turn", True),
}

ONE_PIECE = ("Chatgpt4o/", "Aichat/")
"""Services that give their answer as a whole."""


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("way", WAYS)
async def test_every_surface_before_every_service(url: str, way: str, model: str):
    ask, end, streamed = WAYS[way]
    async with asyncio.timeout(10):
        got = await ask(url, model)
    assert [words for words in SAID if words not in got.text] == []
    assert got.end == end
    assert got.prompt_tokens > 0
    assert got.completion_tokens > 10
    if streamed:
        assert got.pieces == 1 if model.startswith(ONE_PIECE) else got.pieces > 5
