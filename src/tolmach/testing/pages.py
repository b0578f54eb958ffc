"""Pages for discovery, written to be like those of real sites: with an assistant, and with what looks like one.

Each kind of page comes in several dresses: as WordPress serves it, minified, in another language, broken,
and in a megabyte of other markup. All of it is fixed: the same pages each time.
"""

import json
import re
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

from msgspec import Struct, structs

from tolmach.discovery import Page
from tolmach.testing.decoys import DECOYS

__all__ = ["Labelled", "labelled_pages"]

SITE = "https://site.example"
Expected = tuple[tuple[str, str], ...]


class Labelled(Struct, frozen=True):
    """A page and what stands on it: protocol and bot of each assistant."""

    name: str
    page: Page
    expected: Expected


def labelled_pages() -> Iterator[Labelled]:
    """All the pages, those with an assistant first."""
    for number, (name, (widget, expected)) in enumerate(_assistants().items()):
        yield from _dressed(name, widget, expected, number)
    yield from _apis()
    for number, (name, decoy) in enumerate(DECOYS.items()):
        yield from _dressed(name, decoy, (), number)


# Widgets, as their plugins print them


def _attribute(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":")).replace("/", "\\/")
    return escape(text, quote=True).replace("&#x27;", "&#039;")


_PARAMS = {"aiName": "AI: ", "guestName": "Guest:", "textInputMaxLength": 512, "startSentence": "Hi! How can I help?"}
_SYSTEMS: dict[str, dict[str, Any]] = {
    "2.4.3": {"sessionId": "N/A", "restNonce": "0f1e2d3c4b", "stream": False},
    "2.4.5": {"sessionId": "N/A", "restNonce": None, "stream": True},
    "2.8": {"sessionId": "N/A", "restNonce": None, "stream": True, "blocks": [], "shortcuts": [], "actions": []},
    "2.9.9": {"sessionId": "N/A", "restNonce": None, "stream": True, "crossSite": False, "blocks": [], "shortcuts": []},
    "3.6": {"sessionId": None, "restNonce": None, "stream": True, "crossSite": False, "blocks": [], "shortcuts": []},
}


def _engine(version: str = "3.6", bot: str | None = "default", custom: str | None = None, **more: Any) -> str:
    rest = more.pop("rest", f"{SITE}/wp-json")
    params = _PARAMS | more.pop("params", {})
    system = {"botId": bot, "customId": custom, "contextId": 4, "restUrl": rest, **_SYSTEMS[version], **more}
    return (
        f"<div class='mwai-chatbot-container' data-params='{_attribute(params)}' "
        f"data-system='{_attribute(system)}' data-theme='{{}}'></div>"
    )


def _power(bot: int = 0, *, floating: bool = False, stream: str = "1", post: str = "9", params: bool = True) -> str:
    name = "wpaicg-chatbox" if floating else "wpaicg-chat-shortcode"
    script = json.dumps({"ajax_url": f"{SITE}/wp-admin/admin-ajax.php", "search_nonce": "72601de8c4"})
    chat = (
        f'<div class="{name}"\n     data-nonce="72601de8c4"\n     data-post-id="{post}"\n     data-bot-id="{bot}"\n'
        f'     data-openai_stream_nav="{stream}"\n     data-memory-limit = "100"\n'
        f'     data-type="{"widget" if floating else "shortcode"}"\n><ul class="{name}-messages">'
        f'<li class="wpaicg-{"chat-" if floating else ""}ai-message"><span class="wpaicg-chat-message">Hello</span>'
        f'</li></ul><textarea name="{name}-typing"></textarea></div>'
    )
    chat = f'<div class="wpaicg_chat_widget">{chat}</div>' if floating else chat
    return chat + (f"<script id='wpaicg-init-js-extra'>var wpaicgParams = {script};</script>" if params else "")


def _kit(bot: int = 7, *, popup: bool = False, old: bool = False, **more: Any) -> str:
    config: dict[str, Any] = {
        "botId": bot,
        "ajaxUrl": f"{SITE}/wp-admin/admin-ajax.php",
        "nonce": "fe245797ac",
        "postId": 16,
        "headerName": f"bot {bot}",
        "requireConsentCompliance": False,
        "text": {"initialGreeting": "Hello there!", "consentTitle": "Consent", "consentMessage": "We send texts on."},
    }
    config |= ({"streamEnabled": True} if old else {}) | more
    inner = '<div class="aipkit_chat_main"><div class="aipkit_chat_messages"></div></div>'
    if popup:
        return (
            f'<div class="aipkit_popup_wrapper" id="aipkit_popup_wrapper_{bot}" data-config=\'{_attribute(config)}\'>'
            f'<div class="aipkit_chat_container aipkit_popup_content">{inner}</div></div>'
        )
    return (
        f'<div class="aipkit_chat_container aipkit-theme-dark" id="aipkit_chat_container_{bot}" data-bot-id="{bot}" '
        f"data-config='{_attribute(config)}'  >{inner}</div>"
    )


def _one(protocol: str, bot: str) -> Expected:
    return ((protocol, bot),)


def _assistants() -> dict[str, tuple[str, Expected]]:
    asked = {"id": "mwai_gdpr_1", "type": "content", "data": {"id": "mwai_gdpr_1", "html": "<p>Agree?</p>"}}
    default, zero, seven = _one("ai-engine", "default"), _one("ai-power", "0"), _one("aipkit", "7")
    return {
        "engine-2.4.3": (_engine("2.4.3"), default),
        "engine-2.4.5": (_engine("2.4.5"), default),
        "engine-2.8": (_engine("2.8", "chatbot-a1b2c3"), _one("ai-engine", "chatbot-a1b2c3")),
        "engine-2.9.9-popup": (_engine("2.9.9", params={"window": True, "iconText": "Ask"}), default),
        "engine-3.6": (_engine(), default),
        "engine-custom": (_engine(bot=None, custom="my-own-id"), _one("ai-engine", "my-own-id")),
        "engine-override": (_engine(custom="e4788c774d2cd838030ae84b20e881d8"), default),
        "engine-plain-permalinks": (_engine(rest=f"{SITE}/index.php?rest_route="), default),
        "engine-moved-rest": (_engine(rest=f"{SITE}/api/v0"), default),
        "engine-consent": (_engine(blocks=[asked]), default),
        "engine-two": (_engine() + "<p>or</p>" + _engine(bot="chatbot-up1"), (*default, ("ai-engine", "chatbot-up1"))),
        "engine-double-quotes": (_engine().replace("'", '"'), default),
        "engine-in-template": (f"<template id=popup-9>{_engine()}</template>", default),
        "engine-in-script": (f'<script type="text/template">{_engine()}</script>', default),
        "engine-in-srcdoc": (f'<iframe srcdoc="{escape(_engine(), quote=True)}"></iframe>', default),
        "engine-discussions": ("<div class='mwai-discussions-container' data-params='{}'></div>" + _engine(), default),
        "power-inline": (_power(), zero),
        "power-json": (_power(5, stream="0"), _one("ai-power", "5")),
        "power-floating": (_power(floating=True, post="<14"), zero),
        "power-without-params": (_power(12, params=False), _one("ai-power", "12")),
        "power-two": (_power() + _power(5), (*zero, ("ai-power", "5"))),
        "kit-2.3": (_kit(old=True), seven),
        "kit-2.4": (_kit(), seven),
        "kit-popup": (_kit(popup=True), seven),
        "kit-consent": (_kit(requireConsentCompliance=True), seven),
        "kit-two": (_kit() + _kit(8, popup=True), (*seven, ("aipkit", "8"))),
        "engine-and-kit": (_engine() + _kit(), (*default, *seven)),
    }


def _apis() -> Iterator[Labelled]:
    models = {"object": "list", "data": [{"id": "qwen3-8b", "object": "model"}, {"id": "gpt-oss", "object": "model"}]}
    tags = {"models": [{"name": "llama3.2:latest", "model": "llama3.2:latest", "size": 2019393189}]}
    refused = {"error": {"message": "Incorrect API key", "type": "invalid_request_error", "code": "invalid_api_key"}}
    listed: tuple[tuple[str, str, int, Any, Expected], ...] = (
        ("openai", "/v1/models", 200, models, _one("openai", "")),
        ("openai-key", "/v1/models", 401, refused, _one("openai", "")),
        ("ollama", "/api/tags", 200, tags, _one("ollama", "")),
        ("api-cars", "/v1/models", 200, {"data": [{"id": 4, "make": "Lada"}]}, ()),
        ("api-refusal", "/v1/models", 401, {"error": "login first"}, ()),
        ("api-photos", "/api/tags", 200, {"models": [{"title": "Kate"}]}, ()),
        ("api-root", "/", 404, {"detail": "Not Found"}, ()),
    )
    for name, path, status, value, expected in listed:
        page = Page(
            f"https://api.example{path}", json.dumps(value).encode(), status, {"content-type": "application/json"}
        )
        yield Labelled(name, page, expected)


# Dresses

_TITLES = {
    "en-US": "Contact us",
    "ru-RU": "Свяжитесь с нами",
    "de-DE": "Häufige Fragen",
    "ja": "お問い合わせ",
    "ar": "اتصل بنا",
}


def _wordpress(part: str, lang: str = "en-US") -> str:
    title = _TITLES[lang]
    return f"""<!doctype html>
<html lang="{lang}">
<head>
\t<meta charset="UTF-8" />
\t<title>{title} &#8211; Site</title>
<style id='global-styles-inline-css'>.entry > a {{ color: red }}</style>
<link rel="https://api.w.org/" href="{SITE}/wp-json/" />
<meta name="generator" content="WordPress 6.8.7" />
<link rel="canonical" href="{SITE}/chat/" />
<script>window.dataLayer = window.dataLayer || []; if (1<2 && "<div>") {{ var x = '<span class="a">'; }}</script>
</head>
<body class="wp-singular page page-id-4 wp-theme-twentytwentyone">
<!-- header --><header id="masthead"><p class="site-title"><a href="{SITE}/">{title}</a></p></header>
<article id="post-4" class="post-4 page type-page"><div class="entry-content">
{part}
</div></article>
<footer><a href="/about/">About</a> <a href="/shop/?a=1&amp;b=2">Shop</a></footer>
</body>
</html>
"""


def _minified(part: str) -> str:
    return re.sub(r">\s+<", "><", re.sub(r"\s*\n\s*", " ", _wordpress(part, "de-DE")))


def _foreign(part: str) -> str:
    return "\ufeff\n" + _wordpress(part, "ru-RU") + _wordpress("<p>...</p>", "ja")


def _broken(part: str) -> str:
    warning = "<br />\n<b>Warning</b>:  Undefined variable $x in <b>/var/www/functions.php</b> on line <b>3</b><br />\n"
    torn = "<table><tr><td><div><p><b>left open <a href='x>y'>one</p><ul><li>item<li>item</b></div>"
    return warning + torn + part + '</span></section><img src=a alt="it\'s"><!-- never closed'


def _huge(part: str) -> str:
    """A megabyte, like a shop that lists all it has."""
    item = '<li class="product"><a href="/p/{0}/"><span class="price">{0}&nbsp;&euro;</span> <b>No. {0}</b></a></li>\n'
    items = "".join(item.format(number) for number in range(5000))
    return _wordpress(f"<ul>{items}</ul>{part}<ul>{items}</ul>", "ar")


_DRESSES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("plain", _wordpress),
    ("minified", _minified),
    ("foreign", _foreign),
    ("broken", _broken),
    ("huge", _huge),
)
_EVERY_HUGE = 6
"""Each so many pages one is huge, so that the set is quick to look through."""


def _dressed(name: str, part: str, expected: Expected, number: int) -> Iterator[Labelled]:
    page = Page(f"{SITE}/chat/", b"", 200, {"content-type": "text/html; charset=UTF-8"})
    for dress, put_on in _DRESSES:
        if dress != "huge" or number % _EVERY_HUGE == 0:
            yield Labelled(f"{name}-{dress}", structs.replace(page, body=put_on(part).encode()), expected)
