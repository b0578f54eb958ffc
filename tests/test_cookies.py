"""Finding a user's cookies: the order of the places, which fit, and files of all kinds, good and bad."""

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tolmach import cookies
from tolmach.cookies import (
    CookieFileWarning,
    cookies_dir,
    get_cookies,
    load_cookies,
    make_cookie,
    set_cookies,
    set_cookies_dir,
)
from tolmach.errors import ConfigError, MissingDependency

LATER = 4_102_444_800  # the year 2100
PAST = 946_684_800  # the year 2000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("TOLMACH_COOKIES", raising=False)
    monkeypatch.setattr(cookies, "_given", {})
    set_cookies_dir(tmp_path)
    yield tmp_path
    set_cookies_dir(None)


def netscape(*rows: tuple[object, ...]) -> str:
    lines = ["# Netscape HTTP Cookie File", "", *("\t".join(map(str, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def har(*entries: dict[str, object]) -> str:
    return json.dumps({"log": {"version": "1.2", "entries": list(entries)}})


# Order


def test_what_was_set_comes_before_the_folder_and_the_folder_before_browsers(folder, monkeypatch):
    browser: Any = ModuleType("browser_cookie3")
    browser.BrowserCookieError = type("BrowserCookieError", (Exception,), {})
    browser.load = lambda domain_name: [make_cookie("from", "browser", domain_name)]
    monkeypatch.setitem(sys.modules, "browser_cookie3", browser)
    assert get_cookies("a.test") == {}
    assert get_cookies("a.test", browsers=True) == {"from": "browser"}
    (folder / "a.txt").write_text(netscape(("a.test", "FALSE", "/", "TRUE", LATER, "from", "folder")))
    assert get_cookies("a.test", browsers=True) == {"from": "folder"}
    set_cookies("a.test", {"from": "caller"})
    assert get_cookies("a.test", browsers=True) == {"from": "caller"}
    set_cookies("a.test")
    assert get_cookies("A.test") == {"from": "folder"}


def test_browsers_that_cannot_be_read_are_a_warning(monkeypatch):
    browser: Any = ModuleType("browser_cookie3")
    browser.BrowserCookieError = type("BrowserCookieError", (Exception,), {})

    def load(domain_name: str) -> None:
        raise browser.BrowserCookieError("the key ring is locked")

    browser.load = load
    monkeypatch.setitem(sys.modules, "browser_cookie3", browser)
    with pytest.warns(CookieFileWarning, match="the key ring is locked"):
        assert get_cookies("a.test", browsers=True) == {}


def test_browsers_without_their_package_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "browser_cookie3", None)
    with pytest.raises(MissingDependency, match=r"pip install .*\[browsers\]"):
        get_cookies("a.test", browsers=True)


def test_what_was_set_for_a_domain_is_a_copy():
    mine = {"a": "1"}
    set_cookies("a.test", mine)
    mine["a"] = "2"
    found = get_cookies("a.test")
    assert found == {"a": "1"}
    found["a"] = "3"
    assert get_cookies("a.test") == {"a": "1"}


def test_a_leading_dot_takes_in_the_subdomains():
    set_cookies("a.test", {"host": "1"})
    assert get_cookies("www.a.test") == {}
    set_cookies(".a.test", {"domain": "1", "host": "0"})
    assert get_cookies("www.a.test") == {"domain": "1", "host": "0"}
    assert get_cookies("a.test") == {"domain": "1", "host": "1"}
    assert get_cookies("notA.test") == {}


def test_where_the_folder_is(tmp_path, monkeypatch):
    set_cookies_dir(None)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert cookies_dir() == Path("/home/ann/.config/tolmach/cookies")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/conf")
    assert cookies_dir() == Path("/conf/tolmach/cookies")
    monkeypatch.setenv("TOLMACH_COOKIES", "~/mine")
    assert cookies_dir() == Path("/home/ann/mine")
    set_cookies_dir(tmp_path)
    assert cookies_dir() == tmp_path


def test_the_environment_names_a_folder_that_is_read(tmp_path, monkeypatch):
    set_cookies_dir(None)
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "a.txt").write_text(netscape(("a.test", "FALSE", "/", "TRUE", 0, "a", "1")))
    monkeypatch.setenv("TOLMACH_COOKIES", str(inner))
    assert get_cookies("a.test") == {"a": "1"}
    monkeypatch.setenv("TOLMACH_COOKIES", str(tmp_path / "nowhere"))
    assert get_cookies("a.test") == {}


# Which fit


@pytest.mark.parametrize(
    ("domain", "subdomains", "path", "secure", "expires", "sent"),
    [
        ("a.test", "FALSE", "/", "FALSE", 0, True),
        ("a.test", "FALSE", "/", "TRUE", LATER, True),
        (".a.test", "TRUE", "/", "TRUE", LATER, True),
        ("b.test", "TRUE", "/", "TRUE", LATER, False),
        ("www.a.test", "TRUE", "/", "TRUE", LATER, False),
        ("xa.test", "TRUE", "/", "TRUE", LATER, False),
        ("a.test", "FALSE", "/chat", "TRUE", LATER, False),
        ("a.test", "FALSE", "/", "TRUE", PAST, False),
    ],
)
def test_which_cookies_of_a_file_are_sent(folder, domain, subdomains, path, secure, expires, sent):
    (folder / "cookies.txt").write_text(netscape((domain, subdomains, path, secure, expires, "a", "1")))
    assert get_cookies("a.test") == ({"a": "1"} if sent else {})


def test_subdomains_get_domain_cookies_and_no_host_cookies(folder):
    rows = (".a.test", "TRUE", "/", "TRUE", LATER, "domain", "1"), ("a.test", "FALSE", "/", "TRUE", LATER, "host", "1")
    (folder / "cookies.txt").write_text(netscape(*rows))
    assert get_cookies("www.a.test") == {"domain": "1"}
    assert get_cookies("a.test") == {"domain": "1", "host": "1"}


# Kinds of files


def test_netscape_with_http_only_lines_a_mark_and_odd_values(folder):
    text = netscape(("#HttpOnly_a.test", "FALSE", "/", "TRUE", f"{LATER}.5", "token", "a=b==")) + "# a comment\n"
    (folder / "COOKIES.TXT").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert get_cookies("a.test") == {"token": "a=b=="}


def test_json_exports_of_browser_extensions(folder):
    listed = [
        {"name": "a", "value": "1", "domain": ".a.test", "path": "/", "expirationDate": LATER + 0.25, "secure": True},
        {"name": "b", "value": "2", "domain": "a.test", "hostOnly": True, "session": True, "sameSite": None},
        {"name": "c", "value": "3", "domain": "a.test", "expirationDate": PAST},
        {"name": "d", "value": "4", "domain": "a.test", "expires": -1},
    ]
    (folder / "a.json").write_text(json.dumps(listed))
    assert get_cookies("a.test") == {"a": "1", "b": "2", "d": "4"}
    assert get_cookies("www.a.test") == {"a": "1"}
    (folder / "a.json").write_text(json.dumps({"url": "https://a.test", "cookies": listed[:1]}))
    assert get_cookies("a.test") == {"a": "1"}


def test_har_files_have_what_was_sent_and_what_was_set(folder):
    asked = {"method": "GET", "url": "https://a.test/page", "cookies": [{"name": "sent", "value": "1", "path": "/"}]}
    told = {"headers": [{"name": "Set-Cookie", "value": "set=2; Path=/; Secure\nwide=3; Domain=a.test; Path=/"}]}
    by_header = {"url": "https://a.test/", "headers": [{"name": "cookie", "value": "one=1; two=a=b"}]}
    later = {"headers": [{"name": "set-cookie", "value": "one=; Max-Age=0; Path=/"}]}
    elsewhere = {"url": "https://b.test/", "cookies": [{"name": "other", "value": "1"}]}
    (folder / "a.har").write_text(
        har(
            {"request": asked, "response": told},
            {"request": by_header, "response": later},
            {"request": elsewhere},
        )
    )
    assert get_cookies("a.test") == {"sent": "1", "set": "2", "wide": "3", "two": "a=b"}
    assert get_cookies("www.a.test") == {"wide": "3"}
    assert get_cookies("b.test") == {"other": "1"}


def test_several_files_go_together_and_others_are_not_looked_at(folder):
    (folder / "a.txt").write_text(netscape(("a.test", "FALSE", "/", "TRUE", LATER, "a", "1")))
    (folder / "b.json").write_text(json.dumps([{"name": "b", "value": "2", "domain": "a.test"}]))
    (folder / "README.md").write_text("not cookies")
    assert get_cookies("a.test") == {"a": "1", "b": "2"}


def test_a_file_that_changes_is_read_again_and_another_is_not(folder, monkeypatch):
    file = folder / "a.txt"
    file.write_text(netscape(("a.test", "FALSE", "/", "TRUE", LATER, "a", "1")))
    assert get_cookies("a.test") == {"a": "1"}
    read: list[Path] = []
    real = Path.read_bytes

    def read_bytes(self: Path) -> bytes:
        read.append(self)
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert get_cookies("a.test") == {"a": "1"}
    assert read == []
    file.write_text(netscape(("a.test", "FALSE", "/", "TRUE", LATER, "a", "12")))
    assert get_cookies("a.test") == {"a": "12"}
    assert read == [file]


SECRET = "s3cret-value"


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.txt", f"a.test\tFALSE\t/\tTRUE\t{LATER}\ta\n", "line 1 has 6 fields, not 7"),
        ("a.txt", f"a.test\tFALSE\t/\tTRUE\t{SECRET}\ta\t1\n", "line 1: the time of expiry is no number"),
        ("a.txt", "a.test\tFALSE\t/\tTRUE\t1e999\ta\t1\n", "line 1: the time of expiry is no number"),
        ("a.txt", "<!doctype html>\n<title>Sign in</title>\n", "line 1 has 1 fields"),
        ("a.json", '{"cookies": "' + SECRET + '"}', "Expected `array`"),
        ("a.json", '[{"name": "a", "value": {"x": "' + SECRET + '"}, "domain": "a.test"}]', r"\$\[0\]\.value"),
        ("a.json", '[{"name": "a", "value": "1"}]', "missing required field `domain`"),
        (
            "a.json",
            '[{"name": "a", "value": "1", "domain": "a.test", "expires": "' + SECRET + '"}]',
            "cookie 0: the time",
        ),
        ("a.json", "[" * 5000, "."),
        ("a.json", '"' + SECRET, "."),
        ("a.har", "{}", "missing required field `log`"),
        ("a.har", '{"log": {"entries": [{"request": {"url": 3}}]}}', r"\$\.log\.entries\[0\]\.request\.url"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_left_out(folder, name, text, why):
    (folder / name).write_text(text)
    (folder / "z.txt").write_text(netscape(("a.test", "FALSE", "/", "TRUE", LATER, "z", "1")))
    with pytest.warns(CookieFileWarning, match=why) as caught:
        assert get_cookies("a.test") == {"z": "1"}
    message = str(caught[0].message)
    assert str(folder / name) in message
    assert SECRET not in message
    with pytest.raises(ConfigError, match=why) as raised:
        load_cookies(folder / name, "a.test")
    assert SECRET not in f"{raised.value}{raised.value.__cause__}"


def test_bytes_that_are_no_text_and_folders_are_left_out_too(folder):
    (folder / "a.txt").write_bytes(b"\xff\xfe\x00")
    (folder / "b.json").mkdir()
    with pytest.warns(CookieFileWarning) as caught:
        assert get_cookies("a.test") == {}
    assert [str(folder / name) in str(w.message) for name, w in zip(("a.txt", "b.json"), caught, strict=True)] == [
        True
    ] * 2


def test_one_file_can_be_read_alone(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text(netscape((".a.test", "TRUE", "/", "TRUE", LATER, "a", "1")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_cookies(file, "www.a.test") == {"a": "1"}
        assert load_cookies(str(file), "b.test") == {}
    with pytest.raises(ConfigError, match=r"nowhere\.txt: No such file"):
        load_cookies(tmp_path / "nowhere.txt", "a.test")
    with pytest.raises(ConfigError, match=r"\.txt, \.json, \.har"):
        load_cookies(Path(__file__), "a.test")
