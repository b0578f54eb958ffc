"""What must be so before the gateway starts."""

import pytest

from tolmach.access.rules import KeyRule, check_workers, in_words, require_keys_for
from tolmach.configuration import Settings
from tolmach.configuration.rendering import show, show_toml
from tolmach.errors import ConfigError


@pytest.mark.parametrize(
    ("workers", "shared", "limited", "right"),
    [
        (1, False, True, True),
        (2, False, False, True),
        (2, True, True, True),
        (2, False, True, False),
        (8, False, True, False),
    ],
)
def test_limits_and_several_workers(workers: int, shared: bool, limited: bool, right: bool) -> None:
    if right:
        check_workers(workers, shared=shared, limited=limited)
        return
    with pytest.raises(ConfigError, match=f"gateway.workers = {workers}.*gateway.state"):
        check_workers(workers, shared=shared, limited=limited)


@pytest.mark.parametrize(("loopback", "keys", "right"), [(True, 0, True), (False, 1, True), (False, 0, False)])
def test_who_is_let_in_without_keys(loopback: bool, keys: int, right: bool) -> None:
    if right:
        require_keys_for("0.0.0.0", loopback=loopback, keys=keys)
        return
    with pytest.raises(ConfigError, match=r"'0\.0\.0\.0'.*tolmach keys add"):
        require_keys_for("0.0.0.0", loopback=loopback, keys=keys)


@pytest.mark.parametrize("text", ["", "memory", "redis://h:1/0", "rediss://h", "unix:///run/s"])
def test_the_setting_is_taken(text: str) -> None:
    assert Settings.load(environ={"TOLMACH_GATEWAY__STATE": text}).gateway.state == text


@pytest.mark.parametrize("text", ["redis", "http://h", "redis://", "file"])
def test_a_setting_that_is_none_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"TOLMACH_GATEWAY__STATE: gateway\.state: .*Redis or Valkey"):
        Settings.load(environ={"TOLMACH_GATEWAY__STATE": text})


def test_the_password_is_shown_nowhere() -> None:
    settings = Settings.load(environ={"TOLMACH_GATEWAY__STATE": "redis://user:hush@h:1/0?password=hush"})
    shown = {row.key: row.value for row in show(settings)}
    assert "h:1/0" in shown["gateway.state"]
    assert "hush" not in show_toml(settings) + repr(settings)


def test_keys_that_are_optional_are_so_for_this_machine_alone() -> None:
    KeyRule(setting="optional").check("")
    with pytest.raises(ConfigError, match='keys = "optional"'):
        KeyRule(setting="optional", loopback=False).check("")


def test_keys_that_are_required_need_a_ledger() -> None:
    KeyRule(setting="required").check("")
    with pytest.raises(ConfigError, match=r"gateway\.keys.*ledger"):
        KeyRule(setting="required").check("off")


@pytest.mark.parametrize(
    ("keys", "required", "said"),
    [
        (1, True, "1 key"),
        (2, True, "2 keys"),
        (0, False, "no keys: everyone on this machine may ask"),
        (0, True, "no keys, and one is needed: nobody may ask. Make one with `tolmach keys add NAME`"),
    ],
)
def test_who_may_ask_is_said(keys: int, required: bool, said: str) -> None:
    assert in_words(keys, required=required) == said
