"""`Client` and `AsyncClient`: the openai package's shapes, who answers, conversations, options, errors, secrets."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from types import NoneType
from typing import Any, get_args

import msgspec
import openai.types.chat.chat_completion as openai_whole
import openai.types.chat.chat_completion_chunk as openai_chunk
import pytest
from openai.types import CompletionUsage as OpenAIUsage
from openai.types.chat import ChatCompletionMessage as OpenAIMessage
from openai.types.chat import ChatCompletionMessageFunctionToolCall as OpenAIToolCall

from tolmach import Aichat, AsyncClient, ChatGpt, Chatgpt4o, Chatgpt4Online, ChatGptt, Client
from tolmach.chat import Conversation, Delta, Done, Event, Notice, Reasoning, ToolCallDelta, Usage
from tolmach.client import completions
from tolmach.client.completions import ChatCompletion, ChatCompletionChunk, Chunks, collect
from tolmach.demo.server import Demo, ThreadedDemo, serve_in_thread
from tolmach.errors import (
    AuthError,
    BadRequest,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    ModelNotFound,
    ProviderUnavailable,
    RateLimited,
    TimedOut,
    TruncatedAnswer,
    UnsupportedFeature,
)

HI = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"properties": {"city": {}}}}}]
CLASSES = (Chatgpt4o, Chatgpt4Online, ChatGptt, Aichat, ChatGpt)


@pytest.fixture
async def demo(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Demo]:
    async with Demo(delay=0) as demo:
        for provider in CLASSES:
            monkeypatch.setattr(provider, "url", f"{demo.url}/{provider.__name__}")
        yield demo


@pytest.fixture(scope="module")
def threaded() -> Iterator[ThreadedDemo]:
    with serve_in_thread(delay=0) as demo:
        yield demo


def api(demo: Demo, **settings: Any) -> AsyncClient:
    return AsyncClient(base_url=f"{demo.url}/v1", protocol="openai", api_key="k", **settings)


def text_of(answer: ChatCompletion) -> str:
    text = answer.choices[0].message.content
    assert text is not None
    return text


async def drain(client: AsyncClient, **call: Any) -> None:
    """Ask, and read the answer to its end."""
    answer = await client.chat.completions.create(messages=HI, **call)
    if not isinstance(answer, ChatCompletion):
        async for _ in answer:
            pass


# Shapes


async def test_a_whole_answer_is_one_of_the_openai_package(demo):
    answer = await api(demo).chat.completions.create(model="gpt-4o", messages=HI)
    assert text_of(answer).endswith("✅")
    theirs = openai_whole.ChatCompletion.model_validate(answer.model_dump(), strict=True)
    assert theirs.choices[0].message.content == text_of(answer)
    assert theirs.choices[0].finish_reason == "stop"
    assert theirs.usage is not None
    assert answer.usage is not None
    assert theirs.usage.total_tokens == answer.usage.total_tokens > 0
    assert (theirs.model, theirs.object, theirs.id[:9]) == ("gpt-4o", "chat.completion", "chatcmpl-")
    assert openai_whole.ChatCompletion.model_validate_json(answer.model_dump_json()) == theirs


async def test_the_chunks_are_those_of_the_openai_package(demo):
    stream = await api(demo).chat.completions.create(
        model="gpt-4o", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    ours = [chunk async for chunk in stream]
    theirs = [openai_chunk.ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True) for chunk in ours]
    assert len(theirs) > 30
    assert theirs[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in theirs if chunk.choices).endswith("✅")
    assert [chunk.choices[0].finish_reason for chunk in theirs[:-1]] == [None] * (len(theirs) - 2) + ["stop"]
    assert theirs[-1].choices == []
    assert theirs[-1].usage is not None
    assert [chunk.usage for chunk in theirs[:-1]] == [None] * (len(theirs) - 1)
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in theirs}) == 1


async def test_a_stream_has_no_usage_unless_it_is_asked_for_and_counted(demo):
    stream = await api(demo).chat.completions.create(model="gpt-4o", messages=HI, stream=True)
    chunks = [chunk async for chunk in stream]
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    # This service counts no tokens.
    stream = await AsyncClient(cookies={"a": "1"}).chat.completions.create(
        provider=Aichat, messages=HI, stream=True, stream_options={"include_usage": True}
    )
    assert [chunk.usage async for chunk in stream] == [None, None]


async def test_tool_calls_have_the_openai_shape(demo):
    client = api(demo)
    asked: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "use tool"}], "tools": TOOLS}
    answer = await client.chat.completions.create(**asked)
    theirs = openai_whole.ChatCompletion.model_validate(answer.model_dump(), strict=True)
    assert theirs.choices[0].finish_reason == "tool_calls"
    calls = theirs.choices[0].message.tool_calls
    assert calls is not None
    assert isinstance(calls[0], OpenAIToolCall)
    assert (calls[0].function.name, json.loads(calls[0].function.arguments)) == ("weather", {"city": "Париж"})
    stream = await client.chat.completions.create(**asked, stream=True)
    arguments = ""
    async for chunk in stream:
        part = openai_chunk.ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True)
        for call in part.choices[0].delta.tool_calls or []:
            arguments += (call.function and call.function.arguments) or ""
    assert json.loads(arguments) == {"city": "Париж"}
    messages = [*asked["messages"], answer.choices[0].message.to_dict()]
    messages.append({"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"})
    after = await client.chat.completions.create(model="gpt-4o", messages=messages, tools=TOOLS)
    assert "hist=3" in text_of(after)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (completions.ChatCompletion, openai_whole.ChatCompletion),
        (completions.Choice, openai_whole.Choice),
        (completions.ChatCompletionMessage, OpenAIMessage),
        (completions.CompletionUsage, OpenAIUsage),
        (completions.ChatCompletionChunk, openai_chunk.ChatCompletionChunk),
        (completions.ChunkChoice, openai_chunk.Choice),
        (completions.ChoiceDelta, openai_chunk.ChoiceDelta),
        (completions.ToolCallChunk, openai_chunk.ChoiceDeltaToolCall),
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_field_of_the_openai_package_is_there(ours, theirs):
    fields = {field.name: field for field in msgspec.structs.fields(ours)}
    assert set(theirs.model_fields) - set(fields) == set()
    # What may be None there, and nothing else, may be None here.
    for name, field in theirs.model_fields.items():
        optional = NoneType in get_args(field.annotation)
        ours_is = fields[name].type is NoneType or NoneType in get_args(fields[name].type)
        assert optional or not ours_is, name


def test_all_events_in_chunks_and_in_one_answer():
    events: list[Event] = [
        Notice("dropped", "seed was left out"),
        Reasoning("hm"),
        Delta("a"),
        ToolCallDelta(1, "id1", "two", "{"),
        ToolCallDelta(0, "id0", "one", "{}"),
        ToolCallDelta(1, None, None, "}"),
        Delta("b"),
        Usage(1, 2, 3, estimated=True),
        Conversation({"id": "7"}),
        Done("length"),
    ]
    label: dict[str, Any] = {"id": "i", "created": 1, "model": "m", "provider": "P"}
    answer = collect(events, **label)
    message = answer.choices[0].message
    assert (message.content, message.reasoning_content, answer.choices[0].finish_reason) == ("ab", "hm", "length")
    assert [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []] == [
        ("id0", "one", "{}"),
        ("id1", "two", "{}"),
    ]
    assert answer.usage is not None
    assert (answer.usage.total_tokens, answer.usage.estimated) == (3, True)
    assert (answer.conversation, answer.provider) == (Conversation({"id": "7"}), "P")
    assert [notice.kind for notice in answer.notices] == ["dropped"]
    openai_whole.ChatCompletion.model_validate(answer.model_dump())
    making = Chunks(**label, include_usage=True)
    chunks = [chunk for event in events for chunk in making.feed(event)]
    for chunk in chunks:
        openai_chunk.ChatCompletionChunk.model_validate(chunk.model_dump())
    assert [len(chunk.choices) for chunk in chunks] == [1] * 7 + [0]
    assert [len(chunk.notices) for chunk in chunks] == [1] + [0] * 7
    assert (chunks[-2].conversation, chunks[-2].choices[0].finish_reason) == (Conversation({"id": "7"}), "length")
    assert chunks[0].choices[0].delta.to_dict() == {"role": "assistant", "reasoning_content": "hm"}


def test_what_was_taken_back_is_not_in_a_whole_answer():
    events: list[Event] = [Delta("first"), Notice("rewritten", "second"), Delta(" and last"), Done()]
    answer = collect(events, id="i", created=1, model="m", provider="P")
    assert text_of(answer) == "second and last"
    assert answer.notices == [Notice("rewritten", "second")]


def test_an_answer_as_data():
    answer = collect([Delta("a"), Done()], id="i", created=1, model="m", provider="P")
    assert answer.model_dump()["choices"][0]["logprobs"] is None
    assert "logprobs" not in answer.to_dict()["choices"][0]
    assert json.loads(answer.model_dump_json()) == answer.model_dump()
    assert json.loads(answer.to_json()) == answer.to_dict()
    assert answer.to_json().startswith('{\n  "id"')


# Who answers


@pytest.mark.parametrize(
    ("settings", "call", "provider", "model"),
    [
        ({}, {"model": "Chatgpt4Online/gpt-4"}, "Chatgpt4Online", "gpt-4"),
        ({}, {"model": "chatgpt4o/gpt-4o-mini"}, "Chatgpt4o", "gpt-4o-mini-2024-07-18"),
        ({}, {"provider": Chatgpt4o}, "Chatgpt4o", "gpt-4o-mini-2024-07-18"),
        ({}, {"provider": "ChatGpt", "model": "gpt-4o"}, "ChatGpt", "chatgpt-4o-latest"),
        ({"provider": ChatGptt}, {}, "ChatGptt", "gpt-4o"),
        ({"provider": "chatgptt"}, {"model": "gpt-4"}, "ChatGptt", "gpt-4"),
        ({"provider": ChatGptt}, {"provider": Chatgpt4o}, "Chatgpt4o", "gpt-4o-mini-2024-07-18"),
    ],
)
async def test_who_answers(demo, settings, call, provider, model):
    answer = await AsyncClient(**settings).chat.completions.create(messages=HI, **call)
    assert (answer.provider, answer.model) == (provider, model)
    assert text_of(answer).startswith(f"## {provider}\n")


@pytest.mark.parametrize(
    ("path", "protocol", "options"),
    [
        ("Chatgpt4Online", "ai-engine", {}),
        ("ChatGptt", "ai-power", {"bot_id": 0}),
        ("aipkit", "aipkit", {}),
        ("ChatGpt", "chatgpt-web", {"user_agent": "mine"}),
        ("v1", "openai", {"api_key": "k"}),
        ("Aichat", "json-text", {"cookies": {"a": "1"}, "ok": "/response"}),
    ],
)
async def test_an_endpoint_that_no_class_names(demo, path, protocol, options):
    client = AsyncClient(base_url=f"{demo.url}/{path}/", protocol=protocol, **options)
    answer = await client.chat.completions.create(model="gpt-4o", messages=HI)
    assert text_of(answer).endswith("✅")
    assert answer.provider == demo.url.removeprefix("http://")
    pieces = [chunk async for chunk in await client.chat.completions.create(model="gpt-4o", messages=HI, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces).endswith("✅")


async def test_a_provider_at_another_address(demo, monkeypatch):
    monkeypatch.setattr(Chatgpt4o, "url", "https://nowhere.invalid")
    client = AsyncClient(provider=Chatgpt4o, base_url=f"{demo.url}/Chatgpt4o")
    assert text_of(await client.chat.completions.create(messages=HI)).startswith("## Chatgpt4o")


@pytest.mark.parametrize("transport", ["auto", "wreq", "aiohttp"])
async def test_by_either_transport(demo, transport):
    answer = await AsyncClient(provider=ChatGptt, transport=transport).chat.completions.create(messages=HI)
    assert text_of(answer).endswith("✅")


async def test_credentials_go_to_nobody_else(demo):
    secrets: dict[str, Any] = {"api_key": "k3y", "cookies": {"visit": "c00kie"}, "headers": {"x-mine": "h3ader"}}
    for client in (
        api(demo, cookies=secrets["cookies"], headers=secrets["headers"]),
        AsyncClient(provider=ChatGpt, **secrets),
    ):
        await client.chat.completions.create(messages=HI, provider=Chatgpt4o)
        ((site, session),) = client._sessions._sessions.values()
        assert site.name == "Chatgpt4o"
        assert session.site.api_key == ""
        assert "x-mine" not in session.site.headers
        assert [cookie.name for cookie in session.cookies if cookie.value == "c00kie"] == []
    own = AsyncClient(provider=Chatgpt4o, **secrets)
    await own.chat.completions.create(messages=HI)
    ((_, session),) = own._sessions._sessions.values()
    assert (session.site.api_key, session.site.headers["x-mine"]) == ("k3y", "h3ader")


async def test_clients_share_nothing(demo):
    one, two = AsyncClient(provider=Chatgpt4o), AsyncClient(provider=Chatgpt4o)
    for client in (one, one, two):
        await client.chat.completions.create(messages=HI)
    assert demo.log.steps["/Chatgpt4o", "page"] == 2
    await Chatgpt4o.create_async("", HI)
    assert demo.log.steps["/Chatgpt4o", "page"] == 3
    await one.close()
    await one.chat.completions.create(messages=HI)
    assert demo.log.steps["/Chatgpt4o", "page"] == 4


# Conversations


@pytest.mark.parametrize(
    ("path", "protocol", "first", "second"),
    [("v1", "openai", 1, 3), ("ChatGpt", "chatgpt-web", 1, 3), ("aipkit", "aipkit", 1, 3)],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_goes_on(demo, path, protocol, first, second, stream):
    client = AsyncClient(base_url=f"{demo.url}/{path}", protocol=protocol, api_key="k" if path == "v1" else None)

    async def ask(messages: list[dict[str, str]], conversation: Conversation | None) -> tuple[str, Conversation | None]:
        if not stream:
            answer = await client.chat.completions.create(model="gpt-4o", messages=messages, conversation=conversation)
            return text_of(answer), answer.conversation
        text = ""
        async with await client.chat.completions.create(
            model="gpt-4o", messages=messages, conversation=conversation, stream=True
        ) as chunks:
            async for chunk in chunks:
                text += chunk.choices[0].delta.content or ""
        return text, chunk.conversation

    text, conversation = await ask(HI, None)
    base = int(text.partition("hist=")[2].partition("\n")[0])
    messages = [*HI, {"role": "assistant", "content": text}, {"role": "user", "content": "and now?"}]
    text, conversation = await ask(messages, conversation)
    assert f"hist={base + second - first}\n" in text
    assert "> and now?" in text
    assert (conversation is None) == (path == "v1")


async def test_a_conversation_may_come_back_as_data(demo):
    client = AsyncClient(provider=ChatGpt)
    first = await client.chat.completions.create(messages=HI)
    kept = json.loads(first.model_dump_json())["conversation"]
    messages = [*HI, {"role": "assistant", "content": text_of(first)}, {"role": "user", "content": "and now?"}]
    assert "hist=3" in text_of(await client.chat.completions.create(messages=messages, conversation=kept))
    with pytest.raises(ConfigError, match="conversation: what an earlier answer has"):
        await client.chat.completions.create(messages=messages, conversation={"id": 3})


# Streams


async def test_a_stream_closes_its_connection_at_once(demo):
    client = AsyncClient(provider=ChatGptt)
    demo.faults["/ChatGptt"] = "stall=3"
    stream = await client.chat.completions.create(messages=HI, stream=True)
    await anext(stream)
    await stream.close()
    await demo.log.wait_hangups(1)
    async with await client.chat.completions.create(messages=HI, stream=True) as stream:
        async for _ in stream:
            break
    await demo.log.wait_hangups(2)
    assert demo.log.hangups == 2
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_the_synchronous_client_inside_this_very_loop_by_a_thread(demo):
    def ask() -> tuple[str, str, list[type]]:
        with Client(provider=ChatGptt) as client:
            whole = text_of(client.chat.completions.create(messages=HI))
            with client.chat.completions.create(messages=HI, stream=True) as stream:
                pieces = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            kinds = [type(event) for event in client.events(messages=HI)]
        return whole, pieces, kinds

    whole, pieces, kinds = await asyncio.to_thread(ask)
    assert whole == pieces
    assert (kinds[0], kinds[-1]) == (Delta, Done)


async def test_the_synchronous_client_works_inside_a_running_loop(threaded):
    client = Client(provider=ChatGptt, base_url=f"{threaded.url}/ChatGptt")
    assert text_of(client.chat.completions.create(messages=HI)).endswith("✅")
    stream = client.chat.completions.create(messages=HI, stream=True)
    assert isinstance(next(stream), ChatCompletionChunk)
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)


async def test_events(demo):
    events = [event async for event in AsyncClient(provider=ChatGpt).events(messages=HI)]
    assert [type(event) for event in events[-2:]] == [Conversation, Done]


# Options


@pytest.mark.parametrize(
    ("options", "feature"),
    [
        ({"tools": TOOLS}, "tools"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"temperature": 0.5}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"stop": "\n"}, "stop"),
        ({"seed": 1}, "seed"),
        ({"web_search": True}, "web_search"),
        ({"extra_body": {"top_k": 3}}, "top_k"),
        ({"stream": True, "stream_options": {"include_usage": True, "odd": 1}}, "stream_options"),
    ],
)
async def test_what_a_provider_cannot_honour_is_refused_before_anything_is_sent(demo, options, feature):
    with pytest.raises(UnsupportedFeature, match=f"Chatgpt4o cannot honour: {feature}") as caught:
        await drain(AsyncClient(provider=Chatgpt4o), **options)
    assert caught.value.feature == feature
    assert list(demo.log.requests) == []


async def test_pictures_and_tool_messages_are_refused_too(demo):
    picture = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": "https://a.test/a.png"}}]
    client = AsyncClient(provider=Chatgpt4o)
    with pytest.raises(UnsupportedFeature, match="images"):
        await client.chat.completions.create(messages=[{"role": "user", "content": picture}])
    with pytest.raises(UnsupportedFeature, match="tool messages"):
        await client.chat.completions.create(messages=[*HI, {"role": "tool", "tool_call_id": "1", "content": "x"}])
    with pytest.raises(UnsupportedFeature) as caught:
        await api(demo).chat.completions.create(messages=HI, n=2)
    assert caught.value.feature == "n"
    assert list(demo.log.requests) == []


async def test_what_asks_for_nothing_is_no_matter(demo):
    neutral: dict[str, Any] = {"n": 1, "tools": [], "logprobs": False, "stop": None, "temperature": None, "top_p": 1}
    answer = await AsyncClient(provider=Chatgpt4o).chat.completions.create(messages=HI, **neutral)
    assert answer.notices == []


@pytest.mark.parametrize("where", ["client", "call"])
async def test_not_strict_drops_with_a_notice(demo, where):
    client = AsyncClient(provider=ChatGptt, strict=where != "client")
    call: dict[str, Any] = {"messages": HI, "n": 2, "tools": TOOLS} | ({"strict": False} if where == "call" else {})
    answer = await client.chat.completions.create(**call)
    assert [(notice.kind, notice.text.split("'")[1]) for notice in answer.notices] == [
        ("dropped", "n"),
        ("dropped", "tools"),
    ]
    chunks = [chunk async for chunk in await client.chat.completions.create(**call, stream=True)]
    assert [len(chunk.notices) for chunk in chunks] == [2] + [0] * (len(chunks) - 1)
    if where == "client":
        with pytest.raises(UnsupportedFeature):
            await client.chat.completions.create(**call, strict=True)


async def test_options_reach_the_service(demo):
    with pytest.raises(BadRequest, match="temperature"):
        await api(demo).chat.completions.create(model="gpt-4o", messages=HI, temperature=9)
    with pytest.raises(BadRequest, match="top_k"):
        await api(demo).chat.completions.create(model="gpt-4o", messages=HI, extra_body={"top_k": 3})


# Wrong arguments


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"colour": "red"}, "unknown argument: colour"),
        ({"timeout": -1}, "timeout: a number of seconds above zero, not -1"),
        ({"timeout": "5"}, "timeout: Expected `float"),
        ({"proxy": "gopher://h:1"}, "a proxy is http"),
        ({"proxy": 3}, "proxy: Expected `str"),
        ({"cookies": "a=1"}, "cookies: Expected `object"),
        ({"headers": {"a": 1}}, "headers.*: Expected `str`"),
        ({"transport": "carrier-pigeon"}, "transport: there is no 'carrier-pigeon'"),
        ({"protocol": "openai"}, "protocol= goes with base_url="),
        ({"protocol": "openai", "base_url": "https://a.test", "provider": Chatgpt4o}, "without provider="),
        ({"protocol": "gopher", "base_url": "https://a.test"}, "no protocol 'gopher'"),
        ({"protocol": "openai", "base_url": "https://a.test", "colour": "red"}, "protocol openai: .*`colour`"),
        ({"protocol": "openai", "base_url": "a.test"}, "base_url: an http or https address"),
        ({"provider": Chatgpt4o, "base_url": "a.test"}, "base_url: an http or https address"),
        ({"base_url": "https://a.test"}, "base_url= needs protocol="),
        ({"provider": 3}, "provider: 3 is no provider class"),
    ],
)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_wrong_argument_of_a_client_is_named(kind, settings, says):
    with pytest.raises(ConfigError, match=says):
        kind(**settings)


def test_an_unknown_provider_is_told_at_once():
    with pytest.raises(ModelNotFound, match="no provider 'Nobody'"):
        Client(provider="Nobody")


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        ({"messages": "hi"}, ConfigError, "messages: a list such as"),
        ({"messages": []}, ConfigError, "messages: at least one"),
        ({"messages": [{"role": "user"}, "hi"]}, ConfigError, r"messages\[1\]: an object"),
        ({"messages": HI, "timeout": -1}, ConfigError, "timeout: a number of seconds above zero"),
        ({"messages": HI, "timeout": "x"}, ConfigError, "timeout: Expected `float"),
        ({"messages": HI, "api_key": "k"}, ConfigError, "api_key: give it to the client"),
        ({"messages": HI, "proxy": "http://h:1"}, ConfigError, "proxy: give it to the client"),
        ({"messages": HI, "stream_options": {}}, ConfigError, "stream_options: only with stream=True"),
        ({"messages": HI, "stream": True, "stream_options": 3}, ConfigError, "stream_options: a mapping, not int"),
        ({"messages": HI, "extra_headers": {"a": "b"}}, UnsupportedFeature, "give headers= to the client"),
        ({"messages": HI, "extra_body": 3}, ConfigError, "extra_body: a mapping"),
        ({"messages": HI, "conversation": "c"}, ConfigError, "conversation: what an earlier"),
        ({"messages": HI, "model": "gpt-99"}, ModelNotFound, "ChatGptt has no model 'gpt-99'"),
        ({"messages": HI, "model": 3}, ConfigError, "model: a text"),
        ({"messages": HI, "provider": 3}, ConfigError, "provider: 3 is no provider class"),
    ],
)
async def test_a_wrong_argument_of_a_call_is_named_by_the_call_itself(call, error, says):
    with pytest.raises(error, match=says):
        await AsyncClient(provider=ChatGptt).chat.completions.create(**call)
    with pytest.raises(error, match=says):
        Client(provider=ChatGptt).chat.completions.create(**call)


def test_a_question_needs_a_model_or_a_provider():
    with pytest.raises(ModelNotFound, match="a model or a provider is needed"):
        Client().chat.completions.create(messages=HI)


# Errors of the service


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("401", AuthError),
        ("429-retry-after=9", RateLimited),
        ("500", ProviderUnavailable),
        ("reset", ConnectionLost),
        ("cut=3", ConnectionLost),
        ("missing-end", TruncatedAnswer),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_are_typed(demo, fault, error, stream):
    demo.faults["/ChatGptt"] = fault
    client = AsyncClient(provider=ChatGptt)
    with pytest.raises(error) as caught:
        await drain(client, stream=stream)
    assert caught.value.provider == "ChatGptt"
    assert bool(caught.value.partial) == (fault in ("cut=3", "missing-end"))
    if fault.startswith("429"):
        assert (caught.value.status, caught.value.retry_after) == (429, 9)


async def test_the_time_limit_of_a_call(demo):
    demo.faults["/ChatGptt"] = "stall=3"
    client = AsyncClient(provider=ChatGptt, timeout=60)
    with pytest.raises(TimedOut) as caught:
        await client.chat.completions.create(messages=HI, timeout=0.2)
    assert (caught.value.phase, caught.value.partial[:4]) == ("total", "## C")
    slow = AsyncClient(provider=ChatGptt, timeout=0.2)
    with pytest.raises(TimedOut):
        await slow.chat.completions.create(messages=HI)


async def test_nothing_listens():
    client = AsyncClient(provider=Chatgpt4o, base_url="http://127.0.0.1:9")
    with pytest.raises(ConnectFailed) as caught:
        await client.chat.completions.create(messages=HI)
    assert caught.value.provider == "Chatgpt4o"


async def test_a_client_shows_no_secrets(demo):
    secrets: dict[str, Any] = {
        "api_key": "k3y-s",
        "cookies": {"a": "c00kie-s"},
        "proxy": "http://ann:pr0xy-s@127.0.0.1:9",
    }
    client = AsyncClient(provider=Chatgpt4o, **secrets)
    with pytest.raises(ConnectFailed) as caught:
        await client.chat.completions.create(messages=HI)
    shown = f"{client!r}{vars(client)}{caught.value!r}{caught.value.__cause__!r}{vars(caught.value)}"
    assert [secret for secret in ("k3y-s", "c00kie-s", "pr0xy-s") if secret in shown] == []
