"""`tolmach ask`: an answer, or a line that says why there is none, and never a broken answer with exit code 0."""

import json
from typing import Any

import pytest

from tolmach.cli.options import Target

SERVICES = ("Chatgpt4o", "Chatgpt4Online", "ChatGptt", "ChatGpt")


@pytest.mark.parametrize("provider", SERVICES)
def test_an_answer_is_printed_and_nothing_else(ask, provider):
    result = ask(provider, "How", "are you?")
    assert result.exit_code == 0, result.stderr
    assert "> How are you?\n" in result.stdout
    assert result.stdout.endswith("Готово ✅\n")
    assert result.stderr == ""


def test_aichat_takes_the_cookies_of_a_file(ask, tmp_path, demo):
    file = tmp_path / "cookies.txt"
    file.write_text(".chat-gpt.org\tTRUE\t/\tTRUE\t0\tvisit\t1\n")
    result = ask("Aichat", "--cookies", str(file), "hi")
    assert result.exit_code == 0, result.stderr
    assert "Готово" in result.stdout


def test_json_prints_the_events(ask):
    result = ask("Chatgpt4Online", "--json", "hi")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert "Готово" in "".join(event["text"] for event in events if event["type"] == "delta")
    assert len([event for event in events if event["type"] == "delta"]) > 10
    assert events[-1] == {"type": "done", "reason": "stop"}


def test_json_ends_with_the_error(ask):
    result = ask("ChatGptt", "--json", "hi [[fault:429-retry-after]]")
    last = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 5
    assert (last["type"], last["error"], last["status"], last["retry_after"]) == ("error", "RateLimited", 429, 7.0)


def test_no_stream_asks_for_one_piece(ask):
    result = ask("Chatgpt4Online", "--no-stream", "--json", "hi")
    kinds = [json.loads(line)["type"] for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert kinds.count("delta") == 1


def test_the_system_message_goes_along(run, demo):
    args = ("--protocol", "openai", "--base-url", f"{demo.url}/v1", "--api-key", "k", "-m", "gpt-4o")
    assert "hist=1" in run("ask", *args, "hi").stdout
    assert "hist=2" in run("ask", *args, "-s", "Be brief.", "hi").stdout


def test_an_endpoint_with_options_of_its_protocol(run, demo):
    url = f"{demo.url}/Chatgpt4Online"
    result = run("ask", "--protocol", "ai-engine", "--base-url", url, "--set", "bot_id=default", "hi")
    assert result.exit_code == 0, result.stderr
    assert "Готово" in result.stdout


@pytest.mark.parametrize(
    ("fault", "code", "kind"),
    [
        ("cut=5", 3, "ConnectionLost"),
        ("missing-end", 7, "TruncatedAnswer"),
        ("upstream-cut=5", 4, "ProviderUnavailable"),
    ],
)
def test_of_a_broken_answer_what_came_is_printed_and_then_the_error(ask, fault, code, kind):
    result = ask("Chatgpt4Online", f"hi [[fault:{fault}]]")
    assert result.exit_code == code
    assert "Chatgpt4Online" in result.stdout
    assert result.stdout.endswith("\n")
    assert result.stderr.startswith(f"tolmach: {kind}: Chatgpt4Online: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("provider", SERVICES)
@pytest.mark.parametrize("fault", ["cut=5", "malformed=5", "empty", "html", "500", "403-challenge", "401", "reset"])
def test_a_fault_never_ends_with_0(ask, provider, fault):
    result = ask(provider, f"hi [[fault:{fault}]]")
    assert result.exit_code in (3, 4, 6, 7), result.output
    assert result.stderr.startswith("tolmach: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [("429-retry-after", 5), ("guest-limit", 5), ("403-challenge", 6), ("banned", 4), ("500", 4), ("reset", 3)],
)
def test_exit_codes_of_what_a_service_says(ask, fault, code):
    assert ask("Chatgpt4Online", f"hi [[fault:{fault}]]").exit_code == code


def test_a_time_limit(ask):
    result = ask("Chatgpt4Online", "--timeout", "0.3", "hi [[fault:stall=3]]")
    assert result.exit_code == 3
    assert "TimedOut" in result.stderr
    assert "--timeout" in result.stderr


def test_a_challenge_is_for_a_person(ask, demo):
    demo.faults["/ChatGpt"] = "turnstile"
    try:
        result = ask("ChatGpt", "hi")
    finally:
        del demo.faults["/ChatGpt"]
    assert result.exit_code == 6
    assert "person" in result.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("hi",), "whom to ask"),
        (("-p", "Nope", "hi"), "no provider 'Nope'"),
        (("-m", "no-such-model", "hi"), "nobody is known to have the model 'no-such-model': there is no tolmach.toml"),
        (("-m", "gpt-4o", "hi"), "The public sites ChatGptt and ChatGpt have it; to ask one, name it: -p ChatGptt"),
        (("-m", "ChatGptt/no-such-model", "hi"), "has no model 'no-such-model'"),
        (("-p", "ChatGptt"), "nothing to ask"),
        (("-p", "ChatGptt", "  "), "nothing to ask"),
        (("-p", "ChatGptt", "-f", "/no/such/file", "hi"), "/no/such/file: No such file"),
        (("-p", "ChatGptt", "--cookies", "/no/such/file", "hi"), "'/no/such/file' does not exist"),
        (("-p", "ChatGptt", "--base-url", "nonsense", "hi"), "no http or https address"),
        (("-p", "ChatGptt", "--base-url", "http://[", "hi"), "no http or https address"),
        (("-p", "ChatGptt", "--base-url", "http://x:99999/", "hi"), "no http or https address"),
        (("--base-url", "http://127.0.0.1:1", "-m", "x", "hi"), "--protocol"),
        (("--protocol", "openai", "hi"), "--base-url"),
        (("--protocol", "nope", "--base-url", "http://127.0.0.1:1", "hi"), "'nope'"),
        (("-p", "ChatGptt", "--set", "bot_id=1", "hi"), "--protocol"),
        (("--protocol", "ai-engine", "--base-url", "http://127.0.0.1:1", "--set", "bot=1", "hi"), "bot_id"),
        (("--protocol", "ai-engine", "--base-url", "http://127.0.0.1:1", "--set", "bot_id", "hi"), "KEY=VALUE"),
        (("-p", "ChatGptt", "-o", "temperature", "hi"), "KEY=VALUE"),
        (("-p", "ChatGptt", "-o", "model=x", "hi"), "use -m"),
        (("-p", "ChatGptt", "-o", "temperature=0.5", "hi"), "--lenient"),
        (("-p", "ChatGptt", "--timeout", "0", "hi"), "--timeout"),
        (("-p", "ChatGptt", "--timeout", "nan", "hi"), "timeout"),
        (("-p", "ChatGptt", "--impersonate", "netscape4", "hi"), "netscape4"),
        (("-p", "ChatGptt", "--nosuch", "hi"), "tolmach ask --help"),
        (("-p", "Aichat", "--base-url", "http://127.0.0.1:1", "hi"), "--cookies"),
    ],
)
def test_wrong_use_is_one_line_and_2(run, args, says):
    result = run("ask", *args)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert result.stderr.startswith("tolmach: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_wrong_command_is_wrong_use(run):
    result = run("nosuch")
    assert result.exit_code == 2
    assert result.stderr == "tolmach: No such command 'nosuch'. See `tolmach --help`.\n"


def test_no_connection(run):
    result = run("ask", "-p", "ChatGptt", "--base-url", "http://127.0.0.1:1/", "hi")
    assert result.exit_code == 3
    assert "ConnectFailed" in result.stderr


def test_what_cannot_be_honoured_is_dropped_when_allowed(ask):
    result = ask("ChatGptt", "--lenient", "-o", "temperature=0.5", "hi")
    assert result.exit_code == 0
    assert result.stderr == "tolmach: dropped: ChatGptt cannot honour 'temperature'; it was left out\n"


@pytest.mark.parametrize("args", [("--debug", "ask", "-p", "Nope", "hi"), ("ask", "-p", "Nope", "--debug", "hi")])
def test_debug_shows_where_before_and_after_the_subcommand(run, args):
    result = run(*args)
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("tolmach: ModelNotFound: no provider 'Nope'")


@pytest.mark.parametrize("flag", [(), ("--debug",)])
def test_no_password_of_a_proxy_is_shown(ask, flag):
    result = ask("ChatGptt", "--proxy", "http://user:hunter2@127.0.0.1:1", *flag, "hi")
    assert result.exit_code == 3
    assert "hunter2" not in result.output


def test_files_come_before_the_question(ask, tmp_path):
    (tmp_path / "one.txt").write_text("\ufeffthe first\n", encoding="utf-8")
    (tmp_path / "two.txt").write_text("the second\n")
    result = ask("ChatGptt", "-f", str(tmp_path / "one.txt"), "-f", str(tmp_path / "two.txt"), "the words")
    assert "> the first\n> \n> the second\n> \n> the words\n" in result.stdout


def test_a_file_that_is_no_text_is_refused(ask, tmp_path):
    (tmp_path / "picture").write_bytes(b"ab\xff\x00")
    result = ask("ChatGptt", "-f", str(tmp_path / "picture"), "hi")
    assert result.exit_code == 2
    assert "not UTF-8 text (byte 2 is 0xff)" in result.stderr


# The environment


def test_model_and_provider_come_from_the_environment(run, monkeypatch):
    monkeypatch.setenv("TOLMACH_PROVIDER", "NoSuchProvider")
    assert "NoSuchProvider" in run("ask", "hi").stderr
    monkeypatch.delenv("TOLMACH_PROVIDER")
    monkeypatch.setenv("TOLMACH_MODEL", "no-such-model")
    assert "no-such-model" in run("ask", "hi").stderr


def test_a_provider_on_the_command_line_beats_the_environments_model(ask, monkeypatch):
    monkeypatch.setenv("TOLMACH_MODEL", "a-model-of-another-provider")
    assert ask("ChatGptt", "hi").exit_code == 0


def test_a_model_or_protocol_on_the_command_line_beats_the_environments_provider(run, demo, monkeypatch):
    monkeypatch.setenv("TOLMACH_PROVIDER", "Chatgpt4o")
    assert "nobody is known to have the model 'no-such-model'" in run("ask", "-m", "no-such-model", "hi").stderr
    url = f"{demo.url}/Chatgpt4Online"
    assert run("ask", "--protocol", "ai-engine", "--base-url", url, "hi").exit_code == 0


def test_a_key_of_the_environment_is_for_endpoints_only(run, demo, monkeypatch):
    keys: list[str | None] = []
    make = Target.__init__

    def noting(self: Target, **options: Any) -> None:
        keys.append(options["api_key"])
        make(self, **options)

    monkeypatch.setattr(Target, "__init__", noting)
    monkeypatch.setenv("TOLMACH_API_KEY", "secret")
    assert run("ask", "--protocol", "openai", "--base-url", f"{demo.url}/v1", "-m", "gpt-4o", "hi").exit_code == 0
    run("ask", "-p", "ChatGptt", "--base-url", f"{demo.url}/ChatGptt", "hi")
    run("ask", "-p", "ChatGptt", "--base-url", f"{demo.url}/ChatGptt", "--api-key", "given", "hi")
    assert keys == ["secret", None, "given"]
