"""A process that adds to the ledger until it is killed: `python -m tests.ledger.killed URL NUMBER`.

Writes a line for each request, `UID NANOSECONDS WRITTEN STALL`: when it was added by the monotonic clock, how many rows
were in the database before, and the longest time in milliseconds for which this process was not run although
it wanted to be.
"""

import os
import sys
import time

from tolmach.ledger import AttemptRow, Ledger, RequestRow

__all__ = ["main"]

_EVERY = 0.0005


def main(url: str, number: int) -> None:
    ledger = Ledger(url)
    stall = 0.0
    count = 0
    while True:
        count += 1
        uid = f"{number:08x}{count:024x}"
        now = time.time()
        ledger.add(
            RequestRow(uid=uid, at=now, model="m", target="a/m", prompt_tokens=count, status=200),
            [AttemptRow(uid=uid, number=which, at=now, target="a/m", prompt_tokens=count) for which in (1, 2)],
        )
        added = time.monotonic_ns()
        os.write(1, f"{uid} {added} {ledger.written} {stall * 1000:.0f}\n".encode())
        time.sleep(_EVERY)
        stall = max(stall, (time.monotonic_ns() - added) / 1e9 - _EVERY)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
