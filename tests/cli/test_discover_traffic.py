"""`tolmach discover` of traffic: an unknown chat gives a recipe that is asked and saved, a known one does not."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.recipes.apis import APIS, KEY, answer, serve
from tests.recipes.record import ADDRESS, QUESTIONS, TRAFFIC
from tolmach.client.clients import Client
from tolmach.configuration import Settings, provider_site

NEW = "Is it far & 100% ${HOME}?"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serve() as running:
        yield running


@pytest.fixture
def traffic(address: str, tmp_path: Path) -> Callable[[str], str]:
    """The file of a recording, as if it had been recorded from the server that runs."""

    def moved(name: str) -> str:
        file = tmp_path / name
        text = (TRAFFIC / name).read_text(encoding="utf-8")
        file.write_text(text.replace(ADDRESS, address).replace("chat.example:8080", address[7:]), encoding="utf-8")
        return str(file)

    return moved


def found_in(run: Run, *args: str) -> dict[str, Any]:
    result = run("discover", *args, "--json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["found"]
    assert isinstance(found, dict)
    return found


# Recipes


@pytest.mark.parametrize("name", APIS)
def test_a_har_of_an_unknown_chat_is_a_recipe(run: Run, name: str) -> None:
    result = run("discover", str(TRAFFIC / f"{name}.har"), "--json")
    value = json.loads(result.stdout)
    (found,) = value["found"]
    assert (found["protocol"], found["row"]["protocol"]) == ("recipe", "recipe")
    assert found["row"]["url"] == f"{ADDRESS}/{name}/"
    assert 0.5 < found["sure"] == min(round(part["sure"], 2) for part in found["parts"])
    assert {part["name"] for part in found["parts"]} >= {"question", "answer", "format"}
    assert repr(QUESTIONS[0]) in found["evidence"][0]["says"]
    assert f"GET {ADDRESS}/{name}/style.css" in [one["what"] for one in found["ignored"]]
    assert value["unknown"] == []
    assert KEY not in result.output


def test_for_people_each_part_is_a_line(run: Run) -> None:
    result = run("discover", str(TRAFFIC / "escaped.har"))
    assert "1. recipe\n" in result.stdout
    assert "   part      95% answer, /d -> /answer: of 2 texts it looks most like an answer\n" in result.stdout
    assert f"   ignored   GET {ADDRESS}/escaped/style.css: a static file\n" in result.stdout
    assert f"   row       protocol = 'recipe', url = '{ADDRESS}/escaped/'\n" in result.stdout


@pytest.mark.parametrize("name", APIS)
def test_a_new_question_is_answered(run: Run, traffic: Callable[[str], str], name: str) -> None:
    result = run("discover", traffic(f"{name}.har"), "--try", NEW, "--json")
    assert result.exit_code == 0, result.output
    tried = json.loads(result.stdout)["tried"]
    assert (tried["answer"], tried["error"]) == (answer(NEW), None)


def test_a_curl_command_of_an_unknown_chat_is_run_once(run: Run, traffic: Callable[[str], str]) -> None:
    before = APIS["form"].questions
    found = found_in(run, traffic("form.curl"))
    assert (found["protocol"], found["row"]["answer"]["text"]) == ("recipe", "/data/text")
    assert APIS["form"].questions == before + 1


def test_a_curl_command_that_fetches_an_answer_is_a_recipe(run: Run, traffic: Callable[[str], str]) -> None:
    assert found_in(run, traffic("query.curl"))["row"]["request"]["query"]["q"] == "{{message}}"


def test_a_curl_command_with_its_answer_is_not_run(run: Run, traffic: Callable[[str], str], tmp_path: Path) -> None:
    before = APIS["form"].questions
    said = tmp_path / "said.json"
    said.write_text('{"reply": "It is blue because of the air."}')
    found = found_in(run, traffic("form.curl"), "--answer", str(said))
    assert found["row"]["answer"]["text"] == "/reply"
    assert APIS["form"].questions == before


def test_a_question_that_is_named_is_the_one(run: Run) -> None:
    found = found_in(run, str(TRAFFIC / "plain.har"), "--question", QUESTIONS[1])
    assert next(part["sure"] for part in found["parts"] if part["name"] == "question") == 0.99


def test_a_command_that_fails_is_told(run: Run, address: str) -> None:
    command = f'curl {address}/nothing/api --json \'{{"q": "Why is the sky blue?"}}\''
    value = json.loads(run("discover", command, "--json").stdout)
    assert value["found"] == []
    assert "the command was run once and got status 404" in value["hints"][0]
    assert value["unknown"] == [f"POST {address}/nothing/api"]


def test_a_command_that_asks_nothing_is_not_run(run: Run, address: str) -> None:
    value = json.loads(run("discover", f"curl {address}/form/api --json '{{\"id\": 7}}'", "--json").stdout)
    assert (value["found"], value["hints"]) == ([], [])


def test_traffic_without_a_chat_is_no_recipe(run: Run, tmp_path: Path) -> None:
    har = json.loads((TRAFFIC / "form.har").read_text(encoding="utf-8"))
    har["log"]["entries"] = [one for one in har["log"]["entries"] if one["request"]["method"] == "GET"]
    file = tmp_path / "visit.har"
    file.write_text(json.dumps(har))
    assert json.loads(run("discover", str(file), "--json").stdout)["found"] == []
    refused = run("discover", str(file), "--save", "x")
    assert refused.exit_code == 4
    assert "no recipe can be made of it" in refused.stderr


# What is known


OPENAI = '{"choices":[{"message":{"role":"assistant","content":"Because of the air."},"finish_reason":"stop"}]}'
ANTHROPIC = (
    '{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"Because of '
    'the air."}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}'
)
OLLAMA = (
    '{"model":"m","message":{"role":"assistant","content":"Because of the air."},"done":true,"done_reason":"stop"}\n'
)
ASKED = '{"model":"m","messages":[{"role":"user","content":"Why is the sky blue?"}],"stream":false}'
PARTS = '{"id":"x","messages":[{"role":"user","parts":[{"type":"text","text":"Why is the sky blue?"}]}]}'
OTHER = '{"reply":"It is blue because of the air."}'


def har_of(file: Path, path: str, asked: str, said: str, **headers: str) -> str:
    """A HAR file with one exchange."""
    kind = "application/json"
    named = [{"name": name, "value": value} for name, value in headers.items()]
    request = {
        "method": "POST",
        "url": f"https://chat.example{path}",
        "headers": [{"name": "Content-Type", "value": kind}, *named],
        "postData": {"mimeType": kind, "text": asked},
    }
    response = {"status": 200, "headers": [], "content": {"mimeType": kind, "text": said}}
    file.write_text(json.dumps({"log": {"entries": [{"request": request, "response": response}]}}))
    return str(file)


@pytest.mark.parametrize(
    ("path", "asked", "said", "protocol"),
    [
        ("/v1/chat/completions", ASKED, OPENAI, "openai"),
        ("/v1/messages", ASKED, ANTHROPIC, "anthropic"),
        ("/api/chat", ASKED, OLLAMA, "ollama"),
        # Routes of these names with something else behind them.
        ("/v1/chat/completions", ASKED, OTHER, "recipe"),
        ("/v1/messages", ASKED, OTHER, "recipe"),
        ("/api/chat", ASKED, OTHER, "recipe"),
        ("/api/chat", PARTS, OTHER, "recipe"),
    ],
)
def test_a_known_api_is_no_recipe(run: Run, tmp_path: Path, path: str, asked: str, said: str, protocol: str) -> None:
    found = found_in(run, har_of(tmp_path / "visit.har", path, asked, said))
    assert (found["protocol"], found["row"]["protocol"]) == (protocol, protocol)


def test_a_key_in_traffic_is_told_and_not_kept(run: Run, tmp_path: Path) -> None:
    file = har_of(tmp_path / "a.har", "/v1/chat/completions", ASKED, OPENAI, authorization="Bearer hush-hush-hush")
    result = run("discover", file, "--json")
    (found,) = json.loads(result.stdout)["found"]
    assert [missing["kind"] for missing in found["missing"]] == ["key"]
    assert "hush" not in result.output


def test_bot_recipe_asks_for_one_beside_what_is_known(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "both.har"
    known = json.loads(Path(har_of(file, "/v1/chat/completions", ASKED, OPENAI)).read_text())
    other = json.loads(Path(har_of(file, "/ask", '{"q":"Why is the sky blue?"}', OTHER)).read_text())
    known["log"]["entries"] += other["log"]["entries"]
    file.write_text(json.dumps(known))
    assert found_in(run, str(file))["protocol"] == "openai"
    assert found_in(run, str(file), "--bot", "recipe")["protocol"] == "recipe"


# Saving


@pytest.mark.parametrize("name", ["form", "ndjson", "openai", "keyed"])
def test_what_is_saved_answers(
    run: Run, traffic: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config, recipe = tmp_path / "tolmach.toml", tmp_path / "shop.recipe.toml"
    source = traffic(f"{name}.har")
    result = run("discover", source, "--save", "shop", "-c", str(config))
    assert result.exit_code == 0, result.output
    assert KEY not in config.read_text() + recipe.read_text() + result.output
    assert (recipe.stat().st_mode & 0o777, config.stat().st_mode & 0o777) == (0o600, 0o600)
    variables = json.loads(run("discover", source, "--json").stdout)["found"][0]["variables"]
    assert len(variables) == (name == "keyed")
    for variable in variables:
        assert f"set the environment variable {variable} before it is used" in result.stderr
        monkeypatch.setenv(variable, KEY)
    row = Settings.load(config).providers["shop"]
    assert row.options["recipe"] == str(recipe)
    site, _ = provider_site(row)
    with Client(base_url=site.url, protocol="recipe", recipe=str(recipe)) as client:
        reply = client.chat.completions.create(model="", messages=[{"role": "user", "content": NEW}])
    assert reply.choices[0].message.content == answer(NEW)


def test_a_recipe_that_is_there_is_not_written_over(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shop.recipe.toml").write_text("# mine\n")
    config = tmp_path / "tolmach.toml"
    result = run("discover", str(TRAFFIC / "form.har"), "--save", "shop", "-c", str(config))
    assert result.exit_code == 2
    assert "shop.recipe.toml: is there already" in result.stderr
    assert (tmp_path / "shop.recipe.toml").read_text() == "# mine\n"
    assert not config.exists()


@pytest.mark.parametrize("name", ["shop", "a/b"])
def test_a_row_that_cannot_be_written_leaves_no_recipe(run: Run, tmp_path: Path, name: str) -> None:
    config = tmp_path / "tolmach.toml"
    config.write_text('[providers.shop]\nprotocol = "openai"\nurl = "https://chat.example/v1"\n')
    before = config.read_text(), sorted(os.listdir(tmp_path))
    result = run("discover", str(TRAFFIC / "form.har"), "--save", name, "-c", str(config))
    assert result.exit_code == 2
    assert (config.read_text(), sorted(os.listdir(tmp_path))) == before
