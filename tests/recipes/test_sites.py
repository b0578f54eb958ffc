"""Three sites as recipes: the same suite as their own protocols, and the demo upstream."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recipes import sites
from tests.recipes.sites import RECIPES
from tests.testing.checking import check
from tolmach.chat import Notice
from tolmach.client.clients import AsyncClient
from tolmach.demo import ThreadedDemo, serve_in_thread
from tolmach.protocols import create
from tolmach.testing import conformance, recordings
from tolmach.testing.conformance import Answer

CAPTURES = Path(__file__).parent.parent / "captures"
OWN = {
    "Aichat": ("json-text", "json-text"),
    "Chatgpt4o": ("ai-power", "aipower-1.9.18"),
    "ChatGptt": ("ai-power", "aipower-1.9.18"),
}
OPTIONS = {"Aichat": sites.AICHAT, "Chatgpt4o": sites.CHATGPT4O, "ChatGptt": sites.CHATGPTT}

PLAINER = {
    "error-no-api-key": "it has no words of its own for the fault of a key",
    "error-plugin-deactivated": "a bad status is all that it knows of a plugin that is gone",
    "upload-bad-type": "the action of an upload is another one",
    "upstream-401": "the words of a fault that is streamed are no pieces of an answer, and the stream has no end",
    "upstream-429": "the same",
    "upstream-500": "the same",
    "upstream-html": "a page in place of an answer is no answer, whatever stands on it",
}
"""Recording -> why a recipe gives another kind of error for it than the protocol that knows the plugin."""


def _recorded(name: str) -> list[Answer]:
    folder = CAPTURES / OWN[name][1]
    return [
        answer
        for path in sorted(folder.glob("*.json"))
        for answer in conformance.answers(recordings.load(path), [create(OWN[name][0])])
    ]


def _as_recipe(name: str, answer: Answer) -> Answer:
    recipe = RECIPES[name]
    request = answer.request if answer.request.method == "POST" else None
    reader = recipe.reader(request) if request is not None else None
    assert reader is not None
    return Answer(answer.recording, answer.exchange, "recipe", answer.request, answer.head, answer.pieces, reader)


CASES = [
    pytest.param(name, answer, id=f"{name}:{answer.recording}:{answer.exchange}")
    for name in RECIPES
    for answer in _recorded(name)
    if answer.request.method == "POST"
]


@pytest.mark.parametrize(("name", "answer"), CASES)
def test_a_recipe_passes_the_suite_and_says_what_the_sites_own_protocol_says(name: str, answer: Answer) -> None:
    as_recipe = _as_recipe(name, answer)
    if name != "ChatGptt":  # it reads answers as Chatgpt4o does
        check(as_recipe)
    own = conformance.run(answer, [answer.body])
    said = conformance.run(as_recipe, [answer.body])
    if answer.recording.rpartition("/")[2] not in PLAINER:
        assert said.failure is None or own.failure is not None
        assert (said.failure and said.failure.kind) == (own.failure and own.failure.kind)
    if own.failure is None:
        assert said.text == own.text
    else:
        assert said.failure is not None


@pytest.fixture(scope="module")
def demo() -> Iterator[ThreadedDemo]:
    with serve_in_thread(delay=0) as running:
        yield running


def _client(demo: ThreadedDemo, name: str) -> AsyncClient:
    cookies = {"visited": "yes"} if name == "Aichat" else None
    return AsyncClient(base_url=f"{demo.url}/{name}", protocol="recipe", cookies=cookies, **OPTIONS[name])


@pytest.mark.parametrize("name", RECIPES)
async def test_the_demo_answers_a_recipe(demo: ThreadedDemo, name: str) -> None:
    async with _client(demo, name) as client:
        for question in ("Hello?", "And again?"):
            events = [e async for e in client.events(model="", messages=[{"role": "user", "content": question}])]
            assert "✅" in "".join(getattr(event, "text", "") for event in events if not isinstance(event, Notice))


@pytest.mark.parametrize("name", ["Chatgpt4o", "ChatGptt"])
async def test_a_recipe_fetches_a_nonce_anew_past_the_caches(demo: ThreadedDemo, name: str) -> None:
    async with _client(demo, name) as client:
        messages = [{"role": "user", "content": "Hello? [[fault:stale-nonce]]"}]
        reply = await client.chat.completions.create(model="", messages=messages)
        assert "✅" in str(reply.choices[0].message.content)
