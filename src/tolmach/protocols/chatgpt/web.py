"""The web conversation of chatgpt.com, as a signed-in user (a bearer token) or as a guest.

A turn asks what the service requires, computes the proof of work, passes a CAPTCHA on to a person,
and posts the conversation. Nothing here computes the answer to a CAPTCHA or goes around a refusal:
those end in `ChallengeRequired`.

A conversation that the service does not know any more is `BadRequest` with the code
`conversation_not_found`; ask again without it to begin a new one.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar
from urllib.parse import urlsplit

from msgspec import Struct

from tolmach.chat import ChatRequest, Message, new_messages
from tolmach.decoding import convert
from tolmach.errors import ChallengeRequired, ConfigError, RemoteProtocolError
from tolmach.protocols.base import SessionState, Site
from tolmach.protocols.bodies import arrival, encode_json, json_body, split_address, web_origin
from tolmach.protocols.chatgpt.answer import ConversationAnswer, reported, response_error
from tolmach.protocols.chatgpt.proof import Profile, get_answer_token, get_config, get_requirements_token
from tolmach.wire import Call, Challenge, Decoder, Handshake, Head, Limits, Request, Response, Steps, Work

__all__ = ["ChatGptWeb", "browser_headers", "format_conversation"]

USER_AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/127.0.0.0 Safari/537.36"
)

_COOKIE = "_dd_s="
_PAGE_SECONDS = 1800.0
"""How long a visit of the page lasts before it is opened again."""

_ASKED = re.compile(r"/backend-(anon|api)/conversation\Z")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_ROLES = {"developer": "system"}


def browser_headers(user_agent: str) -> dict[str, str]:
    """The headers with which a browser opens the page."""
    return {
        "accept": "*/*",
        "accept-language": "en-US,en;q=0.8",
        "cache-control": "no-cache",
        "pragma": "no-cache",
        "priority": "u=0, i",
        "sec-ch-ua": '"Not)A;Brand";v="99", "Google Chrome";v="127", "Chromium";v="127"',
        "sec-ch-ua-arch": '"arm"',
        "sec-ch-ua-bitness": '"64"',
        "sec-ch-ua-mobile": "?0",
        "sec-ch-ua-model": '""',
        "sec-ch-ua-platform": '"macOS"',
        "sec-ch-ua-platform-version": '"14.4.0"',
        "sec-fetch-dest": "document",
        "sec-fetch-mode": "navigate",
        "sec-fetch-site": "none",
        "sec-fetch-user": "?1",
        "upgrade-insecure-requests": "1",
        "user-agent": user_agent,
    }


def format_conversation(messages: Sequence[Message], uuid: Callable[[], str], now: float) -> list[dict[str, Any]]:
    """The messages as the service has them: each with an id of its own and the time in seconds since 1970."""
    return [
        {
            "id": uuid(),
            "author": {"role": _ROLES.get(message.role, message.role)},
            "content": {"content_type": "text", "parts": [message.text]},
            "metadata": {"serialization_metadata": {"custom_symbol_offsets": []}},
            "create_time": now,
        }
        for message in messages
    ]


class _Puzzle(Struct):
    required: bool = False
    seed: str = ""
    difficulty: str = ""


class _Captcha(Struct):
    required: bool = False
    dx: str | None = None


class _Requirements(Struct):
    token: str
    proofofwork: _Puzzle | None = None
    turnstile: _Captcha | None = None
    arkose: _Captcha | None = None


class ChatGptWeb(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`site.url` is the page's address; with `site.api_key` (a bearer token) the user is signed in."""

    name: ClassVar[str] = "chatgpt-web"
    title: ClassVar[str] = "The web conversation of chatgpt.com"
    features: ClassVar[frozenset[str]] = frozenset()
    traits: ClassVar[frozenset[str]] = frozenset({"stream", "history", "system", "conversation"})

    user_agent: str = USER_AGENT
    profile: Profile = Profile()
    history_and_training_disabled: bool = False
    timezone_offset_min: int = 0
    """Minutes that the user's clock is behind UTC, as JavaScript counts them."""

    def ready(self, site: Site, state: SessionState) -> bool:
        return state.token("page") is not None

    def prepare(self, site: Site, state: SessionState) -> Steps:
        """Open the page; the session keeps its cookies."""
        headers = {**browser_headers(self.user_agent), "cookie": _COOKIE}
        response: Response = yield Request("GET", f"{_base(site)}/", headers)
        _check_status(response, state)
        state.keep("page", "open", state.now() + _PAGE_SECONDS)

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake:
        headers = self._headers(site, state)
        config = self._config(state)
        seed = f"0.{int(state.random_hex(13), 16)}"
        asked = encode_json({"p": get_requirements_token(config, seed)})
        response: Response = yield Request("POST", f"{_backend(site)}/sentinel/chat-requirements", headers, asked)
        requirements = _read_requirements(response, state)
        fields = self._fields(site, turn, state)
        headers = {
            **headers,
            "accept": "text/event-stream",
            "openai-sentinel-chat-requirements-token": _header_token(requirements.token),
        }
        puzzle = requirements.proofofwork
        if puzzle is not None and puzzle.required:
            headers["openai-sentinel-proof-token"] = yield Work(
                lambda stopped: get_answer_token(puzzle.seed, puzzle.difficulty, config, stopped)
            )
        for kind, captcha in (("turnstile", requirements.turnstile), ("arkose", requirements.arkose)):
            if captcha is not None and captcha.required:
                answer = yield Challenge(kind, captcha.dx or "", f"{_base(site)}/")
                headers[f"openai-sentinel-{kind}-token"] = _person_token(answer, kind, f"{_base(site)}/")
        request = Request("POST", f"{_backend(site)}/conversation", headers, encode_json(fields))
        return Call(request, lambda head: ConversationAnswer(head, state.limits, state.now))

    def reader(self, request: Request) -> Callable[[Head], Decoder] | None:
        try:
            path = urlsplit(request.url).path
        except ValueError:
            return None
        if request.method != "POST" or not _ASKED.search(path):
            return None
        return lambda head: ConversationAnswer(head, Limits(), arrival(head))

    def _headers(self, site: Site, state: SessionState) -> dict[str, str]:
        """The headers of a request from within the page."""
        page = browser_headers(self.user_agent)
        del page["sec-fetch-user"], page["upgrade-insecure-requests"]
        headers = {
            **page,
            "content-type": "application/json",
            "cookie": _COOKIE,
            "oai-device-id": state.visitor_id("oai-device-id", state.uuid),
            "oai-language": self.profile.language,
            "origin": web_origin(site.url),
            "priority": "u=1, i",
            "referer": f"{web_origin(site.url)}{_path(site)}/",
            "sec-fetch-dest": "empty",
            "sec-fetch-mode": "cors",
            "sec-fetch-site": "same-origin",
        }
        if site.api_key:
            headers["authorization"] = f"Bearer {site.api_key}"
        return headers

    def _config(self, state: SessionState) -> list[Any]:
        page = state.tokens.get("page")
        return get_config(
            self.user_agent,
            now=state.now(),
            started=None if page is None else page.since,
            uuid=state.visitor_id("chatgpt-session", state.uuid),
            profile=self.profile,
        )

    def _fields(self, site: Site, turn: ChatRequest, state: SessionState) -> dict[str, Any]:
        messages = turn.messages
        place = {"parent_message_id": state.uuid()}
        if turn.conversation is not None:
            kept = turn.conversation.state
            place = {name: kept.get(name, "") for name in ("conversation_id", "parent_message_id")}
            if not all(place.values()):
                raise ConfigError("the conversation is not one of chatgpt-web: it has no conversation_id and parent")
            messages = new_messages(messages)
        return {
            "action": "next",
            "messages": format_conversation(messages, state.uuid, state.now()),
            **place,
            "model": turn.model or site.default_model or "auto",
            "timezone_offset_min": self.timezone_offset_min,
            "history_and_training_disabled": self.history_and_training_disabled,
            "conversation_mode": {"kind": "primary_assistant"},
            "system_hints": [],
            "force_use_sse": True,
            "supports_buffering": True,
            "supported_encodings": ["v1"],
            "websocket_request_id": state.uuid(),
        }


def _path(site: Site) -> str:
    return split_address(site.url).path.rstrip("/")


def _base(site: Site) -> str:
    """The page's address without a slash at its end, a query or a fragment."""
    return split_address(site.url)._replace(path=_path(site), query="", fragment="").geturl()


def _backend(site: Site) -> str:
    return f"{_base(site)}/backend-{'api' if site.api_key else 'anon'}"


def _check_status(response: Response, state: SessionState) -> None:
    if not 200 <= response.head.status < 300:
        raise response_error(response.head, response.body, state.now)


def _read_requirements(response: Response, state: SessionState) -> _Requirements:
    """What the service requires before it answers. Raises what it says instead."""
    _check_status(response, state)
    value = json_body(response.head, response.body)
    if not (isinstance(value, dict) and "token" in value) and (error := reported(value, response.head, state.now())):
        raise error
    return convert(value, _Requirements)


def _header_token(token: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise RemoteProtocolError("the service's requirements come with a token that no header can hold")
    return token


def _person_token(answer: Any, kind: str, url: str) -> str:
    token = answer.strip() if isinstance(answer, str) else ""
    if not _TOKEN.fullmatch(token):
        raise ChallengeRequired(f"the {kind} question got no answer that could be sent", kind=kind, url=url)
    return token
