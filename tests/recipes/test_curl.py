"""curl commands, as browsers copy them and as people write them."""

import json
import shlex
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tolmach.errors import ConfigError
from tolmach.recipes.curl import is_curl, parse_curl

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
    request = parse_curl(command)
    assert (request.method, request.url, request.body) == (method, url, body)
    assert headers.items() <= request.headers.items()


def test_forms_of_parts() -> None:
    request = parse_curl("curl a.test -F 'q=what?' -F 'n=1;type=text/plain'")
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
        parse_curl(command)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=60))
def test_any_text_comes_out_of_bash_quotes_as_it_was(text: str) -> None:
    body = json.dumps({"q": text})
    assert json.loads(parse_curl(f"curl a.test --data-raw {shlex.quote(body)}").body) == {"q": text}


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_is_a_command_or_a_configuration_error(text: str) -> None:
    with suppress(ConfigError):
        assert parse_curl(f"curl {text}").url.startswith(("http://", "https://"))
