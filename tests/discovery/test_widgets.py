"""Chats that are known by name: their vendors' snippets name them, words about them do not."""

import re
from html import escape
from pathlib import Path

import pytest

from tolmach.discovery import Page, recognise
from tolmach.discovery.widgets import Widget, widgets
from tolmach.testing.pages import labelled_pages

PAGES = Path(__file__).parent / "pages"
"""Pages of a made-up shop, each with the snippet that the vendor tells its customers to copy."""

NAMED = {
    "anythingllm": ("AnythingLLM", "ai.shop.example", "5e694110-e833-4fc9-abe8-000000000000"),
    "botpress_v1": ("Botpress", "cdn.botpress.cloud", "0e30855c-6873-4f87-9de6-000000000000"),
    "botpress_v3": ("Botpress", "cdn.botpress.cloud", "2025/06/17/13/20250617130800-1WUKJE4F"),
    "chatbase": ("Chatbase", "www.chatbase.co", "AbCd1234EfGh"),
    "copilot_studio": ("Microsoft Copilot Studio", "copilotstudio.microsoft.com", "bots/cr123_shop"),
    "crisp": ("Crisp", "client.crisp.chat", "92b2e096-0000-4000-8000-057bad52d82e"),
    "dify_bubble": ("Dify", "dify.shop.example", "AbCdEfGh12345678"),
    "dify_iframe": ("Dify", "udify.app", "AbCdEfGh12345678"),
    "flowise": ("Flowise", "flow.shop.example", "1c9f0e66-0000-4000-8000-000000000000"),
    "gradio": ("Gradio", "", "5.29.0"),
    "intercom": ("Intercom", "widget.intercom.io", "abcd1234"),
    "n8n": ("n8n", "n8n.shop.example", "513107b3-6f3a-4a1e-af21-659f0ed14183"),
    "tawk": ("tawk.to", "embed.tawk.to", "5f0000000000/default"),
    "tidio": ("Tidio", "code.tidio.co", "abcdefghijklmnop1234567890abcdef"),
    "typebot": ("Typebot", "typebot.shop.example", "shop-bot"),
    "voiceflow": ("Voiceflow", "general-runtime.voiceflow.com", "65aa000000000000000000aa"),
}

LIVE_CHATS = {"intercom", "tawk", "crisp", "drift", "hubspot", "zendesk", "dialogflow", "botpress", "chatwoot"}
"""Decoys among the written pages that are chats, of kinds that are not asked."""


def _page(part: str) -> Page:
    return Page("https://shop.example/", f"<html><body>{part}</body></html>".encode(), 200, {})


@pytest.mark.parametrize("name", NAMED)
def test_a_snippet_is_named_with_its_host_and_id(name):
    findings = recognise(Page("", (PAGES / f"{name}.html").read_bytes()))
    assert [(one.name, one.host, one.id) for one in findings.named] == [NAMED[name]]
    assert findings.found == ()
    assert findings.named[0].ability in findings.named[0].line


def test_every_page_has_its_row():
    assert {file.stem for file in PAGES.glob("*.html")} == set(NAMED)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize(
    "dress",
    [
        pytest.param(lambda snippet: f"<pre><code>{escape(snippet)}</code></pre>", id="article"),
        pytest.param(lambda snippet: f"<!-- {snippet} -->", id="comment"),
        pytest.param(lambda snippet: f"<textarea readonly>{snippet}</textarea>", id="to-copy"),
        pytest.param(
            lambda snippet: f'<script type="application/ld+json">{{"text": "{escape(snippet)}"}}</script>', id="data"
        ),
    ],
)
def test_words_about_a_widget_do_not_name_it(name, dress):
    snippet = (PAGES / f"{name}.html").read_text().partition("</h1>")[2].partition("</body>")[0]
    assert recognise(_page(dress(snippet))).named == ()


@pytest.mark.parametrize(
    ("url", "body", "name"),
    [
        ("https://bot.example/", "Hello from Rasa: 3.6.21", "Rasa"),
        ("https://g.example/config", '{"version":"4.44.1","mode":"chat_interface","app_id":1}', "Gradio"),
        ("https://o.example/api/config", '{"status":true,"name":"Open WebUI","version":"0.12.4"}', "Open WebUI"),
    ],
)
def test_a_back_end_is_named_by_its_answer(url, body, name):
    kind = "application/json" if body.startswith("{") else "text/html; charset=utf-8"
    assert [one.name for one in recognise(Page(url, body.encode(), 200, {"content-type": kind})).named] == [name]


def test_a_frame_of_the_page_is_named_too():
    outer = _page('<iframe src="/help"></iframe>')
    inner = Page("https://shop.example/help", (PAGES / "crisp.html").read_bytes(), 200, {"content-type": "text/html"})
    assert [one.name for one in recognise(outer, {inner.url: inner}).named] == ["Crisp"]


def test_of_the_written_pages_only_live_chats_are_named():
    named = {page.name.partition("-")[0] for page in labelled_pages() if recognise(page.page).named}
    assert named == LIVE_CHATS


def _marks(widget: Widget) -> tuple[str, ...]:
    return widget.address + widget.script + widget.element + widget.answer


def test_the_table_is_sound():
    rows = widgets()
    assert len(rows) >= 60
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert _marks(row), row.name
        assert all(len(part) >= 6 for part in (*row.address, *row.script)), row.name
        assert all(part == part.replace(" ", "").replace("'", '"') or " " in part for part in row.script), row.name
        assert all(re.compile(pattern).groups == 1 for pattern in (*row.id, *row.host)), row.name


def test_hostile_pages_are_looked_through_in_bounds():
    bodies = [
        "<script" * 50_000,
        "<script>" + "x'" * 1_000_000,
        "<!--" * 100_000,
        "<iframe data-a='//" + "y" * 3_000_000,
    ]
    for body in bodies:
        assert recognise(_page(body)).named == ()


def test_a_post_is_behind_a_password_only_where_its_form_stands():
    style = _page("<style>.entry, .post-password-form label{color:#333}</style><p>Open to all.</p>")
    assert recognise(style).missing == ()
    form = _page('<form class="post-password-form"><input name="post_password"></form>')
    assert [one.kind for one in recognise(form).missing] == ["login"]
