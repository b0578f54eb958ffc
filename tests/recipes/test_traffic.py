"""From what a browser recorded to a recipe that answers a new question, for APIs of many shapes."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.apis import APIS, KEY, answer, serve
from tests.recipes.record import ADDRESS, QUESTIONS, TRAFFIC
from tolmach.chat import Conversation, Delta
from tolmach.cli.recipe import draft_of
from tolmach.client.clients import AsyncClient
from tolmach.recipes.draft import Draft
from tolmach.recipes.files import read_recipe
from tolmach.recipes.writing import to_toml

NEW = 'Où est la gare « centrale », s\'il vous plaît? Is it "far" & 100% free {{message}} ${HOME}?'


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serve() as running:
        yield running


@pytest.fixture
def traffic(address: str, tmp_path: Path) -> Any:
    """The file of a recording, as if it had been recorded from the server that runs."""

    def moved(name: str) -> str:
        file = tmp_path / name
        text = (TRAFFIC / name).read_text(encoding="utf-8")
        file.write_text(text.replace(ADDRESS, address).replace("chat.example:8080", address[7:]), encoding="utf-8")
        return str(file)

    return moved


def _saved(draft: Draft, tmp_path: Path) -> Path:
    file = tmp_path / "recipe.toml"
    file.write_text(to_toml(draft), encoding="utf-8")
    return file


def _with_token(source: str, name: str) -> None:
    """Put a token that is good now into the command."""
    text = Path(source).read_text(encoding="utf-8")
    lines = text.lower().splitlines()
    given = next(line for line in lines if "authorization:" in line or "x-session:" in line)
    old = given.rpartition(" ")[0].rpartition(" ")[2].strip("'")
    Path(source).write_text(text.replace(old, APIS[name].give()), encoding="utf-8")


def _sent_now(source: str) -> None:
    """Let the command be one that was copied just now: the time of the question stands in it."""
    text = Path(source).read_text(encoding="utf-8")
    text, times = re.subn(r'(?<="sent_at":)\d{13}', str(int(time.time() * 1000)), text)
    assert times == 1
    Path(source).write_text(text, encoding="utf-8")


async def ask(draft: Draft, tmp_path: Path, *questions: str) -> list[str]:
    """What the recipe's file answers, question by question in one conversation."""
    read = read_recipe(_saved(draft, tmp_path), draft.secrets)
    answers: list[str] = []
    messages: list[dict[str, str]] = []
    conversation: Conversation | None = None
    async with AsyncClient(base_url=read.url, protocol="recipe", **read.options) as client:
        for question in questions:
            messages.append({"role": "user", "content": question})
            events = [event async for event in client.events(model="", messages=messages, conversation=conversation)]
            answers.append("".join(event.text for event in events if isinstance(event, Delta)))
            messages.append({"role": "assistant", "content": answers[-1]})
            conversation = next((event for event in events if isinstance(event, Conversation)), None)
    return answers


@pytest.mark.parametrize("name", APIS)
async def test_a_har_gives_a_recipe_that_answers_a_new_question(name: str, traffic: Any, tmp_path: Path) -> None:
    draft = await draft_of(traffic(f"{name}.har"))
    assert draft.question == QUESTIONS[0]
    assert draft.answer == answer(QUESTIONS[0])
    before = APIS[name].questions
    assert await ask(draft, tmp_path, NEW) == [answer(NEW)]
    assert APIS[name].questions == before + 1
    assert 0.5 < draft.sure <= 1
    ignored = [row.what.rpartition("/")[2] for row in draft.ignored]
    assert "style.css" in ignored


@pytest.mark.parametrize("name", APIS)
async def test_a_curl_command_gives_a_recipe_that_answers_a_new_question(
    name: str, traffic: Any, tmp_path: Path
) -> None:
    source = traffic(f"{name}.curl")
    if name in ("openai", "escaped"):
        # The token of these came from a request that the command does not show.
        _with_token(source, name)
    if name == "human":
        _sent_now(source)
    draft = await draft_of(source)
    assert draft.question == QUESTIONS[0]
    assert await ask(draft, tmp_path, NEW) == [answer(NEW)]


async def test_a_conversation_goes_on_by_the_id_that_the_answer_gave(traffic: Any, tmp_path: Path) -> None:
    draft = await draft_of(traffic("snapshots.har"))
    talks = APIS["snapshots"].talks
    before = set(talks)
    assert await ask(draft, tmp_path, "First one?", "And second?") == [answer("First one?"), answer("And second?")]
    (new,) = set(talks) - before
    assert talks[new] == 2


@pytest.mark.parametrize("name", ["form", "ndjson", "openai", "double"])
async def test_a_token_that_the_service_forgot_is_fetched_anew(name: str, traffic: Any, tmp_path: Path) -> None:
    draft = await draft_of(traffic(f"{name}.har"))
    api = APIS[name]
    async with AsyncClient(base_url=draft.url, protocol="recipe", **draft.options) as client:
        for _ in range(2):
            reply = await client.chat.completions.create(model="", messages=[{"role": "user", "content": "Once more?"}])
            assert reply.choices[0].message.content == answer("Once more?")
            api.given.clear()


@pytest.mark.parametrize("name", ["keyed.har", "keyed.curl"])
async def test_a_persons_key_is_written_nowhere(name: str, traffic: Any) -> None:
    draft = await draft_of(traffic(name))
    (variable,) = draft.variables
    assert draft.secrets == {variable: KEY}
    assert KEY not in to_toml(draft) + repr(draft) + json.dumps(draft.options)
    assert f"${{{variable}}}" in to_toml(draft)


def test_recordings_tell_nothing_of_the_machine_they_were_made_on() -> None:
    for file in TRAFFIC.iterdir():
        text = file.read_text(encoding="utf-8")
        assert [word for word in ("127.0.0.1", "localhost", "/home/", "/tmp/") if word in text] == []
    assert {file.stem for file in TRAFFIC.iterdir()} == set(APIS)
