"""The anthropic package before the gateway: what its users do, with what they get back."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anthropic
import pytest
import pytest_asyncio

from tests.gateway.served import forget_failures, served
from tolmach.demo import Demo
from tolmach.gateway.core import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

Served = tuple[str, Demo, Gateway]

CLAUDE = "anthropic/claude-sonnet-4-5"
WITH_TOOLS = (CLAUDE, "openai/gpt-4o-mini", "responses/gpt-5-mini", "gemini/gemini-2.5-flash", "ollama/qwen3")

PICTURE = {
    "type": "base64",
    "media_type": "image/png",
    "data": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
}

TOOLS: list[Any] = [
    {
        "name": "weather",
        "description": "The weather in a city.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
    {
        "name": "clock",
        "description": "The time in a zone.",
        "input_schema": {"type": "object", "properties": {"zone": {"type": "string"}, "precise": {"type": "boolean"}}},
    },
]
CALLED = {"weather": {"city": "Париж"}, "clock": {"zone": "Париж", "precise": True}}
"""What the demo's model calls them with."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["rsgi", "asgi"])
async def here(request: pytest.FixtureRequest) -> AsyncGenerator[Served, None]:
    async with served(request.param) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(here: Served) -> AsyncGenerator[anthropic.AsyncAnthropic, None]:
    async with anthropic.AsyncAnthropic(base_url=here[0], api_key="any", max_retries=0) as made:
        yield made


def user(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


async def whole(api: anthropic.AsyncAnthropic, model: str, messages: list[Any], **options: Any) -> Any:
    return await api.messages.create(model=model, max_tokens=4000, messages=messages, **options)


async def streamed(api: anthropic.AsyncAnthropic, model: str, messages: list[Any], **options: Any) -> Any:
    async with api.messages.stream(model=model, max_tokens=4000, messages=messages, **options) as stream:
        kinds = [event.type async for event in stream]
        message = await stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == len(message.content)
    return message


Ask = Callable[..., Any]
both = pytest.mark.parametrize("ask", [whole, streamed])


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


async def test_the_sync_client_in_a_thread(here: Served):
    def ask() -> tuple[str, str, int]:
        with anthropic.Anthropic(base_url=here[0], api_key="any", max_retries=0) as api:
            message = api.messages.create(model="ChatGptt/default", max_tokens=1000, messages=user("Whole?"))
            with api.messages.stream(model=CLAUDE, max_tokens=1000, messages=user("In pieces?")) as stream:
                pieces = list(stream.text_stream)
            tokens = api.messages.count_tokens(model=CLAUDE, messages=user("How many?")).input_tokens
        return text_of(message), "".join(pieces), tokens

    said, pieces, tokens = await asyncio.to_thread(ask)
    assert "Whole?" in said
    assert "In pieces?" in pieces
    assert 1 < tokens < 50


@both
@pytest.mark.parametrize("model", WITH_TOOLS)
async def test_parallel_tool_calls_and_their_results(api: anthropic.AsyncAnthropic, model: str, ask: Ask):
    message = await ask(api, model, user("use tools"), tools=TOOLS)
    assert message.stop_reason == "tool_use"
    uses = [block for block in message.content if block.type == "tool_use"]
    assert {use.name: use.input for use in uses} == CALLED
    assert len({use.id for use in uses}) == 2
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": f"done: {use.name}"} for use in uses]
    said = {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": use.id, "name": use.name, "input": use.input} for use in uses],
    }
    after = await ask(api, model, [*user("use tools"), said, *user(results)], tools=TOOLS)
    assert after.stop_reason == "end_turn"
    assert "done: clock" in text_of(after)


@both
async def test_thinking_of_a_target_that_signs_it(api: anthropic.AsyncAnthropic, ask: Ask):
    thinking = {"type": "enabled", "budget_tokens": 1024}
    message = await ask(api, CLAUDE, user("Why?"), thinking=thinking)
    [thought, text] = message.content
    assert (thought.type, text.type) == ("thinking", "text")
    assert thought.thinking
    assert thought.signature == "ZGVtbw=="
    again = [*user("Why?"), {"role": "assistant", "content": [thought, text]}, *user("And now?")]
    assert "And now?" in text_of(await ask(api, CLAUDE, again, thinking=thinking))


@both
async def test_thinking_of_another_services_model(api: anthropic.AsyncAnthropic, ask: Ask):
    message = await ask(api, "ollama/qwen3", user("Why?"), thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].thinking


@both
@pytest.mark.parametrize("thinking", [{"type": "enabled", "budget_tokens": 5000}, {"type": "adaptive"}])
@pytest.mark.parametrize("model", ["openai/gpt-5", "responses/gpt-5", "ChatGptt/default"])
async def test_thinking_is_no_reason_to_refuse(
    api: anthropic.AsyncAnthropic, model: str, thinking: dict[str, Any], ask: Ask
):
    assert "Why?" in text_of(await ask(api, model, user("Why?"), thinking=thinking))


@both
@pytest.mark.parametrize("model", WITH_TOOLS)
async def test_pictures(api: anthropic.AsyncAnthropic, model: str, ask: Ask):
    content = [{"type": "text", "text": "What is this?"}, {"type": "image", "source": PICTURE}]
    assert "What is this?" in text_of(await ask(api, model, user(content)))


@both
async def test_the_limit_of_tokens_is_told(api: anthropic.AsyncAnthropic, ask: Ask):
    message = await ask(api, "openai/gpt-4o-mini", user("Short, please."))
    assert message.stop_reason == "end_turn"
    cut = await api.messages.create(model="openai/gpt-4o-mini", max_tokens=3, messages=user("Short, please."))
    assert cut.stop_reason == "max_tokens"


@both
async def test_system_prompts_reach_the_target(api: anthropic.AsyncAnthropic, ask: Ask):
    for model in ("openai/gpt-4o-mini", CLAUDE, "gemini/gemini-2.5-flash"):
        # The demo tells how many messages it was sent; the system prompt counts as one.
        message = await ask(api, model, user("Hm?"), system=[{"type": "text", "text": "Be kind."}])
        assert "hist=2" in text_of(message)


# What goes wrong

ERRORS: dict[str, tuple[str, type[anthropic.APIError]]] = {
    "no such model": ("nothing/of-this", anthropic.NotFoundError),
    "key refused": ("{}/fault:401", anthropic.AuthenticationError),
    "rate limit": ("{}/fault:429-retry-after=9", anthropic.RateLimitError),
    "fault": ("{}/fault:500", anthropic.InternalServerError),
    "html": ("{}/fault:502-html", anthropic.InternalServerError),
    "reset": ("{}/fault:reset", anthropic.InternalServerError),
}


@both
@pytest.mark.parametrize("target", ["anthropic", "openai", "responses", "gemini", "ollama"])
@pytest.mark.parametrize("case", ERRORS)
async def test_errors_are_the_packages_own(
    here: Served, api: anthropic.AsyncAnthropic, case: str, target: str, ask: Ask
):
    model, error = ERRORS[case]
    forget_failures(here[2])
    with pytest.raises(error) as caught:
        await ask(api, model.format(target), user("Well?"))
    assert isinstance(caught.value, anthropic.APIStatusError)
    assert caught.value.body["type"] == "error"  # type: ignore[index]  # an object, as the API has it
    assert "127.0.0.1" not in caught.value.response.text
    if case == "rate limit":
        assert caught.value.response.headers["retry-after"] == "9"


async def test_a_wrong_body_names_the_field(api: anthropic.AsyncAnthropic):
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        await api.messages.create(model="ChatGptt/default", max_tokens=10, messages=[])
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        await api.messages.create(model="ChatGptt/default", max_tokens=0, messages=user("?"))


@pytest.mark.parametrize("target", ["anthropic", "openai", "responses", "gemini", "ollama"])
@pytest.mark.parametrize("fault", ["cut=9", "malformed=9", "upstream-event=9"])
async def test_a_stream_that_breaks_raises(api: anthropic.AsyncAnthropic, fault: str, target: str):
    async with api.messages.stream(model=f"{target}/fault:{fault}", max_tokens=1000, messages=user("Well?")) as stream:
        with pytest.raises(anthropic.APIError) as caught:
            await stream.until_done()
        assert text_of(stream.current_message_snapshot)
    assert "127.0.0.1" not in str(caught.value)


@both
async def test_how_often_a_retrying_client_asks(here: Served, ask: Ask, monkeypatch: pytest.MonkeyPatch):
    url, demo, _ = here
    before = demo.log.chats("/anthropic")
    async with anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=2) as api:
        monkeypatch.setattr(api, "_calculate_retry_timeout", lambda *_: 0.0)
        with pytest.raises(anthropic.InternalServerError):
            await ask(api, "anthropic/fault:500", user("Well?"))
        assert demo.log.chats("/anthropic") - before == 3
        demo.faults["/anthropic"] = "500*1"
        assert "Well?" in text_of(await ask(api, CLAUDE, user("Well?")))
        assert demo.log.chats("/anthropic") - before == 5
        del demo.faults["/anthropic"]


@both
@pytest.mark.parametrize("mount", ["anthropic", "openai"])
async def test_a_client_that_runs_out_of_time_hangs_up_on_the_target(here: Served, ask: Ask, mount: str):
    url, demo, _ = here
    hangups = demo.log.hangups
    async with anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0, timeout=0.1) as api:
        with pytest.raises(anthropic.APITimeoutError):
            await ask(api, f"{mount}/fault:silence", user("Well?"))
        await demo.log.wait_hangups(hangups + 1)


@pytest.mark.parametrize("model", ["anthropic/fault:stall=9", "openai/fault:stall=9", "ChatGpt/fault:stall=9"])
async def test_a_closed_stream_hangs_up_on_the_target(here: Served, api: anthropic.AsyncAnthropic, model: str):
    _, demo, _ = here
    hangups = demo.log.hangups
    async with api.messages.stream(model=model, max_tokens=1000, messages=user("Stop me")) as stream:
        async for _ in stream.text_stream:
            break
    await demo.log.wait_hangups(hangups + 1)
    assert demo.log.hangups == hangups + 1
