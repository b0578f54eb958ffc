"""The fuzzer: it finds what is wrong, brings it back by its seed, and says what it did."""

import json
import random
from pathlib import Path

import pytest

from tests.recipes.record import TRAFFIC
from tests.testing.test_conformance import STREAM, DecodesEachChunkOnItsOwn, Right, _answer
from tolmach.protocols import create
from tolmach.recipes.har import read_har
from tolmach.recipes.infer import infer
from tolmach.testing import fuzz
from tolmach.testing.conformance import Answer, Violation
from tolmach.testing.damage import damage_events, damage_head, damage_json, damage_structure, odd_value
from tolmach.wire import Head

CAPTURES = Path(__file__).parents[1] / "captures"


def test_the_recorded_answers_stand_some_hundred_cases(capsys):
    assert fuzz.main(["--seconds", "60", "--seed", "20260101", "--cases", "400", str(CAPTURES)]) == 0
    out = capsys.readouterr().out
    assert "seed 20260101" in out
    assert "cases/s" in out
    rows = {line.split()[0]: line.split() for line in out.splitlines()[2:]}
    assert int(rows["all"][2]) == 400
    assert all(int(row[2]) > 0 for row in rows.values())


def test_recipes_of_files_stand_it_too(tmp_path, capsys):
    file = tmp_path / "aichat.toml"
    file.write_text(
        'url = "https://chat.example/"\nrequest = { url = "/api/text", json = { message = "{{message}}" } }\n'
        'answer = { text = "/message" }\nerrors = { ok = "/response" }\n'
    )
    arguments = ["--seconds", "60", "--seed", "1", "--cases", "200", "--recipe", str(file), str(CAPTURES)]
    assert fuzz.main(arguments) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[2:]}
    assert rows.keys() == {"recipe", "all"}
    assert rows["recipe"][2] == "200"
    with pytest.raises(SystemExit):
        fuzz.main(["--recipe", str(tmp_path / "none.toml"), str(CAPTURES)])


def test_recipes_that_were_made_of_traffic_stand_it():
    recorded = {}
    for file in sorted(TRAFFIC.glob("*.har")):
        exchanges = read_har(file.read_bytes())
        options = infer(exchanges).options
        if options["answer"]["format"] == "text":
            continue  # a plain text has no end of its own: that it broke off is the transport's to tell
        protocol = create("recipe", options)
        asked = ((number, one, protocol.reader(one.request)) for number, one in enumerate(exchanges))
        recorded[file.stem] = [
            Answer(file.stem, number, "recipe", one.request, one.head, (one.body,), reader)
            for number, one, reader in asked
            if reader is not None and one.head is not None
        ]
    assert len(recorded) == 12
    assert min(map(len, recorded.values())) > 0
    tallies, failure = fuzz.fuzz(recorded, seed=20260101, seconds=60, cases=600)
    assert failure is None, failure
    assert min(tally.cases for tally in tallies.values()) > 0


class TripsOverNumbers(Right):
    def text(self, data: bytes) -> str:
        text: str = json.loads(data)["text"].strip()
        return text


@pytest.mark.parametrize("decoder", [DecodesEachChunkOnItsOwn, TripsOverNumbers])
def test_a_wrong_decoder_is_found_and_its_seed_brings_it_back(decoder):
    recorded = {"handmade": [_answer(decoder)]}
    tallies, failure = fuzz.fuzz(recorded, seed=1, seconds=60, cases=5000)
    assert failure is not None
    seed, violation = failure
    assert tallies["handmade"].cases == seed - 1
    with pytest.raises(Violation) as again:
        fuzz.one_case(recorded, seed)
    assert str(again.value) == str(violation)


def test_a_right_decoder_stands_it():
    tallies, failure = fuzz.fuzz({"handmade": [_answer(Right)]}, seed=1, seconds=60, cases=1000)
    assert failure is None
    assert tallies["handmade"].cases == 1000


def test_a_failure_is_printed_with_its_seed_and_the_exit_code_is_1(monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "collect", lambda folders, recipes: {"handmade": [_answer(DecodesEachChunkOnItsOwn)]})
    assert fuzz.main(["--seed", "5", "--seconds", "60", str(CAPTURES)]) == 1
    err = capsys.readouterr().err
    assert "FAILED: handmade/stream, exchange 0 (handmade)" in err
    assert "again: python -m tolmach.testing.fuzz --seed " in err
    assert f"--cases 1 {CAPTURES}" in err


def test_a_slow_case_is_a_failure(monkeypatch):
    monkeypatch.setattr(fuzz, "SLOW_SECONDS", 0.0)
    _, failure = fuzz.fuzz({"handmade": [_answer(Right)]}, seed=1, seconds=60, cases=1)
    assert failure is not None
    assert "seconds" in str(failure[1])


@pytest.mark.parametrize("arguments", [[], ["somewhere"]])
def test_without_recordings_it_says_where_they_must_be(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        fuzz.main(arguments)
    assert left.value.code == 2
    assert "recordings" in capsys.readouterr().err


def test_damage_is_the_same_for_a_seed_and_covers_all_types():
    values = [odd_value(random.Random(seed)) for seed in range(300)]
    assert {type(value) for value in values} == {type(None), bool, int, float, str, list, dict}
    for seed in range(300):
        assert damage_structure(STREAM, random.Random(seed)) == damage_structure(STREAM, random.Random(seed))
    assert sum(damage_events(STREAM, random.Random(seed)) != STREAM for seed in range(300)) > 250


def test_damage_reaches_into_json_within_json():
    value = {"type": "end", "data": json.dumps({"success": True, "reply": "text"})}
    inner = set()
    for seed in range(300):
        changed = damage_json(value, random.Random(seed))
        if isinstance(changed, dict) and str(changed.get("data", "")).startswith('{"success"'):
            inner.add(changed["data"])
    assert len(inner) > 20


def test_the_head_is_damaged_too():
    head = Head(200, {"content-type": "text/event-stream"}, url="http://example.test/")
    heads = [damage_head(head, random.Random(seed)) for seed in range(100)]
    assert len({damaged.status for damaged in heads}) > 5
    assert {damaged.url for damaged in heads} == {head.url}
    assert any("content-type" not in damaged.headers for damaged in heads)
