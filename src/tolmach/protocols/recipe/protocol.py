"""A chat API that is described by data: a recipe. One interpreter runs all of them, and `json_text`.

A recipe says which requests come before the question and what their responses give, how the
question is written, where the answer stands, and which answer means that a token is stale.
`docs/recipes.md` is the reference of its tables.
"""

import re
from collections.abc import Callable, Generator
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from msgspec import Meta, Struct, field, structs

from tolmach.chat import ChatRequest, new_messages
from tolmach.errors import BadRequest, ConfigError, ProtocolDrift
from tolmach.protocols.base import SessionState, Site, failure
from tolmach.protocols.bodies import arrival
from tolmach.protocols.pointer import ABSENT
from tolmach.protocols.recipe.answer import DECODERS
from tolmach.protocols.recipe.extract import extract
from tolmach.protocols.recipe.faults import Reading
from tolmach.protocols.recipe.request import ACCEPT, check_address, check_made, made_values, write
from tolmach.protocols.recipe.tables import (
    AnswerTable,
    ConversationValue,
    ErrorsTable,
    RequestTable,
    StaleRule,
    Step,
    check_pattern,
    parse_place,
    parse_places,
)
from tolmach.protocols.recipe.template import ITEM_PLACES, QUESTION_PLACES, fill, option_places, places, values_of
from tolmach.wire import Call, Decoder, Handshake, Head, Limits, Request, Response, Steps

__all__ = ["Recipe"]

_REFUSED = "recipe.refused"
_VISITED = "recipe.visited"
_COOKIE = "recipe.cookie."
_OWN = frozenset({"null", "json", "site"})


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Its options are the recipe's tables, or `recipe`, a file that has them. Raises `ConfigError`."""

    name: ClassVar[str] = "recipe"
    title: ClassVar[str] = "Any API of requests and JSON, text or streamed answers, described by a recipe"

    recipe: Annotated[str, Meta(description="a file with a recipe", extra={"file": True})] = ""
    """The file that the other tables come from; it is read where configurations are, never here."""
    bootstrap: tuple[Step, ...] = ()
    """The requests before the question."""
    request: RequestTable = RequestTable()
    """The request that carries the question."""
    answer: AnswerTable = AnswerTable()
    errors: ErrorsTable = ErrorsTable()
    stale: tuple[StaleRule, ...] = ()
    """When a token was refused: any of the rules."""
    conversation: dict[str, ConversationValue] = field(default_factory=dict)
    """Name -> a value by which the service knows a conversation; `{{conversation.NAME}}` puts it in."""

    def __post_init__(self) -> None:
        if self.request.url:
            self._check_places()
            self._check_request()
        for rule in self.stale:
            check_pattern("stale.text", rule.text)
        for words in self.errors.words:
            check_pattern("errors.words", words)
        tokens = [(name, wanted) for step in self.bootstrap for name, wanted in step.tokens.items()]
        for name, wanted in tokens:
            check_pattern(f"bootstrap.tokens.{name}", wanted.pattern)
            placed = wanted.html or wanted.header or wanted.cookie or wanted.after or wanted.pattern
            if not placed and wanted.json is None:
                raise ConfigError(f"bootstrap.tokens.{name}: say where it stands: html, header, cookie, json, ...")
            parse_place(wanted.json or "")

    def _check_places(self) -> None:
        parse_places(self.answer.text)
        for place in (self.answer.end_flag, self.answer.reasoning, self.errors.ok, self.errors.code):
            parse_place(place)
        for place in (
            *self.errors.text,
            *self.errors.flags,
            *self.answer.where,
            *(v.answer for v in self.conversation.values()),
        ):
            parse_place(place)

    def _check_request(self) -> None:
        request = self.request
        check_address("request.url", request.url)
        tokens = {f"token.{name}" for step in self.bootstrap for name in step.tokens}
        conversation = {f"conversation.{name}" for name in self.conversation}
        known = option_places(request.defaults) | QUESTION_PLACES | _OWN | tokens | conversation
        named = _named(request.templates)
        if unknown := sorted(name for name in named - known if not check_made(name)):
            raise ConfigError(f"request: nothing is called {unknown[0]!r}; options of the site's own need a default")
        if not named & {"message", "messages"}:
            raise ConfigError('request: "{{message}}" or "{{messages}}" has to stand somewhere')
        if unknown := sorted(name for name in places(request.item) - ITEM_PLACES - _OWN if not check_made(name)):
            raise ConfigError(f"request.item: nothing is called {unknown[0]!r}; there are role and content")
        bodies = [kind for kind in ("json", "form", "multipart", "text") if getattr(request, kind)]
        if len(bodies) > 1:
            raise ConfigError(f"request.{bodies[1]}: the body is given as {bodies[0]} already")
        if request.method == "GET" and bodies:
            raise ConfigError(f"request.{bodies[0]}: a GET request has its fields in the query")
        for step in self.bootstrap:
            check_address("bootstrap.url", step.url)
            if unknown := sorted(n for n in _named(step.templates) - tokens - _OWN if not check_made(n)):
                raise ConfigError(f"bootstrap: nothing is called {unknown[0]!r}")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The full addresses of its requests whose host is written out."""
        urls = (self.request.url, *(step.url for step in self.bootstrap))
        return tuple(url for url in urls if "://" in url and not places("/".join(url.split("/", 3)[:3])))

    @property
    def features(self) -> frozenset[str]:
        options = option_places(self.request.defaults)
        return (_named(self.request.templates) & options) - QUESTION_PLACES

    @property
    def traits(self) -> frozenset[str]:
        named = _named(self.request.templates)
        has = {
            "stream": bool(self.request.url) and self.answer.format != "json",
            "history": bool(named & {"history", "messages"}),
            "system": bool(named & {"system", "history", "messages"}),
            "conversation": bool(self.conversation),
        }
        return frozenset(name for name, there in has.items() if there)

    # What turns share

    def ready(self, site: Site, state: SessionState) -> bool:
        if not any(not step.each for step in self.bootstrap):
            return True
        shared = (name for step in self.bootstrap if not step.each for name in step.tokens)
        return state.token(_VISITED) is not None and all(state.token(f"token.{name}") is not None for name in shared)

    def prepare(self, site: Site, state: SessionState) -> Steps:
        """Raises `ProtocolDrift` that names a value which is not there, or what a step's status says."""
        self._require()
        for step in self.bootstrap:
            if not step.each:
                yield from self._take(step, site, state)
        state.keep(_VISITED, "yes")

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake:
        """Raises `BadRequest` for a question without any text, which services refuse in words of their own."""
        self._require()
        if not any(message.text.strip() for message in turn.messages):
            raise BadRequest("the message is empty", code="empty_message")
        for step in self.bootstrap:
            if step.each:
                yield from self._take(step, site, state)
        request, known = self._request(site, turn, state)
        reading = self._reading(known=known, limits=state.limits, now=state.now, on_stale=lambda: _refused(state))
        return Call(request, lambda head: DECODERS[self.answer.format](reading, head))

    def _require(self) -> None:
        if not self.request.url:
            raise ConfigError('recipe: name a file with recipe = "FILE.toml", or give [request] with its url')

    def _take(self, step: Step, site: Site, state: SessionState) -> Generator[Request, Response, None]:
        """One step, and what its response gives."""
        names = _named(step.templates) | places(step.fresh)
        values = made_values(names, state) | _tokens(state)
        request = write(site, step, values, accept="text/html, application/json, */*", state=state)
        if _REFUSED in state.visitor:
            url, fresh = request.url, fill(step.fresh, values) or ""
            url += f"{'&' if '?' in url else '?'}{fresh}" if fresh else ""
            request = Request(request.method, url, {**request.headers, "cache-control": "no-cache"}, request.body)
        response = yield request
        if response.head.status >= 400:
            raise failure(response.head, response.body, state.now())
        for name, wanted in step.tokens.items():
            lasts = None if wanted.lasts is None else state.now() + wanted.lasts
            try:
                value = extract(name, wanted, response)
            except ProtocolDrift:
                # A cookie that is there already is not always set again.
                if not wanted.cookie or _COOKIE + name not in state.visitor:
                    raise
                value = state.visitor[_COOKIE + name]
            if wanted.cookie:
                state.visitor[_COOKIE + name] = value
            state.keep(f"token.{name}", value, lasts)

    # The question

    def _request(self, site: Site, turn: ChatRequest, state: SessionState) -> tuple[Request, dict[str, str]]:
        """The request, and the conversation's values in it."""
        table = self.request
        templates = table.templates
        named = _named(templates) | _named([value.new for value in self.conversation.values()]) | places(table.item)
        made = made_values(named, state)
        known = dict(turn.conversation.state) if turn.conversation else {}
        if known and self.traits.isdisjoint({"history"}):
            turn = _continued(turn)
        values = values_of(turn, templates, table.defaults, table.item, table.roles, made)
        values |= made | _tokens(state)
        values["model"] = turn.model or site.default_model or table.defaults.get("model", ABSENT)
        for name, value in self.conversation.items():
            new = ABSENT if value.new is None else fill(value.new, made)
            sent = known.get(name, new)
            values[f"conversation.{name}"] = sent
            if isinstance(sent, str):
                known[name] = sent
        request = write(site, table, values, accept=ACCEPT[self.answer.format], state=state, chosen=site.api_endpoint)
        return request, {name: known[name] for name in self.conversation if name in known}

    def _reading(self, **known: Any) -> Reading:
        return Reading(
            answer=self.answer, errors=self.errors, stale=self.stale, conversation=self.conversation, **known
        )

    def reader(self, request: Request) -> Callable[[Head], Decoder] | None:
        if not self.request.url or request.method != self.request.method:
            return None
        try:
            path, own = urlsplit(request.url).path, urlsplit(self.request.url).path
        except ValueError:
            return None
        at_site = own.startswith("{{site}}")
        parts = (re.escape(part) for part in re.split(r"\{\{[^{}]*\}\}", own.removeprefix("{{site}}")))
        if not re.fullmatch((".*" if at_site else "") + "[^/]+".join(parts), path):
            return None
        return lambda head: DECODERS[self.answer.format](self._reading(limits=Limits(), now=arrival(head)), head)


def _named(templates: list[Any]) -> frozenset[str]:
    return frozenset().union(*map(places, templates))


def _tokens(state: SessionState) -> dict[str, str]:
    return {name: token.value for name, token in state.tokens.items() if name.startswith("token.")}


def _refused(state: SessionState) -> None:
    """Remember that a token was refused: the next step goes past the caches."""
    state.visitor[_REFUSED] = "yes"


def _continued(turn: ChatRequest) -> ChatRequest:
    """The turn without the messages that the service knows."""
    return structs.replace(turn, messages=new_messages(turn.messages))
