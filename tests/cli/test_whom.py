"""Whom the command asks: the configuration by a model's name, anybody by theirs, and never a stranger."""

from collections import Counter
from pathlib import Path
from types import MappingProxyType

import pytest
from msgspec import structs

from tests.cli.conftest import Run
from tests.cli.terminal import PROMPT, Terminal
from tolmach import Aichat, ChatGpt, Chatgpt4o, Chatgpt4Online, ChatGptt
from tolmach.cli.whom import another, by_name, choose
from tolmach.configuration import Settings
from tolmach.demo.server import ThreadedDemo
from tolmach.errors import ConfigError, ModelNotFound
from tolmach.providers import names
from tolmach.providers.names import Named
from tolmach.providers.sites import apis as table

SITES = (Chatgpt4o, Chatgpt4Online, ChatGptt, Aichat, ChatGpt)

CONFIGURATION = """
[providers.local]
protocol = "openai"
url = "DEMO/v1"
api_key = "${LOCAL_KEY:-k}"
default_model = "gpt-4o"
models = ["gpt-4o", "demo"]

[providers.second]
protocol = "openai"
url = "DEMO/v1"
api_key = "k"
models = { demo = "gpt-4o-mini", fast = "gpt-4o-mini" }

[routes.assistant]
targets = ["local/gpt-4o", "second/fast"]
"""


@pytest.fixture(autouse=True)
def asked(demo: ThreadedDemo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "Asked":
    """Who was asked while a test ran; the public sites are played by the demo, too."""
    for site in SITES:
        monkeypatch.setattr(site, "url", f"{demo.url}/{site.__name__}")
    for name in ("TOLMACH_CONFIG", "GROQ_API_KEY", "LOCAL_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return Asked(demo)


class Asked:
    """How often what the demo plays was asked since the test began."""

    def __init__(self, demo: ThreadedDemo) -> None:
        self._demo = demo
        self._before = Counter(self._chats())

    def _chats(self) -> dict[str, int]:
        places = (*(site.__name__ for site in SITES), "v1")
        return {name: self._demo.log.chats(f"/{name}") for name in places}

    def now(self) -> dict[str, int]:
        """Place -> questions; `v1` is what the configuration names, the others are public sites."""
        return dict(Counter(self._chats()) - self._before)


@pytest.fixture
def file(demo: ThreadedDemo, tmp_path: Path) -> Path:
    """The configuration of the current folder."""
    file = tmp_path / "work" / "tolmach.toml"
    file.write_text(CONFIGURATION.replace("DEMO", demo.url))
    return file


@pytest.fixture
def groq(demo: ThreadedDemo, monkeypatch: pytest.MonkeyPatch) -> str:
    """Groq's row of the table, with the demo's address: no test asks the service itself."""
    rows = dict(table.apis())
    rows["groq"] = structs.replace(rows["groq"], url=f"{demo.url}/v1")
    for module in (table, names):
        monkeypatch.setattr(module, "apis", lambda: MappingProxyType(rows))
    return rows["groq"].url


# ask


def test_a_model_of_the_configuration_is_asked_there(run: Run, file: Path, asked: Asked) -> None:
    result = run("ask", "-m", "gpt-4o", "hi")
    assert result.exit_code == 0, result.stderr
    assert "> hi" in result.stdout
    assert asked.now() == {"v1": 1}


@pytest.mark.parametrize("model", ["gpt-4o", "assistant", "local/gpt-4o", "local/gpt-4o-mini", "fast", "second"])
def test_each_way_to_name_what_is_configured(run: Run, file: Path, asked: Asked, model: str) -> None:
    assert run("ask", "-m", model, "hi").exit_code == 0
    assert asked.now() == {"v1": 1}


@pytest.mark.parametrize(
    "args", [("-p", "local"), ("-p", "LOCAL", "-m", "gpt-4o"), ("-p", "local", "-m", "local/gpt-4o")]
)
def test_a_row_by_its_name(run: Run, file: Path, asked: Asked, args: tuple[str, ...]) -> None:
    result = run("ask", *args, "hi")
    assert result.exit_code == 0, result.stderr
    assert asked.now() == {"v1": 1}


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4", "gpt-4o-mini", "gpt-3.5-turbo", "auto"])
def test_without_a_configuration_no_stranger_is_asked(run: Run, asked: Asked, model: str) -> None:
    for command in (("ask", "-m", model, "hi"), ("chat", "-m", model)):
        result = run(*command)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert "there is no tolmach.toml" in result.stderr
        assert "-p " in result.stderr
    assert asked.now() == {}


def test_a_model_that_only_a_public_site_has_is_an_error_that_names_it(run: Run, file: Path, asked: Asked) -> None:
    result = run("ask", "-m", "gpt-4", "hi")
    assert result.exit_code == 2
    assert "tolmach.toml has no model 'gpt-4'. The configuration has: assistant, gpt-4o" in result.stderr
    assert "to ask one, name it: -p Chatgpt4Online" in result.stderr
    assert asked.now() == {}


def test_a_public_site_is_asked_when_it_is_named(run: Run, file: Path, asked: Asked) -> None:
    assert run("ask", "-p", "ChatGptt", "hi").exit_code == 0
    assert run("ask", "-m", "Chatgpt4Online/gpt-4", "hi").exit_code == 0
    assert asked.now() == {"Chatgpt4Online": 1, "ChatGptt": 1}


def test_a_row_with_the_name_of_a_site_is_asked_and_not_the_site(
    run: Run, file: Path, demo: ThreadedDemo, asked: Asked
) -> None:
    row = f'[providers.ChatGpt]\nprotocol = "openai"\nurl = "{demo.url}/v1"\napi_key = "k"\n'
    file.write_text(file.read_text() + row)
    for args in (("-p", "ChatGpt", "-m", "gpt-4o"), ("-m", "ChatGpt/gpt-4o"), ("-p", "chatgpt", "-m", "gpt-4o")):
        assert run("ask", *args, "hi").exit_code == 0
    assert asked.now() == {"v1": 3}


def test_a_name_that_several_have_is_an_error_that_lists_them(run: Run, file: Path, demo: ThreadedDemo) -> None:
    result = run("ask", "-m", "demo", "hi")
    assert result.exit_code == 2
    assert "several providers have 'demo': local, second; write local/demo" in result.stderr
    file.write_text(file.read_text() + f'[providers.Groq]\nprotocol = "openai"\nurl = "{demo.url}/v1"\n')
    result = run("ask", "-p", "GROQ", "hi")
    assert result.exit_code == 2
    assert "several providers are called 'GROQ': groq, Groq; write it as one of them" in result.stderr


SERVICE = pytest.mark.parametrize(
    "args", [("-p", "groq", "-m", "gpt-4o"), ("-m", "groq/gpt-4o"), ("-p", "Groq", "-m", "groq/gpt-4o")]
)


@SERVICE
def test_a_service_by_its_name(
    run: Run, groq: str, monkeypatch: pytest.MonkeyPatch, asked: Asked, args: tuple[str, ...]
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "gsk-1")
    result = run("ask", *args, "hi")
    assert result.exit_code == 0, result.stderr
    assert asked.now() == {"v1": 1}


@SERVICE
def test_a_service_without_its_key(run: Run, args: tuple[str, ...]) -> None:
    result = run("ask", *args, "hi")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "set the environment variable GROQ_API_KEY" in result.stderr


def test_a_key_on_the_command_line_is_for_the_service(run: Run, groq: str) -> None:
    assert run("ask", "-p", "groq", "--api-key", "k", "-m", "gpt-4o", "hi").exit_code == 0


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("-p", "local", "--api-key", "k"), "api_key: the row of local says it"),
        (("-p", "local", "--base-url", "http://127.0.0.1:1"), "the configuration says where local is"),
        (("-m", "gpt-4o", "--api-key", "k"), "api_key: it would go to every target"),
        (("-c", "tolmach.toml", "--url", "http://127.0.0.1:1"), "--config is for -m and -p"),
        ((), "The configuration has: assistant, gpt-4o, demo, fast"),
        (("-p", "lokal"), "no provider 'lokal'; did you mean local?"),
    ],
)
def test_what_does_not_fit(run: Run, file: Path, args: tuple[str, ...], says: str) -> None:
    result = run("ask", *args, "hi")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert says in result.stderr


# Which configuration


def test_the_configuration_that_is_found(run: Run, file: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = home / "other.toml"
    other.write_text(file.read_text().replace('"gpt-4o", "demo"', '"gpt-4o-mini"').replace('gpt-4o"', 'gpt-4o-mini"'))
    file.unlink()
    assert run("ask", "-m", "gpt-4o-mini", "hi").exit_code == 2
    assert run("ask", "-c", str(other), "-m", "gpt-4o-mini", "hi").exit_code == 0
    monkeypatch.setenv("TOLMACH_CONFIG", str(other))
    assert run("ask", "-m", "gpt-4o-mini", "hi").exit_code == 0
    monkeypatch.delenv("TOLMACH_CONFIG")
    (home / "tolmach").mkdir()
    other.rename(home / "tolmach" / "tolmach.toml")  # XDG_CONFIG_HOME is the home here
    assert run("ask", "-m", "gpt-4o-mini", "hi").exit_code == 0
    assert run("ask", "-c", "none.toml", "-m", "gpt-4o-mini", "hi").exit_code == 2


def test_a_broken_configuration_is_told_and_nobody_is_asked_instead(run: Run, file: Path, asked: Asked) -> None:
    file.write_text(file.read_text().replace("LOCAL_KEY:-k", "LOCAL_KEY"))
    result = run("ask", "-p", "ChatGptt", "hi")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[0].startswith("tolmach.toml:5: providers.local.api_key: the environment variable")
    assert asked.now() == {}
    # What says by itself who is asked needs no configuration.
    url = f"{ChatGptt.url.rpartition('/')[0]}/v1"
    assert run("ask", "--base-url", url, "--protocol", "openai", "--api-key", "k", "-m", "gpt-4o", "hi").exit_code == 0


# chat


def test_a_conversation_with_the_configuration(file: Path, asked: Asked) -> None:
    with Terminal("chat", "-m", "gpt-4o") as terminal:
        assert "gpt-4o: /help lists the commands" in terminal.wait_for("commands.")
        terminal.wait_for(PROMPT)
        terminal.write("hi\r")
        terminal.wait_for("Готово")
        terminal.wait_for(PROMPT)
        terminal.write("/model fast\r")
        terminal.wait_for("fast")
        terminal.wait_for(PROMPT)
        terminal.write("hi again\r")
        terminal.wait_for("Готово")
        terminal.wait_for(PROMPT)
        terminal.write("/model gpt-4\r")
        terminal.wait_for("-p Chatgpt4Online")
        terminal.wait_for(PROMPT)
        terminal.write("\x04")
        assert terminal.end() == 0
    assert asked.now() == {"v1": 2}


SETTINGS = {
    "providers": {
        "local": {"protocol": "openai", "url": "http://127.0.0.1:1/v1", "models": ["gpt-4o", "org/model"]},
        "second": {"protocol": "openai", "url": "http://127.0.0.1:2/v1"},
    }
}


@pytest.mark.parametrize(
    ("begun", "name", "kind", "model"),
    [
        (("gpt-4o", None), "org/model", None, "org/model"),
        (("gpt-4o", None), "second/x", None, "second/x"),
        (("gpt-4o", None), "groq/x", Named("service", "groq"), "x"),
        (("", "local"), "anything", Named("row", "local"), "anything"),
        (("", "local"), "org/model", Named("row", "local"), "org/model"),
        (("", "local"), "local/x", Named("row", "local"), "x"),
        (("", "local"), "second/x", Named("row", "second"), "x"),
        (("", "local"), "groq/x", Named("service", "groq"), "x"),
        (("", "openrouter"), "meta-llama/llama-3", Named("service", "openrouter"), "meta-llama/llama-3"),
        (("", "openrouter"), "openrouter/openai/gpt-4o", Named("service", "openrouter"), "openai/gpt-4o"),
        (("", "ChatGptt"), "gpt-4", Named("class", "ChatGptt"), "gpt-4"),
        (("", "ChatGptt"), "local/x", Named("row", "local"), "x"),
    ],
)
def test_another_model_in_a_conversation(
    begun: tuple[str, str | None], name: str, kind: Named | None, model: str
) -> None:
    settings = Settings.of(SETTINGS)
    now = another(choose(*begun, settings), name, settings)
    assert (now.named, now.model) == (kind, model)


@pytest.mark.parametrize("name", ["gpt-4", "auto", "nobody/x"])
def test_another_model_is_no_way_to_a_stranger(name: str) -> None:
    settings = Settings.of(SETTINGS)
    with pytest.raises(ModelNotFound):
        another(choose("gpt-4o", None, settings), name, settings)
    with pytest.raises(ModelNotFound):
        another(by_name(Named("class", "ChatGptt"), "", settings), "nobody/x", settings)


def test_no_configuration_at_all() -> None:
    with pytest.raises(ConfigError, match="whom to ask"):
        choose("", None, Settings())
    assert choose("", "groq", Settings()).arguments == {"provider": "groq"}
