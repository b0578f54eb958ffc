"""`tolmach keys`: made, listed, switched off and taken away, in a ledger of the test's own."""

import json
from pathlib import Path

import pytest

from tolmach.access.keys import Key, KeyRing
from tolmach.ledger.keys import load_keys
from tolmach.ledger.opening import default_file, open_database


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("TOLMACH_CONFIG", raising=False)
    return tmp_path


def stored(url: str = "") -> list[Key]:
    database = open_database(url)
    try:
        return load_keys(database)
    finally:
        database.close()


def test_a_new_key_is_alone_on_standard_output_and_is_found_by_its_hash(run):
    result = run("keys", "add", "app")
    assert result.exit_code == 0
    plain = result.stdout.removesuffix("\n")
    assert plain.startswith("ak-")
    assert len(plain) == 67
    [key] = stored()
    assert f"The key app (id {key.id}) is written to {default_file()}." in result.stderr
    assert plain not in result.stderr
    assert KeyRing([key]).find(plain, 0.0) is key
    assert not key.limited
    assert plain not in run("keys", "list", "--json").output + run("keys", "list").output


def test_two_keys_are_not_the_same(run):
    assert run("keys", "add", "a").stdout != run("keys", "add", "b").stdout
    first, second = stored()
    assert first.id != second.id


def test_all_options_are_kept(run):
    limits = ("--rpm", "60", "--tpm", "100000", "--streams", "4", "--budget-day", "1.5", "--budget-month", "20")
    result = run("keys", "add", "app", "--models", "gpt-*, groq/*,", *limits, "--expires", "2999-01-01")
    assert result.exit_code == 0
    [key] = stored()
    assert key.models == ("gpt-*", "groq/*")
    assert (key.requests_per_minute, key.tokens_per_minute, key.streams) == (60, 100_000, 4)
    assert (key.budget_day, key.budget_month) == (1.5, 20.0)
    assert key.expires == 32_472_144_000
    [row] = json.loads(run("keys", "list", "--json").stdout)
    assert "hash" not in row
    assert (row["name"], row["state"], row["tokens_per_minute"]) == ("app", "active", 100_000)
    header, line = run("keys", "list").stdout.splitlines()
    assert header.split()[:4] == ["ID", "Name", "State", "Models"]
    assert line.split() == [
        key.id,
        "app",
        "active",
        "gpt-*,",
        "groq/*",
        *["60", "100,000", "4", "1.5", "20.0"],
        "2999-01-01",
        "00:00Z",
    ]


@pytest.mark.parametrize(("span", "seconds"), [("90m", 5400), ("12h", 43_200), ("30d", 2_592_000), ("1y", 31_536_000)])
def test_a_span_counts_from_now(run, span, seconds):
    assert run("keys", "add", "app", "--expires", span).exit_code == 0
    [key] = stored()
    assert key.expires is not None
    assert abs(key.expires - key.created - seconds) <= 1


@pytest.mark.parametrize("by", ["id", "name"])
def test_keys_are_switched_off_and_on_and_taken_away(run, by):
    run("keys", "add", "app")
    run("keys", "add", "other")
    which = getattr(next(key for key in stored() if key.name == "app"), by)
    for verb, disabled in (("disable", True), ("enable", False)):
        result = run("keys", verb, which)
        assert (result.exit_code, result.stdout) == (0, "")
        assert f"is {verb}d." in result.stderr
        assert {key.name: key.disabled for key in stored()} == {"app": disabled, "other": False}
    assert run("keys", "remove", which).exit_code == 0
    assert [key.name for key in stored()] == ["other"]


@pytest.mark.parametrize("verb", ["disable", "enable", "remove"])
def test_a_key_that_there_is_not(run, verb):
    run("keys", "add", "app")
    result = run("keys", verb, "ap")
    assert result.exit_code == 2
    assert "'ap'" in result.stderr
    assert len(stored()) == 1


def test_a_name_is_given_once(run):
    run("keys", "add", "app")
    result = run("keys", "add", "app")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "already" in result.stderr
    assert len(stored()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        ("a\nb",),
        ("",),
        ("x" * 65,),
        ("app", "--rpm", "0"),
        ("app", "--budget-day", "0"),
        ("app", "--expires", "soon"),
        ("app", "--expires", "2020-01-01"),
        ("app", "--ledger", "off"),
    ],
)
def test_wrong_use(run, wrong, folder):
    result = run("keys", "add", *wrong)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("tolmach: ")
    assert len(result.stderr.splitlines()) == 1
    assert stored() == []


def test_without_keys(run):
    result = run("keys", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "tolmach keys add" in result.stderr
    assert json.loads(run("keys", "list", "--json").stdout) == []


def test_the_group_alone_shows_its_help(run):
    result = run("keys")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "disable" in result.stderr


def test_the_ledger_of_the_configuration_counts(run, folder):
    (folder / "tolmach.toml").write_text('[ledger]\nurl = "mine.sqlite"\n')
    assert run("keys", "add", "app").exit_code == 0
    assert [key.name for key in stored(str(folder / "mine.sqlite"))] == ["app"]
    (folder / "off.toml").write_text('[ledger]\nurl = "off"\n')
    result = run("keys", "list", "-c", "off.toml")
    assert result.exit_code == 2
    assert "switched off" in result.stderr
