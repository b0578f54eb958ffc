"""What looks like an assistant that tolmach can ask, and is none."""

from html import escape

__all__ = ["DECOYS"]


def _script(source: str, code: str = "") -> str:
    return f'<script>{code}</script><script async src="{source}"></script>'


_MARKUP = "<div class='mwai-chatbot-container' data-system='{\"botId\":\"default\"}'></div>"

DECOYS: dict[str, str] = {
    "cf7": (
        '<div class="wpcf7 no-js" id="wpcf7-f5-p4-o1"><form action="/contact/#wpcf7-f5-p4-o1"'
        ' method="post" class="wpcf7-form">'
        '<input type="hidden" name="_wpcf7" value="5" /><input type="hidden" name="_wpnonce" value="72601de8c4" />'
        '<textarea name="your-message" maxlength="512"></textarea></form></div>'
    ),
    "wpforms": (
        '<form class="wpforms-form" data-formid="12" data-token="7b10f022fe" action="/"><input name="wpforms[nonce]" '
        'value="7b10f022fe"></form><script>var wpforms_settings ='
        ' {"ajaxurl":"/wp-admin/admin-ajax.php","nonce":"7b10f022fe"}</script>'
    ),
    "ninja-forms": (
        '<script>var nfFrontEnd = {"adminAjax":"https:\\/\\/site.example\\/wp-admin\\/admin-ajax.php","ajaxNonce":'
        "\"fe245797ac\"};</script><div class='nf-form-cont' data-config='{\"id\":2}'></div>"
    ),
    "likes": '<button class="like" data-nonce="72601de8c4" data-post-id="9" data-bot-id="0">Like</button>',
    "other-config": (
        "<div class='acme_chat_container' id='acme_chat_1' data-config='{&quot;botId&quot;:3,&quot;ajaxUrl&quot;:"
        "&quot;/wp-admin/admin-ajax.php&quot;,&quot;nonce&quot;:&quot;fe245797ac&quot;}'></div>"
    ),
    "other-config-beside-aipkit": (
        "<p>See our aipkit notes.</p><div class='acme_bot' data-config='{&quot;botId&quot;:3,&quot;ajaxUrl&quot;:"
        "&quot;/wp-admin/admin-ajax.php&quot;,&quot;nonce&quot;:&quot;fe245797ac&quot;}'></div>"
    ),
    "intercom": _script("https://widget.intercom.io/widget/abc", 'window.intercomSettings = {app_id: "abc"};'),
    "tawk": _script("https://embed.tawk.to/5f/default", "var Tawk_API = Tawk_API || {};"),
    "crisp": _script("https://client.crisp.chat/l.js", 'window.$crisp = []; window.CRISP_WEBSITE_ID = "a-b";'),
    "drift": _script("https://js.driftt.com/include/1/x.js", 'drift.load("abc");'),
    "hubspot": _script("//js.hs-scripts.com/1.js", "window.hsConversationsSettings = {};"),
    "zendesk": _script("https://static.zdassets.com/ekr/snippet.js?key=1", "window.zESettings = {webWidget: {}};"),
    "dialogflow": '<df-messenger chat-title="Bot" agent-id="1-2-3" language-code="en"></df-messenger>',
    "botpress": _script(
        "https://cdn.botpress.cloud/webchat/v1/inject.js", 'window.botpressWebChat.init({botId: "1"});'
    ),
    "chatwoot": _script("https://app.chatwoot.com/packs/js/sdk.js", 'window.chatwootSettings = {"position":"right"};'),
    "article-about-plugins": (
        "<h1>AI Engine, AIPKit or AI Power (wpaicg)?</h1><p>Put the chatbot on a page and look for "
        f"<code>mwai-chatbot-container</code> in its source:</p><pre>{escape(_MARKUP)}</pre>"
    ),
    "in-a-comment": f"<!-- {_MARKUP} -->",
    "in-a-textarea": f"<textarea>{_MARKUP}</textarea>",
    "in-a-style": (
        "<style>.mwai-chatbot-container[data-system] .aipkit_chat_container, .wpaicg-chatbox { margin: 0 }</style>"
    ),
    "in-a-script-text": f"<script>var example = {_MARKUP!r};</script>",
    "engine-script-only": (
        "<script src='/wp-content/plugins/ai-engine/app/chatbot.js?ver=1795218317' id='mwai_chatbot-js'></script>"
    ),
    "engine-history-only": (
        "<div class='mwai-discussions-container' data-params='{}'"
        " data-system='{&quot;botId&quot;:&quot;a&quot;}'></div>"
    ),
    "engine-form": (
        "<div class='mwai-form-container' data-system='{&quot;restUrl&quot;:&quot;/wp-json&quot;}'><input></div>"
    ),
    "engine-broken-json": "<div class='mwai-chatbot-container' data-system='{&quot;botId&quot;:&quot;def'></div>",
    "engine-without-a-bot": (
        "<div class='mwai-chatbot-container' data-system='{&quot;restUrl&quot;:&quot;/wp-json&quot;}'></div>"
    ),
    "power-params-only": (
        '<script>var wpaicgParams = {"ajax_url":"\\/wp-admin\\/admin-ajax.php","search_nonce":"72601de8c4"};</script>'
        "<script src='/wp-content/plugins/gpt3-ai-content-generator/public/js/wpaicg-chat.js'></script>"
    ),
    "power-form": (
        '<form class="wpaicg-prompt-form" data-nonce="72601de8c4"><textarea name="wpaicg-prompt"></textarea></form>'
    ),
    "power-without-a-nonce": '<div class="wpaicg-chat-shortcode" data-bot-id="0"></div>',
    "kit-form": (
        "<div class='aipkit_ai_form'"
        " data-config='{&quot;formId&quot;:4,&quot;nonce&quot;:&quot;fe245797ac&quot;}'></div>"
    ),
    "plugins-off": (
        '<p>[mwai_chatbot id=&#8221;default&#8221;]</p><p>[aipkit_chatbot id="7"]</p><p>[wpaicg_chatgpt]</p>'
    ),
    "nothing": "<p>We are open from nine to five.</p>",
}
"""Name -> what stands in the page."""
