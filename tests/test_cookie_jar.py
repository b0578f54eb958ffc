"""The jar of a session: which cookies go where, and for how long (RFC 6265)."""

import time

import pytest

from tolmach.cookies import CookieJar, make_cookie


def sent(jar: CookieJar, url: str) -> set[str]:
    """The pairs that go to an address."""
    return {pair for pair in jar.header(url).split("; ") if pair}


def stored(url: str, *lines: str) -> CookieJar:
    jar = CookieJar()
    jar.store(url, lines)
    return jar


@pytest.mark.parametrize("host", ["site.test", "www.site.test", "localhost", "127.0.0.1", "[::1]", "intranet"])
def test_a_cookie_goes_back_to_its_host(host: str) -> None:
    for port in ("", ":8190"):
        assert sent(stored(f"http://{host}{port}/", "a=1"), f"http://{host}{port}/x") == {"a=1"}


@pytest.mark.parametrize(
    ("host", "other"),
    [
        ("site.test", "www.site.test"),
        ("site.test", "other.test"),
        ("site.test", "evilsite.test"),
        ("www.site.test", "site.test"),
        ("127.0.0.1", "127.0.0.2"),
        ("127.0.0.1", "localhost"),
        ("localhost", "127.0.0.1"),
        ("localhost", "evil.localhost"),
        ("localhost", "localhost.test"),
        ("[::1]", "[::2]"),
    ],
)
def test_a_cookie_without_a_domain_goes_to_no_other_host(host: str, other: str) -> None:
    assert sent(stored(f"http://{host}/", "a=1"), f"http://{other}/") == set()


@pytest.mark.parametrize("domain", ["site.test", ".site.test", "SITE.test"])
def test_a_cookie_with_a_domain_goes_to_its_subdomains(domain: str) -> None:
    jar = stored("http://www.site.test/", f"a=1; Domain={domain}")
    assert sent(jar, "http://www.site.test/") == {"a=1"}
    assert sent(jar, "http://site.test/") == {"a=1"}
    assert sent(jar, "http://api.site.test/") == {"a=1"}
    assert sent(jar, "http://evilsite.test/") == set()
    assert sent(jar, "http://site.test.evil.test/") == set()


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("site.test", "other.test"),
        ("site.test", "www.site.test"),
        ("site.test", "test"),
        ("site.test", ".test"),
        ("127.0.0.1", "0.0.1"),
        ("127.0.0.1", ".0.0.1"),
        ("10.0.0.1", "127.0.0.1"),
    ],
)
def test_a_domain_that_is_not_the_hosts_is_refused(host: str, domain: str) -> None:
    jar = stored(f"http://{host}/", f"a=1; Domain={domain}")
    assert len(jar) == 0
    assert sent(jar, f"http://{domain.strip('.')}/") == set()


@pytest.mark.parametrize(
    ("path", "asked", "goes"),
    [
        ("/wp", "/wp", True),
        ("/wp", "/wp/", True),
        ("/wp", "/wp/a/b", True),
        ("/wp/", "/wp/a", True),
        ("/wp", "/wpx", False),
        ("/wp", "/", False),
        ("/wp/", "/wp", False),
        ("/", "/anything", True),
    ],
)
def test_paths(path: str, asked: str, goes: bool) -> None:
    jar = stored("http://site.test/wp/login", f"a=1; Path={path}")
    assert bool(sent(jar, f"http://site.test{asked}")) is goes


def test_without_a_path_the_folder_of_the_page_counts() -> None:
    jar = stored("http://site.test/shop/page", "a=1")
    assert sent(jar, "http://site.test/shop/other") == {"a=1"}
    assert sent(jar, "http://site.test/blog/") == set()


def test_a_path_may_be_elsewhere_on_the_site() -> None:
    """Plugins set cookies for `/` and `/wp-json/` from any page."""
    jar = stored("http://site.test/chat/", "a=1; Path=/wp-json/")
    assert sent(jar, "http://site.test/wp-json/x") == {"a=1"}
    assert sent(jar, "http://site.test/chat/") == set()


def test_a_secure_cookie_needs_tls() -> None:
    jar = stored("https://site.test/", "a=1; Secure", "b=2")
    assert sent(jar, "https://site.test/") == {"a=1", "b=2"}
    assert sent(jar, "http://site.test/") == {"b=2"}


def test_expiry() -> None:
    jar = stored(
        "http://site.test/",
        "past=1; Expires=Wed, 09 Jun 2021 10:18:14 GMT",
        "future=1; Expires=Wed, 09 Jun 2100 10:18:14 GMT",
        "age=1; Max-Age=60",
        "none=1; Max-Age=0",
        "both=1; Max-Age=60; Expires=Wed, 09 Jun 2021 10:18:14 GMT",
        "session=1",
    )
    assert sent(jar, "http://site.test/") == {"future=1", "age=1", "both=1", "session=1"}


def test_a_cookie_ends_while_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    jar = stored("http://site.test/", "a=1; Max-Age=60", "b=2")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert sent(jar, "http://site.test/") == {"b=2"}


def test_a_cookie_is_replaced_and_taken_back() -> None:
    jar = stored("http://site.test/", "a=1")
    jar.store("http://site.test/", ["a=2"])
    assert sent(jar, "http://site.test/") == {"a=2"}
    jar.store("http://site.test/", ["a=; Max-Age=0"])
    assert sent(jar, "http://site.test/") == set()


def test_several_lines_and_odd_values() -> None:
    jar = stored(
        "http://site.test/",
        "a=1=2==; Path=/; HttpOnly; SameSite=Lax",
        'b="quoted value"',
        "c=",
        "expires=5; Expires=Wed, 09-Jun-2100 10:18:14 GMT",
        "",
        ";;;",
        "=nameless",
    )
    assert {"a=1=2==", 'b="quoted value"', "c=", "expires=5"} <= sent(jar, "http://site.test/")


def test_two_jars_share_nothing() -> None:
    one, two = stored("http://site.test/", "a=1"), CookieJar()
    two.set("http://site.test/", {"b": "2"})
    assert (sent(one, "http://site.test/"), sent(two, "http://site.test/")) == ({"a=1"}, {"b=2"})
    assert (len(one), len(two), len(CookieJar())) == (1, 1, 0)


@pytest.mark.parametrize("host", ["site.test", "localhost", "127.0.0.1", "[::1]"])
def test_cookies_that_the_caller_hands_in(host: str) -> None:
    jar = CookieJar()
    jar.set(f"http://{host}:8190/chat", {"a": "1", "b": "x y"})
    for url in (f"http://{host}:8190/chat", f"https://{host}/other"):
        assert sent(jar, url) == {"a=1", "b=x y"}
    assert sent(jar, "http://www.site.test/") == set()
    jar.store(f"http://{host}:8190/", ["a=2; Path=/"])
    assert sent(jar, f"http://{host}:8190/") == {"a=2", "b=x y"}, "the site's answer replaces what was handed in"


def test_an_empty_jar() -> None:
    jar = CookieJar()
    jar.store("http://site.test/", [])
    assert (jar.header("http://site.test/"), list(jar), len(jar)) == ("", [], 0)


@pytest.mark.parametrize(("host_only", "subdomain"), [(True, set()), (False, {"a=1"})])
def test_made_cookies(host_only: bool, subdomain: set[str]) -> None:
    jar = CookieJar()
    jar.add(make_cookie("a", "1", "site.test", host_only=host_only))
    assert sent(jar, "http://site.test/") == {"a=1"}
    assert sent(jar, "http://api.site.test/") == subdomain
    assert [cookie.name for cookie in jar] == ["a"]


def test_longer_paths_come_first() -> None:
    jar = stored("http://site.test/a/b/c", "x=short; Path=/", "x=long; Path=/a/b")
    assert jar.header("http://site.test/a/b/c") == "x=long; x=short"
