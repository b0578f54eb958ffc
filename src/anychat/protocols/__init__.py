"""The protocols by name. Each is loaded at its first use."""

from importlib import import_module
from typing import Any

import msgspec

from anychat.errors import ConfigError
from anychat.protocols.base import ChatProtocol

__all__ = ["PROTOCOLS", "create", "load"]

PROTOCOLS: dict[str, str] = {
    "ai-engine": "anychat.protocols.ai_engine:AIEngine",
    "ai-power": "anychat.protocols.ai_power:AIPower",
    "aipkit": "anychat.protocols.aipkit:AIPKit",
    "json-text": "anychat.protocols.json_text:JsonText",
    "recipe": "anychat.protocols.recipe:Recipe",
    "chatgpt-web": "anychat.protocols.chatgpt_web:ChatGptWeb",
    "openai": "anychat.protocols.openai:OpenAI",
    "anthropic": "anychat.protocols.anthropic:Anthropic",
    "gemini": "anychat.protocols.gemini:Gemini",
    "ollama": "anychat.protocols.ollama:Ollama",
    "openai-responses": "anychat.protocols.openai_responses:OpenAIResponses",
}
"""Name in the configuration -> module and class."""


def load(name: str) -> type[ChatProtocol]:
    """The class of a protocol. Raises `ConfigError` for a name that is none."""
    try:
        module, _, attribute = PROTOCOLS[name].partition(":")
    except KeyError:
        raise ConfigError(f"no protocol {name!r}; there are: {', '.join(PROTOCOLS)}") from None
    protocol: type[ChatProtocol] = getattr(import_module(module), attribute)
    return protocol


def create(name: str, options: dict[str, Any] | None = None) -> ChatProtocol:
    """A protocol with its own options. Raises `ConfigError` that names the option that is wrong."""
    kind = load(name)
    try:
        return msgspec.convert(options or {}, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"protocol {name}: {error}") from error
