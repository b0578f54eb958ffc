"""Keys: how they are made, found, and what they allow."""

from hashlib import sha256
from itertools import count

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tolmach.access.keys import Key, KeyRing, check, check_model, find, hash_of, new_key
from tolmach.errors import AuthError, ModelNotFound


class Counted:
    """Bytes that are no two times the same."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def __call__(self, size: int) -> bytes:
        return next(self._numbers).to_bytes(size, "big")


def test_a_key_is_stored_as_its_hash() -> None:
    plain, key = new_key(Counted(), "app", created=7)
    assert plain == "ak-" + "0" * 63 + "1"
    assert (key.id, key.name, key.created) == ("000000000002", "app", 7)
    assert key.hash == sha256(plain.encode()).hexdigest()
    stored = msgspec.json.encode(key)
    assert plain.encode() not in stored
    assert plain[3:].encode() not in stored
    assert msgspec.json.decode(stored, type=Key) == key
    assert key.hash not in repr(key)


def test_keys_are_found_by_their_text() -> None:
    random = Counted()
    made = [new_key(random, str(number)) for number in range(20)]
    ring = KeyRing(key for _, key in made)
    assert len(ring) == len(list(ring)) == 20
    assert all(ring.find(plain, 0.0) is key for plain, key in made)


@settings(deadline=None)
@given(text=st.text(max_size=70))
def test_no_other_text_is_a_key(text: str) -> None:
    plain, key = new_key(Counted(), "app")
    keys = {key.hash: key}
    assert find(keys, text) is (key if text == plain else None)
    assert find(keys, plain + text) is (None if text else key)
    assert find({}, text) is None
    assert find(keys, hash_of(plain)) is None, "the hash is no key"


def test_a_key_in_the_wrong_place_is_none() -> None:
    plain, key = new_key(Counted(), "app")
    assert find({hash_of(plain): replace(key, hash="0" * 64)}, plain) is None


@pytest.mark.parametrize(
    ("changes", "now", "said"),
    [
        ({"disabled": True}, 0.0, "switched off"),
        ({"expires": 100}, 100.0, "expired"),
        ({"expires": 100}, 99.9, ""),
        ({"disabled": False}, 1e12, ""),
    ],
)
def test_keys_that_may_not_be_used(changes: dict[str, int], now: float, said: str) -> None:
    _, key = new_key(Counted(), "app")
    key = msgspec.convert(msgspec.to_builtins(key) | changes, Key)
    if not said:
        assert check(key, now) is key
        return
    with pytest.raises(AuthError, match=said) as caught:
        check(key, now)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


def test_an_unknown_key_is_told_nothing() -> None:
    with pytest.raises(AuthError, match="not known") as caught:
        KeyRing().find("ak-secret", 0.0)
    assert "secret" not in str(caught.value)
    assert caught.value.status == 401


@pytest.mark.parametrize(
    ("models", "model", "allowed"),
    [
        ((), "anything", True),
        (("gpt-4o",), "gpt-4o", True),
        (("gpt-4o",), "gpt-4o-mini", False),
        (("gpt-*", "groq/llama-?"), "gpt-4o", True),
        (("gpt-*", "groq/llama-?"), "groq/llama-3", True),
        (("gpt-*",), "GPT-4o", False),
        (("*",), "a/b/c", True),
    ],
)
def test_models_by_patterns(models: tuple[str, ...], model: str, allowed: bool) -> None:
    _, key = new_key(Counted(), "app")
    key = replace(key, models=models)
    assert key.allows(model) is allowed
    if not allowed:
        with pytest.raises(ModelNotFound, match=model):
            check_model(key, model)


@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_minute", "streams", "budget_day", "budget_month"])
def test_keys_with_limits_are_told(limit: str) -> None:
    _, key = new_key(Counted(), "app")
    assert not KeyRing([replace(key, models=("a",), expires=1)]).limited
    assert KeyRing([key, msgspec.convert(msgspec.to_builtins(key) | {limit: 1, "hash": "1"}, Key)]).limited


def test_a_replaced_ring_knows_only_the_new_keys() -> None:
    random = Counted()
    (old, first), (new, second) = new_key(random, "a"), new_key(random, "b")
    ring = KeyRing([first])
    ring.replace([second])
    assert ring.find(new, 0.0) is second
    with pytest.raises(AuthError):
        ring.find(old, 0.0)
