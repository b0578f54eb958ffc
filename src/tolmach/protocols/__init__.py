"""The protocols by name, each loaded at its first use, in one folder or file a family.

`base` says what a protocol is, and is all that sessions know. `bodies`, `options`, `markup`, `pointer`, `lenient`,
and `api_answer` are shared by families. Pure: no socket, clock, randomness, environment.
"""

from importlib import import_module
from typing import Any

import msgspec

from tolmach.errors import ConfigError
from tolmach.protocols.base import ChatProtocol

__all__ = ["PROTOCOLS", "create", "load"]

PROTOCOLS: dict[str, str] = {
    "ai-engine": "tolmach.protocols.wordpress.ai_engine:AIEngine",
    "ai-power": "tolmach.protocols.wordpress.ai_power:AIPower",
    "aipkit": "tolmach.protocols.wordpress.aipkit:AIPKit",
    "json-text": "tolmach.protocols.recipe.json_text:JsonText",
    "recipe": "tolmach.protocols.recipe.protocol:Recipe",
    "chatgpt-web": "tolmach.protocols.chatgpt.web:ChatGptWeb",
    "openai": "tolmach.protocols.openai.chat:OpenAI",
    "anthropic": "tolmach.protocols.anthropic:Anthropic",
    "gemini": "tolmach.protocols.gemini:Gemini",
    "ollama": "tolmach.protocols.ollama:Ollama",
    "openai-responses": "tolmach.protocols.openai.responses:OpenAIResponses",
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
