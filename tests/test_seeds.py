"""The documents that tolmach's classes follow: their examples as written, against the demo.

`tests/seeds/*.txt` are the documents' code blocks, copied. An example runs with tolmach's names at
hand and the class's `url` pointed at the demo; nothing else of it is changed, but for the proxy's
address, which is that of a proxy of the test's own.
"""

import ast
import asyncio
import inspect
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

import tolmach
from tests.transport.proxies import Proxy, proxying
from tolmach import (
    AbstractProvider,
    Aichat,
    AsyncGeneratorProvider,
    AsyncProvider,
    ChatGpt,
    Chatgpt4o,
    Chatgpt4Online,
    ChatGptt,
    ConnectFailed,
    MissingCookies,
    ModelNotFound,
    ProviderModelMixin,
    set_cookies,
)
from tolmach.demo.server import ThreadedDemo, serve_in_thread

BLOCKS = {
    file.stem: file.read_text(encoding="utf-8") for file in sorted((Path(__file__).parent / "seeds").glob("*.txt"))
}
CLASSES: tuple[type[AbstractProvider], ...] = (Chatgpt4o, Chatgpt4Online, ChatGptt, Aichat, ChatGpt)
PROXY = "http://your_proxy:8080"


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedDemo]:
    with serve_in_thread(delay=0) as demo:
        yield demo


@pytest.fixture
def demo(server: ThreadedDemo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ThreadedDemo]:
    for provider in CLASSES:
        monkeypatch.setattr(provider, "url", f"{server.url}/{provider.__name__}")
    monkeypatch.setenv("TOLMACH_COOKIES", str(tmp_path))
    yield server
    server.faults.clear()
    set_cookies("chat-gpt.org", None)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A local HTTP proxy, on a loop of its own."""
    ready, over = threading.Event(), threading.Event()
    found: list[Proxy] = []

    async def serve() -> None:
        async with proxying("http") as running:
            found.append(running)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    yield found[0]
    over.set()
    thread.join()


def run(code: str) -> dict[str, Any]:
    """Run an example, top-level `await` and all; gives its names."""
    names: dict[str, Any] = {name: getattr(tolmach, name) for name in tolmach.__all__} | {"__name__": "__main__"}
    compiled = compile(code, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(compiled, names)
    if inspect.iscoroutine(result):
        asyncio.run(result)
    return names


def promised(code: str) -> list[str]:
    """What an example says that it prints."""
    return re.findall(r"^# Вывод:\s+(?:# )?(.*)$", code, re.M)


def aichat_examples() -> list[str]:
    """Its examples are commented out: here they are not, each with the lines before both and a call."""
    code = re.sub(r"^#(?=async |cookies = | {4})", "", BLOCKS["aichat_2"], flags=re.M)
    head, *mains = code.split("async def main")
    return [f"{head}async def main{main}\nawait main()\n" for main in mains]


# The examples


def test_every_block_of_the_documents_is_run_here():
    source = Path(__file__).read_text(encoding="utf-8")
    assert len(BLOCKS) == 16
    assert [name for name in BLOCKS if f'"{name}"' not in source] == []


@pytest.mark.parametrize("name", ["chatgpt4o_2", "chatgpt4o_4"])
def test_chatgpt4o(name, demo, capsys):
    names = run(BLOCKS[name])
    printed = capsys.readouterr().out
    assert names["messages"][0]["content"] in printed
    assert "hist=2" in printed
    assert names["response"] in printed


def test_chatgpt4o_by_a_proxy(demo, proxy, capsys):
    code = BLOCKS["chatgpt4o_3"]
    assert PROXY in code
    run(code.replace(PROXY, f"http://127.0.0.1:{proxy.port}"))
    assert "> Tell me a joke." in capsys.readouterr().out
    assert proxy.asked == [("absolute", "127.0.0.1", demo.demo.port)] * len(proxy.asked)
    assert proxy.asked


def test_a_dead_proxy_is_a_failed_connection(demo):
    code = BLOCKS["chatgpt4o_3"].replace(PROXY, "http://ann:secret-word@127.0.0.1:9")
    with pytest.raises(ConnectFailed, match=r"the proxy http://127\.0\.0\.1:9 gives no connection") as caught:
        run(code)
    assert "secret-word" not in f"{caught.value}{caught.value.__cause__}"


def test_chatgpt4online_nonce(demo, capsys):
    run(BLOCKS["chatgpt4online_2"])
    assert re.fullmatch(r"Nonce: [0-9a-f]{10}\n", capsys.readouterr().out)


def test_chatgpt4online(demo, capsys):
    run(BLOCKS["chatgpt4online_4"])
    printed = capsys.readouterr().out
    assert printed.startswith("## C")
    assert printed.count("\n") > 30, "the pieces came one by one"
    assert "✅" in printed


def test_chatgptt(demo, capsys):
    run(BLOCKS["chatgptt_2"])
    printed = capsys.readouterr().out
    assert printed.count("\n") > 30, "the pieces came one by one"
    assert "✅" in printed


def test_aichat(demo, capsys):
    set_cookies("chat-gpt.org", {"session": "1"})
    run(aichat_examples()[0])
    assert "> Hello, world!" in capsys.readouterr().out


def test_aichat_by_a_proxy_with_the_cookies_found_for_it(demo, proxy, capsys):
    set_cookies("chat-gpt.org", {"session": "1"})
    run(aichat_examples()[1].replace(PROXY, f"http://127.0.0.1:{proxy.port}"))
    assert "> Hello, world!" in capsys.readouterr().out
    assert "cookie: session=1\r\n" in proxy.heads[0].lower()


def test_aichat_without_cookies_says_so(demo, capsys):
    run(aichat_examples()[1].replace(PROXY, f"http://127.0.0.1:{demo.demo.port}"))
    assert capsys.readouterr().out == "Error: Aichat needs cookies of chat-gpt.org, and there are none\n"


def test_chatgpt_format_conversation(capsys):
    names = run(BLOCKS["chatgpt_1"])
    first, second = names["formatted_messages"]
    documented = dedent("".join(line[2:] for line in BLOCKS["chatgpt_1"].splitlines(True) if line.startswith("# ")))
    shown = ast.literal_eval(documented.removeprefix("Вывод:").strip())
    for made, described in zip((first, second), shown, strict=True):
        assert list(made) == list(described)
        assert {**made, "id": "...", "create_time": ...} == described
    assert first["id"] != second["id"]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first["id"])
    assert str(names["formatted_messages"]) in capsys.readouterr().out


def test_chatgpt_init_session(demo, capsys):
    before = demo.log.steps["/ChatGpt", "page"]
    names = run(BLOCKS["chatgpt_2"])
    assert capsys.readouterr().out.splitlines() == promised(BLOCKS["chatgpt_2"])
    assert demo.log.steps["/ChatGpt", "page"] == before + 1
    assert {cookie.name for cookie in names["session"].jar} == {"oai-did", "__cf_bm"}


def test_chatgpt_get_model(capsys):
    run(BLOCKS["chatgpt_3"])
    assert capsys.readouterr().out.splitlines() == promised(BLOCKS["chatgpt_3"]) == [
        "chatgpt-4o-latest",
        "gpt-3.5-turbo",
        "auto",
    ]  # fmt: skip


def test_chatgpt_create_completion(demo, capsys):
    run(BLOCKS["chatgpt_4"])
    printed = capsys.readouterr().out
    assert printed.startswith("## ChatGpt")
    assert "> Привет!" in printed
    assert printed.endswith("✅")


# What the documents say beside their examples


@pytest.mark.parametrize(
    ("block", "method"),
    [
        ("chatgpt4o_1", Chatgpt4o.create_async),
        ("chatgpt4online_1", Chatgpt4Online.get_nonce),
        ("chatgpt4online_3", Chatgpt4Online.create_async_generator),
        ("chatgptt_1", ChatGptt.create_async_generator),
        ("aichat_1", Aichat.create_async),
    ],
)
def test_the_signatures_are_those_of_the_documents(block, method):
    names = run("from __future__ import annotations\n" + dedent(BLOCKS[block]))
    documented = next(value for value in names.values() if getattr(value, "__module__", None) == "__main__")
    function = inspect.unwrap(getattr(documented, "__func__", documented))
    theirs = [p for name, p in inspect.signature(function).parameters.items() if name != "cls"]
    ours = list(inspect.signature(method).parameters.values())
    positional = [p.name for p in theirs if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in ours][: len(positional)] == positional
    assert {p.name for p in theirs if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD} == {
        p.name for p in ours if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    }
    assert any(p.kind is p.VAR_KEYWORD for p in ours) or not any(p.kind is p.VAR_KEYWORD for p in theirs)


def test_the_classes_are_what_the_documents_say():
    assert issubclass(Chatgpt4o, AsyncProvider)
    assert issubclass(Chatgpt4o, ProviderModelMixin)
    assert issubclass(Chatgpt4Online, AsyncGeneratorProvider)
    assert issubclass(ChatGptt, AsyncGeneratorProvider)
    assert issubclass(ChatGptt, ProviderModelMixin)
    assert issubclass(Aichat, AsyncProvider)
    assert ChatGpt.__bases__ == (AbstractProvider, ProviderModelMixin)
    for provider in CLASSES:
        assert provider.working is False
    addresses = [provider.__dict__["url"] for provider in CLASSES]
    assert addresses == [
        "https://chatgpt4o.one",
        "https://chatgpt4online.org",
        "https://chatgptt.me",
        "https://chat-gpt.org/chat",
        "https://chatgpt.com",
    ]
    assert (Chatgpt4o._post_id, Chatgpt4o._nonce) == (None, None)
    assert Chatgpt4o.models == [Chatgpt4o.default_model] == ["gpt-4o-mini-2024-07-18"]
    assert Chatgpt4o.model_aliases == {"gpt-4o-mini": "gpt-4o-mini-2024-07-18"}
    assert Chatgpt4Online.api_endpoint == "/wp-json/mwai-ui/v1/chats/submit"
    assert Chatgpt4Online.models == [Chatgpt4Online.default_model] == ["gpt-4"]
    assert ChatGptt.default_model == "gpt-4o"
    assert (ChatGptt.supports_stream, ChatGptt.supports_system_message, ChatGptt.supports_message_history) == (
        True,
    ) * 3
    assert Aichat.supports_gpt_35_turbo is True
    assert (ChatGpt.label, ChatGpt.default_model) == ("ChatGpt", "auto")
    assert (ChatGpt.supports_stream, ChatGpt.supports_system_message, ChatGpt.supports_message_history) == (True,) * 3


def test_chatgpt4o_without_the_widget_is_a_runtime_error(demo):
    demo.faults["/Chatgpt4o"] = "html@page"
    with pytest.raises(RuntimeError):
        asyncio.run(Chatgpt4o.create_async("gpt-4o-mini", [{"role": "user", "content": "hi"}], cookies={"a": "page"}))


def test_chatgpt4o_without_data_in_the_answer_is_a_runtime_error(demo):
    demo.faults["/Chatgpt4o"] = "empty"
    with pytest.raises(RuntimeError):
        asyncio.run(Chatgpt4o.create_async("gpt-4o-mini", [{"role": "user", "content": "hi"}]))


def test_chatgptt_without_the_widget_is_a_runtime_error(demo):
    demo.faults["/ChatGptt"] = "html@page"

    async def ask() -> list[str]:
        messages = [{"role": "user", "content": "hi"}]
        return [piece async for piece in ChatGptt.create_async_generator("gpt-4o", messages, cookies={"a": "page"})]

    with pytest.raises(RuntimeError):
        asyncio.run(ask())


def test_aichat_without_cookies_is_a_runtime_error(demo):
    with pytest.raises(RuntimeError) as caught:
        asyncio.run(Aichat.create_async("gpt-3.5-turbo", [{"role": "user", "content": "hi"}]))
    assert isinstance(caught.value, MissingCookies)


def test_aichat_whose_answer_is_an_error_raises_with_its_words(demo):
    demo.faults["/Aichat"] = "banned"
    with pytest.raises(Exception, match="prohibited words"):
        asyncio.run(Aichat.create_async("gpt-3.5-turbo", [{"role": "user", "content": "hi"}], cookies={"a": "1"}))


def test_aichat_sends_what_the_document_says(demo, proxy):
    messages = [{"role": "user", "content": "hi"}]
    address = f"http://127.0.0.1:{proxy.port}"
    with pytest.raises(tolmach.UnsupportedFeature, match="seed") as caught:
        asyncio.run(Aichat.create_async("gpt-3.5-turbo", messages, address, cookies={"a": "1"}, seed=3))
    assert caught.value.feature == "seed"
    assert proxy.heads == []
    text = asyncio.run(
        Aichat.create_async("gpt-3.5-turbo", messages, address, cookies={"a": "1"}, temperature=0.7, top_p=0.9)
    )
    assert "hist=1" in text
    assert proxy.heads[0].startswith(f"POST http://127.0.0.1:{demo.demo.port}/api/text ")


def test_a_model_that_is_not_there_is_a_value_error(monkeypatch):
    with pytest.raises(ValueError, match="Chatgpt4o has no model 'gpt-5'"):
        Chatgpt4o.get_model("gpt-5")
    with pytest.raises(ModelNotFound, match="gpt-4, gpt-4o, gpt-4o-mini"):
        ChatGptt.get_model("gpt-5")
    monkeypatch.setattr(ChatGpt, "models", ["gpt-4"])
    with pytest.raises(ValueError, match="ChatGpt has no model 'gpt-5'"):
        next(iter(ChatGpt.create_completion("gpt-5", [{"role": "user", "content": "hi"}], True)))


def test_a_nonce_set_on_the_class_is_used_until_it_is_refused(demo, monkeypatch):
    monkeypatch.setattr(Chatgpt4o, "_nonce", "0123456789")
    monkeypatch.setattr(Chatgpt4o, "_post_id", "7")
    before = demo.log.steps["/Chatgpt4o", "page"], demo.log.refusals["/Chatgpt4o"]
    text = asyncio.run(Chatgpt4o.create_async("gpt-4o-mini", [{"role": "user", "content": "hi"}]))
    assert "hist=2" in text
    after = demo.log.steps["/Chatgpt4o", "page"], demo.log.refusals["/Chatgpt4o"]
    assert after == (before[0] + 1, before[1] + 1)
    monkeypatch.setattr(Chatgpt4o, "_post_id", "seven")
    with pytest.raises(tolmach.ConfigError, match=r"Chatgpt4o\._post_id"):
        Chatgpt4o.site()


def test_the_steps_of_chatgpt_can_be_taken_alone(demo):
    config = tolmach.get_config("UA")
    assert len(config) == 18
    assert config[4] == "UA"
    requirements = tolmach.get_requirements_token(config)
    assert requirements.startswith("gAAAAAC")
    session = tolmach.init_session("UA")
    response = session.post(
        f"{ChatGpt.url}/backend-anon/sentinel/chat-requirements",
        headers={"oai-device-id": "8b1e2f6e-52f2-4c3c-9be1-8d2b0e6a2f10"},
        json={"p": requirements},
    )
    response.raise_for_status()
    puzzle = response.json()["proofofwork"]
    assert tolmach.get_answer_token(puzzle["seed"], puzzle["difficulty"], config).startswith("gAAAAAB")


def test_init_session_raises_what_the_page_says(demo):
    demo.faults["/ChatGpt"] = "429-retry-after=9@page"
    with pytest.raises(tolmach.RateLimited) as caught:
        tolmach.init_session("UA")
    assert caught.value.retry_after == 9
