"""The three families of WordPress plugins: what their widgets say on a page."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from tolmach.decoding import find_json, plain_text
from tolmach.discovery.findings import MAX_FOUND, Evidence, Found, MessageLimit, Missing, Page
from tolmach.discovery.sight import Sight, is_address
from tolmach.protocols.base import challenge_page
from tolmach.protocols.wordpress import ai_engine, ai_power, aipkit
from tolmach.protocols.wordpress.common import text_in

__all__ = ["AI_ENGINE", "GPT3", "Known", "bootstrap_of", "find_ai_engine", "find_ai_power", "find_aipkit"]

AI_ENGINE = "ai-engine"
GPT3 = "gpt3-ai-content-generator"
"""The folders of the plugins; the second is that of AI Power and of AIPKit, which followed it."""


class Known:
    """What other pages of the site said: the REST index and the plugins' readme files."""

    def __init__(self, pages: Mapping[str, Page], versions: dict[str, str], shut_out: str = "") -> None:
        self.pages = pages
        self.versions = versions
        """Plugin's folder -> version."""
        self.shut_out = shut_out
        """What the REST index answered to a visitor, when it refused."""

    def refusal(self, bootstrap: str) -> tuple[str, Evidence | None]:
        """What the bootstrap of AI Engine answered to a visitor when it refused, and the evidence either way."""
        page = self.pages.get(bootstrap)
        if page is None or not page.status:
            return self.shut_out, None
        value = find_json(page.body)
        where = "POST /mwai/v1/start_session"
        if page.status in (401, 403) and not challenge_page(page.head, page.body):
            said = plain_text(text_in(value, "message")) or f"HTTP {page.status}"
            return said, Evidence(where, f"HTTP {page.status}: {said}")
        given = bool(text_in(value, "restNonce"))
        return self.shut_out, Evidence(where, "a nonce for a visitor" if given else f"HTTP {page.status}")


def find_ai_engine(sight: Sight, known: Known) -> Iterator[Found]:
    """AI Engine: `data-system` on each container says all (versions 2.4 to 3.6)."""
    seen = set()
    held = sight.consent_manager(AI_ENGINE)
    for shown in ai_engine.shown_widgets(sight.tree, sight.url)[: MAX_FOUND * 4]:
        widget, system, params = shown.widget, shown.system, shown.params
        key = (widget.bot_id, widget.custom_id, widget.rest)
        if key in seen or not (widget.bot_id or widget.custom_id):
            continue
        seen.add(key)
        version, why = _engine_version(system, known.versions.get(AI_ENGINE, ""))
        consent = widget.consent or (held.says if held else "")
        refusal, handshake = known.refusal(bootstrap_of(widget))
        yield Found(
            protocol="ai-engine",
            row=_engine_row(sight, widget),
            page=sight.url,
            version=version,
            bot=widget.bot_id or widget.custom_id or "",
            name=_name(text_in(params, "aiName")),
            kind="popup" if params.get("window") else "inline",
            greeting=plain_text(text_in(params, "startSentence")),
            stream=bool(system.get("stream")),
            guests=_guests(sight, refusal),
            uploads=_uploads(params, images=("imageUpload",), files=("fileUpload", "fileSearch")),
            consent=consent,
            limit=MessageLimit(widget.max_length, "bytes" if _counts_bytes(system, version) else "characters"),
            missing=tuple(_engine_missing(sight, widget.nonce or "", params, consent, refusal)),
            evidence=_noted(
                Evidence("div.mwai-chatbot-container[data-system]", f"restUrl {system.get('restUrl')}"),
                Evidence("data-params", f"textInputMaxLength {params.get('textInputMaxLength', 'not said')}"),
                why,
                handshake,
                held,
            ),
        )


def _engine_row(sight: Sight, widget: ai_engine.Widget) -> dict[str, Any]:
    row: dict[str, Any] = {"protocol": "ai-engine", "url": sight.home, "page": sight.path}
    if widget.bot_id:
        row["bot_id"] = widget.bot_id
    if widget.custom_id:
        row["custom_id"] = widget.custom_id
    parts = urlsplit(widget.rest)
    root = f"{parts.path}?{parts.query}" if parts.query else parts.path
    below = root.removeprefix(urlsplit(sight.home).path)
    if below and below.rstrip("/") != "/wp-json":
        row["rest_path"] = below
    return row


def _engine_missing(sight: Sight, nonce: str, params: dict[str, Any], consent: str, refusal: str) -> Iterator[Missing]:
    mode = text_in(params, "mode")
    if mode in ("images", "realtime"):
        yield Missing("mode", f"the bot is made for {mode}, not for chat: it may not answer in words")
    if stale := sight.stale_nonce(nonce):
        yield stale
    yield from _gates(sight, consent, refusal)


def bootstrap_of(widget: ai_engine.Widget) -> str:
    """The address at which visitors of a page get a nonce, from version 2.4.4 on; empty when the page gives one."""
    return "" if widget.nonce or not is_address(widget.rest) else widget.rest + ai_engine.START


def _engine_version(system: dict[str, Any], readme: str) -> tuple[str, Evidence]:
    """The version by the plugin's readme, else by which keys the page has (first seen, in the plugin's history)."""
    if readme:
        return readme, Evidence("wp-content/plugins/ai-engine/readme.txt", f"Stable tag: {readme}")
    where = "data-system"
    if text_in(system, "restNonce"):
        return "up to 2.4.3", Evidence(where, "restNonce is set for a guest")
    if "blocks" not in system and "shortcuts" not in system:
        return "2.4.4 to 2.4.7", Evidence(where, "no restNonce, and no blocks")
    if system.get("sessionId") is None:
        return "3.5.2 or later", Evidence(where, "sessionId is null")
    if "crossSite" in system:
        return "2.9.9 to 3.5.1", Evidence(where, "crossSite, and a sessionId")
    return "2.4.8 to 2.9.8", Evidence(where, "blocks, but no crossSite")


def _counts_bytes(system: dict[str, Any], version: str) -> bool:
    """Up to 2.4.8 the plugin counts a message's bytes, from 2.4.9 its characters."""
    if exact := re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version):
        return tuple(map(int, exact.groups())) < (2, 4, 9)
    return "blocks" not in system and "shortcuts" not in system


def find_ai_power(sight: Sight, known: Known) -> Iterator[Found]:
    """AI Power up to 2.2: inline chats and floating ones."""
    seen = set()
    version = _asset_version(sight, "public/js/wp-ai-content-generator-public.js", "wp-ai-content-generator-public.css")
    held = sight.consent_manager(GPT3)
    for widget, node in ai_power.shown_chats(sight.tree, sight.url)[: MAX_FOUND * 4]:
        nonce = (node.attributes.get("data-nonce") or "").strip()
        key = (widget.bot_id, widget.action)
        if key in seen or not nonce:
            continue
        seen.add(key)
        consent = held.says if held else ""
        floating = node.attributes.get("data-type") == "widget"
        greeting = node.css_first(
            ".wpaicg-ai-message .wpaicg-chat-message, .wpaicg-chat-ai-message .wpaicg-chat-message"
        )
        row: dict[str, Any] = {"protocol": "ai-power", "url": sight.home, "page": sight.path, "bot_id": widget.bot_id}
        if floating:
            row["action"] = widget.action
        where = "div.wpaicg-chatbox[data-nonce]" if floating else "div.wpaicg-chat-shortcode[data-nonce]"
        missing = [stale] if (stale := sight.stale_nonce(nonce)) else []
        yield Found(
            protocol="ai-power",
            row=row,
            page=sight.url,
            version=known.versions.get(GPT3, "") or version or "up to 1.9",
            bot=str(widget.bot_id),
            name=_name(node.attributes.get("data-ai-name") or ""),
            kind="popup" if floating else "inline",
            greeting="" if greeting is None else " ".join(greeting.text().split()),
            stream=node.attributes.get("data-openai_stream_nav") == "1",
            guests=_guests(sight, known.shut_out),
            uploads=("images",) if _shows_image_button(node) else (),
            consent=consent,
            missing=(*missing, *_gates(sight, consent, known.shut_out)),
            evidence=_noted(
                Evidence(where, f"data-bot-id {node.attributes.get('data-bot-id')}"),
                Evidence("wp-ai-content-generator-public.js?ver=", version) if version else None,
                Evidence("wpaicgParams", f"ajax_url {widget.ajax_url}") if widget.ajax_url else None,
                held,
            ),
        )


def _shows_image_button(node: Any) -> bool:
    button = node.css_first(".wpaicg-img-icon")
    return button is not None and "none" not in (button.attributes.get("style") or "").replace(" ", "")


def find_aipkit(sight: Sight, known: Known) -> Iterator[Found]:
    """AI Power from its second version on: `data-config` on inline chats and on popups."""
    seen = set()
    version = known.versions.get(GPT3, "") or _asset_version(sight, "dist/js/public-main.bundle.js")
    held = sight.consent_manager(GPT3)
    for config, node in aipkit.shown_configs(sight.tree)[: MAX_FOUND * 4]:
        widget = aipkit.read_widget(sight.url, config)
        marks = f"{node.attributes.get('class') or ''} {node.attributes.get('id') or ''}"
        if "aipkit" not in marks or widget.bot_id is None or widget.bot_id in seen or "ajaxUrl" not in config:
            continue
        seen.add(widget.bot_id)
        popup = "aipkit_popup_wrapper" in marks
        consent = _kit_consent(config) or (held.says if held else "")
        words = config.get("text")
        yield Found(
            protocol="aipkit",
            row={"protocol": "aipkit", "url": sight.home, "page": sight.path, "bot_id": widget.bot_id},
            page=sight.url,
            version=version or ("2.3 to 2.4.0" if "streamEnabled" in config else "2.4.1 or later"),
            bot=str(widget.bot_id),
            name=_name(text_in(config, "headerName")),
            kind="popup" if popup else "inline",
            greeting=plain_text(text_in(words, "initialGreeting")),
            stream=config.get("streamEnabled", True) is not False,
            guests=_guests(sight, known.shut_out),
            uploads=_uploads(config, images=("imageUploadEnabledUI",), files=("fileUploadEnabledUI",)),
            consent=consent,
            missing=(
                *((stale,) if (stale := sight.stale_nonce(text_in(config, "nonce"))) else ()),
                *_gates(sight, consent, known.shut_out),
            ),
            evidence=_noted(
                Evidence(
                    f"div.{'aipkit_popup_wrapper' if popup else 'aipkit_chat_container'}[data-config]",
                    f"botId {widget.bot_id}",
                ),
                Evidence("public-main.bundle.js?ver=", version) if version else None,
                Evidence("data-config", f"streamEnabled {config['streamEnabled']}")
                if "streamEnabled" in config
                else None,
                held,
            ),
        )


def _kit_consent(config: dict[str, Any]) -> str:
    if config.get("requireConsentCompliance") is not True:
        return ""
    words = config.get("text")
    parts = (plain_text(text_in(words, name)) for name in ("consentTitle", "consentMessage"))
    return " ".join(filter(None, parts)) or "the site asks for consent"


# What they have in common


def _asset_version(sight: Sight, *files: str) -> str:
    for file, version in sight.plugins.get(GPT3, ()):
        # A long number is the file's date, not a version.
        if file.endswith(files) and re.fullmatch(r"\d+(?:\.\d+)+", version):
            return version
    return ""


def _noted(*evidence: Evidence | None) -> tuple[Evidence, ...]:
    return tuple(filter(None, evidence))


def _name(text: str) -> str:
    """The bot's name as it stands before what it says, such as `AI: `."""
    return plain_text(text).rstrip(": ").strip()


def _uploads(said: dict[str, Any], *, images: tuple[str, ...], files: tuple[str, ...]) -> tuple[str, ...]:
    kinds: tuple[tuple[Literal["images", "files"], tuple[str, ...]], ...] = (("images", images), ("files", files))
    return tuple(kind for kind, keys in kinds if any(said.get(key) for key in keys))


def _guests(sight: Sight, refusal: str) -> bool | None:
    """Whether visitors may ask: what the site answered to one, else that the page shows them the chat."""
    if refusal:
        return False
    return True if sight.as_guest else None


def _gates(sight: Sight, consent: str, refusal: str) -> Iterator[Missing]:
    if consent:
        yield Missing("consent", "the site asks visitors for consent before they chat; agree with --accept-consent")
    if refusal:
        yield Missing("login", f"the site shuts visitors out: {refusal}")
    if not sight.url:
        yield Missing("address", "the file does not say which site it came from; give the page's address")
