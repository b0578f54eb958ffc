"""Questions: parsing messages, prompts, and what a provider is asked to honour."""

from typing import Any

import pytest

from tolmach.chat import (
    ChatRequest,
    Image,
    Message,
    Notice,
    Text,
    ToolCall,
    admit,
    fold_system,
    format_prompt,
    new_messages,
    parse_messages,
)
from tolmach.errors import ConfigError, UnsupportedFeature

HELLO = Message("user", "Hello")
PICTURE = Message("user", (Text("What is this?"), Image("https://example.org/a.png")))
CALL = Message("assistant", "", tool_calls=(ToolCall("1", "add", "{}"),))
RESULT = Message("tool", "3", tool_call_id="1")


def test_messages_of_all_shapes_are_parsed():
    given: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello", "name": "ann"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "3", "tool_call_id": "1"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
                {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
            ],
        },
        HELLO,
    ]
    parsed = parse_messages(given)
    assert parsed == (
        Message("system", "Be brief."),
        Message("user", "Hello", name="ann"),
        CALL,
        RESULT,
        Message(
            "user",
            (
                Text("What is this?"),
                Image("https://example.org/a.png", "low"),
                Image("data:image/png;base64,AA=="),
            ),
        ),
        HELLO,
    )
    assert parsed[4].text == "What is this?"


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        ("Hello", r"messages: a list"),
        (b"Hello", r"messages: a list"),
        ({"role": "user", "content": "x"}, r"messages: a list"),
        ([], r"at least one"),
        (["Hello"], r"messages\[0\]"),
        ([{"content": "x"}], r"messages\[0\]: an object with a role"),
        ([{"role": 1, "content": "x"}], r"messages\[0\]"),
        ([{"role": "user", "content": "x"}, {"role": "user", "content": 5}], r"messages\[1\]\.content.*int"),
        ([{"role": "user", "content": ["x"]}], r"messages\[0\]\.content\[0\]: a part"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"messages\[0\]\.content\[0\]"),
        ([{"role": "assistant", "tool_calls": [{"id": "1"}]}], r"messages\[0\]\.tool_calls\[0\]"),
    ],
)
def test_what_is_wrong_with_messages_is_named(messages, place):
    with pytest.raises(ConfigError, match=place):
        parse_messages(messages)


@pytest.mark.parametrize("calls", [5, "x", {"id": "1"}])
def test_tool_calls_that_are_no_list_are_a_config_error(calls):
    with pytest.raises(ConfigError, match=r"messages\[0\]\.tool_calls"):
        parse_messages([{"role": "assistant", "tool_calls": calls}])


def test_a_part_of_an_unknown_type_is_an_unsupported_feature():
    with pytest.raises(UnsupportedFeature, match="input_audio") as caught:
        parse_messages([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}])
    assert caught.value.feature == "input_audio"


def test_texts_with_lone_surrogates_become_texts_that_encode():
    part = {"type": "text", "text": "b\ude80"}
    given: list[dict[str, Any]] = [{"role": "user", "content": "a\ud83d"}, {"role": "user", "content": [part]}]
    for message in parse_messages(given):
        assert message.text.encode()


def test_format_prompt():
    one = [{"role": "user", "content": "Hello"}]
    assert format_prompt(one) == "Hello"
    assert format_prompt(one, add_special_tokens=True) == "User: Hello\nAssistant:"
    two = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    assert format_prompt(two) == "System: Be brief.\nUser: Hello\nAssistant:"


def test_fold_system_puts_system_texts_in_front_of_the_first_user_message():
    system, developer = Message("system", "Be brief."), Message("developer", "In French.")
    answer = Message("assistant", "Oui")
    assert fold_system((system, HELLO, answer, developer)) == (
        Message("user", "Be brief.\n\nIn French.\n\nHello"),
        answer,
    )
    assert fold_system((system,)) == (Message("user", "Be brief."),)
    assert fold_system((system, answer)) == (Message("user", "Be brief."), answer)
    assert fold_system((HELLO, answer)) == (HELLO, answer)
    assert fold_system((system, PICTURE))[0].content == (Text("Be brief.\n\n"), *PICTURE.content)


def test_new_messages_are_those_after_the_last_answer():
    answer = Message("assistant", "Hi")
    more = Message("user", "More")
    assert new_messages((HELLO,)) == (HELLO,)
    assert new_messages((HELLO, answer, more)) == (more,)
    assert new_messages((HELLO, answer, HELLO, more)) == (HELLO, more)
    assert new_messages((HELLO, answer)) == (answer,)


def _turn(*messages: Message, **options: object) -> ChatRequest:
    return ChatRequest(messages=messages or (HELLO,), options=options)


def test_admit_lets_through_what_is_honoured():
    turn = _turn(temperature=0.5, stop=["x"])
    assert admit(turn, frozenset({"temperature", "stop"}), who="Site") == (turn, ())
    everything = _turn(PICTURE, CALL, RESULT, n=5, whatever=1)
    assert admit(everything, frozenset({"*"}), who="Site") == (everything, ())


@pytest.mark.parametrize(
    "options",
    [
        {"n": 1},
        {"logprobs": False},
        {"tools": []},
        {"tool_choice": "auto"},
        {"stop": []},
        {"response_format": {"type": "text"}},
        {"stream_options": {"include_usage": True}},
        {"presence_penalty": 0, "frequency_penalty": 0.0, "top_p": 1.0},
        {"seed": None, "anything": None},
    ],
)
def test_a_neutral_value_asks_for_nothing(options):
    admitted, notices = admit(_turn(**options), frozenset(), who="Site")
    assert admitted.options == {}
    assert notices == ()


@pytest.mark.parametrize(
    ("options", "feature"),
    [({"n": 2}, "n"), ({"logprobs": True}, "logprobs"), ({"tools": [{}]}, "tools"), ({"seed": 0}, "seed")],
)
def test_what_cannot_be_honoured_is_refused_by_name_or_dropped_with_a_notice(options, feature):
    with pytest.raises(UnsupportedFeature, match=f"Site cannot honour: {feature}") as caught:
        admit(_turn(**options), frozenset({"temperature"}), who="Site")
    assert caught.value.feature == feature
    admitted, notices = admit(_turn(temperature=1, **options), frozenset({"temperature"}), who="Site", strict=False)
    assert admitted.options == {"temperature": 1}
    assert notices == (Notice("dropped", f"Site cannot honour {feature!r}; it was left out"),)


def test_images_are_refused_or_dropped_with_a_notice():
    with pytest.raises(UnsupportedFeature, match="images"):
        admit(_turn(PICTURE), frozenset(), who="Site")
    admitted, notices = admit(_turn(PICTURE), frozenset(), who="Site", strict=False)
    assert admitted.messages == (Message("user", "What is this?"),)
    assert [notice.kind for notice in notices] == ["dropped"]
    assert admit(_turn(PICTURE), frozenset({"images"}), who="Site") == (_turn(PICTURE), ())


def test_tool_messages_need_tools():
    turn = _turn(HELLO, CALL, RESULT)
    with pytest.raises(UnsupportedFeature, match="tool messages"):
        admit(turn, frozenset(), who="Site")
    admitted, notices = admit(turn, frozenset(), who="Site", strict=False)
    assert admitted.messages == (HELLO,)
    assert len(notices) == 1
    assert admit(turn, frozenset({"tools"}), who="Site") == (turn, ())


def test_nothing_left_to_send_is_an_error_even_when_not_strict():
    with pytest.raises(UnsupportedFeature, match="nothing is left"):
        admit(_turn(RESULT), frozenset(), who="Site", strict=False)
