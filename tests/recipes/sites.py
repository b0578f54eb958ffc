"""Three sites with protocols of their own, as recipes."""

from typing import Any

from tolmach.protocols import create
from tolmach.protocols.base import ChatProtocol

__all__ = ["AICHAT", "CHATGPT4O", "CHATGPTT", "RECIPES"]

AICHAT: dict[str, Any] = {
    "request": {
        "url": "/api/text",
        "json": {
            "message": "{{message}}",
            "temperature": "{{temperature}}",
            "presence_penalty": 0,
            "top_p": "{{top_p}}",
            "frequency_penalty": 0,
        },
        "defaults": {"temperature": 0.5, "top_p": 1},
    },
    "answer": {"format": "json", "text": "/message"},
    "errors": {"ok": "/response"},
}

_WIDGET = ".wpaicg-chat-shortcode[data-nonce], .wpaicg-chatbox[data-nonce]"


def _ai_power(*, identity: bool) -> dict[str, Any]:
    """The plugin AI Power, whose nonce stands in the page, and whose answer streams or not."""
    form = {
        "_wpnonce": "{{token.nonce}}",
        "post_id": "{{token.post_id}}",
        "url": "{{token.url}}",
        "action": "wpaicg_chat_shortcode_message",
        "message": "{{message}}",
        "bot_id": "{{token.bot_id}}",
    }
    if identity:
        form |= {
            "chatbot_identity": "shortcode",
            "wpaicg_chat_client_id": "{{visitor.hex10}}",
            "wpaicg_chat_history": "[]",
        }
    return {
        "bootstrap": [
            {
                "url": "{{site}}/",
                "fresh": "nocache={{random.hex12}}",
                "tokens": {
                    "nonce": {"html": _WIDGET, "attribute": "data-nonce"},
                    "post_id": {"html": _WIDGET, "attribute": "data-post-id"},
                    "url": {"html": _WIDGET, "attribute": "data-url"},
                    "bot_id": {"html": _WIDGET, "attribute": "data-bot-id"},
                },
            }
        ],
        "request": {
            "url": "{{site}}/wp-admin/admin-ajax.php",
            "form": {**form, "thread_id": "{{conversation.thread_id}}"},
        },
        "answer": {
            "format": "sse",
            "text": ["/choices/0/delta/content", "/choices/0/text", "/data"],
            "end": "[DONE]",
            # The plugin streams errors of the AI as pieces that are no chunk of an answer.
            "where": {"/object": ["chat.completion.chunk", "text_completion"]},
        },
        "errors": {
            "text": ["/error"],
            "ok": "/status",
            "ok_values": ["success"],
            "flags": {
                "/tokenLimitReached": "rate_limited",
                "/ipBanned": "refused",
                "/messageFlagged": "refused",
            },
            "words": {
                "nothing was inputted": "bad_request",
                "not allowed": "refused",
                "reached your": "rate_limited",
                "banned|blocked|prohibited": "refused",
            },
        },
        "stale": [
            {"body": ["-1"]},
            {"status": [403], "text": "nonce|link you followed has expired"},
            {"text": r"\bnonce\b"},
        ],
        "conversation": {"thread_id": {"answer": "/thread_id"}},
    }


CHATGPT4O = _ai_power(identity=False)
CHATGPTT = _ai_power(identity=True)

RECIPES: dict[str, ChatProtocol] = {
    "Aichat": create("recipe", AICHAT),
    "Chatgpt4o": create("recipe", CHATGPT4O),
    "ChatGptt": create("recipe", CHATGPTT),
}
