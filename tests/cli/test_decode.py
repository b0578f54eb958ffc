"""`tolmach decode`."""

import json
from pathlib import Path

import pytest

CAPTURES = Path(__file__).parent.parent / "captures"
ONE = CAPTURES / "aiengine-3.6.2" / "chat-minimal-body.json"


def test_the_events_of_a_recording(run):
    lines = [json.loads(line) for line in run("decode", str(ONE)).stdout.splitlines()]
    assert {line["recording"] for line in lines} == {"aiengine-3.6.2/chat-minimal-body"}
    assert lines[0]["exchange"] >= 0
    assert [line["type"] for line in lines].count("done") == len({line["exchange"] for line in lines})
    assert any(line["type"] == "delta" and line["text"] for line in lines)


def test_the_cuts_do_not_change_the_text(run):
    def text(*args: str) -> str:
        result = run("decode", str(ONE), *args)
        assert result.exit_code == 0, result.stderr
        events = map(json.loads, result.stdout.splitlines())
        return "".join(event["text"] for event in events if event["type"] == "delta")

    assert text() == text("--chunks", "whole") == text("--chunks", "bytes") == text("--chunks", "random:7") != ""


def test_a_folder_is_all_its_recordings(run):
    lines = [json.loads(line) for line in run("decode", str(ONE.parent)).stdout.splitlines()]
    assert len({line["recording"] for line in lines}) > 3
    assert any(line["type"] == "error" for line in lines)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("/no/such/file",), "/no/such/file: No such file"),
        ((str(CAPTURES / "README.md"),), "not a recording"),
        ((str(ONE), "--chunks", "some"), "random:SEED"),
        ((str(ONE), "--chunks", "random:x"), "random:SEED"),
        ((), "RECORDING"),
    ],
)
def test_wrong_use_is_one_line_and_2(run, args, says):
    result = run("decode", *args)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_folder_without_recordings_is_wrong_use(run, tmp_path):
    result = run("decode", str(tmp_path))
    assert result.exit_code == 2
    assert "no recordings" in result.stderr
