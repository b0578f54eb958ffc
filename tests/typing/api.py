"""The public API as callers write it: the type checker reads this file, and nothing runs it."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, ClassVar, assert_type

from tolmach import (
    AbstractProvider,
    Access,
    Aichat,
    AsyncClient,
    AsyncGeneratorProvider,
    AsyncResult,
    AsyncStream,
    Challenge,
    ChatCompletion,
    ChatCompletionChunk,
    ChatGpt,
    Chatgpt4o,
    Chatgpt4Online,
    ChatGptt,
    Client,
    Conversation,
    CreateResult,
    Delta,
    Event,
    Messages,
    ProviderModelMixin,
    Stream,
    StreamSession,
    endpoint,
    format_conversation,
    format_prompt,
    get_answer_token,
    get_config,
    get_cookies,
    get_provider,
    get_requirements_token,
    init_session,
    open_session,
    raise_for_status,
    register,
)
from tolmach.client.embeddings import CreateEmbeddingResponse
from tolmach.client.models import Model, ModelPage
from tolmach.protocols.recipe.json_text import JsonText
from tolmach.providers.registry import providers
from tolmach.providers.stream_session import Response, Session, StreamResponse

messages: Messages = [{"role": "user", "content": "hi"}]


def the_client(stream: bool) -> None:
    client = Client(provider=Chatgpt4o, timeout=5, cookies={"a": "1"}, strict=False)
    answer = client.chat.completions.create(messages=[{"role": "user", "content": "hi"}], model="gpt-4o", temperature=1)
    assert_type(answer, ChatCompletion)
    assert_type(answer.choices[0].message.content, str | None)
    assert_type(answer.conversation, Conversation | None)
    assert_type(client.chat.completions.create(messages=messages, stream=False), ChatCompletion)
    with client.chat.completions.create(messages=messages, stream=True) as chunks:
        assert_type(chunks, Stream)
        for chunk in chunks:
            assert_type(chunk, ChatCompletionChunk)
            assert_type(chunk.choices[0].delta.content, str | None)
    assert_type(client.chat.completions.create(messages=messages, stream=stream), ChatCompletion | Stream)
    for event in client.events(messages=messages, provider="Chatgpt4o"):
        assert_type(event, Event)
    for model in client.models.list():
        assert_type(model, Model)
    assert_type(client.embeddings.create(input=["a"], model="m", dimensions=8), CreateEmbeddingResponse)


async def the_asynchronous_client(stream: bool) -> None:
    async def ask_person(challenge: Challenge) -> str:
        return challenge.kind

    async with AsyncClient(base_url="https://a.test/v1", protocol="openai", on_challenge=ask_person) as client:
        answer = await client.chat.completions.create(messages=messages)
        assert_type(answer, ChatCompletion)
        chunks = await client.chat.completions.create(
            messages=messages, stream=True, provider=ChatGpt, conversation=answer.conversation
        )
        assert_type(chunks, AsyncStream)
        async for chunk in chunks:
            assert_type(chunk, ChatCompletionChunk)
        either = await client.chat.completions.create(messages=messages, stream=stream)
        assert_type(either, ChatCompletion | AsyncStream)
        events = client.events(messages=messages)
        assert_type(events, AsyncGenerator[Event, None])
        async for event in events:
            if isinstance(event, Delta):
                assert_type(event.text, str)


async def what_there_is_besides_questions(client: AsyncClient) -> None:
    assert_type(await client.models.list(provider="groq"), ModelPage)
    async for model in client.models.list(timeout=3):
        assert_type(model, Model)
    made = await client.embeddings.create(input=[[1, 2]], encoding_format="base64")
    assert_type(made.data[0].embedding, list[float] | str)


async def the_providers() -> None:
    assert_type(await Chatgpt4o.create_async("gpt-4o-mini", messages, proxy="http://h:1", timeout=3), str)
    pieces: AsyncResult = ChatGptt.create_async_generator(model="gpt-4o", messages=messages, cookies={"a": "1"})
    async for piece in pieces:
        assert_type(piece, str)
    answer: CreateResult = ChatGpt.create_completion(model="auto", messages=messages, stream=True)
    assert_type(next(answer), str)
    ChatGpt.create_completion("auto", messages, True).close()
    assert_type(await Chatgpt4Online.get_nonce({"accept": "application/json"}), str)
    assert_type(ChatGpt.get_model("gpt-4o"), str)
    Chatgpt4o.url = "http://127.0.0.1:8190/Chatgpt4o"
    Chatgpt4o._nonce, Chatgpt4o._post_id = "abc", "7"
    session = open_session(Aichat.site(), Access(cookies={"a": "1"}))
    async for event in Aichat.ask("", messages, session=session):
        assert_type(event, Event)
    provider: type[AbstractProvider] = get_provider("Chatgpt4o")
    assert_type(providers(), dict[str, type[AbstractProvider]])
    assert_type(provider.models, list[str])
    assert_type(endpoint("https://a.test", "ai-engine", bot_id="x").url, str)


@register
class Corner(AsyncGeneratorProvider, ProviderModelMixin):
    """A site of one's own."""

    url = "https://corner.test"
    protocol = JsonText(answer="/message")
    default_model = "corner-1"
    models: ClassVar[list[str]] = [default_model]
    headers: ClassVar[dict[str, str]] = {"referer": "{url}/"}


def registered_classes_stay_themselves() -> None:
    assert_type(register(Corner), type[Corner])
    assert_type(Corner.protocol.answer, str)


def the_functions() -> None:
    assert_type(format_prompt(messages), str)
    assert_type(format_conversation(messages), list[dict[str, Any]])
    assert_type(get_cookies("a.test", browsers=True), dict[str, str])
    config = get_config("UA")
    assert_type(get_requirements_token(config), str)
    assert_type(get_answer_token("0.1", "0fffff", config), str)
    session = init_session("UA")
    assert_type(session, Session)
    assert_type(session.headers, dict[str, str])


async def the_sessions(url: str) -> None:
    async with StreamSession(headers={"a": "b"}, proxies={"all": None}, timeout=(3, 9), verify=False) as session:
        async with session.post(url, json={"a": 1}, headers={"b": None}) as response:
            assert_type(response, StreamResponse)
            await raise_for_status(response)
            assert_type(response.status, int)
            async for line in response.iter_lines():
                assert_type(line, bytes)
    with Session() as plain, plain.get(url, stream=True) as answer:
        assert_type(answer, Response)
        raise_for_status(answer)
        assert_type(answer.text, str)
        lines: Iterator[bytes] = answer.iter_lines()
        assert_type(next(lines), bytes)


async def pieces_of(result: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in result])
