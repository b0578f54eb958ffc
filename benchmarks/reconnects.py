"""Nonces refused under load: many callers at once, and a site that refuses every 50th question's nonce.

    python benchmarks/reconnects.py [ASKERS [QUESTIONS]]

By default 200 callers on one session with the demo's AI Engine ask 5,000 questions. All must be
answered, with at most one handshake for each refusal and the first one. The demo runs in the same
process, on a thread of its own, so the rate is that of client and server together.
"""

import asyncio
import sys
import time

from report import heading, table

from tolmach import ChatRequest, Delta, Done, Message
from tolmach.demo.server import ThreadedDemo, serve_in_thread
from tolmach.providers.base import open_session
from tolmach.providers.registry import get_provider

MOUNT = "/Chatgpt4Online"


async def _ask(demo: ThreadedDemo, askers: int, questions: int) -> tuple[int, list[str], float]:
    session = open_session(get_provider("Chatgpt4Online").site_at(demo.url + MOUNT))
    numbers = iter(range(questions))
    answered, faults = 0, []

    async def asker() -> None:
        nonlocal answered
        for number in numbers:
            turn = ChatRequest(messages=(Message("user", f"question {number}"),))
            try:
                events = [event async for event in session.ask(turn)]
            except Exception as error:  # counted and shown: the benchmark goes on
                faults.append(f"{type(error).__name__}: {error}")
                continue
            text = "".join(event.text for event in events if isinstance(event, Delta))
            answered += isinstance(events[-1], Done) and bool(text)

    start = time.perf_counter()
    await asyncio.gather(*(asker() for _ in range(askers)))
    return answered, faults, time.perf_counter() - start


def main() -> int:
    askers, questions = (int(number) for number in (*sys.argv[1:], *("200", "5000")[len(sys.argv) - 1 :]))
    heading("wreq", "h11")
    with serve_in_thread(delay=0.0, faults={MOUNT: "stale-nonce-every=50"}) as demo:
        answered, faults, took = asyncio.run(_ask(demo, askers, questions))
        handshakes, refusals = demo.log.handshakes[MOUNT], demo.log.refusals[MOUNT]
        connections = demo.log.connections
    row = (askers, questions, answered, refusals, handshakes, connections, f"{took:.1f}", f"{questions / took:.0f}")
    table(
        ("callers", "questions", "answered", "refusals", "handshakes", "connections", "seconds", "questions/s"), [row]
    )
    for fault in sorted(set(faults)):
        print(f"{faults.count(fault)} times {fault}")
    right = answered == questions and 1 <= handshakes <= refusals + 1
    print(f"\n{'right' if right else 'WRONG'}: all answered, and at most one handshake for each refusal and the first")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
