"""A client with routes: the routing of the gateway, without a server."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tolmach import AsyncClient, ChatCompletion, ChatCompletionChunk, Client, ConfigError, Conversation, errors
from tolmach.chat import AnswerText, Delta, Done, Event, ToolCallDelta
from tolmach.demo import Demo, ThreadedDemo, serve_in_thread
from tolmach.demo.answers import answer as demo_answer
from tolmach.demo.answers import tokens
from tolmach.errors import (
    AuthError,
    ConnectionLost,
    MissingCookies,
    ModelNotFound,
    ProviderUnavailable,
    TimedOut,
    UnsupportedFeature,
)
from tolmach.transport import Exchange, Timeouts, Transport, TransportOptions, create
from tolmach.wire import Request

HI = [{"role": "user", "content": "Hello"}]
TEXT = demo_answer("demo", "Hello", 1)
BEGINNING = "".join(tokens(TEXT, {})[:5])


class Recorded:
    """A transport that keeps what it sends."""

    def __init__(self) -> None:
        self.sent: list[Request] = []
        self._transport: Transport = create(TransportOptions())

    async def send(self, request: Request, timeouts: Timeouts) -> Exchange:
        self.sent.append(request)
        return await self._transport.send(request, timeouts)

    async def aclose(self) -> None:
        await self._transport.aclose()


@pytest.fixture(scope="module")
def demos() -> Iterator[tuple[ThreadedDemo, ThreadedDemo]]:
    with serve_in_thread(delay=0) as first, serve_in_thread(delay=0) as second:
        yield first, second


@pytest.fixture(autouse=True)
def healthy(demos: tuple[ThreadedDemo, ThreadedDemo]) -> Iterator[None]:
    yield
    for demo in demos:
        demo.faults.clear()


class Stage:
    """Two services that speak OpenAI's API, and a client's arguments for them."""

    def __init__(self, demos: tuple[ThreadedDemo, ThreadedDemo]) -> None:
        self.first, self.second = demos
        self.asked = [demo.log.chats("/v1") for demo in demos]

    def rows(self, **more: Any) -> dict[str, Any]:
        return {
            name: {"protocol": "openai", "url": f"{demo.url}/v1", "api_key": "k", **more}
            for name, demo in (("first", self.first), ("second", self.second))
        }

    def settings(self, fault: str = "", **rules: Any) -> dict[str, Any]:
        if fault:
            self.first.faults["/v1"] = fault
        route = {"targets": ["first/gpt-4o-mini", "second/gpt-4o"], **rules}
        return {"providers": self.rows(), "routes": {"gpt-4o": route}}

    @property
    def questions(self) -> tuple[int, int]:
        """How often each was asked since the beginning of the test."""
        first, second = self.asked
        return self.first.log.chats("/v1") - first, self.second.log.chats("/v1") - second


@pytest.fixture
def stage(demos: tuple[ThreadedDemo, ThreadedDemo]) -> Stage:
    return Stage(demos)


def text_of(answer: ChatCompletion) -> str:
    return answer.choices[0].message.content or ""


def told(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def streamed(client: AsyncClient, **more: Any) -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(model="gpt-4o", messages=HI, stream=True, **more)
    return [chunk async for chunk in stream]


async def read_into(seen: list[Event], events: AsyncGenerator[Event, None]) -> None:
    async for event in events:
        seen.append(event)  # noqa: PERF401 - what came before an error stays


# Failover


@pytest.mark.parametrize("fault", ["500", "reset", "429", "cut=5", "malformed", "missing-end"])
async def test_the_next_target_answers_when_the_first_fails(stage: Stage, fault: str) -> None:
    async with AsyncClient(**stage.settings(fault)) as client:
        answer = await client.chat.completions.create(model="gpt-4o", messages=HI)
    assert text_of(answer) == TEXT
    tries = 2 if fault == "500" else 1  # it may pass, and costs nothing to ask once more
    assert (answer.model, answer.provider, stage.questions) == ("gpt-4o", "second", (tries, 1))
    first, *_, second = answer.attempts
    assert len(answer.attempts) == tries + 1
    assert (first.target, first.key, first.outcome) == ("first/gpt-4o-mini", 1, "failed")
    assert first.error is not None
    assert (second.target, second.outcome, second.error) == ("second/gpt-4o", "answered", None)
    assert second.why.startswith("after first/gpt-4o-mini failed")
    assert 0 <= first.started <= second.started <= (second.first_token or 0) <= (second.ended or 0)


async def test_a_stream_begins_with_the_target_that_answers(stage: Stage) -> None:
    async with AsyncClient(**stage.settings("500")) as client:
        chunks = await streamed(client, stream_options={"include_usage": True})
    assert told(chunks) == TEXT
    assert {(chunk.model, chunk.provider) for chunk in chunks} == {("gpt-4o", "second")}
    assert [len(chunk.attempts) for chunk in chunks] == [0] * (len(chunks) - 2) + [3, 0]
    assert chunks[-1].usage is not None


def test_the_synchronous_client_has_it_too(stage: Stage) -> None:
    with Client(**stage.settings("500")) as client:
        answer = client.chat.completions.create(model="gpt-4o", messages=HI)
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=HI, stream=True))
        events = list(client.events(model="gpt-4o", messages=HI))
    assert (text_of(answer), told(chunks)) == (TEXT, TEXT)
    assert [one.outcome for one in answer.attempts] == ["failed", "failed", "answered"]
    text = AnswerText()
    for event in events:
        text.feed(event)
    assert (str(text), type(events[-1])) == (TEXT, Done)


def test_what_was_learnt_of_a_target_serves_the_next_questions(stage: Stage) -> None:
    with Client(**stage.settings("500")) as client:
        answers = [client.chat.completions.create(model="gpt-4o", messages=HI) for _ in range(6)]
    assert {text_of(answer) for answer in answers} == {TEXT}
    assert [len(answer.attempts) for answer in answers] == [3, 2, 1, 1, 1, 1]  # its circuit opens at the third failure
    assert stage.questions == (3, 6)


async def test_errors_are_those_of_the_service(stage: Stage) -> None:
    stage.second.faults["/v1"] = "401"
    async with AsyncClient(**stage.settings("500", attempts=2)) as client:
        with pytest.raises(AuthError) as caught:
            await client.chat.completions.create(model="gpt-4o", messages=HI)
        with pytest.raises(ProviderUnavailable):
            await client.chat.completions.create(model="first/gpt-4o-mini", messages=HI)
    assert caught.value.provider == "second"
    assert stage.questions == (2, 1)


async def test_no_more_attempts_than_the_route_allows(stage: Stage) -> None:
    stage.second.faults["/v1"] = "500"
    async with AsyncClient(**stage.settings("500", attempts=1)) as client:
        with pytest.raises(ProviderUnavailable):
            await client.chat.completions.create(model="gpt-4o", messages=HI)
    assert stage.questions == (1, 0)


# Streams that break off


@pytest.mark.parametrize("fault", ["cut=5", "stall=5", "malformed=5", "missing-end"])
async def test_a_stream_goes_on_with_the_next_target(stage: Stage, fault: str) -> None:
    async with AsyncClient(**stage.settings(fault, recover="resume", idle_timeout=0.3)) as client:
        chunks = await streamed(client)
    if fault == "malformed=5":  # one event that cannot be read is left out
        notices = [notice.kind for chunk in chunks for notice in chunk.notices]
        assert (notices, stage.questions) == (["skipped"], (1, 0))
        return
    assert told(chunks) == TEXT
    assert (chunks[0].provider, chunks[-1].provider, stage.questions) == ("first", "second", (1, 1))
    assert [one.why for one in chunks[-1].attempts] == ["first in order", chunks[-1].attempts[1].why]
    assert [one.outcome for one in chunks[-1].attempts] == ["failed", "answered"]


def test_a_synchronous_stream_goes_on_with_the_next_target(stage: Stage) -> None:
    with Client(**stage.settings("cut=5", recover="resume")) as client:
        chunks = list(client.chat.completions.create(model="gpt-4o", messages=HI, stream=True))
    assert (told(chunks), chunks[-1].provider) == (TEXT, "second")


async def test_a_target_that_goes_on_from_a_prefill_is_given_the_answer_so_far(stage: Stage) -> None:
    settings = stage.settings("cut=5", recover="resume")
    settings["providers"]["second"]["prefill"] = True
    recorded = Recorded()
    async with AsyncClient(transport=recorded, **settings) as client:
        chunks = await streamed(client)
    messages = [json.loads(request.body)["messages"] for request in recorded.sent]
    assert messages == [HI, [*HI, {"role": "assistant", "content": BEGINNING}]]
    assert told(chunks).startswith(BEGINNING)


async def test_the_first_failure_is_told_when_nobody_goes_on(stage: Stage) -> None:
    stage.second.faults["/v1"] = "500"
    async with AsyncClient(**stage.settings("cut=5", recover="resume", attempts=2)) as client:
        seen: list[Event] = []
        with pytest.raises(ConnectionLost) as caught:
            await read_into(seen, client.events(model="gpt-4o", messages=HI))
    text = "".join(event.text for event in seen if isinstance(event, Delta))
    assert text == BEGINNING == caught.value.partial
    assert isinstance(caught.value.__cause__, ProviderUnavailable)
    assert not any(isinstance(event, Done) for event in seen)


async def test_a_tool_call_that_had_begun_is_not_resumed(stage: Stage) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    asked = [{"role": "user", "content": "use tool"}]
    seen: list[Event] = []
    async with AsyncClient(**stage.settings("cut=2", recover="resume")) as client:
        with pytest.raises(ConnectionLost):
            await read_into(seen, client.events(model="gpt-4o", messages=asked, tools=[tool]))
    assert any(isinstance(event, ToolCallDelta) for event in seen)
    assert stage.questions == (1, 0)


async def test_without_recover_a_broken_stream_is_an_error(stage: Stage) -> None:
    async with AsyncClient(**stage.settings("cut=5")) as client:
        with pytest.raises(ConnectionLost) as caught:
            await streamed(client)
    assert caught.value.partial == BEGINNING
    assert stage.questions == (1, 0)


async def test_restart_gives_nothing_before_the_answer_is_whole(stage: Stage) -> None:
    async with AsyncClient(**stage.settings("cut=5", recover="restart")) as client:
        chunks = await streamed(client)
    assert told(chunks) == TEXT
    assert {chunk.provider for chunk in chunks} == {"second"}
    assert stage.questions == (1, 1)


async def test_a_stream_that_is_left_closes_its_connection() -> None:
    async with Demo(delay=0) as demo:
        demo.faults["/v1"] = "stall=5"
        rows = {"first": {"protocol": "openai", "url": f"{demo.url}/v1", "api_key": "k"}}
        routes = {"gpt-4o": {"targets": ["first/gpt-4o"], "recover": "resume"}}
        async with AsyncClient(providers=rows, routes=routes) as client:
            async with await client.chat.completions.create(model="gpt-4o", messages=HI, stream=True) as stream:
                first = await anext(stream)
            await demo.log.wait_hangups(1)
        assert first.choices[0].delta.content
        assert demo.log.chats("/v1") == 1


# Time, keys, two at once


async def test_the_time_limit_of_a_call_is_for_all_attempts_together(stage: Stage) -> None:
    async with AsyncClient(**stage.settings("silence", first_token_timeout=3)) as client:
        with pytest.raises(TimedOut) as whole:
            await client.chat.completions.create(model="gpt-4o", messages=HI, timeout=0.2)
        with pytest.raises(TimedOut) as stream:
            await streamed(client, timeout=0.2)
    assert [caught.value.phase for caught in (whole, stream)] == ["total", "total"]
    assert stage.questions == (2, 0)


async def test_the_time_limit_of_a_client_is_for_all_attempts_together(stage: Stage) -> None:
    stage.second.faults["/v1"] = "silence"
    async with AsyncClient(timeout=0.3, **stage.settings("silence", first_token_timeout=0.2)) as client:
        with pytest.raises(TimedOut):
            await streamed(client)
    assert stage.questions == (1, 1)


async def test_a_silent_target_is_left_after_the_time_of_the_route(stage: Stage) -> None:
    async with AsyncClient(**stage.settings("silence", first_token_timeout=0.2)) as client:
        chunks = await streamed(client)
    assert (told(chunks), chunks[-1].provider, stage.questions) == (TEXT, "second", (1, 1))


async def test_the_quicker_of_two_answers(stage: Stage) -> None:
    async with AsyncClient(**stage.settings("slow-first-token=30", hedge_after=0.05)) as client:
        chunks = await streamed(client)
    assert (told(chunks), chunks[-1].provider) == (TEXT, "second")
    assert [one.outcome for one in chunks[-1].attempts] == ["cancelled", "answered"]


async def test_a_key_that_is_refused_gives_way_to_the_next(stage: Stage) -> None:
    rows = stage.rows() | {"keyed": {**stage.rows()["second"], "api_key": "bad", "api_keys": ["good"]}}
    stage.second.faults["/v1"] = "401*1"
    async with AsyncClient(providers=rows, routes={"gpt-4o": ["keyed/gpt-4o"]}) as client:
        answer = await client.chat.completions.create(model="gpt-4o", messages=HI)
    assert text_of(answer) == TEXT
    assert [(one.key, one.outcome) for one in answer.attempts] == [(1, "failed"), (2, "answered")]


async def test_questions_are_spread_by_weight(stage: Stage) -> None:
    async with AsyncClient(**stage.settings(strategy="weighted", weights=[1e-9, 1e9])) as client:
        answers = [await client.chat.completions.create(model="gpt-4o", messages=HI) for _ in range(5)]
    assert {answer.provider for answer in answers} == {"second"}


# Who answers


async def test_names_that_are_no_route(stage: Stage) -> None:
    settings = stage.settings()
    settings["providers"]["first"]["models"] = {"small": "gpt-4o-mini"}
    async with AsyncClient(**settings) as client:
        direct = await client.chat.completions.create(model="second/gpt-4o", messages=HI)
        listed = await client.chat.completions.create(model="small", messages=HI)
        with pytest.raises(ModelNotFound, match=r"'tiny'; it has: gpt-4o, small"):
            await client.chat.completions.create(model="tiny", messages=HI)
    assert (direct.provider, direct.model) == ("second", "gpt-4o")
    assert (listed.provider, listed.model) == ("first", "gpt-4o-mini")
    assert [len(answer.attempts) for answer in (direct, listed)] == [1, 1]


async def test_a_client_that_names_a_provider_asks_it_for_all_other_models(stage: Stage) -> None:
    settings = stage.settings()
    recorded = Recorded()
    own: dict[str, Any] = {
        "base_url": f"{stage.first.url}/v1",
        "protocol": "openai",
        "api_key": "own",
        "transport": recorded,
    }
    async with AsyncClient(**own, **settings) as client:
        other = await client.chat.completions.create(model="gpt-4.1", messages=HI)
        routed = await client.chat.completions.create(model="gpt-4o", messages=HI)
    assert (other.attempts, other.model) == ([], "gpt-4.1")
    assert (len(routed.attempts), routed.provider) == (1, "first")
    keys = [request.headers["authorization"] for request in recorded.sent]
    assert keys == ["Bearer own", "Bearer k"]


async def test_a_call_that_names_a_provider_goes_there(stage: Stage) -> None:
    async with AsyncClient(provider="ChatGptt", base_url=f"{stage.second.url}/ChatGptt", **stage.settings()) as client:
        answer = await client.chat.completions.create(model="gpt-4o", messages=HI, provider="ChatGptt")
    assert (answer.provider, answer.attempts) == ("ChatGptt", [])


async def test_the_route_for_all_others(stage: Stage) -> None:
    async with AsyncClient(providers=stage.rows(), routes={"*": ["second/*"]}) as client:
        answer = await client.chat.completions.create(model="gpt-4.1", messages=HI)
    assert (answer.provider, answer.model) == ("second", "gpt-4.1")


async def test_a_provider_that_has_no_row_is_the_one_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"providers\.groq\.api_key: is missing: set the environment variable"):
        AsyncClient(routes={"fast": ["groq/llama-3.3-70b-versatile", "Aichat/default"]})
    monkeypatch.setenv("GROQ_API_KEY", "secret")
    client = AsyncClient(routes={"fast": ["groq/llama-3.3-70b-versatile", "Aichat/default"]})
    with pytest.raises(ModelNotFound, match="it has: fast"):
        await client.chat.completions.create(model="other", messages=HI)


async def test_options_that_no_target_honours_are_refused_and_nothing_is_sent(stage: Stage) -> None:
    rows = {"shop": {"type": "ChatGptt", "url": f"{stage.first.url}/ChatGptt"}}
    before = stage.first.log.chats("/ChatGptt")
    async with AsyncClient(providers=rows, routes={"gpt-4o": ["shop/default"]}) as client:
        with pytest.raises(UnsupportedFeature):
            await client.chat.completions.create(model="gpt-4o", messages=HI, seed=7)
        assert stage.first.log.chats("/ChatGptt") == before
        answer = await client.chat.completions.create(model="gpt-4o", messages=HI, seed=7, strict=False)
    assert [notice.kind for notice in answer.notices] == ["dropped"]


async def test_a_target_that_lacks_its_cookies_gives_way_to_the_next(stage: Stage) -> None:
    rows = {"shop": {"type": "Aichat", "url": f"{stage.first.url}/Aichat"}} | stage.rows()
    async with AsyncClient(providers=rows, routes={"gpt-4o": ["shop/default", "second/gpt-4o"]}) as client:
        answer = await client.chat.completions.create(model="gpt-4o", messages=HI)
        with pytest.raises(MissingCookies):
            await client.chat.completions.create(model="shop/default", messages=HI)
    assert (answer.provider, [one.outcome for one in answer.attempts]) == ("second", ["failed", "answered"])


# A conversation belongs to the target that began it


async def test_a_conversation_goes_on_with_its_own_target_only(stage: Stage) -> None:
    rows = {
        name: {"type": "Chatgpt4Online", "url": f"{demo.url}/Chatgpt4Online"}
        for name, demo in (("first", stage.first), ("second", stage.second))
    }
    recorded = Recorded()
    routes = {"gpt-4": ["first/default", "second/default"]}
    async with AsyncClient(providers=rows, routes=routes, transport=recorded) as client:
        first = await client.chat.completions.create(model="gpt-4", messages=HI)
        assert first.conversation is not None
        assert first.conversation.state["tolmach.target"] == "first/gpt-4"
        more = [*HI, {"role": "assistant", "content": text_of(first)}, {"role": "user", "content": "What was that?"}]
        again = await client.chat.completions.create(model="gpt-4", messages=more, conversation=first.conversation)
        stage.first.faults["/Chatgpt4Online"] = "500"
        moved = await client.chat.completions.create(model="gpt-4", messages=more, conversation=again.conversation)
        with pytest.raises(ConfigError, match="conversation: not one of a route's answers"):
            await client.chat.completions.create(model="gpt-4", messages=more, conversation=Conversation({"id": "7"}))
    assert again.conversation is not None
    assert again.conversation.state["chatId"] == first.conversation.state["chatId"]
    assert moved.conversation is not None
    assert moved.conversation.state["tolmach.target"] == "second/gpt-4"
    assert moved.conversation.state["chatId"] != first.conversation.state["chatId"]
    assert not any(b"tolmach.target" in request.body for request in recorded.sent)


# What the client says of itself


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"routes": {"a": ["nobody/x"]}}, "providers.nobody: neither a provider class nor a service"),
        ({"routes": {"a": {"targets": ["Aichat"], "strat": "failover"}}}, 'did you mean "strategy"'),
        ({"routes": {"a": 3}}, "routes.a: a table"),
        ({"routes": {"a": ["Aichat/default"]}, "api_key": "x"}, "api_key: it would go to every target"),
        ({"routes": {"a": ["Aichat/default"]}, "headers": {"x": "y"}}, "headers: it would go to every target"),
        ({"routes": {"a": ["Aichat/default"]}, "config": "tolmach.toml"}, "leave routes= and providers= out"),
        ({"config": "/nowhere/tolmach.toml"}, "there is no such file"),
    ],
)
def test_wrong_routes_are_told_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(**given)
    assert said in str(caught.value)


async def test_a_file_says_the_same(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOLMACH_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    with pytest.raises(ConfigError, match=r"there is no tolmach\.toml"):
        AsyncClient(config=True)
    file = tmp_path / "tolmach.toml"
    file.write_text("[gateway]\nport = 1\n")
    with pytest.raises(ConfigError, match="names no provider"):
        AsyncClient(config=file)
    rows = [
        f'[providers.{name}]\nprotocol = "openai"\nurl = "{row["url"]}"\napi_key = "k"\n'
        for name, row in stage.rows().items()
    ]
    file.write_text("\n".join([*rows, '[routes.gpt-4o]\ntargets = ["first/gpt-4o-mini", "second/gpt-4o"]\n']))
    stage.first.faults["/v1"] = "500"
    for config in (True, file, str(file)):
        async with AsyncClient(config=config) as client:
            answer = await client.chat.completions.create(model="gpt-4o", messages=HI)
            assert (text_of(answer), answer.provider, answer.model) == (TEXT, "second", "gpt-4o")


async def test_the_client_reaches_targets_in_its_own_way_where_their_rows_say_nothing(stage: Stage) -> None:
    settings = stage.settings()
    settings["providers"]["second"]["proxy"] = "http://127.0.0.1:2"
    client = AsyncClient(proxy="http://127.0.0.1:1", transport="wreq", **settings)
    plan = client._routes.plan("gpt-4o")  # type: ignore[union-attr]
    assert [plan.targets[choice.id].provider.access.proxy for choice in plan.choices] == [
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
    ]
    with pytest.raises(errors.TransportError):
        await client.chat.completions.create(model="first/a", messages=HI)
    assert stage.questions == (0, 0)


async def test_closing_forgets_the_sessions_of_the_targets(stage: Stage) -> None:
    client = AsyncClient(**stage.settings())
    before = client._routes.plan("gpt-4o").first.session  # type: ignore[union-attr]
    assert client._routes.plan("gpt-4o").first.session is before  # type: ignore[union-attr]
    await client.close()
    assert client._routes.plan("gpt-4o").first.session is not before  # type: ignore[union-attr]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_sessions_of_its_own(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(**stage.settings())
    before = client._routes.plan("gpt-4o").first.session  # type: ignore[union-attr]
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert client._routes.plan("gpt-4o").first.session is not before  # type: ignore[union-attr]


def test_a_client_without_routes_loads_nothing_of_them() -> None:
    code = (
        "import sys; from tolmach import Client; Client(provider='Aichat')\n"
        "print([name for name in sys.modules if name.startswith(('tolmach.rout', 'tolmach.configuration'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
