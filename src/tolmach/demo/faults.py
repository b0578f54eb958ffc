"""The table of faults, and how they are asked for.

A fault is asked for by the header `x-tolmach-demo` on any request, by the model's name at `/v1` and
`/ChatGpt` (`fault:cut=5`), by the question's text anywhere (`[[fault:cut=5]]`), or for every
request of a service by the demo's own settings (`demo.faults["/Chatgpt4o"] = "cut=5"`). Several
are separated by commas. The whole form of one is `NAME[=VALUE][@STEP][*N | /N]`:

- `@STEP` moves it to another kind of request: `page`, `handshake`, `send`, `chat` or `any`;
- `*N` has it happen the first N times only, `/N` at every Nth request.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from functools import lru_cache

from msgspec import Struct

from tolmach.errors import ConfigError

__all__ = ["FAULTS", "HEADER", "Asked", "Fault", "Faults", "UnknownFault", "Wanted", "help_text", "parse", "wish_in"]

HEADER = "x-tolmach-demo"
"""The header that asks for faults."""


class Fault(Struct, frozen=True):
    """A fault that can be asked for. `value` is its default, None when it takes none."""

    name: str
    about: str
    steps: tuple[str, ...] = ("chat",)
    value: float | None = None
    unit: str = ""
    services: tuple[str, ...] = ()
    """The protocols that have it; empty for all."""
    early: bool = False
    """At a service where a question is handed in first and its answer fetched after, it is for the first."""

    @property
    def usage(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.unit}"


_WORDPRESS = ("ai_engine", "ai_power", "aipkit")
_APIS = ("openai", "anthropic", "gemini", "ollama")
_STREAMS = ("ai_engine", "ai_power", "aipkit", "chatgpt_web", *_APIS)
_TURN = ("send", "chat")
_API = ("handshake", "send", "chat")

_TABLE = (
    # The nonce
    Fault(
        "stale-nonce",
        "the nonce is refused once for each question; a new one must be fetched",
        _TURN,
        None,
        "",
        _WORDPRESS,
        early=True,
    ),
    Fault(
        "stale-nonce-every",
        "at every Nth question the nonce is refused for good; a new one must be fetched",
        _TURN,
        50,
        "N",
        _WORDPRESS,
        early=True,
    ),
    Fault(
        "nonce-expires",
        "the nonce works for this question and has expired at the next",
        ("chat",),
        None,
        "",
        _WORDPRESS,
    ),
    Fault("nonce-refused", "every nonce is refused, fresh ones too", _TURN, None, "", _WORDPRESS, early=True),
    Fault(
        "cached-page",
        "the page comes from a cache, with an old nonce, until it is fetched with a query",
        ("page",),
        None,
        "",
        _WORDPRESS,
    ),
    # Instead of an answer
    Fault("401", "HTTP 401"),
    Fault("403-challenge", "HTTP 403 with a challenge page for browsers"),
    Fault("429", "HTTP 429 without Retry-After"),
    Fault("429-retry-after", "HTTP 429 with Retry-After", ("chat",), 7, "SECONDS"),
    Fault("500", "HTTP 500"),
    Fault("502-html", "HTTP 502 with the proxy's HTML page"),
    Fault("html", "an HTML page with status 200"),
    Fault("reset", "the connection is reset before the head"),
    Fault("silence", "nothing comes, not even a head"),
    # Time
    Fault("slow-first-token", "the first token comes late", ("chat",), 3, "SECONDS"),
    Fault("delay", "the seconds between two tokens", ("chat",), 0.2, "SECONDS"),
    # The body
    Fault("cut", "the connection is cut after K tokens (half of a JSON answer)", ("chat",), 5, "K"),
    Fault("stall", "nothing more comes after K tokens, and the connection stays open", ("chat",), 5, "K"),
    Fault("malformed", "token K's event is broken off (JSON answer: half of it, properly ended)", ("chat",), 5, "K"),
    Fault("missing-end", "the body ends properly, without the answer's end"),
    Fault(
        "missing-done",
        "the body ends properly behind the answer's reason for its end, with neither usage nor end mark",
        services=("openai", "anthropic", "ai_power"),
    ),
    Fault("junk", "a BOM and a PHP warning stand before the body", _API),
    Fault("split-utf8", "the network's chunks are cut inside characters"),
    Fault(
        "gzip",
        "the body is compressed (Content-Encoding: gzip), asked for or not",
        ("page", "handshake", "send", "chat"),
    ),
    # The answer
    Fault("lone-surrogate", "half of a surrogate pair stands in the answer, as a JSON escape"),
    Fault("split-surrogate", "the halves of a surrogate pair stand in two tokens"),
    Fault("big-event", "one token is this long", ("chat",), 10, "MEGABYTES"),
    Fault("empty", "the answer is empty"),
    # What the service itself says
    Fault("guest-limit", "the visitor's limit is used up"),
    Fault("no-guests", "the site does not serve guests", _API, None, "", ("ai_engine", "aipkit")),
    Fault(
        "banned",
        "the message has a banned word (so does any message with `forbiddenword`)",
        services=("ai_engine", "ai_power", "aipkit", "json_text", "openai", "anthropic", "gemini"),
    ),
    Fault(
        "no-prefill",
        "a last message of the assistant is refused with HTTP 400",
        services=("openai", "anthropic"),
    ),
    Fault("upstream-error", "the AI behind the service answers 401, 429 or 500", ("chat",), 429, "STATUS"),
    Fault("upstream-cut", "the AI behind the service breaks off after K tokens", ("chat",), 5, "K"),
    Fault("upstream-event", "the AI behind the service reports an error after K tokens", ("chat",), 5, "K", _STREAMS),
    Fault("plugin-off", "the plugin is switched off", ("page", "handshake", "send", "chat"), None, "", _WORDPRESS),
    Fault("turnstile", "a Turnstile answer is required", ("handshake", "chat"), None, "", ("chatgpt_web",)),
    Fault("arkose", "an Arkose answer is required", ("handshake", "chat"), None, "", ("chatgpt_web",)),
    Fault("unusual-activity", "the service refuses this device", ("handshake",), None, "", ("chatgpt_web",)),
    Fault(
        "rewritten", "the service takes back and rewrites its text in the middle", ("chat",), None, "", ("chatgpt_web",)
    ),
    Fault("snapshots", "the answer comes as snapshots, not as deltas", ("chat",), None, "", ("chatgpt_web",)),
)

FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _TABLE}
"""All faults by name, in the order to show them."""

_STEPS = ("page", "handshake", "send", "chat", "other", "any")
_FORM = re.compile(
    r"(?P<name>[a-z0-9-]+)(?:=(?P<value>\d+(?:\.\d+)?))?(?:@(?P<step>[a-z]+))?(?:\*(?P<first>\d+)|/(?P<every>[1-9]\d*))?"
)


class UnknownFault(ConfigError):
    """A fault that is not in the table, or in a form that is none."""

    hint = "`tolmach demo --help` lists the faults."


class Asked(Struct, frozen=True):
    """One fault as it was asked for."""

    fault: Fault
    value: float
    steps: tuple[str, ...]
    first: int = 0
    every: int = 0

    def meets(self, kind: str, step: str) -> bool:
        """Whether it is for this step at a service of this kind."""
        if self.fault.early and kind == "aipkit" and step == "chat" and self.steps is self.fault.steps:
            return False
        return step in self.steps or "any" in self.steps


Wanted = Mapping[str, float]
"""The faults to apply to a request, with their values."""


@lru_cache(maxsize=1024)
def parse(text: str) -> tuple[Asked, ...]:
    """The faults in a comma-separated list. Raises `UnknownFault` that names what it does not know."""
    return tuple(_parse_one(part.strip()) for part in text.split(",") if part.strip())


def _parse_one(text: str) -> Asked:
    form = _FORM.fullmatch(text.removeprefix("fault:"))
    fault = FAULTS.get(form["name"]) if form else None
    if form is None or fault is None:
        raise UnknownFault(f"there is no fault {text!r}; there are: {', '.join(f.usage for f in FAULTS.values())}")
    if form["value"] and fault.value is None:
        raise UnknownFault(f"the fault {fault.name!r} takes no value")
    if form["step"] and form["step"] not in _STEPS:
        raise UnknownFault(f"there is no step {form['step']!r}; there are: {', '.join(_STEPS)}")
    value = float(form["value"]) if form["value"] else fault.value or 0.0
    steps = (form["step"],) if form["step"] else fault.steps
    return Asked(fault, value, steps, int(form["first"] or 0), int(form["every"] or 0))


_WISH = re.compile(r"\[\[fault:([^\[\]]*)\]\]")


def wish_in(question: str, model: str = "") -> str:
    """The faults that a question's text and a model's name ask for, as a list for `parse`."""
    wishes = _WISH.findall(question) if "[[fault:" in question else []
    if model.startswith("fault:"):
        wishes.append(model)
    return ",".join(wishes)


class Faults(MutableMapping[str, str]):
    """The faults that a demo has for every request of a service, by mount; `*` for all services."""

    def __init__(self, settings: Mapping[str, str] | None = None, mounts: Iterable[str] = ()) -> None:
        self._mounts = frozenset(mounts)
        self._settings: dict[str, str] = {}
        self._counts: Counter[tuple[str, Asked]] = Counter()
        self.update(settings or {})

    def __getitem__(self, mount: str) -> str:
        return self._settings[mount]

    def __setitem__(self, mount: str, faults: str) -> None:
        """Raises `ConfigError` for a fault or a mount that does not exist."""
        if self._mounts and mount != "*" and mount not in self._mounts:
            raise ConfigError(f"the demo has no service at {mount!r}; there are: {', '.join(sorted(self._mounts))}")
        parse(faults)
        self._settings[mount] = faults
        self._counts = Counter({key: n for key, n in self._counts.items() if key[0] != mount})

    def __delitem__(self, mount: str) -> None:
        del self._settings[mount]

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def wanted(self, mount: str, kind: str, step: str, wishes: str) -> Wanted:
        """The faults that apply to a request: the settings' and those in `wishes`.

        Raises `UnknownFault` for a fault that the service of this kind does not have, when it was
        asked for in `wishes`; a setting for all services passes over it.
        """
        found: dict[str, float] = {}
        for text, strict in ((self._settings.get("*"), False), (self._settings.get(mount), True), (wishes, True)):
            for asked in parse(text) if text else ():
                if asked.fault.services and kind not in asked.fault.services:
                    if strict:
                        raise UnknownFault(f"the fault {asked.fault.name!r} means nothing at {mount}")
                elif asked.meets(kind, step) and self._counts_in(mount, asked):
                    found[asked.fault.name] = asked.value
        return found

    def _counts_in(self, mount: str, asked: Asked) -> bool:
        if not (asked.first or asked.every):
            return True
        self._counts[mount, asked] += 1
        count = self._counts[mount, asked]
        return count <= asked.first if asked.first else count % asked.every == 0


def help_text() -> str:
    """The table for a terminal: a line a fault, with what it does and its default."""
    width = max(len(fault.usage) for fault in FAULTS.values())
    lines = []
    for fault in FAULTS.values():
        default = "" if fault.value is None else f" (default {fault.value:g})"
        where = f" [{', '.join(fault.services)}]" if fault.services else ""
        lines.append(f"{fault.usage:<{width}}  {fault.about}{default}{where}")
    return "\n".join(lines)
