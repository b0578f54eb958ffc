"""curl commands, as browsers copy them and as people write them."""

import json
import re
import shlex
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tolmach.errors import ConfigError
from tolmach.recipes.copies.curl import is_curl, read_curl
from tolmach.recipes.copies.reading import is_copy, read_copies
from tolmach.wire import Request


def _one(command: str) -> Request:
    (request,) = read_curl(command)
    return request


TABLE = [
    ("curl http://a.test/x", "GET", "http://a.test/x", b"", {}),
    ("curl a.test/x -d q=1 -d r=2", "POST", "http://a.test/x", b"q=1&r=2", {}),
    ("$ curl -X PUT 'https://a.test' --data-raw '@x'", "PUT", "https://a.test", b"@x", {}),
    ("curl a.test -G --data-urlencode 'q=a b&c'", "GET", "http://a.test?q=a%20b%26c", b"", {}),
    ("curl a.test --json '{\"q\": 1}'", "POST", "http://a.test", b'{"q": 1}', {"content-type": "application/json"}),
    (
        "curl a.test -b 'a=1' -A me -e http://r.test/",
        "GET",
        "http://a.test",
        b"",
        {"cookie": "a=1", "referer": "http://r.test/"},
    ),
    ("curl a.test -u me:it", "GET", "http://a.test", b"", {"authorization": "Basic bWU6aXQ="}),
    ("curl a.test -HX-A:1 --header='X-B: 2' -sSL --compressed", "GET", "http://a.test", b"", {"x-a": "1", "x-b": "2"}),
    (
        "curl a.test --data-binary $'it\\'s \\u00e9\\n\\x41\\xc3\\xa9'",
        "POST",
        "http://a.test",
        "it's é\nAé".encode(),
        {},
    ),
    (
        'curl ^"http://a.test/x^" ^\r\n  -H ^"X-A: 1^" ^\r\n  --data-raw ^"^{^\\^"q^\\^":^\\^"a ^%^ b^\\^"^}^"',
        "POST",
        "http://a.test/x",
        b'{"q":"a % b"}',
        {"x-a": "1"},
    ),
    (
        'curl.exe "http://a.test/x" --data-raw "^{\\"q\\":1^}" ^\n --compressed',
        "POST",
        "http://a.test/x",
        b'{"q":1}',
        {},
    ),
]


@pytest.mark.parametrize(("command", "method", "url", "body", "headers"), TABLE)
def test_commands(command: str, method: str, url: str, body: bytes, headers: dict[str, str]) -> None:
    assert is_curl(command)
    request = _one(command)
    assert (request.method, request.url, request.body) == (method, url, body)
    assert headers.items() <= request.headers.items()


def test_forms_of_parts() -> None:
    request = _one("curl a.test -F 'q=what?' -F 'n=1;type=text/plain'")
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="q"\r\n\r\nwhat?\r\n' in request.body
    assert b'name="n"\r\n\r\n1\r\n' in request.body


@pytest.mark.parametrize(
    "command",
    [
        "wget a.test",
        "curl",
        "curl -H",
        "curl a.test -d @file",
        "curl a.test -F f=@file",
        "curl a.test --odd",
        "curl 'a",
        "curl ftp://a.test",
    ],
)
def test_what_cannot_be_sent_is_said(command: str) -> None:
    with pytest.raises(ConfigError):
        _one(command)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=60))
def test_any_text_comes_out_of_bash_quotes_as_it_was(text: str) -> None:
    body = json.dumps({"q": text})
    assert json.loads(_one(f"curl a.test --data-raw {shlex.quote(body)}").body) == {"q": text}


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_is_a_command_or_a_configuration_error(text: str) -> None:
    with suppress(ConfigError):
        assert _one(f"curl {text}").url.startswith(("http://", "https://"))


COPIES = Path(__file__).parent / "copies"
"""Requests as browsers copied them."""

ASKED = {"q": 'What\'s so "blue" about 100% of the sky?'}


def _question(request: Request) -> str:
    return str(json.loads(request.body)["messages"][0]["parts"][0]["text"])


@pytest.mark.parametrize("name", ["fetch.js", "node.js", "powershell.ps1"])
def test_copies_for_a_console_for_node_and_for_powershell(name: str) -> None:
    text = (COPIES / name).read_text()
    assert is_copy(text)
    (request,) = read_copies(text)
    assert (request.method, request.headers["content-type"]) == ("POST", "application/json")
    assert request.url.endswith("/api/chat")
    assert request.headers["referer"].startswith("http://127.0.0.1")
    assert _question(request) == ASKED["q"]


def test_chromes_copy_for_windows_keeps_the_lines_of_a_body() -> None:
    (request,) = read_copies((COPIES / "lines.cmd.curl").read_text())
    head, _, body = request.body.partition(b"\r\n\r\n")
    assert head.splitlines() == [b"------WebKitFormBoundaryAbC123", b'Content-Disposition: form-data; name="data"']
    assert json.loads(body.splitlines()[0])["inputs"] == "Why is the sky blue?"


def test_firefoxes_copy_for_windows_doubles_its_quotes() -> None:
    (request,) = read_copies((COPIES / "firefox.cmd.curl").read_text())
    assert json.loads(request.body)["chatInput"] == "Why is the sky blue?"


def test_all_copied_requests_are_kept_apart() -> None:
    first, second = read_copies((COPIES / "all.curl").read_text())
    assert (first.method, first.url, first.body) == ("GET", "http://127.0.0.1:9/page", b"")
    assert first.headers == {"accept": "text/html"}
    assert (second.method, second.url, second.body) == ("POST", "http://127.0.0.2:9/api", b'{"m":"secret"}')
    windows = 'curl ^"http://a.test/1^" ^\r\n  -H ^"X-A: 1^" &\r\ncurl ^"http://a.test/2^" --data-raw ^"x^"'
    assert [(one.url, one.body) for one in read_copies(windows)] == [
        ("http://a.test/1", b""),
        ("http://a.test/2", b"x"),
    ]
    calls = 'fetch("http://a.test/1", {"method": "GET", "body": null}); ;\nfetch("http://a.test/2", {"body": "x"});'
    assert [(one.method, one.url) for one in read_copies(calls)] == [
        ("GET", "http://a.test/1"),
        ("POST", "http://a.test/2"),
    ]


@pytest.mark.parametrize("fence", ["```bash\n{}\n```", "~~~\n{}\n~~~\n", "\ufeff```\n{}\n```"])
def test_a_fence_of_markdown_is_taken_off(fence: str) -> None:
    (request,) = read_copies(fence.format("curl http://a.test --data-raw '{\"q\":1}'"))
    assert request.body == b'{"q":1}'


def test_powershells_cookies_user_agent_and_characters() -> None:
    text = (
        "$session = New-Object Microsoft.PowerShell.Commands.WebRequestSession\n"
        '$session.UserAgent = "Mozilla/5.0 (X)"\n'
        '$session.Cookies.Add((New-Object System.Net.Cookie("sid", "a`$1", "/", "a.test")))\n'
        'Invoke-WebRequest -UseBasicParsing -Uri "http://a.test/x" `\n-Method "PUT" `\n-Headers @{\n":path"="/x"\n'
        '"x-a"="1"\n} `\n-Body ([System.Text.Encoding]::UTF8.GetBytes("{`"q`":`"$([char]1076)a`"}"))\n'
    )
    (request,) = read_copies(text)
    assert (request.method, request.url, request.body) == ("PUT", "http://a.test/x", '{"q":"дa"}'.encode())
    assert request.headers == {"x-a": "1", "user-agent": "Mozilla/5.0 (X)", "cookie": "sid=a$1"}


@pytest.mark.parametrize(
    "command",
    [
        "curl a.test -d @/etc/hostname",
        "curl a.test --data-urlencode q@/etc/hostname",
        "curl a.test -F 'f=@/etc/hostname'",
        "curl a.test -H @/etc/hostname",
        "curl a.test -b /etc/hostname",
        "curl a.test -T /etc/hostname",
        "curl a.test --json @/etc/hostname",
    ],
)
def test_no_file_is_read_that_a_copy_names(command: str) -> None:
    with pytest.raises(ConfigError, match=r"no file (of cookies )?is read"):
        read_copies(command)


@pytest.mark.parametrize(
    "text",
    [
        'fetch("http://a.test", {body: JSON.stringify(x)})',
        'fetch("/api", {"body": "x"})',
        'fetch("http://a.test", {"body": {}})',
        "Invoke-WebRequest -Uri $address",
        "curl http://a.test ;\nrm -rf x",
    ],
)
def test_what_cannot_be_read_says_what_to_do(text: str) -> None:
    assert is_copy(text)
    with pytest.raises(ConfigError):
        read_copies(text)


@given(st.text(max_size=200))
def test_a_body_survives_every_form(body: str) -> None:
    body = body.encode("utf-8", "replace").decode().replace("\0", "").replace("\r", "")
    copies = [
        f"curl http://a.test --data-raw {shlex.quote(body)}",
        f'fetch("http://a.test", {{"body": {json.dumps(body)}, "method": "POST"}})',
        'Invoke-WebRequest -Uri "http://a.test" -Method "POST" -Body "' + re.sub(r"([`\"$])", r"`\1", body) + '"',
    ]
    for text in copies:
        (request,) = read_copies(text)
        assert request.body.decode() == body
