"""One interface to every chat service: official APIs, self-hosted servers, assistants inside web pages.

The names in `__all__` are all there is to import; each is loaded at its first use, so that
`import tolmach` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tolmach.version import __version__ as __version__

if TYPE_CHECKING:
    from tolmach.chat import (
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
    from tolmach.client.clients import (
        AsyncClient,
        AsyncStream,
        Client,
        Stream,
    )
    from tolmach.client.completions import (
        ChatCompletion,
        ChatCompletionChunk,
    )
    from tolmach.cookies import (
        get_cookies,
        load_cookies,
        set_cookies,
        set_cookies_dir,
    )
    from tolmach.errors import (
        AddressRefused,
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
        TolmachError,
        TransportError,
        TruncatedAnswer,
        UnsupportedFeature,
    )
    from tolmach.providers.base import (
        AbstractProvider,
        Access,
        AsyncGeneratorProvider,
        AsyncProvider,
        AsyncResult,
        CreateResult,
        ProviderModelMixin,
        open_session,
    )
    from tolmach.providers.registry import (
        endpoint,
        get_provider,
        register,
    )
    from tolmach.providers.sites.chatgpt import (
        ChatGpt,
        format_conversation,
        get_answer_token,
        get_config,
        get_requirements_token,
        init_session,
    )
    from tolmach.providers.sites.json_text import (
        Aichat,
    )
    from tolmach.providers.sites.wordpress import (
        Chatgpt4o,
        Chatgpt4Online,
        ChatGptt,
    )
    from tolmach.providers.stream_session import (
        StreamSession,
        raise_for_status,
    )
    from tolmach.wire import (
        Challenge,
        Limits,
    )

__all__ = [
    "AbstractProvider",
    "Access",
    "AddressRefused",
    "Aichat",
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
    "TolmachError",
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
    "tolmach.chat": "ChatRequest Conversation Delta Done Event Message Messages Notice Reasoning ToolCallDelta Usage"
    " format_prompt",
    "tolmach.client.clients": "AsyncClient AsyncStream Client Stream",
    "tolmach.client.completions": "ChatCompletion ChatCompletionChunk",
    "tolmach.cookies": "get_cookies load_cookies set_cookies set_cookies_dir",
    "tolmach.errors": "AddressRefused TolmachError AssistantGone AuthError BadRequest ChallengeRequired ConfigError"
    " ConnectFailed ConnectionLost ConsentNeeded ContextTooLong LocalError MissingCookies MissingDependency"
    " ModelNotFound ProofOfWorkError ProtocolDrift ProviderError ProviderUnavailable RateLimited Refused"
    " RemoteProtocolError StaleSession StorageError TimedOut TransportError TruncatedAnswer UnsupportedFeature",
    "tolmach.providers.base": "AbstractProvider Access AsyncGeneratorProvider AsyncProvider AsyncResult CreateResult"
    " ProviderModelMixin open_session",
    "tolmach.providers.registry": "endpoint get_provider register",
    "tolmach.providers.stream_session": "StreamSession raise_for_status",
    "tolmach.providers.sites.chatgpt": "ChatGpt format_conversation get_answer_token get_config get_requirements_token"
    " init_session",
    "tolmach.providers.sites.json_text": "Aichat",
    "tolmach.providers.sites.wordpress": "ChatGptt Chatgpt4Online Chatgpt4o",
    "tolmach.wire": "Challenge Limits",
}

_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tolmach' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
