"""The command as a program among others: standard streams, signals and closed pipes."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.terminal import PATIENCE, program, started
from tolmach.demo.server import ThreadedDemo


def _ask(demo: ThreadedDemo, *args: str) -> list[str]:
    return program("ask", "-p", "ChatGptt", "--base-url", f"{demo.url}/ChatGptt", *args)


def _run(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
    options = {"input": b"", "capture_output": True, "timeout": PATIENCE, **options}
    return subprocess.run(command, **options)  # type: ignore[call-overload,no-any-return]


def test_standard_input_comes_before_the_words(demo):
    done = _run(_ask(demo, "the words"), input="из файла\n".encode())
    assert done.returncode == 0, done.stderr
    assert "> из файла\n> \n> the words\n" in done.stdout.decode()


def test_standard_input_alone_and_by_its_name(demo):
    done = _run(_ask(demo, "-f", "-"), input=b"all of it")
    assert done.returncode == 0, done.stderr
    assert b"> all of it\n" in done.stdout


@pytest.mark.parametrize(("data", "says"), [(b"\xff\xfe\x00garbage", b"not UTF-8 text"), (b"", b"nothing to ask")])
def test_garbage_and_nothing_on_standard_input(demo, data, says):
    done = _run(_ask(demo), input=data)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_closed_standard_streams_are_no_failure(demo):
    done = _run(["sh", "-c", '"$@" <&-', "sh", *_ask(demo, "hi")], input=None)
    assert done.returncode == 0, done.stderr
    assert "Готово" in done.stdout.decode()


def test_a_reader_that_has_enough_ends_it_quietly(demo):
    with started(_ask(demo, "hi [[fault:delay=0.05]]")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"## ChatGptt\n"
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_one_line(demo):
    with open("/dev/full", "wb") as full:
        done = _run(_ask(demo, "hi"), capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith(b"tolmach: OSError: [Errno 28] No space left on device")
    assert done.stderr.count(b"\n") == 1


def test_an_interrupt_keeps_what_came_and_ends_with_130(demo):
    with started(_ask(demo, "hi [[fault:stall=9]]")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"## ChatGptt\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert process.stdout.read().endswith(b"\n")
        assert process.stderr.read() == b"tolmach: interrupted\n"


def test_characters_that_the_output_cannot_hold_are_no_failure(demo):
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = _run(_ask(demo, "hi"), env=environment)
    assert done.returncode == 0, done.stderr
    assert b'"quoted"' in done.stdout


def _chat(demo: ThreadedDemo) -> list[str]:
    return program("chat", "-p", "ChatGptt", "--base-url", f"{demo.url}/ChatGptt")


def test_chat_from_a_pipe_answers_every_line(demo):
    done = _run(_chat(demo), input=b"one\n\n/system brief\n two\n/history\n/quit\nthree\n")
    text = done.stdout.decode()
    assert done.returncode == 0, done.stderr
    assert text.count("Готово ✅\n") == 4  # two answers, and both again in the history
    assert "three" not in text
    assert done.stderr == b"system message set\n"


def test_chat_from_a_pipe_ends_with_the_first_failure(demo):
    done = _run(_chat(demo), input=b"one\n[[fault:429-retry-after]]\nthree\n")
    assert done.returncode == 5
    assert b"three" not in done.stdout
    assert done.stderr.startswith(b"tolmach: RateLimited: ")


def test_demo_serve_says_where_it_is_and_ends_well_by_an_interrupt():
    with started(program("demo", "serve", "--port", "0", "--delay", "0", "--fault", "/ChatGptt=500")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().decode().split()[0].removesuffix("/Chatgpt4o")
        assert url.startswith("http://127.0.0.1:")
        good = _run(program("ask", "-p", "Chatgpt4Online", "--base-url", f"{url}/Chatgpt4Online", "hi"))
        bad = _run(program("ask", "-p", "ChatGptt", "--base-url", f"{url}/ChatGptt", "hi"))
        assert (good.returncode, bad.returncode) == (0, 4)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b""
