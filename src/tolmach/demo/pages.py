"""The pages of the demo with an assistant on them: one for each family, version and situation, as a table.

Their markup is that of recorded pages (`tests/captures`), without styles, pictures and side columns. Each
stands at a path of its own, with the site around it that it talks to.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from msgspec import Struct, field

__all__ = ["PAGES", "DemoPage", "Outcome", "markup"]

Outcome = Literal["answers", "renews", "consent", "no-guests", "stale", "login", "challenge"]
"""What a visitor gets: an answer; an answer once the old nonce of the page was replaced; an answer of a page that
asks for consent first; or an error: guests are not served (`AuthError`), the page keeps an old nonce whatever is done
(`StaleSession`), a login is needed (`ProtocolDrift`: the page that is shown has no assistant), a challenge page
(`ChallengeRequired`)."""

Rest = Literal["/wp-json", "/api", "?rest_route="]


class DemoPage(Struct, frozen=True, kw_only=True):
    """One page with an assistant.

    `path` begins with `/` and is both the page's address and the root of its site. `protocol` with `options`
    asks the first of its assistants without discovery; `bots` are the ids that the page shows, in its order.
    """

    path: str
    protocol: Literal["ai-engine", "ai-power", "aipkit"]
    version: str
    special: str
    markup: str
    bots: tuple[str, ...]
    outcome: Outcome = "answers"
    options: Mapping[str, Any] = field(default_factory=lambda: {"page": "/"})
    streams: bool = True
    """How the first bot answers (AI Power)."""
    faults: str = ""
    """What is wrong with the site all the time, as in `tolmach.demo.faults`."""
    rest: Rest = "/wp-json"
    """Where the REST API is (AI Engine)."""
    at: str = "/"
    """The path of the page with the widget, below `path`; another one than `/` is framed by the page there."""


def _engine(path: str, markup: str, special: str, *bots: str, version: str = "3.6.2", **more: Any) -> DemoPage:
    name = f"aiengine-{version}-{markup}"
    return DemoPage(
        path=f"/ai-engine-{path}",
        protocol="ai-engine",
        version=version,
        special=special,
        markup=name,
        bots=bots,
        **more,
    )


def _power(path: str, markup: str, special: str, *bots: str, **more: Any) -> DemoPage:
    name = f"aipower-1.9.18-{markup}"
    return DemoPage(
        path=f"/ai-power-{path}", protocol="ai-power", version="1.9.18", special=special, markup=name, bots=bots, **more
    )


def _kit(path: str, markup: str, special: str, *bots: str, version: str = "2.4.71", **more: Any) -> DemoPage:
    name = f"aipkit-{version}-{markup}"
    return DemoPage(
        path=f"/aipkit-{path}", protocol="aipkit", version=version, special=special, markup=name, bots=bots, **more
    )


_PLAIN = MappingProxyType({"page": "/?page_id=4"})
_FRAMED = MappingProxyType({"page": "/framed/"})

PAGES: tuple[DemoPage, ...] = (
    # AI Engine 2
    _engine("2.4.3-chat", "chat", "the nonce stands in the page; no bootstrap", "chatbot-main1", version="2.4.3"),
    _engine(
        "2.4.3-cached",
        "chat",
        "a page cache keeps an old nonce",
        "chatbot-main1",
        version="2.4.3",
        faults="cached-page",
        outcome="renews",
    ),
    _engine("2-chat", "chat", "a bot by its id", "chatbot-main1", version="2.4.5"),
    _engine("2-default", "chat-default", "the default bot", "default", version="2.4.5"),
    _engine("2-custom", "chat-custom", "a shortcode with settings of its own", "chatbot-main1", version="2.4.5"),
    _engine("2-own-id", "chat-custom2", "a shortcode with an id of its own", "my-own-id", version="2.4.5"),
    _engine("2-popup", "chat-popup", "a popup window", "chatbot-pop1", version="2.4.5"),
    _engine("2-two", "chat-two", "two bots on a page", "chatbot-main1", "chatbot-up1", version="2.4.5"),
    _engine(
        "2-plain",
        "plain-permalinks",
        "plain permalinks: the REST API in the query",
        "chatbot-main1",
        version="2.4.5",
        rest="?rest_route=",
        options=_PLAIN,
    ),
    # AI Engine 3
    _engine("3-chat", "chat", "a bot by its id", "chatbot-main1"),
    _engine("3-default", "chat-default", "the default bot", "default"),
    _engine("3-custom", "chat-custom", "a shortcode with settings of its own", "chatbot-main1"),
    _engine("3-own-id", "chat-custom2", "a shortcode with an id of its own", "my-own-id"),
    _engine("3-popup", "chat-popup", "a popup window", "chatbot-pop1"),
    _engine("3-two", "chat-two", "two bots on a page", "chatbot-main1", "chatbot-up1"),
    _engine(
        "3-plain",
        "plain-permalinks",
        "plain permalinks: the REST API in the query",
        "chatbot-main1",
        rest="?rest_route=",
        options=_PLAIN,
    ),
    _engine("3-moved", "chat", "the REST API at another path", "chatbot-main1", rest="/api"),
    _engine(
        "3-cached", "chat", "a page cache; the nonce comes from the bootstrap", "chatbot-main1", faults="cached-page"
    ),
    _engine("3-framed", "chat", "in an iframe", "chatbot-main1", at="/framed/", options=_FRAMED),
    _engine("3-consent", "gdpr-on", "consent is asked for before the chat", "chatbot-main1", outcome="consent"),
    _engine("3-no-guests", "chat", "guests are refused", "chatbot-main1", faults="no-guests", outcome="no-guests"),
    _engine("3-login", "chat", "the page is shown after a login", "chatbot-main1", outcome="login"),
    _engine(
        "3-challenge",
        "chat",
        "a challenge page before the page",
        "chatbot-main1",
        faults="403-challenge@page",
        outcome="challenge",
    ),
    # AI Power
    _power("shortcode", "chat", "the default bot, streaming", "0"),
    _power("json", "chat-json", "a custom bot that does not stream", "5", streams=False),
    _power("stream", "chat-stream", "a custom bot that streams", "4"),
    _power("two", "chat-two", "two bots on a page", "0", "5"),
    _power("widget", "widget-page", "a custom bot bound to the page, floating", "8"),
    _power("sitewide", "widget-sitewide", "the floating bot of the whole site", "0"),
    _power("cached", "chat", "a page cache keeps an old nonce", "0", faults="cached-page", outcome="renews"),
    _power("stale", "chat", "a page cache keeps an old nonce, whatever the query", "0", outcome="stale"),
    _power("framed", "chat-stream", "in an iframe", "4", at="/framed/", options=_FRAMED),
    # AIPKit
    _kit("2.3-main", "chat-main", "a bot on the page", "8", version="2.3"),
    _kit("2.3-popup", "chat-popup", "a popup", "10", version="2.3"),
    _kit("2.3-two", "chat-two", "two bots on a page", "8", "9", version="2.3"),
    _kit("2.3-consent", "chat-consent", "consent is asked for before the chat", "14", version="2.3", outcome="consent"),
    _kit(
        "2.3-cached",
        "chat-main",
        "a page cache keeps an old nonce, and no action gives a new one",
        "8",
        version="2.3",
        faults="cached-page",
        outcome="renews",
    ),
    _kit("2.4-main", "chat-main", "a bot on the page", "5"),
    _kit("2.4-popup", "chat-popup", "a popup", "7"),
    _kit("2.4-sitewide", "sitewide", "the popup of the whole site", "7"),
    _kit("2.4-two", "chat-two", "two bots on a page", "5", "6"),
    _kit("2.4-consent", "chat-consent", "consent is asked for before the chat", "11", outcome="consent"),
    _kit("2.4-cached", "chat-main", "a page cache keeps an old nonce", "5", faults="cached-page", outcome="renews"),
    _kit("2.4-framed", "chat-main", "in an iframe", "5", at="/framed/", options=_FRAMED),
    _kit("2.4-no-guests", "chat-main", "guests are refused", "5", faults="no-guests", outcome="no-guests"),
)
"""All pages, in the order to show them."""


@cache
def markup(name: str) -> str:
    """A recorded page, with `{nonce}` for its nonce and `http://wordpress.test` for its site."""
    return (Path(__file__).parent / "markup" / f"{name}.html").read_text(encoding="utf-8")
