"""WordPress sites with a chat plugin."""

from typing import ClassVar

import msgspec

from tolmach.errors import ConfigError
from tolmach.protocols.base import ChatProtocol, Site
from tolmach.protocols.wordpress.ai_engine import AIEngine
from tolmach.protocols.wordpress.ai_power import AIPower
from tolmach.protocols.wordpress.common import NONCE
from tolmach.providers.base import (
    AsyncGeneratorProvider,
    AsyncProvider,
    ProviderModelMixin,
    open_session,
    split_options,
)

__all__ = ["ChatGptt", "Chatgpt4Online", "Chatgpt4o"]

_CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"


class Chatgpt4o(AsyncProvider, ProviderModelMixin):
    """chatgpt4o.one: AI Power, a bot that answers in one piece.

    `_nonce` and `_post_id`, when set, are used instead of those of the page until they are refused.
    """

    url = "https://chatgpt4o.one"
    protocol: ClassVar[AIPower] = AIPower(send_identity=False)
    working = False
    default_model = "gpt-4o-mini-2024-07-18"
    models: ClassVar[list[str]] = [default_model]
    model_aliases: ClassVar[dict[str, str]] = {"gpt-4o-mini": default_model}
    timeout = 120.0
    headers: ClassVar[dict[str, str]] = {
        "accept-language": "en-US,en;q=0.9",
        "cache-control": "no-cache",
        "origin": "{origin}",
        "pragma": "no-cache",
        "referer": "{url}/",
        "user-agent": _CHROME,
    }
    _post_id: ClassVar[str | None] = None
    _nonce: ClassVar[str | None] = None

    @classmethod
    def site_at(cls, url: str) -> Site:
        """Raises `ConfigError` for a `_post_id` that is no number."""
        site = super().site_at(url)
        if cls._nonce is None and cls._post_id is None:
            return site
        try:
            post_id = None if cls._post_id is None else int(cls._post_id)
        except ValueError as error:
            raise ConfigError(f"{cls.__name__}._post_id: a number, not {cls._post_id!r}") from error
        return msgspec.structs.replace(
            site, protocol=msgspec.structs.replace(cls.protocol, nonce=cls._nonce or "", post_id=post_id)
        )


class Chatgpt4Online(AsyncGeneratorProvider):
    """chatgpt4online.org: AI Engine, streamed."""

    url = "https://chatgpt4online.org"
    api_endpoint = "/wp-json/mwai-ui/v1/chats/submit"
    protocol = AIEngine()
    working = False
    default_model = "gpt-4"
    models: ClassVar[list[str]] = [default_model]
    supports_message_history = True
    headers: ClassVar[dict[str, str]] = {
        "accept-language": "en-US,en;q=0.9",
        "referer": "{url}/chat/",
        "user-agent": _CHROME,
    }

    @classmethod
    async def get_nonce(cls, headers: dict[str, str]) -> str:
        """A nonce from the site's bootstrap, fetched with these headers; nothing is kept.

        Raises `TransportError` when the site cannot be reached, `ProviderError` when it gives none.
        """
        access, _ = split_options({"headers": headers})
        session = open_session(cls.site(), access)
        await session.make_ready()
        return session.state.tokens[NONCE].value


class ChatGptt(AsyncGeneratorProvider, ProviderModelMixin):
    """chatgptt.me: AI Power, with the visitor's id along."""

    url = "https://chatgptt.me"
    api_endpoint = "https://chatgptt.me/wp-admin/admin-ajax.php"
    protocol: ClassVar[ChatProtocol] = AIPower()
    working = False
    supports_system_message = True
    supports_message_history = True
    default_model = "gpt-4o"
    models: ClassVar[list[str]] = ["gpt-4", default_model, "gpt-4o-mini"]
    headers: ClassVar[dict[str, str]] = {
        "accept": "application/json",
        "origin": "{origin}",
        "referer": "{url}/chat",
        "user-agent": _CHROME,
    }
