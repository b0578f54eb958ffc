"""A ledger with known rows, for the commands that read one."""

from pathlib import Path

from tolmach.access.keys import Key
from tolmach.ledger import AttemptRow, Ledger, Prices, Rate, RequestRow, open_database
from tolmach.ledger.keys import save_key

__all__ = ["DAY", "NOON", "add", "filled"]

DAY = 86_400.0
NOON = 1_767_268_800.0
"""2026-01-01 12:00 UTC."""


def _uid(number: int) -> str:
    return f"{number:032x}"


def filled(file: Path) -> Path:
    """Four requests: two attempts, a refusal, an estimate without a price, and one of the next day."""
    retried = RequestRow(
        uid=_uid(1),
        request="req_retried",
        at=NOON,
        surface="openai",
        model="gpt-4o",
        target="groq/llama",
        key="0123456789ab",
        status=200,
        streamed=True,
        prompt_tokens=1000,
        completion_tokens=500,
        first_ms=900.0,
        total_ms=2000.0,
        worker=7,
    )
    attempts = [
        AttemptRow(
            uid=_uid(1),
            number=1,
            at=NOON + 0.01,
            target="openai/gpt-4o",
            credential=1,
            status=503,
            outcome="failed",
            error="ProviderUnavailable",
            reason="first in order",
            total_ms=490.0,
        ),
        AttemptRow(uid=_uid(1), number=2, at=NOON + 0.5, target="local/x", outcome="skipped", reason="circuit open"),
        AttemptRow(
            uid=_uid(1),
            number=3,
            at=NOON + 0.5,
            target="groq/llama",
            status=200,
            prompt_tokens=1000,
            completion_tokens=500,
            reason="next in order",
            first_ms=400.0,
            total_ms=1500.0,
        ),
    ]
    refused = RequestRow(
        uid=_uid(2), request="req_refused", at=NOON + 60, model="gpt-4o", status=429, error="RateLimited", total_ms=1.0
    )
    guessed = RequestRow(
        uid=_uid(3),
        request="req_guessed",
        at=NOON + 120,
        model="модель",
        target="shop/x",
        status=200,
        gone=True,
        prompt_tokens=10,
        completion_tokens=5,
        estimated=True,
        total_ms=50.0,
    )
    guess = AttemptRow(
        uid=_uid(3), number=1, at=NOON + 120, target="shop/x", prompt_tokens=10, completion_tokens=5, estimated=True
    )
    later = RequestRow(
        uid=_uid(4),
        request="req_later",
        at=NOON + DAY,
        model="gpt-4o",
        status=200,
        target="groq/llama",
        prompt_tokens=1,
    )
    again = AttemptRow(uid=_uid(4), number=1, at=NOON + DAY, target="groq/llama", status=200, prompt_tokens=1)
    rows = [(retried, attempts), (refused, []), (guessed, [guess]), (later, [again])]
    for row, tried in rows:
        add(file, row, tried)
    database = open_database(str(file))
    save_key(database, Key(id="0123456789ab", name="Ann's laptop", hash="h"))
    database.close()
    return file


def add(file: Path, row: RequestRow, attempts: list[AttemptRow]) -> None:
    """Put a request in."""
    ledger = Ledger(str(file), prices=Prices({"groq/*": Rate(1000, 2000)}))
    ledger.add(row, attempts)
    assert ledger.close(60) == 0
