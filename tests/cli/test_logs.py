"""`tolmach logs`."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.cli.conftest import Run
from tests.cli.ledgers import NOON, add, filled
from tests.cli.terminal import Terminal
from tolmach.ledger import AttemptRow, RequestRow


@pytest.fixture(autouse=True)
def kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return filled(tmp_path / "l.sqlite")


def ids(text: str) -> list[str]:
    return [json.loads(line)["request"].removeprefix("req_") for line in text.splitlines()]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ((), "retried refused guessed later"),
        (("-n", "2"), "guessed later"),
        (("--status", "429"), "refused"),
        (("--status", "2xx"), "retried guessed later"),
        (("--status", "5xx"), ""),
        (("--errors",), "refused"),
        (("--key", "0123456789ab"), "retried"),
        (("--model", "модель"), "guessed"),
        (("--target", "groq"), "retried later"),
        (("--target", "openai/gpt-4o"), "retried"),
        (("--target", "local/x"), ""),
        (("--since", "2026-01-02"), "later"),
        (("--until", "2026-01-01"), "retried refused guessed"),
        (("--model", "gpt-4o", "--status", "200", "-n", "1"), "later"),
    ],
)
def test_filters(run: Run, file: Path, options: tuple[str, ...], found: str) -> None:
    assert ids(run("logs", "--ledger", str(file), "--json", *options).stdout) == found.split()


def test_a_line_says_what_happened(run: Run, file: Path) -> None:
    lines = run("logs", "--ledger", str(file)).stdout.splitlines()
    assert lines == [
        "2026-01-01 17:45:00  200  2.00 s  gpt-4o → groq/llama  1000+500 tokens  $2.00  key 0123456789ab  req_retried",
        "2026-01-01 17:46:00  429  1 ms  gpt-4o  RateLimited  0+0 tokens  $0  req_refused",
        "2026-01-01 17:47:00  200  50 ms  модель → shop/x  gone  ~10+5 tokens  –  req_guessed",
        "2026-01-02 17:45:00  200  0 ms  gpt-4o → groq/llama  1+0 tokens  $0.0010  req_later",
    ]


def test_json_has_times_in_iso_8601_and_dollars(run: Run, file: Path) -> None:
    first = json.loads(run("logs", "--ledger", str(file), "--json").stdout.splitlines()[0])
    assert first["at"] == "2026-01-01T17:45:00.000+05:45"
    assert first["cost_usd"] == 2.0
    assert first["first_ms"] == 900
    assert "attempts" not in first


@pytest.mark.parametrize("name", ["req_retried", f"{1:032x}"])
def test_one_request_with_its_attempts(run: Run, file: Path, name: str) -> None:
    lines = run("logs", "--ledger", str(file), name).stdout.splitlines()
    assert lines[0].endswith("req_retried")
    assert lines[1] == f"  openai  streamed  worker 7  first token after 900 ms  {1:032x}"
    assert [line for line in lines[2:] if line] == [
        "1. openai/gpt-4o  failed  503  ProviderUnavailable  after 10 ms  490 ms  $0  key no. 1  first in order",
        "2. local/x  skipped  after 500 ms  circuit open",
        "3. groq/llama  answered  200  after 500 ms  1.50 s  1000+500 tokens  $2.00  next in order",
    ]
    told = json.loads(run("logs", "--ledger", str(file), name, "--json").stdout)
    assert [each["outcome"] for each in told["attempts"]] == ["failed", "skipped", "answered"]
    assert told["attempts"][0]["at"] == "2026-01-01T17:45:00.010+05:45"


def test_a_name_that_two_callers_chose_shows_both(run: Run, file: Path) -> None:
    add(file, RequestRow(uid=f"{9:032x}", request="req_retried", at=NOON + 1, model="other"), [])
    lines = run("logs", "--ledger", str(file), "--json", "req_retried").stdout.splitlines()
    assert [json.loads(line)["model"] for line in lines] == ["gpt-4o", "other"]


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
def test_the_waterfall_fits_the_terminal(file: Path, columns: int) -> None:
    with Terminal("logs", "--ledger", str(file), "req_retried", columns=columns) as terminal:
        assert terminal.end() == 0
        lines = re.sub(r"\x1b\[[\d;]*m", "", terminal.output).splitlines()
    assert max(map(cell_len, lines)) <= columns
    failed, answered = (line for line in lines if "░" in line)
    assert "█" not in failed
    # Both have begun 10 and 500 ms after a request that ended at 2,000 ms.
    start, light = re.match(r"( *)(░*)█", answered).groups()  # type: ignore[union-attr]
    assert abs((len(start) - 2) / (columns - 2) - 0.25) < 0.05
    assert abs(len(light) / (columns - 2) - 0.2) < 0.05
    assert failed.startswith("  ") or columns == 40


def test_follow_goes_on_with_requests_as_they_end(file: Path) -> None:
    with Terminal("logs", "--ledger", str(file), "--follow", "-n", "1", columns=200) as terminal:
        terminal.wait_for("req_later")
        now = time.time()
        # It began long ago and ends now.
        add(file, RequestRow(uid="a" * 32, request="req_long", at=now - 60, total_ms=60_000.0, status=200), [])
        terminal.wait_for("req_long")
        add(file, RequestRow(uid="b" * 32, request="req_next", at=time.time(), status=200), [])
        terminal.wait_for("req_next")
        terminal.write("\x03")
        assert terminal.end() == 130
    assert terminal.output.count("req_long") == 1
    assert "req_guessed" not in terminal.output


def test_what_moves_the_cursor_is_not_printed(run: Run, file: Path) -> None:
    evil = "\x1b[2Jevil\nline"
    add(file, RequestRow(uid="c" * 32, request="req_evil", at=NOON, model=evil, error=evil), [
        AttemptRow(uid="c" * 32, number=1, at=NOON, target=evil, reason=evil)
    ])  # fmt: skip
    output = run("logs", "--ledger", str(file), "req_evil").stdout
    assert "\x1b" not in output
    assert "\\x1b[2Jevil\\nline" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--status", "teapot"), "'teapot' is no status; write 429 or 5xx"),
        (("--limit", "0"), "--limit"),
        (("req_unknown",), "no request req_unknown is in the ledger"),
    ],
)
def test_wrong_use_is_told(run: Run, file: Path, arguments: tuple[str, ...], said: str) -> None:
    result = run("logs", "--ledger", str(file), *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
