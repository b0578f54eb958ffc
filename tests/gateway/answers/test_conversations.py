"""Histories recognised, conversations handed out once, stores that stay small."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sweeps import examples
from tolmach.chat import (
    ChatRequest,
    Conversation,
    Delta,
    Done,
    Event,
    Image,
    Message,
    Notice,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolCallDelta,
)
from tolmach.errors import BadRequest
from tolmach.gateway.answers.conversations import (
    Conversations,
    MemoryStore,
    Responses,
    Store,
    answer_message,
    conversation_key,
    fingerprint,
)


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


USER = Message("user", "Hello")
CALL = ToolCall("c1", "f", '{"a": 1, "b": [2]}')
HISTORY = (
    Message("system", "Be kind."),
    USER,
    Message("assistant", "Hi.", tool_calls=(CALL,)),
    Message("tool", "7", tool_call_id="c1"),
)


def changed(index: int, **fields: Any) -> tuple[Message, ...]:
    return (*HISTORY[:index], msgspec.structs.replace(HISTORY[index], **fields), *HISTORY[index + 1 :])


def test_a_fingerprint_is_the_same_in_every_process():
    assert fingerprint([USER]) == "ae24c9018cae0b7e85b5e0de6e258e7f0644077c26fea8950008c4d327263e56"


@pytest.mark.parametrize(
    "same",
    [
        changed(1, content=(Text("Hello"),)),
        changed(2, content=" Hi.\n"),
        changed(2, tool_calls=(ToolCall("c1", "f", '{"b":[2],"a":1}'),)),
    ],
)
def test_forms_that_mean_the_same_are_the_same_history(same):
    assert fingerprint(same) == fingerprint(HISTORY)


@pytest.mark.parametrize(
    "other",
    [
        changed(0, content="Be rude."),
        changed(0, role="developer"),
        changed(1, content="Hello "),
        changed(1, name="Ann"),
        changed(1, content=(Text("Hello"), Image("https://x/y"))),
        changed(2, tool_calls=()),
        changed(2, tool_calls=(ToolCall("c2", "f", CALL.arguments),)),
        changed(2, tool_calls=(ToolCall("c1", "g", CALL.arguments),)),
        changed(2, tool_calls=(ToolCall("c1", "f", '{"a": 2, "b": [2]}'),)),
        changed(2, tool_calls=(ToolCall("c1", "f", "{"),)),
        changed(3, tool_call_id="c2"),
        HISTORY[1:],
        HISTORY[:-1],
        (HISTORY[1], HISTORY[0], *HISTORY[2:]),
        (*HISTORY, USER),
    ],
)
def test_a_changed_history_is_another(other):
    assert fingerprint(other) != fingerprint(HISTORY)


def test_pictures_count_with_their_place():
    picture = Image("https://x/y")
    forms: list[tuple[Part, ...]] = [
        (Text("a"), picture),
        (picture, Text("a")),
        (Text("a"), Image("https://x/z")),
        (Text("a"), picture, picture),
    ]
    assert len({fingerprint([Message("user", form)]) for form in forms}) == 4


def test_other_tools_are_another_history():
    prints = {fingerprint(HISTORY, tools) for tools in ([{"a": 1, "b": 2}], [{"a": 1, "b": 3}], None)}
    assert len(prints) == 3
    assert fingerprint(HISTORY, [{"b": 2, "a": 1}]) in prints
    assert fingerprint(HISTORY, []) == fingerprint(HISTORY)


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=4)), max_size=4), st.data())
@examples(200)
def test_no_two_histories_share_a_fingerprint_by_their_cut(turns, data):
    """Text moved from one message to the next is another history."""
    messages = [Message(role, text.strip()) for role, text in turns]
    joined = "".join(message.text for message in messages)
    at = data.draw(st.integers(0, len(joined)))
    other = [Message("user", joined[:at]), Message("user", joined[at:])]
    same = [(m.role, m.text) for m in messages] == [(m.role, m.text) for m in other]
    assert (fingerprint(messages) == fingerprint(other)) is same


def test_only_what_was_answered_is_looked_up():
    key = conversation_key("site/m", "ann", HISTORY)
    assert conversation_key("site/m", "ann", (USER,)) is None
    assert conversation_key("site/m", "ann", (*HISTORY, USER, USER)) == key
    others = [
        conversation_key("site/n", "ann", HISTORY),
        conversation_key("site/m", "bob", HISTORY),
        conversation_key("site/m", "ann", HISTORY, [{"type": "function"}]),
        conversation_key("site", "m\x00ann", HISTORY),
    ]
    assert len({key, *others}) == 5


def test_an_answer_becomes_the_message_that_callers_send_back():
    events: list[Event] = [
        Reasoning("hm"),
        Delta("Hel"),
        Notice("rewritten", "Hi"),
        Delta("!"),
        ToolCallDelta(1, "b", "g", "{"),
        ToolCallDelta(0, "a", "f", ""),
        ToolCallDelta(1, arguments="}"),
        Done("tool_calls"),
    ]
    calls = (ToolCall("a", "f", ""), ToolCall("b", "g", "{}"))
    assert answer_message(events) == Message("assistant", "Hi!", tool_calls=calls)


async def test_a_conversation_is_continued_once():
    conversations = Conversations(MemoryStore(now=Clock()))
    first = ChatRequest(messages=(USER,), options={"tools": [{"x": 1}]})
    assert await conversations.find("site/m", "ann", first) is None
    await conversations.keep("site/m", "ann", first, [Delta("Hi."), Conversation({"id": "7"}), Done()])
    answered = (USER, Message("assistant", "Hi."), Message("user", "And?"))
    second = ChatRequest(messages=answered, options=first.options)
    for other in (("site/m", "bob", second), ("site/n", "ann", second)):
        assert await conversations.find(*other) is None
    assert await conversations.find("site/m", "ann", ChatRequest(messages=answered)) is None
    assert await conversations.find("site/m", "ann", second) == Conversation({"id": "7"})
    assert await conversations.find("site/m", "ann", second) is None


async def test_an_answer_without_a_conversation_is_not_kept():
    store: MemoryStore[Conversation] = MemoryStore(now=Clock())
    await Conversations(store).keep("site/m", "ann", ChatRequest(messages=(USER,)), [Delta("Hi."), Done()])
    assert len(store) == 0


async def test_the_one_not_used_for_longest_goes_first():
    store: MemoryStore[int] = MemoryStore(now=Clock(), size=2)
    await store.put("a", 1)
    await store.put("b", 2)
    assert await store.get("a") == 1
    await store.put("c", 3)
    assert [await store.get(key) for key in "abc"] == [1, None, 3]
    await store.put("c", 4)
    assert (len(store), await store.get("a"), await store.get("c")) == (2, 1, 4)


async def test_what_is_too_old_is_forgotten():
    clock = Clock()
    store: MemoryStore[int] = MemoryStore(now=clock, seconds=10)
    await store.put("a", 1)
    clock.seconds += 9
    await store.put("b", 2)
    assert await store.get("a") == 1
    clock.seconds += 9.5
    assert await store.get("a") == 1
    clock.seconds += 0.6
    assert await store.get("b") is None
    clock.seconds += 10
    await store.put("c", 3)
    assert len(store) == 1


async def test_weight_is_bounded():
    store: MemoryStore[str] = MemoryStore(now=Clock(), weight=10, weigh=len)
    for key, value in (("a", "xxxx"), ("b", "xxxx"), ("c", "xxx")):
        await store.put(key, value)
    assert [await store.get(key) for key in "abc"] == [None, "xxxx", "xxx"]
    await store.put("d", "x" * 11)
    assert await store.get("d") is None
    assert await store.take("b") == "xxxx"
    await store.put("e", "x" * 7)
    assert [await store.get(key) for key in "ce"] == ["xxx", "x" * 7]


@given(st.lists(st.tuples(st.sampled_from(["get", "take", "put", "wait"]), st.sampled_from("abcd"), st.integers(1, 5))))
@examples(150)
async def test_a_store_never_grows_over_its_bounds_and_never_invents(steps):
    clock = Clock()
    store: MemoryStore[int] = MemoryStore(now=clock, size=3, seconds=10, weight=8, weigh=lambda value: value)
    last: dict[str, int] = {}
    for what, key, number in steps:
        if what == "put":
            await store.put(key, number)
            last[key] = number
        elif what == "wait":
            clock.seconds += number
        else:
            got = await (store.get(key) if what == "get" else store.take(key))
            assert got is None or got == last[key]
            if what == "take":
                assert await store.get(key) is None
        assert len(store) <= 3
        assert store._weight == sum(weight for _, weight, _ in store._entries.values()) <= 8


async def test_responses_are_found_by_who_was_given_them():
    responses = Responses.in_memory(now=Clock())
    answer = Message("assistant", "Hi.")
    await responses.put("ann", "resp_1", [USER], answer)
    assert await responses.history("ann", "resp_1") == (USER, answer)
    for user, id in (("bob", "resp_1"), ("ann", "resp_2")):
        with pytest.raises(BadRequest) as caught:
            await responses.history(user, id)
        assert (caught.value.param, caught.value.code) == ("previous_response_id", "previous_response_not_found")


async def test_responses_are_bounded_by_what_they_hold():
    store: Store[Any] = Responses.in_memory(now=Clock(), size=1)._store
    responses = Responses(store)
    await responses.put("ann", "a", [USER], USER)
    await responses.put("ann", "b", [Message("user", (Text("x"), Image("y" * 9)))], Message("assistant", "zz"))
    assert isinstance(store, MemoryStore)
    assert (len(store), store._weight) == (1, 12)
