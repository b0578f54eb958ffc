"""Pages that want to cost time or memory: the work stays in proportion to their size.

Nothing here is timed: a page whose cost grows with the square of its size does not end within a test run.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tolmach.discovery import Page, links, recognise
from tolmach.protocols.markup import MAX_ATTRIBUTES, MAX_DEPTH, trimmed
from tolmach.protocols.wordpress.common import parse_html

HTML = {"content-type": "text/html"}
WIDGET = "<div class='mwai-chatbot-container' data-system='{&quot;botId&quot;:&quot;b%d&quot;}'></div>"


def depth_of(body: bytes) -> int:
    """How deep the tree of a page goes."""
    deepest = 0
    level = [(parse_html(body).root, 0)]
    while level:
        node, depth = level.pop()
        deepest = max(deepest, depth)
        child = node.child if node is not None else None
        while child is not None:
            level.append((child, depth + 1))
            child = child.next
    return deepest


NESTED = {
    "divs": "<div>" * 100_000,
    "strange ends": "<div></x>" * 50_000,
    "formatting": "<b><div></b>" * 50_000,
    "cells": "<div><table><tr><td></div>" * 50_000,
    "forms": "<form><div></form>" * 50_000,
    "unknown": "<n;>" * 50_000 + "<div></div>" * 50_000,
    "quotes": "<p a=b='>" + "<div>" * 100_000 + "'>",
    "drawings": "<svg><style>" + "<div>" * 100_000 + "</style></svg>",
}


@pytest.mark.parametrize("name", NESTED)
def test_nesting_has_a_bottom(name):
    # Cells bring their rows and bodies along, which are not counted.
    assert depth_of(NESTED[name].encode()) <= 3 * MAX_DEPTH


def test_a_crowd_of_attributes_ends_the_page():
    crowd = b"<p>before</p><div " + b" ".join(b"a%d=x" % number for number in range(MAX_ATTRIBUTES + 1)) + b">after"
    assert trimmed(crowd) == b"<p>before</p>"
    assert trimmed(b"<div " + b"x " * MAX_ATTRIBUTES + b">kept") == b"<div " + b"x " * MAX_ATTRIBUTES + b">kept"


def test_what_is_not_read_is_left_out():
    page = b"<style>a{}</style><!-- c --><svg><path/></svg><script>1</script><script>var wpaicgParams = {}</script><p>x"
    assert trimmed(page) == b"<style></style><svg></svg><script></script><script>var wpaicgParams = {}</script><p>x"


@given(st.text(alphabet="<>/!-='\" abdivtsclpyeo\n", max_size=300))
def test_trimming_never_fails_and_never_grows(text):
    body = text.encode()
    assert len(trimmed(body)) <= len(body)
    recognise(Page("https://a.example/", body, 200, HTML))


HOSTILE = {
    "entities": "aipkit" + "&amp;" * 1_000_000,
    "frames": '<iframe src="/a"></iframe>' * 100_000,
    "documents": '<iframe srcdoc="mwai-chatbot-container %s">' % ("&lt;div&gt;" * 300_000),
    "templates": "<template>mwai-chatbot-container" * 100_000,
    "braces": "<div class='mwai-chatbot-container' data-system='%s'></div>" % ("{" * 2_000_000),
    "bad links": "aipkit" + '<a href="http://[x">' * 400 + '<iframe src="http://[x"></iframe>' * 10_000,
    "signatures": "aipkit" + "<!-- cache" * 200_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_page_has_nothing_and_asks_for_little(name):
    page = Page("https://a.example/", HOSTILE[name].encode(), 200, HTML)
    findings = recognise(page, now=1_800_000_000.0)
    assert findings.found == ()
    assert len(findings.wanted) <= 10
    assert len(links(page)) <= 1000


def test_of_ten_thousand_widgets_the_first_are_found():
    page = Page("https://a.example/", "".join(WIDGET % number for number in range(10_000)).encode(), 200, HTML)
    found = recognise(page).found
    assert [one.bot for one in found] == [f"b{number}" for number in range(50)]
