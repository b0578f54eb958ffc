"""Discovery: what stands on a page, by the recordings, by written pages, and by what other pages add."""

import json
from html import escape
from pathlib import Path
from typing import Any

import pytest

from tolmach.discovery import Evidence, Found, MessageLimit, Page, Traffic, Wanted, from_traffic, links, recognise
from tolmach.testing.discovery import corpus, main, score
from tolmach.testing.pages import labelled_pages
from tolmach.testing.recordings import load
from tolmach.wire import Head, Request

CAPTURES = Path(__file__).parents[1] / "captures"
HOST = "http://wordpress.test"
HTML = {"content-type": "text/html; charset=UTF-8"}


def recorded(name: str, number: int = 0) -> Page:
    """A page of a recording, as it came."""
    pages = [e for e in load(CAPTURES / f"{name}.json").exchanges if e.head.content_type == "text/html"]
    exchange = pages[number]
    return Page(exchange.request.url, exchange.body(), exchange.head.status, exchange.head.headers)


def written(markup: str, url: str = "https://site.example/help/") -> Page:
    return Page(url, f"<!doctype html><html><body>{markup}</body></html>".encode(), 200, HTML)


def engine(**system: object) -> str:
    known = {"botId": "default", "customId": None, "restUrl": "https://site.example/wp-json", "blocks": []} | system
    return f"<div class='mwai-chatbot-container' data-system='{escape(json.dumps(known), quote=True)}'></div>"


def one(page: Page, **more: object) -> Found:
    (found,) = recognise(page, **more).found  # type: ignore[arg-type]
    return found


# The corpus


def test_no_page_without_an_assistant_is_taken_for_one_and_none_with_one_is_missed():
    pages = [*labelled_pages(), *corpus(CAPTURES)]
    total = score(pages)
    assert total.misses == []
    assert (total.precision, total.recall) == (1.0, 1.0)
    assert total.with_assistant >= 60
    assert total.pages - total.with_assistant >= 60
    assert len({labelled.name for labelled in labelled_pages()}) == len(list(labelled_pages()))


def test_the_command_scores_a_folder_and_tells_each_miss(tmp_path, capsys):
    assert main([str(CAPTURES)]) == 0
    (tmp_path / "a.html").write_text("<p>nothing</p>")
    (tmp_path / "expected.json").write_text('{"a.html": ["ai-engine"]}')
    capsys.readouterr()
    main([str(tmp_path)])
    assert "a.html: not seen: ai-engine *" in capsys.readouterr().out


def test_written_pages_can_be_looked_at_as_files(tmp_path):
    main(["--write", str(tmp_path)])
    total = score(corpus(tmp_path))
    assert total.pages > 200
    assert total.misses == []


# What the recordings show

CASES: dict[str, dict[str, Any]] = {
    "aiengine-2.4.3/page-chat": {
        "version": "up to 2.4.3",
        "bot": "chatbot-main1",
        "name": "AI",
        "limit": MessageLimit(512, "bytes"),
        "greeting": "Привет! Чем помочь? 👋",
    },
    "aiengine-2.4.5/page-chat-upload": {"version": "2.4.4 to 2.4.7", "uploads": ("images", "files"), "stream": True},
    "aiengine-2.4.5/page-chat-popup": {"kind": "popup", "bot": "chatbot-pop1"},
    "aiengine-3.6.2/page-chat": {"version": "3.5.2 or later", "limit": MessageLimit(512), "guests": True},
    "aiengine-3.6.2/plain-permalinks": {
        "row": {
            "protocol": "ai-engine",
            "url": HOST,
            "page": "/?page_id=4",
            "bot_id": "chatbot-main1",
            "rest_path": "/index.php?rest_route=",
        }
    },
    "aiengine-3.6.2/page-chat-custom2": {
        "bot": "my-own-id",
        "row": {"protocol": "ai-engine", "url": HOST, "page": "/chat-custom2/", "custom_id": "my-own-id"},
    },
    "aipower-1.9.18/page-chat": {"version": "1.9.18", "bot": "0", "stream": True, "greeting": "Привет 👋, чем помочь?"},
    "aipower-1.9.18/page-chat-json": {"bot": "5", "stream": False},
    "aipower-1.9.18/widget-sitewide": {
        "kind": "popup",
        "row": {
            "protocol": "ai-power",
            "url": HOST,
            "page": "/plain/",
            "bot_id": 0,
            "action": "wpaicg_chatbox_message",
        },
    },
    "aipkit-2.3/page-chat-json": {"version": "2.3 to 2.4.0", "stream": False, "name": "bot-json"},
    "aipkit-2.4.71/page-chat-popup": {"version": "2.4.71", "kind": "popup", "greeting": "Hello there!"},
    "aipkit-2.4.71/page-chat-main": {"row": {"protocol": "aipkit", "url": HOST, "page": "/chat-main/", "bot_id": 5}},
}


@pytest.mark.parametrize("name", CASES)
def test_a_recorded_page_says(name):
    found = one(recorded(name))
    assert {key: getattr(found, key) for key in CASES[name]} == CASES[name]
    assert found.evidence
    assert found.missing == ()


def test_consent_is_told_in_the_words_of_the_site():
    found = one(recorded("aiengine-3.6.2/gdpr-on"))
    assert "you agree to the recording" in found.consent
    assert [missing.kind for missing in found.missing] == ["consent"]


@pytest.mark.parametrize("family", ["aiengine-3.6.2", "aipkit-2.4.71", "aipower-1.9.18"])
def test_a_plugin_that_is_off_leaves_its_shortcode(family):
    findings = recognise(recorded(f"{family}/error-plugin-deactivated", -1))
    assert findings.found == ()
    assert [missing.kind for missing in findings.missing] == ["plugin-off"]


def test_a_page_without_the_chat_of_an_active_plugin_says_so():
    findings = recognise(recorded("aipower-1.9.18/page-plain"))
    assert findings.found == ()
    assert "AI Power is active" in findings.hints[0]


# Versions and limits


@pytest.mark.parametrize(
    ("stable", "unit"), [("2.4.8", "bytes"), ("2.4.9", "characters"), ("2.10.0", "characters"), ("3.6.2", "characters")]
)
def test_the_readme_says_the_version_and_with_it_how_a_message_is_counted(stable, unit):
    page = recorded("aiengine-2.4.5/page-chat")
    readme = f"{HOST}/wp-content/plugins/ai-engine/readme.txt"
    assert Wanted(readme, "readme") in recognise(page).wanted
    found = one(page, more={readme: Page(readme, f"=== AI ===\nStable tag: {stable}\n".encode())})
    assert (found.version, found.limit) == (stable, MessageLimit(512, unit))


def test_a_limit_counts_as_the_site_does():
    assert not MessageLimit(4, "bytes").allows("привет")
    assert MessageLimit(6).allows("привет")
    assert MessageLimit(12, "bytes").length("привет") == 12


# Further pages


def test_the_bootstrap_says_whether_visitors_are_let_in():
    page = recorded("aiengine-3.6.2/page-chat")
    start = f"{HOST}/wp-json/mwai/v1/start_session"
    assert Wanted(start, "bootstrap", "POST") in recognise(page).wanted
    refused = Page(start, b'{"code":"rest_not_logged_in","message":"You are not logged in."}', 401)
    found = one(page, more={start: refused})
    assert found.guests is False
    assert [missing.kind for missing in found.missing] == ["login"]
    assert "You are not logged in." in found.missing[0].text
    given = one(page, more={start: Page(start, b'{"success":true,"restNonce":"e5319cba03"}')})
    assert given.guests is True
    assert Evidence("POST /mwai/v1/start_session", "a nonce for a visitor") in given.evidence


def test_a_closed_rest_index_shuts_visitors_out():
    page = recorded("aiengine-3.6.2/page-chat")
    index = f"{HOST}/wp-json/"
    assert Wanted(index, "rest-index") in recognise(page).wanted
    closed = Page(index, b'{"code":"rest_not_logged_in","message":"Members only."}', 401)
    assert one(page, more={index: closed}).guests is False


def test_a_frame_is_wanted_and_what_stands_in_it_is_found():
    outer = written('<iframe data-src="/chat-frame/"></iframe>')
    url = "https://site.example/chat-frame/"
    assert recognise(outer).wanted == (Wanted(url, "iframe"),)
    found = one(outer, more={url: written(engine(), url)})
    assert found.row["page"] == "/chat-frame/"
    assert Evidence("iframe", url) in found.evidence
    assert found.consent == ""


def test_a_frame_that_a_consent_manager_holds_back_needs_consent():
    outer = written('<iframe data-cookieblock-src="/chat-frame/"></iframe>')
    found = one(outer, more={(url := "https://site.example/chat-frame/"): written(engine(), url)})
    assert found.consent
    assert found.missing[-1].kind == "consent"


def test_frames_that_frame_each_other_end():
    first, second = "https://site.example/a/", "https://site.example/b/"
    pages = {
        first: written('<iframe src="/b/"></iframe>', first),
        second: written('<iframe src="/a/"></iframe><iframe src="/b/"></iframe>', second),
    }
    findings = recognise(pages[first], pages)
    assert (findings.found, findings.wanted) == ((), ())


def test_a_window_that_opens_on_the_same_site_is_wanted():
    page = written("<button onclick=\"window.open('/talk/', 'chat')\">Chat</button>")
    assert recognise(page).wanted == (Wanted("https://site.example/talk/", "popup"),)
    assert recognise(written("<a onclick=\"window.open('https://other.example/')\">x</a>")).wanted == ()


# Where a page came from


def test_a_file_says_where_it_was_saved_from():
    saved = b"<!-- saved from url=(0028)https://site.example/help/ -->" + written(engine(), "").body
    found = one(Page("", saved))
    assert (found.row["url"], found.row["page"]) == ("https://site.example", "/help/")


def test_a_file_that_does_not_say_has_at_least_its_site():
    found = one(Page("", engine().encode()))
    assert found.row["url"] == "https://site.example"


def test_a_site_in_a_folder_is_asked_there():
    link = '<link rel="https://api.w.org/" href="https://site.example/blog/wp-json/">'
    rest = "https://site.example/blog/wp-json"
    found = one(written(link + engine(restUrl=rest), "https://site.example/blog/chat/?a=1"))
    assert found.row == {
        "protocol": "ai-engine",
        "url": "https://site.example/blog",
        "page": "/chat/?a=1",
        "bot_id": "default",
    }


def test_a_moved_rest_root_goes_into_the_row():
    assert one(written(engine(restUrl="https://site.example/api/v0"))).row["rest_path"] == "/api/v0"


# What stands in the way

NOW = 1_800_000_000.0


def test_a_nonce_out_of_an_old_cache_is_told():
    page = recorded("aipower-1.9.18/page-chat")
    stamped = Page(page.url, page.body + b"<!-- Cached, debug: cached@1700000000 -->", 200, HTML)
    assert [missing.kind for missing in one(stamped, now=NOW).missing] == ["cached-nonce"]
    fresh = Page(page.url, page.body + b"<!-- Cached, debug: cached@1799999000 -->", 200, HTML)
    assert one(fresh, now=NOW).missing == ()


def test_an_age_beyond_the_life_of_a_nonce_is_told():
    headers = HTML | {"date": "Thu, 14 Jan 2027 08:00:00 GMT", "age": "172800"}
    page = recorded("aipkit-2.4.71/page-chat-main")
    assert one(Page(page.url, page.body, 200, headers), now=NOW).missing[0].kind == "cached-nonce"


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        (Page("https://a.example/", b"<title>Just a moment...</title>", 403, HTML), "challenge"),
        (Page("https://a.example/wp-login.php?x=1", b"<form id=loginform></form>", 200, HTML), "login"),
        (written('<form class="post-password-form"></form>'), "login"),
        (Page("https://a.example/", b"<p>no</p>", 404, HTML), "page"),
        (Page("https://a.example/", b"<p>no</p>", 401, HTML), "login"),
        (Page("https://a.example/", b"<p>long</p>", 200, HTML, cut=True), "page"),
    ],
)
def test_what_is_wrong_with_a_page_is_told(page, kind):
    findings = recognise(page)
    assert findings.found == ()
    assert [missing.kind for missing in findings.missing] == [kind]


# APIs


def test_what_is_no_page_may_be_an_api_and_its_lists_are_wanted():
    root = Page("http://127.0.0.1:9000/", b'{"detail":"Not Found"}', 404, {"content-type": "application/json"})
    assert [wanted.why for wanted in recognise(root).wanted] == ["tags", "models"]
    v1 = Page("http://127.0.0.1:9000/v1", b"", 404, {"content-type": "text/html"})
    assert recognise(v1).wanted == (Wanted("http://127.0.0.1:9000/v1/models", "models"),)
    assert recognise(written("<p>a shop</p>", "https://site.example/")).wanted == ()


def test_ollama_goes_before_its_api_for_clients_of_openai():
    root = Page("http://127.0.0.1:11434/", b"Ollama is running", 200, {"content-type": "text/plain"})
    tags, models = "http://127.0.0.1:11434/api/tags", "http://127.0.0.1:11434/v1/models"
    more = {
        tags: Page(tags, b'{"models":[{"name":"llama3.2:latest"}]}'),
        models: Page(models, b'{"object":"list","data":[{"id":"llama3.2:latest","object":"model"}]}'),
    }
    found = one(root, more=more)
    assert (found.protocol, found.models) == ("ollama", ("llama3.2:latest",))
    del more[tags]
    assert one(root, more=more).row["url"] == "http://127.0.0.1:11434/v1"


# Traffic


def test_questions_in_traffic_say_whom_they_ask():
    openai = Request("POST", "https://api.example/v1/chat/completions", {}, b'{"model":"m","messages":[]}')
    submit = Request(
        "POST", f"{HOST}/wp-json/mwai-ui/v1/chats/submit", {}, b'{"botId":"chatbot-a","newMessage":"hi","stream":true}'
    )
    ajax = Request("POST", f"{HOST}/wp-admin/admin-ajax.php", {}, b"action=aipkit_cache_sse_message&bot_id=7&message=x")
    unknown = Request("POST", "https://chat.example/ask", {"content-type": "application/json"}, b'{"q":"hi"}')
    picture = Request("GET", "https://chat.example/a.png")
    findings, rest = from_traffic([Traffic(request) for request in (openai, submit, ajax, unknown, picture)])
    assert [(found.protocol, found.row["url"], found.bot) for found in findings.found] == [
        ("openai", "https://api.example/v1", ""),
        ("ai-engine", HOST, "chatbot-a"),
        ("aipkit", HOST, "7"),
    ]
    assert [one.request for one in rest] == [unknown]


def test_pages_in_traffic_are_looked_at_and_say_more_than_questions():
    page = recorded("aiengine-3.6.2/page-chat")
    submit = Request(
        "POST", f"{HOST}/wp-json/mwai-ui/v1/chats/submit", {}, b'{"botId":"chatbot-main1","newMessage":"a"}'
    )
    exchanges = [Traffic(submit), Traffic(Request("GET", page.url), Head(200, page.headers, (), page.url), page.body)]
    findings, rest = from_traffic(exchanges)
    assert [found.greeting for found in findings.found] == ["Привет! Чем помочь? 👋"]
    assert rest == []


# Links


def test_links_stay_on_the_site_and_lead_to_pages():
    page = written(
        '<a href="/a#top">a</a><a href="/a">a</a><a href="b?x=1">b</a><a href="https://other.example/">o</a>'
        '<a href="/c.pdf">c</a><a href="mailto:a@b.c">m</a><a href="http://[">x</a><a href="/wp-admin/">w</a>'
    )
    assert links(page) == ["https://site.example/a", "https://site.example/help/b?x=1"]
