"""The private loop: from plain code, inside a running loop, interrupted, forked, from many threads, at the end."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

import pytest

from tolmach import Chatgpt4Online, Client, blocking
from tolmach.demo.server import Demo, ThreadedDemo, serve_in_thread
from tolmach.errors import ConfigError

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def demo() -> Iterator[ThreadedDemo]:
    with serve_in_thread(delay=0) as demo:
        yield demo


class Source:
    """Numbers, asynchronously; remembers what became of it."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.waiting = threading.Event()
        self.cancelled = False

    async def numbers(self) -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
            self.waiting.set()
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.closed.set()


async def double(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


async def fail() -> None:
    raise KeyError("mine")


# Calls


def test_a_result_and_an_error_come_back():
    assert blocking.run(double(4)) == 8
    with pytest.raises(KeyError, match="mine"):
        blocking.run(fail())


async def test_it_works_inside_a_running_loop():
    assert blocking.run(double(4)) == 8
    items = blocking.iterate(Source().numbers)
    assert [next(items), next(items)] == [1, 2]
    items.close()


def test_closing_the_iterator_closes_what_it_reads():
    source = Source()
    items = blocking.iterate(source.numbers)
    assert next(items) == 1
    assert not source.closed.is_set()
    items.close()
    assert source.closed.is_set()


def test_letting_go_of_the_iterator_closes_what_it_reads():
    source = Source()
    items = blocking.iterate(source.numbers)
    next(items)
    del items
    gc.collect()
    assert source.closed.is_set()


def test_an_iterator_that_was_not_begun_leaves_nothing():
    source = Source()
    blocking.iterate(source.numbers).close()
    assert not source.closed.is_set()


def test_an_iterator_may_be_let_go_of_on_the_private_loop_itself():
    # As when the garbage collector runs there: waiting would be for ever.
    source = Source()
    items = [blocking.iterate(source.numbers)]
    next(items[0])

    async def close_drained() -> bool:
        items.clear()
        gc.collect()
        return True

    assert blocking.run(close_drained())
    assert source.closed.wait(5)


def test_a_synchronous_call_from_the_private_loop_is_an_error_and_no_deadlock():
    async def call() -> int:
        return blocking.run(double(4))

    with pytest.raises(ConfigError, match="would wait for itself; use the asynchronous one"):
        blocking.run(call())


def test_many_threads_at_once():
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda n: blocking.run(double(n)), range(64))) == [2 * n for n in range(64)]
    assert sum(thread.name == "tolmach" for thread in threading.enumerate()) == 1


# Ctrl-C


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals come to the main thread")
def test_ctrl_c_while_waiting_cancels_what_runs_on_the_loop():
    source = Source()

    def interrupt() -> None:
        source.waiting.wait(5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        list(blocking.iterate(source.numbers))
    thread.join()
    assert source.closed.is_set()
    assert source.cancelled


def test_ctrl_c_while_waiting_for_a_whole_answer_cancels_it():
    source = Source()

    async def collect() -> list[int]:
        return [number async for number in source.numbers()]

    def interrupt() -> None:
        source.waiting.wait(5)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        blocking.run(collect())
    thread.join()
    assert source.closed.wait(5)
    assert source.cancelled


# With a service


async def test_an_answer_closed_early_inside_a_running_loop_closes_its_connection_at_once():
    # The demo is on this very loop, so nothing but the private loop can be at work while we wait here.
    async with Demo(delay=0.01) as demo:

        def ask() -> list[str]:
            client = Client(provider=Chatgpt4Online, base_url=f"{demo.url}/Chatgpt4Online")
            with client.chat.completions.create(messages=HI, stream=True) as stream:
                return [next(stream).choices[0].delta.content or "" for _ in range(2)]

        pieces = await asyncio.to_thread(ask)
        assert "".join(pieces).startswith("## ")
        await demo.log.wait_hangups(1)
    assert demo.log.answers["/Chatgpt4Online"] == 0


def test_create_completion_inside_a_running_loop(demo, monkeypatch):
    monkeypatch.setattr(Chatgpt4Online, "url", f"{demo.url}/Chatgpt4Online")

    async def ask() -> tuple[str, str]:
        pieces = Chatgpt4Online.create_completion("gpt-4", HI, stream=True)
        first = next(iter(pieces))
        pieces.close()
        return first, "".join(Chatgpt4Online.create_completion("gpt-4", HI, stream=False))

    hangups = demo.log.hangups
    demo.faults["/Chatgpt4Online"] = "stall=3*1"
    first, whole = asyncio.run(ask())
    assert whole.startswith(first)
    assert whole.endswith("✅")
    assert demo.log.hangups == hangups + 1
    del demo.faults["/Chatgpt4Online"]


def test_many_threads_ask_with_one_client(demo):
    client = Client(provider=Chatgpt4Online, base_url=f"{demo.url}/Chatgpt4Online")
    handshakes = demo.log.handshakes["/Chatgpt4Online"]

    def ask(n: int) -> str:
        messages = [{"role": "user", "content": f"question {n}"}]
        return client.chat.completions.create(messages=messages).choices[0].message.content or ""

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(32)))
    assert [f"> question {n}\n" in answer for n, answer in enumerate(answers)] == [True] * 32
    assert demo.log.handshakes["/Chatgpt4Online"] == handshakes + 1


# Programs of their own


def program(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


ASK = """
    import logging, os, sys
    logging.getLogger("asyncio").setLevel("ERROR")  # in its debug mode it remarks on slow imports
    from tolmach import Chatgpt4o, Chatgpt4Online, Client

    url = sys.argv[1]
    Chatgpt4o.url = url + "/Chatgpt4o"
    Chatgpt4Online.url = url + "/Chatgpt4Online"
    hi = [{"role": "user", "content": "hi"}]
    client = Client(provider=Chatgpt4Online)

    def ask():
        answer = client.chat.completions.create(messages=hi)
        pieces = Chatgpt4o.create_completion("gpt-4o-mini", hi)
        return "✅" in answer.choices[0].message.content and "✅" in "".join(pieces)
"""


def test_a_program_ends_without_a_word(demo):
    done = program(
        ASK
        + """
    stream = client.chat.completions.create(messages=hi, stream=True)
    next(stream)
    kept = Chatgpt4Online.create_completion("gpt-4", hi)
    next(kept)
    assert ask()
    print("ended")
    """,
        demo.url,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n", "", 0)


def test_a_program_ends_in_the_middle_of_an_answer(demo):
    demo.faults["/Chatgpt4Online"] = "stall=2"
    done = program(
        ASK
        + """
    import threading
    pieces = Chatgpt4Online.create_completion("gpt-4", hi)
    next(pieces)
    begun = threading.Event()

    def read():
        next(pieces)
        begun.set()
        next(pieces)

    threading.Thread(target=read, daemon=True).start()
    begun.wait()
    print("ended")
    """,
        demo.url,
    )
    del demo.faults["/Chatgpt4Online"]
    assert (done.stdout, done.stderr, done.returncode) == ("ended\n", "", 0)


FORK = """
    {before}
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        print("child", ask(), flush=True)
        {in_child}
        os._exit(0)
    print(os.waitpid(child, 0)[1] == 0, "parent", ask())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("before", ["pass", "assert ask()"], ids=["fresh", "used"])
def test_a_forked_child_asks_too(demo, before):
    done = program(ASK + FORK.format(before=before, in_child="pass"), demo.url)
    assert (done.stdout, done.stderr) == ("child True\nTrue parent True\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_does_not_wait_for_a_handshake_of_its_parent(demo):
    demo.faults["/Chatgpt4Online"] = "silence@handshake*1"
    before = """import threading
    list(Chatgpt4o.create_completion("gpt-4o-mini", hi))  # imports all: to fork in the middle of an import is hopeless
    threading.Thread(target=ask, daemon=True).start()
    while not (known := list(client._sessions._sessions.values())) or known[0][1]._flight is None:
        pass"""
    done = program(
        ASK + FORK.format(before=before, in_child="pass").replace(', "parent", ask()', ""),
        demo.url,
    )
    del demo.faults["/Chatgpt4Online"]
    assert (done.stdout, done.stderr) == ("child True\nTrue\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_of_a_child_asks_too(demo):
    inner = """grandchild = os.fork()
        if grandchild == 0:
            print("grandchild", ask(), flush=True)
            os._exit(0)
        assert os.waitpid(grandchild, 0)[1] == 0"""
    done = program(ASK + FORK.format(before="assert ask()", in_child=inner), demo.url)
    assert (done.stdout, done.stderr) == ("child True\ngrandchild True\nTrue parent True\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_an_answer_goes_on_in_the_parent_and_not_in_its_child(demo):
    done = program(
        ASK
        + FORK.format(
            before="""pieces = Chatgpt4Online.create_completion("gpt-4", hi)
    first = next(pieces)""",
            in_child="""try:
            next(pieces)
        except Exception as error:
            print(type(error).__name__, error, flush=True)
        pieces.close()""",
        )
        + """
    print((first + "".join(pieces))[-1])
    """,
        demo.url,
    )
    said = "ConnectionLost the answer belongs to the process that asked, and this is a fork of it"
    assert (done.stdout, done.stderr) == (f"child True\n{said}\nTrue parent True\n✅\n", "")
