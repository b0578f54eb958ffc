"""What others chose (models' names, answers, errors, pages, files) reaches no terminal, table or log as it came."""

import ast
import base64
import csv
import io
import json
import re
import threading
import tomllib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.ledgers import NOON, add
from tests.cli.terminal import PROMPT, Terminal
from tests.test_layers import MODULES
from tolmach.ledger import AttemptRow, RequestRow
from tolmach.ledger.opening import open_database
from tolmach.safe_text import json_text

ATTACK = "A\x1b]0;pwn\x07\x1b]52;c;cHdu\x07\x1b]8;;http://evil/\x07\x1b[2J\x9b31mRED\x9d0;t\x9c\u202eBIDI\u2066\x08\x7f"
"""Titles, the clipboard, a link, an empty screen, colours, another direction, characters taken back."""
NAME = "p" + ATTACK.replace("/", "")
FORMULA = '=HYPERLINK("http://evil","x")'
_HARM = re.compile("\x1b[\\]P^_X]|\x1b\\[2J|[\x07\x08\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
"""What must not be written, while rich and prompt_toolkit write sequences of their own."""


class _Upstream(BaseHTTPRequestHandler):
    """OpenAI's API: an answer with the attack in it, or at /refused an error with it."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.startswith("/refused"):
            self._send(400, "application/json", {"error": {"message": ATTACK, "type": ATTACK, "code": ATTACK}})
        elif asked["stream"]:
            chunk = {"choices": [{"index": 0, "delta": {"content": ATTACK}, "finish_reason": "stop"}]}
            usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
            body = f"data: {json.dumps(chunk)}\n\ndata: {json.dumps(usage)}\n\ndata: [DONE]\n\n"
            self._send(200, "text/event-stream", body)
        else:
            choice = {"index": 0, "message": {"role": "assistant", "content": ATTACK}, "finish_reason": "stop"}
            self._send(200, "application/json", {"choices": [choice]})

    def _send(self, status: int, kind: str, body: object) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Upstream)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path, upstream: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a ledger, a configuration, a page and a HAR file that have the attack in them."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "l.sqlite"
    for number, model in enumerate((f"ok/{ATTACK}", FORMULA, "x;=1+1")):
        row = RequestRow(uid=f"{number:032x}", request=f"r{number}{ATTACK}", at=NOON + number, model=model, status=404)
        row = RequestRow(**{name: getattr(row, name) for name in row.__struct_fields__} | {"error": ATTACK})
        attempt = AttemptRow(
            uid=row.uid, number=1, at=row.at, target=f"t/{ATTACK}", outcome="failed", error=ATTACK, reason=ATTACK
        )
        add(file, row, [attempt])
    open_database(str(file)).close()
    provider = {"protocol": "openai", "url": f"{upstream}/v1", "models": [ATTACK], "headers": {"x-note": "n"}}
    rows = "".join(f"{key} = {_toml(value)}\n" for key, value in provider.items())
    (tmp_path / "tolmach.toml").write_text(f"[providers.{_toml(NAME)}]\n{rows}", encoding="utf-8")
    (tmp_path / "wrong.toml").write_text(f"[gateway]\nport = {_toml(ATTACK)}\n{_toml(ATTACK)} = 1\n", encoding="utf-8")
    return tmp_path


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(below)}" for key, below in value.items()) + "}"
    return json.dumps(value)


def _endpoint(path: str) -> tuple[str, ...]:
    return ("--base-url", f"UPSTREAM{path}", "--protocol", "openai", "-m", ATTACK)


SINCE = ("--since", "2026-01-01", "--ledger", "l.sqlite")

COMMANDS: dict[str, tuple[tuple[str, ...], int]] = {
    "ask": (("ask", *_endpoint("/v1"), "hi"), 0),
    "ask whole": (("ask", *_endpoint("/v1"), "--no-stream", "hi"), 0),
    "ask json": (("ask", *_endpoint("/v1"), "--json", "hi"), 0),
    "ask refused": (("ask", *_endpoint("/refused"), "hi"), 4),
    "ask refused json": (("ask", *_endpoint("/refused"), "--json", "hi"), 4),
    "ask refused debug": (("ask", *_endpoint("/refused"), "--debug", "hi"), 4),
    "ask nobody": (("ask", "-p", ATTACK, "hi"), 2),
    "ask wrong option": (("ask", "-p", "ChatGptt", "-o", ATTACK, "hi"), 2),
    "ask wrong address": (("ask", "-p", "ChatGptt", "--base-url", ATTACK, "hi"), 2),
    "ask no file": (("ask", "-f", ATTACK, "-p", "ChatGptt", "hi"), 2),
    "no command": ((ATTACK,), 2),
    "usage": (("usage", "--by", "model", *SINCE), 0),
    "usage target": (("usage", "--by", "target", *SINCE), 0),
    "usage csv": (("usage", "--by", "model", "--csv", *SINCE), 0),
    "usage json": (("usage", "--by", "model", "--json", *SINCE), 0),
    "logs": (("logs", "--ledger", "l.sqlite"), 0),
    "logs json": (("logs", "--json", "--ledger", "l.sqlite"), 0),
    "logs of one": (("logs", f"r0{ATTACK}", "--ledger", "l.sqlite"), 0),
    "logs of one json": (("logs", f"r0{ATTACK}", "--json", "--ledger", "l.sqlite"), 0),
    "logs of none": (("logs", ATTACK, "--ledger", "l.sqlite"), 2),
    "explain": (("explain", f"{NAME}/{ATTACK}"), 0),
    "explain json": (("explain", "--json", f"{NAME}/{ATTACK}"), 0),
    "explain none": (("explain", ATTACK * 2), 2),
    "config check": (("config", "check", "-c", "wrong.toml"), 2),
    "config check json": (("config", "check", "--json", "-c", "wrong.toml"), 2),
    "config show": (("config", "show"), 0),
    "config show json": (("config", "show", "--json"), 0),
    "keys list": (("keys", "list", "--ledger", "l.sqlite"), 0),
    "keys list json": (("keys", "list", "--json", "--ledger", "l.sqlite"), 0),
    "keys remove": (("keys", "remove", ATTACK, "--ledger", "l.sqlite"), 2),
    "init": (("init", f"{ATTACK.replace('/', '')}.toml"), 0),
    "discover": (("discover", "page.html"), 0),
    "discover json": (("discover", "--json", "page.html"), 0),
    "discover nothing": (("discover", ATTACK), 2),
    "recipe": (("recipe", "CURL", "--answer", "said.json", "--question", "Why"), 0),
    "recipe json": (("recipe", "CURL", "--answer", "said.json", "--question", "Why", "--json"), 0),
    "decode": (("decode", "recording.json"), 0),
    "decode nothing": (("decode", ATTACK), 2),
    "models": (("models",), 0),
    "models json": (("models", "--json"), 0),
    "providers": (("providers",), 0),
    "providers json": (("providers", "--json"), 0),
}
"""What prints the text of others: the arguments and the exit code."""


@pytest.fixture
def arguments(folder: Path, upstream: str, run: Run) -> Callable[[str], tuple[tuple[str, ...], int]]:
    """The arguments of a case, and the code that it ends with."""

    def found(case: str) -> tuple[tuple[str, ...], int]:
        words, code = COMMANDS[case]
        if case.startswith("keys"):
            made = run("keys", "add", "ann", "--models", ATTACK, "--ledger", "l.sqlite")
            assert made.exit_code == 0, made.output
        if case.startswith("discover"):
            _write_page(folder)
        if case.startswith("recipe"):
            said = {"reply": {"text": f"It is blue {ATTACK}", ATTACK: 1}}
            (folder / "said.json").write_text(json.dumps(said))
        if case.startswith("decode"):
            _write_recording(folder)
        curl = f"curl http://chat.test/api --json '{json.dumps({'q': 'Why', 'note': ATTACK})}'"
        return tuple(curl if word == "CURL" else word.replace("UPSTREAM", upstream) for word in words), code

    return found


def _write_page(folder: Path) -> None:
    from tolmach.testing.recordings import load

    captures = Path(__file__).parent.parent / "captures"
    recorded = load(captures / "aiengine-2.4.3" / "page-chat.json").exchanges
    page = next(one for one in recorded if one.head.content_type == "text/html").body().decode()
    entities = "".join(f"&#{ord(char)};" if not 0x7F <= ord(char) < 0xA0 else char for char in ATTACK)
    assert "chatbot-main1" in page
    (folder / "page.html").write_text(page.replace("chatbot-main1", f"bot{entities}"), encoding="utf-8")


def _write_recording(folder: Path) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": ATTACK}, "finish_reason": "stop"}]}
    body = f"data: {json.dumps(chunk, ensure_ascii=False)}\n\ndata: [DONE]\n\n".encode()
    request = {"method": "POST", "path": "/v1/chat/completions", "headers": {}, "body": "{}"}
    response = {"status": 200, "reason": "", "headers": [["Content-Type", "text/event-stream"]]}
    chunks = [{"t_ms": 0.0, "b64": base64.b64encode(body).decode()}]
    recording = {"case": "c", "description": "d", "family": "openai", "observed": False}
    recording |= {"exchanges": [{"request": request, "response": response | {"chunks": chunks}}]}
    (folder / "recording.json").write_text(json.dumps(recording))


DRAWN = ("ask", "ask whole", "ask refused", "ask json", "usage", "usage csv", "logs", "logs of one", "discover")
"""What is written in another way on a terminal than into a pipe, and what must not be."""


@pytest.mark.parametrize("case", DRAWN)
def test_a_terminal_is_sent_nothing_to_obey(arguments, case):
    words, code = arguments(case)
    with Terminal(*words, columns=100) as terminal:
        ended = terminal.end()
        written = terminal.output
    assert _HARM.findall(written) == []
    assert ended == code, written


@pytest.mark.parametrize("case", [case for case in COMMANDS if case not in ("ask", "ask whole")])
def test_a_pipe_has_nothing_in_it_that_a_terminal_would_obey(run, arguments, case):
    words, code = arguments(case)
    result = run(*words)
    assert _HARM.findall(result.output) == []
    assert result.exit_code == code, result.output


def test_an_answer_goes_into_a_pipe_as_it_is(run, arguments):
    for case in ("ask", "ask whole"):
        assert run(*arguments(case)[0]).stdout == f"{ATTACK}\n"


def test_what_is_printed_as_json_means_what_came(run, arguments):
    [delta, *_] = [json.loads(line) for line in run(*arguments("decode")[0]).stdout.splitlines()]
    assert delta["text"] == ATTACK
    rows = [json.loads(line) for line in run(*arguments("logs json")[0]).stdout.splitlines()]
    assert [row["model"] for row in rows] == [f"ok/{ATTACK}", FORMULA, "x;=1+1"]
    (delta, *_) = [json.loads(line) for line in run(*arguments("ask json")[0]).stdout.splitlines()]
    assert delta == {"type": "delta", "text": ATTACK}


def test_no_cell_of_a_table_is_a_formula_or_two_cells(run, arguments):
    table = run(*arguments("usage csv")[0]).stdout
    names = [row["model"] for row in csv.DictReader(io.StringIO(table))]
    assert sorted(names) == sorted([f"ok/{_shown(ATTACK)}", f"'{FORMULA}", "x;=1+1"])
    # A spreadsheet that parts cells at semicolons must see the quotation marks, too.
    assert '\n"x;=1+1",' in table
    assert not [cell for row in csv.reader(io.StringIO(table)) for cell in row if cell[:1] in "=+@\t\r"]


def _shown(text: str) -> str:
    return "".join(
        char if char.isprintable() else f"\\{'x%02x' if ord(char) < 256 else 'u%04x'}" % ord(char) for char in text
    )


def test_two_names_that_look_the_same_are_two_in_tables(run, tmp_path):
    file = tmp_path / "alike.sqlite"
    for number, model in enumerate(("gpt-4o", "gpt-4o\u200b")):
        add(file, RequestRow(uid=f"{number:032x}", at=NOON, model=model, status=200), [])
    lines = run("usage", "--by", "model", "--since", "2026-01-01", "--ledger", str(file)).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["gpt-4o", "gpt-4o\\u200b"]


def test_a_conversation_on_a_terminal(upstream, folder):
    with Terminal("chat", *[word.replace("UPSTREAM", upstream) for word in _endpoint("/v1")]) as terminal:
        terminal.wait_for(PROMPT)
        terminal.write("hi\r")
        terminal.wait_for("BIDI")
        terminal.wait_for(PROMPT)
        for line in ("/history", "/model", "/save saved.json", "/load saved.json", "/nosuch"):
            terminal.write(f"{line}\r")
            terminal.wait_for(PROMPT)
        terminal.write("\x04")
        assert terminal.end() == 0
        written = terminal.output
    # prompt_toolkit itself moves back and rings.
    assert _HARM.findall(re.sub("[\x07\x08]", "", written)) == []


def test_a_recipe_with_the_attack_in_it_is_toml_that_means_it(run, arguments):
    recipe = tomllib.loads(run(*arguments("recipe")[0]).stdout)
    assert recipe["request"]["json"]["note"] == ATTACK
    shown = tomllib.loads(run("config", "show").stdout)
    assert list(shown["providers"]) == [NAME]
    assert shown["providers"][NAME]["models"] == [ATTACK]


def test_the_attack_is_one():
    # So the tests above can fail: every part of it is found where it is written as it is.
    assert len(_HARM.findall(ATTACK)) >= 12
    assert _HARM.findall(json.dumps(ATTACK, ensure_ascii=False))
    assert not _HARM.findall(json_text(json.dumps(ATTACK, ensure_ascii=False)))


# One place


_WRITING = {"click.echo", "click.secho", "click.echo_via_pager", "print", "Console", "sys.stdout.write"}
_WRITING |= {"sys.stderr.write", "sys.stdout.buffer.write", "sys.stderr.buffer.write", "rich.print"}


def _writes(tree: ast.AST) -> set[str]:
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return calls & _WRITING


@pytest.mark.parametrize(
    "module",
    [name for name in MODULES if not name.startswith("tolmach.testing") and name != "tolmach.cli.output"],
)
def test_only_one_module_prints(module):
    assert _writes(ast.parse(MODULES[module].read_text(encoding="utf-8"))) == set()


def test_a_module_that_prints_would_be_seen():
    assert _writes(ast.parse("import click\ndef f():\n    click.echo('x')\n    Console().print('y')")) == {
        "click.echo",
        "Console",
    }
