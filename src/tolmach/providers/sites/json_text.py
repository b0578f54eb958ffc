"""Sites with one JSON request and one JSON answer."""

from typing import ClassVar

from tolmach.protocols.recipe.json_text import JsonText
from tolmach.providers.base import AsyncProvider

__all__ = ["Aichat"]


class Aichat(AsyncProvider):
    """chat-gpt.org. It answers only those who bring cookies of a visit to its page."""

    url = "https://chat-gpt.org/chat"
    protocol = JsonText(
        path="/api/text",
        template={
            "message": "{{message}}",
            "temperature": "{{temperature}}",
            "presence_penalty": 0,
            "top_p": "{{top_p}}",
            "frequency_penalty": 0,
        },
        defaults={"temperature": 0.5, "top_p": 1},
        ok="/response",
        answer="/message",
    )
    working = False
    supports_gpt_35_turbo = True
    default_model = "gpt-3.5-turbo"
    models: ClassVar[list[str]] = [default_model]
    cookie_domain = "chat-gpt.org"
    impersonate = "chrome131"
    timeout = 6.0
    headers: ClassVar[dict[str, str]] = {"accept-language": "en-US,en;q=0.9"}
