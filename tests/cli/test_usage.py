"""`tolmach usage`."""

import csv
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.cli.conftest import Run
from tests.cli.ledgers import filled
from tests.cli.terminal import Terminal
from tolmach.cli.usage import _bar

ALL = ("--since", "2026-01-01")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(filled(tmp_path / "l.sqlite"))


def test_days_as_json(run: Run, ledger: str) -> None:
    rows = json.loads(run("usage", *ALL, "--ledger", ledger, "--json").stdout)
    assert rows == [
        {
            "day": "2026-01-01",
            "requests": 3,
            "errors": 1,
            "prompt_tokens": 1010,
            "completion_tokens": 505,
            "cached_tokens": 0,
            "estimated": 1,
            "unpriced": 1,
            "cost_usd": 2.0,
        },
        {
            "day": "2026-01-02",
            "requests": 1,
            "errors": 0,
            "prompt_tokens": 1,
            "completion_tokens": 0,
            "cached_tokens": 0,
            "estimated": 0,
            "unpriced": 0,
            "cost_usd": 0.001,
        },
    ]


def test_csv_has_a_head_and_a_row_for_each(run: Run, ledger: str) -> None:
    rows = list(csv.DictReader(io.StringIO(run("usage", *ALL, "--ledger", ledger, "--by", "key", "--csv").stdout)))
    assert [(row["key"], row["key_name"], row["requests"], row["cost_usd"]) for row in rows] == [
        ("0123456789ab", "Ann's laptop", "1", "2.000000"),
        ("", "", "3", "0.001000"),
    ]


def test_by_target_it_counts_attempts_that_were_made(run: Run, ledger: str) -> None:
    rows = json.loads(run("usage", *ALL, "--ledger", ledger, "--by", "target", "--json").stdout)
    assert {row["target"]: (row["requests"], row["errors"]) for row in rows} == {
        "groq/llama": (2, 0),
        "openai/gpt-4o": (1, 1),
        "shop/x": (1, 0),
    }


def test_in_a_pipe_it_is_a_table_without_bars_that_says_what_is_not_known(run: Run, ledger: str) -> None:
    lines = run("usage", *ALL, "--ledger", ledger, "--by", "model").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["Model", "Requests", "Errors", "In", "Out", "Cost"],
        ["gpt-4o", "3", "1", "1,001", "500", "$2.00"],
        ["модель", "1", "0", "10", "5", "–"],
        ["Total", "4", "1", "1,011", "505", "$2.00"],
        ["1", "of", "4", "without", "a", "known", "price"],
        ["1", "of", "4", "with", "estimated", "tokens"],
    ]


@pytest.mark.parametrize(
    ("period", "days"),
    [
        (("--since", "2026-01-02"), ["2026-01-02"]),
        (("--since", "2026-01-01", "--until", "2026-01-01"), ["2026-01-01"]),
        (("--since", "2026-01-01T12:01", "--until", "2026-01-01T12:02"), ["2026-01-01"]),
        (("--since", "2026-01-03"), []),
        (("--since", "999999h", "--until", "2026-01-01T00:00"), []),
    ],
)
def test_periods(run: Run, ledger: str, period: tuple[str, ...], days: list[str]) -> None:
    rows = json.loads(run("usage", *period, "--ledger", ledger, "--json").stdout)
    assert [row["day"] for row in rows] == days


def test_nothing_in_the_period_is_said(run: Run, ledger: str) -> None:
    assert run("usage", "--since", "2027-01-01", "--ledger", ledger).stdout == "No requests in this time.\n"


def test_seven_days_are_seven_with_today() -> None:
    from tolmach.cli.ledger import _span

    now = time.time()
    assert _span(1, "d") == now // 86_400 * 86_400
    assert _span(7, "d") == now // 86_400 * 86_400 - 6 * 86_400
    assert abs(_span(2, "h") - (now - 7200)) < 60


@pytest.mark.parametrize("columns", [40, 57, 80, 120, 200])
@pytest.mark.parametrize("by", ["day", "key", "model", "target"])
def test_the_chart_fits_the_terminal(ledger: str, columns: int, by: str) -> None:
    with Terminal("usage", *ALL, "--ledger", ledger, "--by", by, columns=columns) as terminal:
        assert terminal.end() == 0
        written = re.sub(r"\x1b\[[\d;]*m", "", terminal.output).splitlines()
    assert max(map(cell_len, written)) <= columns
    lines = [line.rstrip() for line in written]
    rows = [line for line in lines if "█" in line]
    assert rows
    assert all("$" in row for row in rows)
    assert next(line for line in lines if line.startswith("Total")).split()[1].isdigit()


def test_bars_are_in_eighths_and_show_what_is_not_nothing() -> None:
    assert [_bar(part, 2) for part in (0, 0.0001, 0.5, 0.75, 1)] == ["", "▏", "█", "█▌", "██"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--since", "yesterday"), "'yesterday' is no time; write 30m"),
        (("--until", "2026-13-01"), "no time"),
        (("--since", "7w"), "no time"),
        (("--json", "--csv"), "one of them"),
        (("--ledger", "mysql://x/y"), "no database at mysql://"),
        (("--ledger", "nowhere.sqlite"), "there is no ledger at nowhere.sqlite yet; `tolmach serve` writes it"),
    ],
)
def test_wrong_use_is_told(run: Run, arguments: tuple[str, ...], said: str) -> None:
    result = run("usage", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_the_configuration_says_which_ledger(
    run: Run, ledger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tolmach.toml"
    file.write_text('[ledger]\nurl = "l.sqlite"')
    assert len(json.loads(run("usage", *ALL, "--json").stdout)) == 2
    file.write_text('[ledger]\nurl = "off"')
    result = run("usage", "-c", str(file))
    assert (result.exit_code, "switched off" in result.stderr) == (2, True)


def test_the_command_makes_no_ledger(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.chdir(home)
    result = run("usage")
    assert result.exit_code == 2
    assert "data/tolmach/ledger.sqlite yet" in result.stderr
    assert not (home / "data").exists()
