"""What is inferred of recordings that are easily misread, and that no recipe is believed which fails over its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from tolmach.errors import ConfigError
from tolmach.recipes.draft import Draft
from tolmach.recipes.har import read_har
from tolmach.recipes.infer import infer
from tolmach.recipes.judging import answers_anew, makes_the_request, reads_the_answer
from tolmach.recipes.traffic import Exchange

CASES = Path(__file__).parent / "cases"
"""Recordings with the shapes of real services; names, ids and texts are made up."""

ANSWER = "You asked «Why is the sky blue?»"


def _recorded(name: str) -> list[Exchange]:
    return read_har((CASES / f"{name}.har").read_bytes())


def _draft(name: str) -> Draft:
    return infer(_recorded(name))


def _sure(draft: Draft, part: str) -> float:
    return next(one.sure for one in draft.parts if one.name == part)


ANSWERS: dict[str, dict[str, Any]] = {
    "har-null-response": {"format": "json", "text": "/reply"},
    "question-twice-aisdk4": {"format": "ndjson", "prefix": "0:", "text": "", "end": "d:"},
    "reasoning-taken-as-answer": {"text": "/delta", "where": {"/type": "text-delta"}},
    "own-recording-fails-lobe": {"events": ["text"], "end_event": ["stop"], "text": ""},
    "own-recording-fails-you": {"events": ["youChatToken"], "end_event": ["done"], "text": "/youChatToken"},
    "own-recording-fails-next-action": {"prefix": "1:", "text": "/content"},
    "chatui-nul-and-parent": {"text": "/token", "where": {"/type": "stream"}},
}


@pytest.mark.parametrize("name", ANSWERS)
def test_where_the_answer_stands(name):
    draft = _draft(name)
    assert draft.question == "Why is the sky blue?"
    assert draft.answer.startswith((ANSWER, "The sky is blue"))
    assert "\0" not in draft.answer
    assert ANSWERS[name].items() <= draft.options["answer"].items()
    assert _sure(draft, "replay") > 0.9


def test_a_line_with_the_only_text_is_not_the_end():
    assert "end" not in _draft("own-recording-fails-next-action").options["answer"]


@pytest.mark.parametrize("name", ["nextjs-stack-frames", "gemini-batchexecute"])
def test_what_is_no_chat_gives_no_recipe(name):
    with pytest.raises(ConfigError, match="none of the"):
        _draft(name)


def test_every_place_of_the_question_is_filled():
    (message,) = [_draft("question-twice-aisdk4").options["request"]["item"]]
    assert message["content"] == "{{content}}"
    assert message["parts"][0]["text"] == "{{content}}"


def test_an_id_of_the_place_stays():
    body = _draft("constant-bot-id").options["request"]["json"]
    assert body["botId"] == "0e30855c-6873-4f87-9de6-b3352a0622b3"


def test_a_value_that_the_first_question_sends_is_sent_first():
    parent = _draft("first-parent-id-lost").options["conversation"]["parentMessageId"]
    assert parent["new"] == "00000000-0000-0000-0000-000000000000"
    assert parent["answer"]


# The judge itself


def test_a_recipe_that_reads_another_text_is_found_out():
    draft, recorded = _draft("har-null-response"), _recorded("har-null-response")
    asked = next(one for one in recorded if one.answered)
    assert reads_the_answer(draft.options, asked, draft.answer) == ""
    wrong = draft.options | {"answer": {"format": "json", "text": "/nothing"}}
    assert reads_the_answer(wrong, asked, draft.answer) != ""
    assert "it reads" in reads_the_answer(draft.options, asked, "another answer")


def test_a_recipe_that_asks_the_recorded_question_is_found_out():
    draft, recorded = _draft("har-null-response"), _recorded("har-null-response")
    index = next(number for number, one in enumerate(recorded) if one.answered)

    def judged(body: dict[str, Any]) -> str:
        options = draft.options | {"request": draft.options["request"] | {"json": body}}
        return makes_the_request(options, draft.url, recorded, index, draft.question, ())

    assert judged({"message": "{{message}}"}) == ""
    assert "whatever is asked" in judged({"message": "{{message}}", "copy": draft.question})
    assert "leaves out" in judged({"other": "{{message}}"})
    assert "it sends" in judged({"message": "{{message}}!"})


def test_a_recipe_that_fails_over_its_recording_is_hardly_believed():
    recorded = _recorded("har-null-response")
    broken = [
        Exchange(request=one.request, head=one.head, body=one.body.replace(b'"reply"', b'"error"'), started=one.started)
        for one in recorded
    ]
    draft = infer(broken)
    assert draft.sure <= 0.5
    assert "its own recording" in next(one.reason for one in draft.parts if one.name == "replay")


def test_a_cookie_that_a_script_decodes_is_sent_decoded():
    draft = _draft("xsrf-cookie-not-decoded")
    assert draft.options["bootstrap"][0]["tokens"] == {"x_xsrf_token": {"cookie": "XSRF-TOKEN", "decode": True}}
    assert draft.options["request"]["headers"] == {"x-xsrf-token": "{{token.x_xsrf_token}}"}
    assert _sure(draft, "replay") > 0.9


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        (["You asked why and ", "that is a good question."], "You asked why and that is a good question."),
        (["Hello, how are you?", "What can I do for you?"], "Hello, how are you?\nWhat can I do for you?"),
    ],
)
def test_the_texts_of_a_list_are_one_answer(texts, joined):
    body = json.dumps([{"recipient_id": "u1", "text": text} for text in texts])
    request = {"method": "POST", "url": "https://a.test/webhook", "postData": {"text": '{"message": "Why is it so?"}'}}
    response = {"status": 200, "content": {"mimeType": "application/json", "text": body}}
    draft = infer(read_har(json.dumps({"log": {"entries": [{"request": request, "response": response}]}}).encode()))
    assert (draft.options["answer"]["text"], draft.answer) == ("/*/text", joined)
    assert _sure(draft, "replay") > 0.9


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("Grass is green because of chlorophyll.", ""),
        ("", "empty"),
        (" \n", "empty"),
        ("The sky is blue because air scatters short waves.", "recorded"),
        ("And the grass?", "repeats"),
        ("success", "state"),
        ("[DONE]", "state"),
    ],
)
def test_a_new_question_is_answered_anew(said, wrong):
    found = answers_anew(said, "And the grass?", _draft("har-null-response"))
    assert wrong in found
    assert bool(wrong) == bool(found)


ONE, TWO = "0e30855c-6873-4f87-9de6-b3352a0622b3", "7b0c1f5e-27d4-4c39-8f4e-51a1d4a9c777"


def _asked(*bodies: dict[str, Any]) -> Draft:
    entries = [
        {
            "request": {"method": "POST", "url": "https://a.test/ask", "postData": {"text": json.dumps(body)}},
            "response": {"status": 200, "content": {"text": '{"reply": "Because air scatters short waves."}'}},
        }
        for body in bodies
    ]
    return infer(read_har(json.dumps({"log": {"entries": entries}}).encode()))


@pytest.mark.parametrize("key", ["clientId", "user", "sender", "sessionId", "id"])
def test_an_id_of_the_page_is_of_one_conversation(key):
    """Where the service remembers by it, callers who had one together would share a conversation."""
    draft = _asked({"message": "Why is the sky blue?", key: ONE})
    assert draft.options["request"]["json"][key] == f"{{{{conversation.{key}}}}}"
    assert draft.options["conversation"][key] == {"new": f"{{{{random.uuid.{key}}}}}"}


def test_an_id_that_differs_between_two_questions_is_made_for_each():
    first = {"message": "Why is the sky blue?", "client_ref": ONE, "session": TWO}
    draft = _asked(first, first | {"message": "And the grass, why is it green?", "client_ref": TWO})
    assert draft.options["request"]["json"]["client_ref"] == "{{random.uuid.client_ref}}"
    assert draft.options["request"]["json"]["session"] == "{{conversation.session}}"


def test_an_id_of_a_message_is_made_for_each():
    draft = _asked({"message": "Why is the sky blue?", "messageId": ONE})
    assert draft.options["request"]["json"]["messageId"] == "{{random.uuid.messageId}}"
