"""Tools and JSON answers of services that know only text, through the gateway, on both interfaces."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio

from tests.gateway.served import served
from tests.gateway.test_core import raw
from tolmach.demo import Demo
from tolmach.gateway.core import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

Served = tuple[str, Demo, Gateway]

TEXT_MODELS = ["Chatgpt4o/default", "ChatGptt/gpt-4o", "Aichat/default", "ChatGpt/default", "aipkit/kit"]

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
CALLS = [("weather", {"city": "Париж", "days": 1}), ("now", {})]
PERSON: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "person", "schema": {"type": "object", "properties": {"age": {"type": "integer"}}}},
}
PICTURE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["rsgi", "asgi"])
async def emulating(request: pytest.FixtureRequest) -> AsyncGenerator[Served, None]:
    async with served(request.param, delay=0, emulate=frozenset({"tools", "json"})) as here:
        yield here


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain() -> AsyncGenerator[Served, None]:
    async with served("rsgi", delay=0) as here:
        yield here


class Got:
    """What the openai package made of an answer."""

    def __init__(self) -> None:
        self.text = ""
        self.calls: dict[int, list[str]] = {}
        self.ids: list[str] = []
        self.reason: str | None = None
        self.usage: Any = None
        self.degraded = ""

    @property
    def called(self) -> list[tuple[str, Any]]:
        return [(name, json.loads(arguments)) for name, arguments in self.calls.values()]

    def take(self, index: int, call: Any) -> None:
        kept = self.calls.setdefault(index, ["", ""])
        kept[0] += call.function.name or ""
        kept[1] += call.function.arguments or ""
        if call.id:
            self.ids.append(call.id)


async def ask(url: str, question: Any, *, stream: bool, model: str, **options: Any) -> Got:
    messages = question if isinstance(question, list) else [{"role": "user", "content": question}]
    got = Got()
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as api:
        completions: Any = api.chat.completions.with_raw_response
        if not stream:
            answer = await completions.create(model=model, messages=messages, **options)
            got.degraded = answer.headers.get("x-tolmach-degraded", "")
            completion: Any = answer.parse()
            [choice] = completion.choices
            got.text, got.reason, got.usage = choice.message.content or "", choice.finish_reason, completion.usage
            for index, call in enumerate(choice.message.tool_calls or ()):
                got.take(index, call)
            return got
        chunks = await completions.create(
            model=model, messages=messages, stream=True, stream_options={"include_usage": True}, **options
        )
        got.degraded = chunks.headers.get("x-tolmach-degraded", "")
        async for chunk in chunks.parse():
            got.usage = chunk.usage or got.usage
            for choice in chunk.choices:
                got.text += choice.delta.content or ""
                got.reason = choice.finish_reason or got.reason
                for call in choice.delta.tool_calls or ():
                    got.take(call.index, call)
    return got


@pytest.mark.parametrize("model", TEXT_MODELS)
@pytest.mark.parametrize("stream", [False, True])
async def test_text_services_call_tools(emulating: Served, model: str, stream: bool):
    got = await ask(emulating[0], "use tools", stream=stream, model=model, tools=TOOLS)
    assert got.called == CALLS
    assert got.reason == "tool_calls"
    assert got.text == "I look it up. 🔎"
    assert len(set(got.ids)) == 2
    assert all(id.startswith("call_") for id in got.ids)
    assert got.degraded == "tools are emulated"
    assert got.usage.model_dump()["estimated"] is True
    # The tools were told in the prompt: it is longer than the question.
    assert got.usage.prompt_tokens > 100


@pytest.mark.parametrize("model", TEXT_MODELS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_broken_call_is_asked_for_once_more(emulating: Served, model: str, stream: bool):
    url, demo, _ = emulating
    mount = "/" + model.partition("/")[0]
    once = await ask(url, "use tool", stream=stream, model=model, tools=TOOLS)
    before = demo.log.chats(mount)
    got = await ask(url, "use tool badly", stream=stream, model=model, tools=TOOLS)
    assert demo.log.chats(mount) - before == 2
    assert got.called == CALLS[:1]
    assert got.reason == "tool_calls"
    assert got.text == "I look it up. 🔎"
    # Both attempts count.
    assert got.usage.prompt_tokens > 1.8 * once.usage.prompt_tokens
    assert got.usage.completion_tokens > 1.5 * once.usage.completion_tokens


@pytest.mark.parametrize("stream", [False, True])
async def test_two_broken_calls_are_text(emulating: Served, stream: bool):
    got = await ask(emulating[0], "use tool hopelessly", stream=stream, model="ChatGptt/gpt-4o", tools=TOOLS)
    assert got.called == []
    assert got.reason == "stop"
    assert "```tool_calls" in got.text
    if not stream:  # in a stream the head had gone out with the first words
        assert "the model's call cannot be used" in got.degraded


async def test_two_broken_calls_of_a_tool_that_must_be_called_are_an_error(emulating: Served):
    with pytest.raises(openai.InternalServerError, match="cannot be used"):
        await ask(
            emulating[0],
            "use tool hopelessly",
            stream=False,
            model="ChatGptt/gpt-4o",
            tools=TOOLS,
            tool_choice="required",
        )


@pytest.mark.parametrize("stream", [False, True])
async def test_the_round_of_a_tool(emulating: Served, stream: bool):
    url, _, _ = emulating
    # ChatGpt keeps the conversation: the second question goes on in it, and only the result is sent.
    for model in ("ChatGpt/default", "Aichat/default"):
        history: list[Any] = [{"role": "user", "content": "use tool"}]
        first = await ask(url, history, stream=stream, model=model, tools=TOOLS)
        calls = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id, (name, arguments) in zip(first.ids, first.calls.values(), strict=True)
        ]
        history.append({"role": "assistant", "content": first.text, "tool_calls": calls})
        history.append({"role": "tool", "tool_call_id": first.ids[0], "content": "It rains in Париж."})
        second = await ask(url, history, stream=stream, model=model, tools=TOOLS)
        assert second.reason == "stop"
        assert second.called == []
        assert "It rains in Париж." in second.text
        assert "```tool_results" in second.text
        # The tools, the question, the call and its result; where they are kept there, these and no more.
        assert "hist=4" in second.text


async def test_an_answer_that_breaks_off_in_a_call_never_looks_finished(emulating: Served):
    url, _, _ = emulating
    body = {
        "model": "ChatGptt/gpt-4o",
        "stream": True,
        "messages": [{"role": "user", "content": "[[fault:cut=20]] use tools"}],
        "tools": TOOLS,
    }
    status, _, answer = await raw(url, "POST", "/v1/chat/completions", json.dumps(body).encode())
    assert status == 200
    events = [json.loads(line[6:]) for line in answer.split(b"\n") if line.startswith(b"data: ")]
    assert "error" in events[-1]
    assert b"[DONE]" not in answer
    assert b'"tool_calls"' not in answer
    assert {c["finish_reason"] for e in events[:-1] for c in e["choices"]} == {None}


# JSON


@pytest.mark.parametrize("model", TEXT_MODELS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("question", ["Who?", "Who? badly"])
async def test_text_services_answer_in_json(emulating: Served, model: str, stream: bool, question: str):
    got = await ask(emulating[0], question, stream=stream, model=model, response_format=PERSON)
    assert json.loads(got.text) == {"age": 1}
    assert got.reason == "stop"
    assert got.degraded == "JSON answers are emulated"


async def test_any_object_will_do_without_a_schema(emulating: Served):
    form = {"type": "json_object"}
    got = await ask(emulating[0], "Who?", stream=False, model="Aichat/default", response_format=form)
    assert json.loads(got.text) == {"answer": 42}


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_no_json_twice_is_an_error(emulating: Served, stream: bool):
    with pytest.raises(openai.InternalServerError, match="cannot be used"):
        await ask(emulating[0], "Who? hopelessly", stream=stream, model="ChatGptt/gpt-4o", response_format=PERSON)


# The other APIs, and several answers


@pytest.mark.parametrize("question", ["use tools", "use tools badly"])
async def test_tools_on_the_messages_api(emulating: Served, question: str):
    tools: list[Any] = [
        {"name": tool["function"]["name"], "input_schema": tool["function"]["parameters"]} for tool in TOOLS
    ]
    async with anthropic.AsyncAnthropic(base_url=emulating[0], api_key="any", max_retries=0) as api:
        async with api.messages.stream(
            model="ChatGptt/gpt-4o", max_tokens=999, messages=[{"role": "user", "content": question}], tools=tools
        ) as stream:
            message: Any = await stream.get_final_message()
    assert message.stop_reason == "tool_use"
    assert [(b.name, b.input) for b in message.content if b.type == "tool_use"] == CALLS
    assert message.content[0].text == "I look it up. 🔎"


@pytest.mark.parametrize("question", ["use tools", "use tools badly"])
async def test_tools_and_earlier_responses_on_the_responses_api(emulating: Served, question: str):
    tools: list[Any] = [{"type": "function", **tool["function"], "strict": False} for tool in TOOLS]
    async with openai.AsyncOpenAI(base_url=f"{emulating[0]}/v1", api_key="any", max_retries=0) as api:
        first: Any = await api.responses.create(model="ChatGpt/default", input=question, tools=tools)
        calls = [item for item in first.output if item.type == "function_call"]
        assert [(call.name, json.loads(call.arguments)) for call in calls] == CALLS
        results: list[Any] = [
            {"type": "function_call_output", "call_id": call.call_id, "output": f"<{call.name}>"} for call in calls
        ]
        second = await api.responses.create(
            model="ChatGpt/default", input=results, tools=tools, previous_response_id=first.id
        )
    assert second.status == "completed"
    assert "<weather>" in second.output_text
    assert "<now>" in second.output_text


@pytest.mark.parametrize("stream", [False, True])
async def test_several_answers_with_tools(emulating: Served, stream: bool):
    url, _, _ = emulating
    body = {
        "model": "Aichat/default",
        "n": 2,
        "stream": stream,
        "messages": [{"role": "user", "content": "use tool"}],
        "tools": TOOLS,
    }
    status, headers, answer = await raw(url, "POST", "/v1/chat/completions", json.dumps(body).encode())
    assert status == 200
    assert headers["x-tolmach-degraded"] == "tools are emulated"
    lines = [line[6:] for line in answer.split(b"\n") if line.startswith(b"data: {")] if stream else [answer]
    choices = [choice for line in lines for choice in json.loads(line)["choices"]]
    assert {choice["index"] for choice in choices if choice["finish_reason"] == "tool_calls"} == {0, 1}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"tools": [{"type": "web_search"}]}, r"tools\[0\]"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "no"}}}, "tool_choice"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
    ],
)
async def test_what_cannot_be_emulated_is_refused_by_name(emulating: Served, options: Any, names: str):
    with pytest.raises(openai.BadRequestError, match=names):
        await ask(emulating[0], "use tool", stream=False, model="ChatGptt/gpt-4o", **options)


# Without the opt-in


@pytest.mark.parametrize(
    ("question", "options", "name"),
    [
        ("hi", {"tools": TOOLS}, "tools"),
        ("hi", {"tools": TOOLS, "tool_choice": "required"}, "tools"),
        ("hi", {"functions": [{"name": "f"}]}, "functions"),
        ("hi", {"response_format": PERSON}, "response_format"),
        ("hi", {"response_format": {"type": "json_object"}}, "response_format"),
        ("hi", {"logprobs": True, "top_logprobs": 2}, "logprobs"),
        ("hi", {"modalities": ["text", "audio"]}, "modalities"),
        ("hi", {"extra_body": {"web_search_options": {"x": 1}}}, "web_search_options"),
        ([{"role": "user", "content": PICTURE}], {}, "images"),
        (
            [
                {"role": "user", "content": "hi"},
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "1", "content": "x"},
                {"role": "user", "content": "so?"},
            ],
            {},
            "tool messages",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_changes_the_answer_is_refused_by_name(
    plain: Served, question: Any, options: Any, name: str, stream: bool
):
    with pytest.raises(openai.BadRequestError, match=name):
        await ask(plain[0], question, stream=stream, model="ChatGptt/gpt-4o", **options)


async def test_so_it_is_on_the_other_apis(plain: Served):
    tool: Any = {"name": "f", "input_schema": {"type": "object"}}
    messages: list[Any] = [{"role": "user", "content": "hi"}]
    async with anthropic.AsyncAnthropic(base_url=plain[0], api_key="any", max_retries=0) as api:
        with pytest.raises(anthropic.BadRequestError, match="tools"):
            await api.messages.create(model="ChatGptt/gpt-4o", max_tokens=9, messages=messages, tools=[tool])
    async with openai.AsyncOpenAI(base_url=f"{plain[0]}/v1", api_key="any", max_retries=0) as client:
        form: Any = {"format": {"type": "json_object"}}
        with pytest.raises(openai.BadRequestError, match="response_format"):
            await client.responses.create(model="ChatGptt/gpt-4o", input="hi", text=form)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_shades_it_is_left_out_and_told(plain: Served, stream: bool):
    hints = {"user": "u", "prompt_cache_key": "k", "safety_identifier": "s", "service_tier": "flex", "store": True}
    options = {"temperature": 0.5, "max_tokens": 99, "stop": "x", "metadata": {"a": "b"}, **hints}
    got = await ask(plain[0], "hi", stream=stream, model="ChatGptt/gpt-4o", **options)
    assert got.reason == "stop"
    assert [name for name in options if f"'{name}'" not in got.degraded] == []


async def test_what_asks_for_nothing_is_no_feature(plain: Served):
    options = {"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}, "logprobs": False, "n": 1}
    got = await ask(plain[0], "hi", stream=False, model="ChatGptt/gpt-4o", **options)
    assert got.degraded == ""
    async with anthropic.AsyncAnthropic(base_url=plain[0], api_key="any", max_retries=0) as api:
        for model in ("ChatGptt/gpt-4o", "openai/gpt-4o-mini", "gemini/gemini-2.5-flash", "ollama/qwen3"):
            answer = await api.messages.create(
                model=model,
                max_tokens=999,
                messages=[{"role": "user", "content": "hi"}],
                thinking={"type": "disabled"},
            )
            assert answer.stop_reason == "end_turn"


@pytest.mark.parametrize("model", ["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash"])
async def test_the_limit_of_an_answer_reaches_every_api(plain: Served, model: str):
    async with openai.AsyncOpenAI(base_url=f"{plain[0]}/v1", api_key="any", max_retries=0) as client:
        response = await client.responses.create(model=model, input="hi", max_output_tokens=16)
    assert response.status == "incomplete"
    async with anthropic.AsyncAnthropic(base_url=plain[0], api_key="any", max_retries=0) as api:
        message = await api.messages.create(model=model, max_tokens=16, messages=[{"role": "user", "content": "hi"}])
    assert message.stop_reason == "max_tokens"


async def test_a_service_of_short_questions_says_that_the_words_for_tools_count(emulating: Served):
    url, _, _ = emulating
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(
                model="Chatgpt4Online/default", messages=[{"role": "user", "content": "Weather?"}], tools=TOOLS
            )
    assert caught.value.code == "context_length_exceeded"
    assert "put into words for this service, and these count" in caught.value.message
