"""One request that carries the question, one response that carries the answer, and no handshake.

A site of this family is data: where the question goes in the request, and where the answer stands
in the response, told by JSON pointers (RFC 6901). The response is one JSON text, plain text, or a
stream of JSON or text pieces as lines or server-sent events.

It is the smallest kind of recipe, and run as one: `recipe` is the translation of its options.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from msgspec import Struct, field

from tolmach.chat import ChatRequest
from tolmach.errors import ConfigError
from tolmach.protocols.base import SessionState, Site
from tolmach.protocols.pointer import parse_pointer
from tolmach.protocols.recipe.protocol import Recipe
from tolmach.protocols.recipe.request import check_address
from tolmach.protocols.recipe.tables import AnswerTable, ErrorKind, ErrorsTable, RequestTable
from tolmach.protocols.recipe.template import ITEM_PLACES, QUESTION_PLACES, option_places, places
from tolmach.wire import Decoder, Handshake, Head, Request, Steps

__all__ = ["JsonText"]


class JsonText(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Its options are the site's declaration; the defaults describe the smallest such service.

    `template` is the request: a string `"{{name}}"` in it stands for a value, inside longer text
    for its text. Names are `message` (the new message; the whole conversation as one text when
    the template has no place for the history), `history` (the messages before it), `messages`
    (all), `system` (the system messages' text), `model`, `stream`, and the caller's options by
    their OpenAI names or as `defaults` names them. A field whose option has neither a value nor a
    default is left out. Raises `ConfigError` that names what is wrong.
    """

    name: ClassVar[str] = "json-text"
    title: ClassVar[str] = "One JSON or form request, one JSON, text or streamed answer"

    method: Literal["POST", "PUT", "GET"] = "POST"
    path: str = "/api/text"
    """From the origin of the site's address, or a full URL."""
    body: Literal["json", "form", "query"] = "json"
    template: dict[str, Any] = field(default_factory=lambda: {"message": "{{message}}"})
    defaults: dict[str, Any] = field(default_factory=dict)
    """Values of options that the caller did not give."""
    history_item: dict[str, Any] = field(default_factory=lambda: {"role": "{{role}}", "content": "{{content}}"})
    """One message of `history` and `messages`."""
    roles: dict[str, str] = field(default_factory=dict)
    """The service's names of the roles, where they differ."""

    format: Literal["json", "text", "ndjson", "sse"] = "json"
    answer: str = "/message"
    """Where the text stands, in the answer or in each event of a stream."""
    pieces: Literal["json", "text"] = "json"
    """What the events of a stream are; `text` is taken as it is."""
    snapshots: bool = False
    """Whether each event of a stream holds the whole text so far."""
    end: str | None = "[DONE]"
    """The event that ends a stream; None when the stream's own end does."""
    end_flag: str | None = None
    """Where an event says, with a true value, that it is the last."""

    ok: str | None = None
    """Where a true value must stand in an answer that is none of an error."""
    errors: tuple[str, ...] = ("/error",)
    """Where an error's text stands; a null, false or empty value is no error."""
    error_code: str | None = None
    """Where an error's code stands."""
    error_kinds: dict[str, ErrorKind] = field(default_factory=dict)
    """What an HTTP status or an error's code stands for, where the status alone does not say it."""

    def __post_init__(self) -> None:
        check_address("path", self.path)
        for pointer in (self.answer, self.end_flag, self.ok, self.error_code, *self.errors):
            if pointer is not None:
                _check_pointer(pointer)
        option_names = option_places(self.defaults)
        named = places(self.template)
        if unknown := sorted(named - option_names - QUESTION_PLACES):
            raise ConfigError(f"template: nothing is called {unknown[0]!r}; options of the site's own need a default")
        if not named & {"message", "messages"}:
            raise ConfigError('template: "{{message}}" or "{{messages}}" has to stand somewhere')
        if unknown := sorted(places(self.history_item) - ITEM_PLACES):
            raise ConfigError(f"history_item: nothing is called {unknown[0]!r}; there are role and content")
        if (self.method == "GET") != (self.body == "query"):
            raise ConfigError("body: a GET request has its fields in the query, and no other has")

    @property
    def features(self) -> frozenset[str]:
        return places(self.template) - QUESTION_PLACES

    @property
    def traits(self) -> frozenset[str]:
        named = places(self.template)
        has = {
            "stream": self.format != "json",
            "history": bool(named & {"history", "messages"}),
            "system": bool(named & {"system", "history", "messages"}),
        }
        return frozenset(name for name, there in has.items() if there)

    @property
    def recipe(self) -> Recipe:
        """What these options say, as a recipe."""
        field = {"json": "json", "form": "form", "query": "query"}[self.body]
        fields: dict[str, Any] = {field: self.template}
        return Recipe(
            request=RequestTable(
                method=self.method,
                url=self.path,
                defaults=self.defaults,
                item=self.history_item,
                roles=self.roles,
                **fields,
            ),
            answer=AnswerTable(
                format=self.format,
                text=self.answer,
                pieces=self.pieces,
                snapshots=self.snapshots,
                end=self.end or "",
                end_flag=self.end_flag or "",
            ),
            errors=ErrorsTable(text=self.errors, ok=self.ok or "", code=self.error_code or "", kinds=self.error_kinds),
        )

    def ready(self, site: Site, state: SessionState) -> bool:
        return True

    def prepare(self, site: Site, state: SessionState) -> Steps:
        yield from ()

    def open(self, site: Site, turn: ChatRequest, state: SessionState) -> Handshake:
        return (yield from self.recipe.open(site, turn, state))

    def reader(self, request: Request) -> Callable[[Head], Decoder] | None:
        # Nothing declared: the answers are those of the service that the defaults are taken from.
        declared = self if self != JsonText() else JsonText(ok="/response")
        return declared.recipe.reader(request)


def _check_pointer(pointer: str) -> None:
    try:
        parse_pointer(pointer)
    except ValueError as error:
        raise ConfigError(str(error)) from None
