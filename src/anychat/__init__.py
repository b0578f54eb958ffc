"""One interface to every chat service: official APIs, self-hosted servers, assistants inside web pages.

The names in `__all__` are all there is to import; each is loaded at its first use, so that
`import anychat` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anychat.chat import (
        ChatRequest,
        Conversation,
        Delta,
        Done,
        Event,
        Message,
        Messages,
        Notice,
        Reasoning,
        ToolCallDelta,
        Usage,
        format_prompt,
    )
    from anychat.client import (
        AsyncClient,
        AsyncStream,
        Client,
        Stream,
    )
    from anychat.completions import (
        ChatCompletion,
        ChatCompletionChunk,
    )
    from anychat.cookies import (
        get_cookies,
        load_cookies,
        set_cookies,
        set_cookies_dir,
    )
    from anychat.errors import (
        AddressRefused,
        AnychatError,
        AssistantGone,
        AuthError,
        BadRequest,
        ChallengeRequired,
        ConfigError,
        ConnectFailed,
        ConnectionLost,
        ConsentNeeded,
        ContextTooLong,
        LocalError,
        MissingCookies,
        MissingDependency,
        ModelNotFound,
        ProofOfWorkError,
        ProtocolDrift,
        ProviderError,
        ProviderUnavailable,
        RateLimited,
        Refused,
        RemoteProtocolError,
        StaleSession,
        StorageError,
        TimedOut,
        TransportError,
        TruncatedAnswer,
        UnsupportedFeature,
    )
    from anychat.providers import (
        AbstractProvider,
        Access,
        AsyncGeneratorProvider,
        AsyncProvider,
        AsyncResult,
        CreateResult,
        ProviderModelMixin,
        open_session,
    )
    from anychat.registry import (
        endpoint,
        get_provider,
        register,
    )
    from anychat.requests import (
        StreamSession,
        raise_for_status,
    )
    from anychat.sites.chatgpt import (
        ChatGpt,
        format_conversation,
        get_answer_token,
        get_config,
        get_requirements_token,
        init_session,
    )
    from anychat.sites.json_text import (
        Aichat,
    )
    from anychat.sites.wordpress import (
        Chatgpt4o,
        Chatgpt4Online,
        ChatGptt,
    )
    from anychat.wire import (
        Challenge,
        Limits,
    )

__version__ = "0.1.0"

__all__ = [
    "AbstractProvider",
    "Access",
    "AddressRefused",
    "Aichat",
    "AnychatError",
    "AssistantGone",
    "AsyncClient",
    "AsyncGeneratorProvider",
    "AsyncProvider",
    "AsyncResult",
    "AsyncStream",
    "AuthError",
    "BadRequest",
    "Challenge",
    "ChallengeRequired",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatGpt",
    "ChatGptt",
    "ChatRequest",
    "Chatgpt4Online",
    "Chatgpt4o",
    "Client",
    "ConfigError",
    "ConnectFailed",
    "ConnectionLost",
    "ConsentNeeded",
    "ContextTooLong",
    "Conversation",
    "CreateResult",
    "Delta",
    "Done",
    "Event",
    "Limits",
    "LocalError",
    "Message",
    "Messages",
    "MissingCookies",
    "MissingDependency",
    "ModelNotFound",
    "Notice",
    "ProofOfWorkError",
    "ProtocolDrift",
    "ProviderError",
    "ProviderModelMixin",
    "ProviderUnavailable",
    "RateLimited",
    "Reasoning",
    "Refused",
    "RemoteProtocolError",
    "StaleSession",
    "StorageError",
    "Stream",
    "StreamSession",
    "TimedOut",
    "ToolCallDelta",
    "TransportError",
    "TruncatedAnswer",
    "UnsupportedFeature",
    "Usage",
    "endpoint",
    "format_conversation",
    "format_prompt",
    "get_answer_token",
    "get_config",
    "get_cookies",
    "get_provider",
    "get_requirements_token",
    "init_session",
    "load_cookies",
    "open_session",
    "raise_for_status",
    "register",
    "set_cookies",
    "set_cookies_dir",
]

_HOME: dict[str, str] = {
    "anychat.chat": "ChatRequest Conversation Delta Done Event Message Messages Notice Reasoning ToolCallDelta Usage"
    " format_prompt",
    "anychat.client": "AsyncClient AsyncStream Client Stream",
    "anychat.completions": "ChatCompletion ChatCompletionChunk",
    "anychat.cookies": "get_cookies load_cookies set_cookies set_cookies_dir",
    "anychat.errors": "AddressRefused AnychatError AssistantGone AuthError BadRequest ChallengeRequired ConfigError"
    " ConnectFailed ConnectionLost ConsentNeeded ContextTooLong LocalError MissingCookies MissingDependency"
    " ModelNotFound ProofOfWorkError ProtocolDrift ProviderError ProviderUnavailable RateLimited Refused"
    " RemoteProtocolError StaleSession StorageError TimedOut TransportError TruncatedAnswer UnsupportedFeature",
    "anychat.providers": "AbstractProvider Access AsyncGeneratorProvider AsyncProvider AsyncResult CreateResult"
    " ProviderModelMixin open_session",
    "anychat.registry": "endpoint get_provider register",
    "anychat.requests": "StreamSession raise_for_status",
    "anychat.sites.chatgpt": "ChatGpt format_conversation get_answer_token get_config get_requirements_token"
    " init_session",
    "anychat.sites.json_text": "Aichat",
    "anychat.sites.wordpress": "ChatGptt Chatgpt4Online Chatgpt4o",
    "anychat.wire": "Challenge Limits",
}

_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'anychat' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
