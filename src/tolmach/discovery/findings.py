"""What discovery is given and what it finds, as values."""

from typing import Any, Literal

from msgspec import Struct, field

from tolmach.wire import Head

__all__ = ["MAX_FOUND", "Evidence", "Findings", "Found", "MessageLimit", "Missing", "Named", "Page", "Wanted"]

MAX_FOUND = 50
"""Assistants of one page; what a page names beyond them is not looked at."""


class Page(Struct, frozen=True):
    """A page as it came; `url` after redirects, empty for a file whose address is not known."""

    url: str
    body: bytes
    status: int = 200
    headers: dict[str, str] = {}
    """Names in lower case."""
    cut: bool = False
    """Whether the page was longer than what was read of it."""

    @property
    def head(self) -> Head:
        return Head(self.status, self.headers, (), self.url)


class Wanted(Struct, frozen=True):
    """A further page that would tell more."""

    url: str
    why: Literal["iframe", "popup", "rest-index", "readme", "bootstrap", "models", "tags"]
    method: Literal["GET", "POST"] = "GET"
    """POST, without a body, for the bootstrap that a browser does when it shows the page."""


class Evidence(Struct, frozen=True):
    """What said so: an element, script, route or header, and what it said."""

    where: str
    says: str


class Missing(Struct, frozen=True):
    """What stands between a question and its answer.

    `kind` is for programs: `cached-nonce`, `nonce`, `consent`, `login`, `challenge`, `plugin-off`, `key`, `models`,
    `mode`, `page`, `address`.
    """

    kind: str
    text: str


class MessageLimit(Struct, frozen=True):
    """The longest message that the site takes, as it counts."""

    most: int
    unit: Literal["characters", "bytes"] = "characters"

    def length(self, text: str) -> int:
        """How long the site finds this text."""
        return len(text.encode("utf-8", "replace")) if self.unit == "bytes" else len(text)

    def allows(self, text: str) -> bool:
        return self.length(text) <= self.most


class Found(Struct, frozen=True, kw_only=True):
    """One assistant. What is None or empty is not visible on the page."""

    protocol: str
    row: dict[str, Any]
    """The keys of a `[providers.NAME]` table that asks it: protocol, url, and the protocol's options."""
    page: str = ""
    """The address of the page that it stands on."""
    version: str = ""
    """The plugin's version, or the versions that it may be."""
    bot: str = ""
    """The id that the site knows it by."""
    name: str = ""
    kind: Literal["inline", "popup", "api"] = "inline"
    greeting: str = ""
    stream: bool | None = None
    guests: bool | None = None
    """Whether visitors who are not logged in may ask."""
    uploads: tuple[str, ...] = ()
    """What visitors may upload: `images`, `files`."""
    consent: str = ""
    """What visitors have to agree to, in the site's words."""
    limit: MessageLimit | None = None
    models: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    evidence: tuple[Evidence, ...] = ()

    def fits(self, bot: str) -> bool:
        """Whether `bot` is the id or the name of this assistant."""
        ids = (self.bot, self.name, *(self.row.get(key, "") for key in ("bot_id", "custom_id")))
        return bot.casefold() in {str(one).casefold() for one in ids if one not in ("", None)}


class Named(Struct, frozen=True, kw_only=True):
    """A chat that stands on a page and is known by name alone."""

    name: str
    asked: Literal["recipe", "closed", "people"]
    """An open back end, which a recipe can describe; a closed protocol; one behind which people may answer."""
    ability: str
    """What can be done with it, in words."""
    host: str = ""
    """Where its back end, or else its script, is."""
    id: str = ""
    """What its vendor knows this chat by; empty when that is not visible."""
    evidence: tuple[Evidence, ...] = ()

    @property
    def line(self) -> str:
        """For people."""
        where = ", ".join(filter(None, (self.host, self.id)))
        return f"{self.name}{f' ({where})' if where else ''}: {self.ability}"


class Findings(Struct, frozen=True):
    """What a page and those fetched with it say."""

    found: tuple[Found, ...] = ()
    wanted: tuple[Wanted, ...] = ()
    missing: tuple[Missing, ...] = ()
    """What is wrong with the page as a whole."""
    hints: tuple[str, ...] = field(default_factory=tuple)
    """What is worth knowing where nothing was found."""
    named: tuple[Named, ...] = ()
    """Chats that are known by name alone; of a crawl each as often as a page has it."""
