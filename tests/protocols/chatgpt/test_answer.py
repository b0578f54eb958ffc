"""The answers of the web conversation: both encodings, and what the service says instead."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.captures.writing import TEXT
from tests.captures.writing import events as stream
from tests.captures.written_chatgpt_web import ANSWER_ID, CONVERSATION_ID, append, deltas, message, operation, root
from tests.protocols.driving import (
    NOW,
    Outcome,
    by_bytes,
    cases,
    cut_at,
    join,
    load,
    read,
)
from tolmach.chat import Conversation, Delta, Done, Notice, Reasoning
from tolmach.errors import (
    AuthError,
    BadRequest,
    ChallengeRequired,
    ContextTooLong,
    ProviderUnavailable,
    RateLimited,
    RemoteProtocolError,
    TruncatedAnswer,
)
from tolmach.protocols.chatgpt.answer import ConversationAnswer
from tolmach.protocols.chatgpt.web import ChatGptWeb
from tolmach.wire import Head, Limits, Request

PROTOCOL = ChatGptWeb()

# The answer: recordings

STATE = Conversation({"conversation_id": CONVERSATION_ID, "parent_message_id": ANSWER_ID})

ANSWERS: dict[str, list[Any]] = {
    "snapshots": [Delta(TEXT), STATE, Done()],
    "snapshots-escaped": [
        Delta("a🚀b"),
        Conversation({"conversation_id": "c", "parent_message_id": "a"}),
        Done(),
    ],
    "snapshots-rewritten": [Delta("Hello wor"), Notice("rewritten", "Hi"), Delta(" there."), STATE, Done()],
    "snapshots-tool": [
        Delta("Let me look.\n\nIt is so."),
        Conversation({"conversation_id": CONVERSATION_ID, "parent_message_id": "m4"}),
        Done(),
    ],
    "snapshots-without-done": [Delta("Hello"), STATE, Done()],
    "deltas": [Delta(TEXT), STATE, Done()],
    "deltas-without-done": [Delta(TEXT), STATE, Done()],
    "deltas-reasoning": [
        *map(Reasoning, ("Thinking", "\nOne", ", two", ", three", "\n\nMore")),
        Delta("Yes."),
        STATE,
        Done(),
    ],
    "deltas-rewritten": [
        Delta("Hello wor"),
        Notice("rewritten", "Hello"),
        Delta(", you!"),
        Notice("rewritten", "Bye"),
        Delta("!"),
        STATE,
        Done(),
    ],
}
FINAL = {"snapshots-rewritten": "Hi there.", "deltas-rewritten": "Bye!"}

ERRORS: dict[str, tuple[Any, ...]] = {
    "error-in-stream": (ProviderUnavailable, "Something went wrong", 200, None, None, "Hel"),
    "error-in-deltas": (RateLimited, "Too many requests", 200, "rate_limit_exceeded", None, "Hel"),
    "error-empty": (ProviderUnavailable, "the service gave an empty answer", 200, "empty", None, ""),
    "error-unusual": (
        ChallengeRequired,
        "Unusual activity has been detected from your device. Try again later.",
        403,
        None,
        None,
        "",
    ),
    "error-unusual-200": (
        ChallengeRequired,
        "Unusual activity has been detected from your device.",
        200,
        None,
        None,
        "",
    ),
    "error-challenge": (ChallengeRequired, "the site shows a challenge page: Just a moment...", 403, None, None, ""),
    "error-401": (AuthError, "Token expired", 401, "token_expired", None, ""),
    "error-404": (BadRequest, "Conversation not found", 404, "conversation_not_found", None, ""),
    "error-413": (
        ContextTooLong,
        "The message you submitted was too long",
        413,
        "message_length_exceeds_limit",
        None,
        "",
    ),
    "error-422": (BadRequest, "field required", 422, None, None, ""),
    "error-429": (RateLimited, "Too many requests", 429, None, 60.0, ""),
    "error-500": (ProviderUnavailable, "Internal Server Error", 500, None, None, ""),
}


def test_every_recording_has_an_outcome():
    assert set(cases("chatgpt-web")) == set(ANSWERS) | set(ERRORS)


@pytest.mark.parametrize("case", [*ANSWERS, *ERRORS])
def test_recordings(case):
    page, requirements, recorded = load("chatgpt-web", case)
    assert PROTOCOL.reader(page.request) is None
    assert PROTOCOL.reader(requirements.request) is None
    reader = PROTOCOL.reader(recorded.request)
    assert reader is not None
    outcome = read(reader(recorded.head), recorded.chunks)
    for chunks in ([recorded.body], by_bytes(recorded.body)):
        assert read(reader(recorded.head), chunks).said == outcome.said
    if case in ANSWERS:
        assert (join(outcome.events), outcome.error) == (ANSWERS[case], None)
        assert outcome.text == FINAL.get(case, outcome.text)
    else:
        error = outcome.failure
        told = (type(error), error.text, error.status, error.code, error.retry_after, error.partial)
        assert told == ERRORS[case]


@pytest.mark.parametrize("case", ANSWERS)
def test_truncated_is_never_a_success_unless_nothing_is_missing(case):
    recorded = load("chatgpt-web", case)[-1]
    reader = PROTOCOL.reader(recorded.request)
    assert reader is not None
    body = recorded.body
    since = None
    for length in range(len(body)):
        outcome = read(reader(recorded.head), [body[:length]])
        if outcome.error is None:
            assert join(outcome.events) == ANSWERS[case]
            since = length if since is None else since
        else:
            assert since is None
            assert type(outcome.error) is TruncatedAnswer
            assert not any(isinstance(event, Done) for event in outcome.events)
    if since is not None:
        assert b'"append"' not in body[since:]


# The answer: further shapes


def answer(body: str | bytes, status: int = 200, limits: Limits | None = None) -> Outcome:
    """The outcome, which is the same for any cut."""
    data = body.encode() if isinstance(body, str) else body
    head = Head(status)
    whole = read(ConversationAnswer(head, limits or Limits(), lambda: NOW), [data])
    assert read(ConversationAnswer(head, limits or Limits(), lambda: NOW), by_bytes(data)).said == whole.said
    return whole


BEGIN = {"p": "", "o": "add", "v": root(message("")), "c": 0}
END = operation(
    "",
    "patch",
    [operation("/message/status", "replace", "finished_successfully"), operation("/message/end_turn", "replace", True)],
)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        # The text of one channel stays its own.
        (
            [
                BEGIN,
                {**append("a"), "c": 0},
                {"p": "", "o": "add", "v": root(message("x", id="u", role="user")), "c": 1},
                {**append("b"), "c": 0},
                {"v": "c"},
            ],
            "abc",
        ),
        # A patch inside a patch, whose paths continue.
        (
            [
                BEGIN,
                operation(
                    "/message", "patch", [operation("/content", "patch", [operation("/parts/0", "append", "a")])]
                ),
            ],
            "a",
        ),
        # A patch inherits within itself.
        ([BEGIN, operation("", "patch", [append("a"), {"v": "b"}])], "ab"),
        # Halves of a character in two appends, and in an append and a patch.
        (
            [BEGIN, append("a\ud83d"), {"v": "\ude80"}, {"v": "\ud83d"}, operation("", "patch", [append("\ude80b")])],
            "a🚀🚀b",
        ),
        # Parts are inserted, replaced and appended.
        (
            [
                BEGIN,
                append("b"),
                operation("/message/content/parts/0", "add", "a"),
                operation("/message/content/parts", "append", ["c", 5]),
            ],
            "abc",
        ),
        (
            [BEGIN, operation("/message/content", "replace", {"content_type": "text", "parts": ["ab"]}), append("c")],
            "abc",
        ),
        ([BEGIN, operation("/message/content", "append", {"parts": ["ab"]})], "ab"),
        # Metadata is passed over, whatever is done to it.
        (
            [BEGIN, append("a"), operation("/message/metadata/x/y/z", "truncate", "no"), operation("/other", "fly", 1)],
            "a",
        ),
        # A delta without its event's name.
        ([("", BEGIN), ("", append("ab")), ("", {"v": "c"})], "abc"),
        # Not for everybody, hidden kinds.
        (
            [
                {"p": "", "o": "add", "v": root(message("x", id="t", recipient="python"))},
                append("y"),
                BEGIN,
                append("a"),
            ],
            "a",
        ),
        (
            [
                BEGIN,
                append("a"),
                {"p": "", "o": "add", "v": root(message("x", id="k", content={"content_type": "code", "text": "x"}))},
            ],
            "a",
        ),
    ],
)
def test_deltas(values, text):
    outcome = answer(deltas(*values, END) if BEGIN in values[:1] else deltas(*values))
    assert outcome.error is None
    assert outcome.text == text


@pytest.mark.parametrize(
    "value",
    [
        {"p": "message", "o": "add", "v": 1},
        {"p": 5, "o": "add", "v": 1},
        {"p": "/message/content/parts/0", "o": "fly", "v": 1},
        {"p": "/message/content/parts/0", "o": 5, "v": 1},
        {"p": "/message/content/parts/0", "o": "append"},
        {"p": "/message/content/parts/0", "o": "append", "v": 5},
        {"p": "/message/content/parts/9", "o": "append", "v": "x"},
        {"p": "/message/content/parts/01", "o": "append", "v": "x"},
        {"p": "/message/content/parts/x/y", "o": "append", "v": "x"},
        {"p": "/message/content/parts/1", "o": "remove", "v": None},
        {"p": "/message/content/parts/0/0", "o": "add", "v": 1},
        {"p": "/message/content/parts/0", "o": "truncate", "v": -1},
        {"p": "/message/content/parts/0", "o": "truncate", "v": True},
        {"p": "", "o": "patch", "v": 5},
        {"p": "", "o": "patch", "v": [5]},
        {"p": "", "o": "patch", "v": [{"p": ""}]},
        {"p": "", "o": "add", "v": 1, "c": "x"},
        {"p": "/message", "o": "replace", "v": []},
        {"p": "/message/author", "o": "replace", "v": []},
        {"p": "/message/content", "o": "replace", "v": 5},
        {"p": "/message/content/parts", "o": "replace", "v": {}},
        {"p": "/message/content/thoughts", "o": "replace", "v": 5},
        {"p": "/message/content/parts/0", "o": "append", "v": "x", "c": 9},
        {"v": 5},
    ],
)
def test_deltas_outside_the_grammar(value):
    outcome = answer(deltas(BEGIN, append("a"), value, END))
    assert type(outcome.error) is RemoteProtocolError
    assert outcome.failure.partial == "a"


@pytest.mark.parametrize(
    "body",
    [
        'event: delta_encoding\ndata: "v2"\n\n',
        "data: 5\n\n",
        "data: [1]\n\n",
        "data: {oops\n\n",
        'data: {"message": 5}\n\n',
        'data: {"message": {"author": 5}}\n\n',
        '{"wss_url": "wss://x"}',
        "<html><body>x</body></html>",
        'event: delta\ndata: {"x": 1}\n\n',
    ],
)
def test_streams_outside_the_grammar(body):
    assert type(answer(body).error) is RemoteProtocolError


@pytest.mark.parametrize(
    ("value", "kind", "code"),
    [
        ({"error": {"message": "no", "code": "content_policy_violation"}}, "Refused", "content_policy_violation"),
        ({"error": {"message": "gone", "code": "conversation_not_found"}}, "BadRequest", "conversation_not_found"),
        ({"error": "Unusual activity"}, "ChallengeRequired", None),
        ({"error": {}}, "ProviderUnavailable", None),
        ({"detail": "no"}, "ProviderUnavailable", None),
        ({"type": "x", "error": "no"}, "ProviderUnavailable", None),
        ({"p": "/error", "o": "add", "v": "no"}, "ProviderUnavailable", None),
    ],
)
def test_errors_inside_a_stream(value, kind, code):
    outcome = answer(deltas(BEGIN, append("a"), ("", value), END))
    assert (type(outcome.error).__name__, outcome.failure.code, outcome.failure.partial) == (kind, code, "a")


def test_404_without_words_is_no_lost_conversation():
    assert answer('{"detail": "Not Found"}', 404).failure.code is None
    gone = {"detail": {"message": "Parent message not found in the conversation", "code": "message_not_found"}}
    assert answer(json.dumps(gone), 404).failure.code == "message_not_found"
    assert answer('{"detail": "Can\'t load conversation: not found"}', 404).failure.code == "conversation_not_found"


def test_an_older_message_is_rewritten():
    one, two = (root(message(text, id=id)) for text, id in (("one", "1"), ("two", "2")))
    outcome = answer(stream(one, two, root(message("uno", id="1")), root(message("two!", id="2"))))
    assert outcome.text == "uno\n\ntwo!"
    assert outcome.events[:3] == [Delta("one"), Delta("\n\n"), Delta("two")]


def test_a_finished_message_that_goes_on_is_not_finished():
    body = deltas(BEGIN, append("a"), END, append("b"), {"v": "c"}, {"v": "d"}, done=False)
    outcome = answer(body)
    assert outcome.text == "abcd"


def test_a_thought_that_is_rewritten_comes_whole():
    def thought(text: str) -> Any:
        return root(message(None, content={"content_type": "thoughts", "thoughts": [text]}))

    outcome = answer(stream(thought("one"), thought("one two"), thought("three"), root(message("a", id="2"))))
    assert outcome.events[:4] == [Reasoning("one"), Reasoning(" two"), Reasoning("three"), Delta("a")]


def test_no_conversation_without_both_of_its_ids():
    outcome = answer(stream({"message": message("a"), "error": None}))
    assert outcome.events == [Delta("a"), Done()]


def test_limits():
    limits = Limits(answer_bytes=2000, event_bytes=5000)
    grown = answer(deltas(BEGIN, append("x"), *[{"v": "x" * 300}] * 9), limits=limits)
    assert grown.failure.code == "too_large"
    rewritten = answer(stream(*(root(message(c * 900)) for c in "abcd")), limits=limits)
    assert "longer than 2000 bytes" in str(rewritten.error)


def test_many_small_deltas_take_linear_time():
    """Each append is given out on its own, without a look at the text before it."""
    body = deltas(BEGIN, append("x"), *[{"v": "word "}] * 20_000, END).encode()
    reader = PROTOCOL.reader(Request("POST", "http://x.test/backend-anon/conversation"))
    assert reader is not None
    decoder: Any = reader(Head(200))
    looks: list[Any] = []
    look = decoder._look

    def counted(value: Any) -> Any:
        looks.append(value)
        return look(value)

    decoder._look = counted
    outcome = read(decoder, [body])
    assert outcome.text == "x" + "word " * 20_000
    assert len(looks) < 10


def test_reader_knows_its_questions():
    for path in ("/backend-anon/conversation", "/ChatGpt/backend-api/conversation?a=1"):
        assert PROTOCOL.reader(Request("POST", f"http://x.test{path}")) is not None
    assert PROTOCOL.reader(Request("GET", "http://x.test/backend-anon/conversation")) is None
    assert PROTOCOL.reader(Request("POST", "http://x.test/backend-anon/conversation/init")) is None
    assert PROTOCOL.reader(Request("POST", "http://[x/backend-anon/conversation")) is None


FRAGMENTS = [
    deltas(BEGIN, append("a\ud83d"), done=False).encode(),
    b'event: delta\ndata: {"v": "\\ude80"}\n\n',
    b'event: delta\ndata: {"v": "\\ud83d"}\n\n',
    deltas(END, done=False).encode(),
    stream(root(message("ab")), done=False).encode(),
    stream(root(message("ac", done=True)), done=False).encode(),
    b'event: delta\ndata: {"p": "/message/content/parts/0", "o": "truncate", "v": 1}\n\n',
    b'event: delta\ndata: {"p": "/message/content/thoughts", "o": "add", "v": ["x"]}\n\n',
    b'event: delta\ndata: {"p": "/message/content/parts/99999999999", "v": 1e999}\n\n',
    b'event: delta\ndata: {"p": "", "o": "patch", "v": ' + b'[{"o":"patch","v":' * 500 + b"1" + b"}]" * 500 + b"}\n\n",
    b'data: {"error": ' + b"[" * 3000 + b"]" * 3000 + b"}\n\n",
    b'data: {"message": ' + b"[" * 900 + b"]" * 900 + b"}\n\n",
    b'data: {"message": {"end_turn": ' + b"9" * 5000 + b"}}\n\n",
    b'data: {"detail": {"\\ud800": 1e400}}\n\n',
    b'{"detail": "x"}',
    b"\xef\xbb\xbf",
    b"\r\n\r\n",
    b"data: [DONE]\n\n",
    b"<html>",
]


@given(
    st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=8), max_size=8),
    st.lists(st.integers(0, 1 << 20), max_size=6),
    st.sampled_from([200, 200, 200, 302, 403, 404, 500]),
)
def test_any_bytes_give_events_or_our_errors_whatever_the_cuts(fragments, places, status):
    data = b"".join(fragments)
    reader = PROTOCOL.reader(Request("POST", "http://x.test/backend-anon/conversation"))
    assert reader is not None
    whole = read(reader(Head(status)), [data])
    assert read(reader(Head(status)), cut_at(data, places)).said == whole.said
    assert whole.error is not None or isinstance(whole.events[-1], Done)
    for event in whole.events:
        if isinstance(event, Delta | Reasoning | Notice):
            event.text.encode()
