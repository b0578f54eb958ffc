"""`tolmach recipe`, and recipes for the other commands."""

import json
from pathlib import Path

from tests.cli.conftest import Run
from tests.recipes.apis import answer, serve
from tests.recipes.record import ADDRESS, QUESTIONS, TRAFFIC
from tolmach.errors import ConfigError
from tolmach.recipes.files import read_recipe

AICHAT = """url = "http://chat.test/"
[request]
url = "/api/text"
json = { message = "{{message}}" }
[answer]
text = "/message"
[errors]
ok = "/response"
"""


def test_a_recipe_is_written_and_tried(run: Run, tmp_path: Path) -> None:
    har, out = tmp_path / "chat.har", tmp_path / "chat.toml"
    with serve() as address:
        text = (TRAFFIC / "plain.har").read_text(encoding="utf-8")
        har.write_text(text.replace(ADDRESS, address), encoding="utf-8")
        done = run("recipe", str(har), "--out", str(out), "--try", "Another one?")
    assert done.exit_code == 0
    assert answer("Another one?") in done.stdout
    assert "ignored" in done.stderr
    assert read_recipe(out).options["request"]["json"] == {"message": "{{message}}", "lang": "en"}
    assert out.stat().st_mode & 0o077 == 0


def test_what_was_found_as_json(run: Run) -> None:
    found = json.loads(run("recipe", str(TRAFFIC / "escaped.har"), "--json").stdout)
    assert found["question"] == QUESTIONS[0]
    assert found["recipe"]["answer"]["text"] == "/d -> /answer"
    assert {part["name"] for part in found["parts"]} >= {"question", "answer", "format", "token x_session"}
    assert all(0 <= part["sure"] <= 1 and part["reason"] for part in found["parts"])
    assert {row["reason"] for row in found["ignored"]} >= {"a static file"}


def test_a_curl_command_with_its_answer_is_not_run(run: Run, tmp_path: Path) -> None:
    said = tmp_path / "said.json"
    said.write_text('{"reply": "It is blue because of the air."}')
    command = "curl http://chat.test/api -H 'X-A: 1' --json '{\"q\": \"Why is the sky blue?\"}'"
    done = run("recipe", command, "--answer", str(said))
    assert 'text = "/reply"' in done.stdout
    assert 'q = "{{message}}"' in done.stdout
    assert 'x-a = "1"' in done.stdout


def test_what_is_no_traffic_is_said(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "a.txt"
    other.write_text("hello")
    for source in (str(other), str(tmp_path / "none.har")):
        assert isinstance(run("recipe", source).exception, ConfigError | SystemExit)


def test_decode_reads_by_a_recipe(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "aichat.toml"
    file.write_text(AICHAT)
    captures = Path(__file__).parent.parent / "captures" / "json-text"
    lines = [json.loads(line) for line in run("decode", "--recipe", str(file), str(captures)).stdout.splitlines()]
    assert {"delta", "done", "error"} == {line["type"] for line in lines}
