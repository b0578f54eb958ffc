"""`tolmach providers` and `tolmach models`: the configuration, services by their keys, and public sites."""

import json
from pathlib import Path

import pytest
from msgspec import structs

from tests.cli.conftest import Run
from tolmach.demo.server import ThreadedDemo
from tolmach.providers.registry import provider_names
from tolmach.providers.sites.apis import apis

CONFIGURATION = """
[providers.local]
protocol = "openai"
url = "DEMO/v1"
api_key = "hush-hush"
models = { gpt-4o = "gpt-4o", mine = "gpt-4o-mini" }

[providers.second]
protocol = "ai-engine"
url = "DEMO/Chatgpt4Online"
models = ["mine"]

[providers.Aichat]
url = "DEMO/Aichat"
cookies = { visit = "1" }

[routes.assistant]
targets = ["second/mine", "local/gpt-4o"]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder without a configuration, and no service's key in the environment."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("TOLMACH_CONFIG", *(row.key for row in apis().values() if row.key)):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def file(folder: Path, demo: ThreadedDemo) -> Path:
    file = folder / "tolmach.toml"
    file.write_text(CONFIGURATION.replace("DEMO", demo.url))
    return file


def rows(run: Run, *args: str) -> dict[str, dict[str, object]]:
    name = "name" if args[0] == "providers" else "model"
    return {row[name]: row for row in json.loads(run(*args, "--json").stdout)}


# providers


def test_providers_are_a_table_with_a_line_each(run: Run) -> None:
    lines = run("providers").stdout.splitlines()
    assert lines[0].split()[:4] == ["Provider", "Kind", "Address", "Protocol"]
    assert [line.split()[:2] for line in lines[1:]] == [[name, "site"] for name in provider_names()]


def test_providers_as_json(run: Run) -> None:
    found = rows(run, "providers")
    assert list(found) == provider_names()
    assert {row["kind"] for row in found.values()} == {"site"}
    assert found["Aichat"]["needs_cookies"] is True
    assert found["Chatgpt4Online"]["protocol"] == "ai-engine"
    assert (found["ChatGptt"]["stream"], found["ChatGptt"]["working"]) == (True, False)


def test_those_of_the_configuration_come_first_and_services_by_their_keys(
    run: Run, file: Path, demo: ThreadedDemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "gsk-hush")
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    result = run("providers", "--json")
    found = rows(run, "providers")
    assert [(name, row["kind"]) for name, row in found.items()] == [
        ("local", "configured"),
        ("second", "configured"),
        ("Aichat", "configured"),
        ("groq", "service"),
        *((name, "site") for name in provider_names() if name != "Aichat"),
    ]
    assert (found["local"]["url"], found["local"]["models"]) == (f"{demo.url}/v1", ["gpt-4o", "mine"])
    assert (found["second"]["system"], found["local"]["system"], found["groq"]["system"]) == (False, True, True)
    assert "hush" not in result.output


# models


def test_without_a_configuration_all_models_are_those_of_public_sites(run: Run) -> None:
    lines = run("models").stdout.splitlines()
    assert lines[0].split() == ["Model", "Providers", "Public", "sites"]
    line = next(line for line in lines if line.startswith("gpt-4o-mini "))
    assert line.split() == ["gpt-4o-mini", "–", "Chatgpt4o,", "ChatGptt,", "ChatGpt"]
    found = rows(run, "models")
    assert list(found) == sorted(found)
    assert found["gpt-3.5-turbo"] == {"model": "gpt-3.5-turbo", "providers": [], "sites": ["Aichat", "ChatGpt"]}


def test_models_of_the_configuration_come_first_with_who_has_them(run: Run, file: Path) -> None:
    found = rows(run, "models")
    assert list(found)[:4] == ["assistant", "gpt-3.5-turbo", "gpt-4o", "mine"]
    assert found["assistant"] == {"model": "assistant", "providers": ["local", "second"], "sites": []}
    assert found["gpt-4o"] == {"model": "gpt-4o", "providers": ["local"], "sites": ["ChatGptt", "ChatGpt"]}
    assert found["mine"]["providers"] == ["local", "second"]
    # A row that is a site's class stands in its place.
    assert found["gpt-3.5-turbo"] == {"model": "gpt-3.5-turbo", "providers": ["Aichat"], "sites": ["ChatGpt"]}


def test_another_configuration(run: Run, file: Path) -> None:
    other = file.rename(file.with_name("other.toml"))
    assert "assistant" not in rows(run, "models")
    assert "assistant" in rows(run, "models", "-c", str(other))
    assert "local" in rows(run, "providers", "-c", str(other))
    other.write_text("[gateway]\nport = 'x'\n")
    for command in ("models", "providers"):
        result = run(command, "-c", str(other))
        assert (result.exit_code, result.stdout) == (2, "")
        assert "gateway.port" in result.stderr


@pytest.mark.parametrize("name", ["local", "LOCAL"])
def test_what_a_provider_says_itself(run: Run, file: Path, name: str) -> None:
    listed = json.loads(run("models", "-p", name, "--json").stdout)
    assert "gpt-4o-mini" in [row["id"] for row in listed]
    assert {row["owned_by"] for row in listed} == {"demo"}
    lines = run("models", "-p", name).stdout.splitlines()
    assert [line.split() for line in lines] == [["Model", "Owner"], *([row["id"], "demo"] for row in listed)]


def test_what_a_service_says_itself(run: Run, demo: ThreadedDemo, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "set the environment variable GROQ_API_KEY" in run("models", "-p", "groq").stderr
    from tolmach.providers.sites import apis as table

    patched = {**apis(), "groq": structs.replace(apis()["groq"], url=f"{demo.url}/v1")}
    monkeypatch.setattr(table, "apis", lambda: patched)
    monkeypatch.setenv("GROQ_API_KEY", "k")
    assert "gpt-4o" in run("models", "-p", "groq").stdout


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [("Nobody", 2, "no provider 'Nobody'"), ("down", 3, "ConnectFailed"), ("pageless", 2, "no list of its models")],
)
def test_who_says_nothing(run: Run, file: Path, name: str, code: int, says: str) -> None:
    file.write_text(
        '[providers.down]\nprotocol = "openai"\nurl = "http://127.0.0.1:1/v1"\n'
        '[providers.pageless]\nprotocol = "ai-engine"\nurl = "http://127.0.0.1:1"\n'
    )
    result = run("models", "-p", name)
    assert (result.exit_code, result.stderr.count("\n")) == (code, 1)
    assert says in result.stderr
