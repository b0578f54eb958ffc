"""`tolmach demo`: all five answer, side by side or one after another."""

import re
import urllib.request

import pytest
from rich.cells import cell_len

from tests.cli.terminal import Terminal
from tolmach.cli.demo import SERVICES
from tolmach.demo import app
from tolmach.providers.registry import provider_names


def test_its_services_are_providers_that_the_demo_plays():
    assert set(SERVICES) <= set(provider_names())
    assert {f"/{name}" for name in SERVICES} <= set(app.MOUNTS)


def test_in_a_pipe_all_five_answer_one_after_another(run):
    result = run("demo", "--once", "--port", "0", "--delay", "0", "-q", "What now?")
    assert result.exit_code == 0, result.output
    heads = re.findall(r"^=== (\w+): first token \d+ ms, total \d+ ms, \d+ pieces?$", result.stdout, re.M)
    assert heads == list(SERVICES)
    assert result.stdout.count("> What now?") == 5
    assert result.stdout.count("Готово ✅") == 5
    assert result.stderr == ""


def test_one_that_does_not_answer_is_named_and_the_exit_code_tells(run):
    result = run("demo", "--once", "--port", "0", "--delay", "0", "-q", "hi [[fault:rewritten]]")
    assert result.exit_code == 4
    assert "no whole answer from Chatgpt4o" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "BadRequest: Chatgpt4o: the fault 'rewritten' means nothing at /Chatgpt4o" in result.stdout


def test_a_broken_answer_is_shown_with_its_error(run):
    result = run("demo", "--once", "--port", "0", "--delay", "0", "-q", "hi [[fault:cut=9]]")
    assert result.exit_code == 4
    assert "## ChatGptt" in result.stdout
    assert "ProviderUnavailable: ChatGptt" in result.stdout


def test_a_port_in_use_is_one_line(run, demo):
    result = run("demo", "--port", str(demo.demo.port))
    assert result.exit_code == 2
    assert "in use" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [("cut", "PATH=FAULT"), ("/Nowhere=cut", "/Nowhere"), ("/ChatGptt=nosuch", "no fault 'nosuch'")],
)
def test_a_wrong_fault_is_wrong_use(run, fault, says):
    result = run("demo", "serve", "--port", "0", "--fault", fault)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


_CONTROLS = re.compile(r"\x1b\[[?\d;]*[A-Za-z]")


@pytest.mark.parametrize(("columns", "lines", "beside"), [(200, 50, 5), (80, 24, 2), (40, 20, 1)])
def test_on_a_terminal_they_stream_side_by_side(columns, lines, beside):
    with Terminal("demo", "--once", "--port", "0", "--delay", "0.004", columns=columns, lines=lines) as terminal:
        terminal.wait_for("\x1b[?1049h")
        streaming = terminal.wait_for("\x1b[?1049l")
        assert terminal.end() == 0
        rest = _CONTROLS.sub("", terminal.output[terminal.output.index("\x1b[?1049l") :])
    rest, _, curl = rest.partition("The gateway: ")
    assert "curl -N http://127.0.0.1" in curl
    frames = _CONTROLS.sub("", streaming)
    assert len(re.findall(r"first \d+|first token \d+", frames)) > 5
    assert max(len(re.findall("|".join(SERVICES), line)) for line in rest.splitlines()) == beside
    summary = rest[rest.rindex("Service") :]
    assert re.findall(r"^(\w+) +\d+ ms +\d+ ms .*ok *$", summary.replace("\r", ""), re.M) == list(SERVICES)
    assert rest.count("Готово ✅") == 5
    assert [line for line in rest.splitlines() if cell_len(line) > columns] == []


@pytest.mark.parametrize("kind", ["xterm-256color", "dumb"])
def test_on_a_terminal_a_service_cannot_send_markup_or_control_sequences(kind):
    with Terminal(
        "demo", "--once", "--port", "0", "--delay", "0", "-q", "[/nonsense] [red]x[/red] \x1b]0;title\x07", kind=kind
    ) as terminal:
        assert terminal.end() == 0
    assert "\x1b]0;" not in terminal.output
    assert "[/nonsense] [red]x[/red]" in terminal.output


def test_an_interrupt_leaves_the_terminal_as_it_was():
    with Terminal("demo", "--port", "0", "-q", "[[fault:stall=3]]") as terminal:
        terminal.wait_for("first")
        terminal.write("\x03")
        terminal.wait_for("\x1b[?1049l")
        terminal.wait_for("tolmach: interrupted")
        assert terminal.end() == 130


def test_without_once_the_gateway_serves_on_until_an_interrupt():
    with Terminal("demo", "--port", "0", "--delay", "0") as terminal:
        url = re.search(r"The gateway: (http://[\d.:]+)/v1", terminal.wait_for("Ctrl-C stops it."))
        assert url is not None
        body = b'{"model": "ChatGptt", "messages": [{"role": "user", "content": "Still there?"}]}'
        with urllib.request.urlopen(f"{url[1]}/v1/chat/completions", body, timeout=10) as answer:
            assert b"Still there?" in answer.read()
        terminal.write("\x03")
        assert terminal.end() == 0
