"""chatgpt.com, and the functions by which code written for it takes its steps alone."""

import random
import time
import uuid
from collections.abc import Sequence
from typing import Any, ClassVar

from tolmach.chat import Messages, parse_messages
from tolmach.errors import ModelNotFound
from tolmach.protocols.chatgpt import proof, web
from tolmach.providers.base import AbstractProvider, ProviderModelMixin
from tolmach.providers.stream_session import Session

__all__ = [
    "ChatGpt",
    "format_conversation",
    "get_answer_token",
    "get_config",
    "get_requirements_token",
    "init_session",
]


class ChatGpt(AbstractProvider, ProviderModelMixin):
    """chatgpt.com, as a guest or, with `api_key` (a bearer token), signed in.

    A CAPTCHA goes to the caller's `on_challenge`; without one it is `ChallengeRequired`.
    """

    label = "ChatGpt"
    url = "https://chatgpt.com"
    protocol = web.ChatGptWeb()
    working = False
    supports_message_history = True
    supports_system_message = True
    supports_stream = True
    default_model = "auto"
    models: ClassVar[list[str]] = [
        default_model,
        "gpt-3.5-turbo",
        "gpt-4o",
        "gpt-4o-mini",
        "gpt-4",
        "gpt-4-turbo",
        "chatgpt-4o-latest",
    ]
    model_aliases: ClassVar[dict[str, str]] = {"gpt-4o": "chatgpt-4o-latest"}

    @classmethod
    def get_model(cls, model: str) -> str:
        """The service's name of the model: by alias, by name, else the default.

        Raises `ModelNotFound` (a `ValueError`) when the default is not in `models` either.
        """
        if model in cls.model_aliases:
            return cls.model_aliases[model]
        if model in cls.models:
            return model
        if cls.default_model not in cls.models:
            raise ModelNotFound(f"{cls.__name__} has no model {model!r}; it has: {', '.join(cls.models)}")
        return cls.default_model


def format_conversation(messages: Messages) -> list[dict[str, Any]]:
    """The messages as the service has them, each with a random id and the present time."""
    return web.format_conversation(parse_messages(messages), lambda: str(uuid.uuid4()), time.time())


def init_session(user_agent: str) -> Session:
    """A session that has opened `ChatGpt.url` with a browser's headers, and so has its cookies.

    Raises `TransportError` when the page cannot be reached, `ProviderError` when it is refused.
    """
    session = Session(headers={**web.browser_headers(user_agent), "Cookie": "_dd_s="})
    session.get(f"{ChatGpt.site().url}/").raise_for_status()
    return session


def get_config(user_agent: str) -> list[Any]:
    """The 18 values that describe the client, for the two functions below."""
    return proof.get_config(user_agent, now=time.time(), uuid=str(uuid.uuid4()))


def get_answer_token(seed: str, diff: str, config: Sequence[Any]) -> str:
    """The proof of work for a seed and a difficulty. Raises `ProofOfWorkError` and `RemoteProtocolError`."""
    return proof.get_answer_token(seed, diff, config)


def get_requirements_token(config: Sequence[Any]) -> str:
    """The proof that goes with the question for requirements."""
    return proof.get_requirements_token(config, str(random.random()))
