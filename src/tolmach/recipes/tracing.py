"""The values of requests that an earlier response gave, that are made anew, or that are secrets."""

import re
from typing import Any
from urllib.parse import urlsplit

from tolmach.recipes.draft import Part
from tolmach.recipes.tokens import Origin, is_token, looks_made, origin_of, origin_of_name
from tolmach.recipes.traffic import Exchange, Path, Written, key_of, leaves, pointer, put, site_of, written

__all__ = ["COMMON", "Tracer", "looks_like_made_here"]

COMMON = re.compile(
    r"accept.*|user-agent|content-(type|length)|host|origin|referer|sec-.*|connection|cookie|priority|dnt|te|pragma|"
    r"cache-control|if-.*|upgrade-insecure-requests|keep-alive|transfer-encoding|:.*|purpose|save-data"
)
_SECRET = re.compile(r"authorization|api[-_]?key|apikey|secret|password|bearer|access[-_]?token|credential", re.I)
_TRACKING = re.compile(
    r"^(_ga|_gid|_gat|_fb|_gcl|_hj|_cl[sc]k|_clsk|__utm|_pk_|ajs_|mp_|amplitude|cookie_?consent|cf_|__cf|OptanonConsent)",
    re.I,
)
_TALK = re.compile(r"conversation|thread|chat|dialog|discussion|room|session", re.I)
_TURN = re.compile(r"message|msg|request|turn|event|trace|span|prompt|question|query|parent|response|run", re.I)
"""What is called so is an id of one question, or of its message."""
_OF_THE_PLACE = re.compile(r"bot|app|agent|assistant|project|workspace|tenant|org|flow|site|widget|embed|deploy", re.I)
"""What is called so is an id of the place: the same for all visitors."""
_ABSENT = object()
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", re.I)


class Tracer:
    """Replaces values by places, and collects the steps that give them."""

    def __init__(
        self, exchanges: list[Exchange], url: str, *, by_name: bool, later: dict[Path, Any] | None = None
    ) -> None:
        """`later` is what a second question of the same conversation sent, by its places; None where there is none."""
        self._exchanges = exchanges
        self._later = later
        self._url = url
        self._by_name = by_name
        self._steps: dict[int, dict[str, Any]] = {}
        self._names: dict[tuple[int, str], str] = {}
        self._tracing: set[int] = set()
        self.parts: list[Part] = []
        self.variables: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        self.conversation: dict[str, dict[str, Any]] = {}
        self.uses_tokens = False

    @property
    def used(self) -> set[int]:
        return set(self._steps)

    def steps(self) -> list[dict[str, Any]]:
        """The recipe's `[[bootstrap]]`, in the order in which they happened."""
        return [self._steps[index] for index in sorted(self._steps)]

    def table(self, index: int, asked: Written) -> dict[str, Any]:
        """The tables of a request whose values were replaced."""
        request = self._exchanges[index].request
        table: dict[str, Any] = {"method": request.method, "url": self._address(asked.path, index)}
        if asked.query:
            table["query"] = asked.query
        headers = {name: value for name, value in asked.headers.items() if not COMMON.fullmatch(name)}
        given = asked.headers.get("content-type", "").partition(";")[0]
        usual = {"json": "application/json", "form": "application/x-www-form-urlencoded", "text": "text/plain"}
        if asked.kind in usual and given and given != usual[asked.kind]:
            headers["content-type"] = asked.headers["content-type"]
        if cookie := self._cookies(index):
            headers["cookie"] = cookie
        if headers:
            table["headers"] = headers
        if asked.kind == "text":
            table["text"] = asked.body["text"]
        elif asked.kind:
            table[asked.kind] = asked.body
        return table

    def _address(self, path: str, index: int) -> str:
        """The address from the site's own; parts of it that an earlier response gave are places."""
        origin = site_of(path)
        parts = urlsplit(path).path.split("/")
        for at, part in enumerate(parts):
            if looks_made(part) and (found := origin_of(part, self._exchanges, index)) is not None:
                parts[at] = f"{{{{token.{self._token(found, 'path')}}}}}"
        local = "/".join(parts)
        return local if origin == site_of(self._url) else origin + local

    # Values

    def replace(self, tree: dict[str, Any], index: int) -> None:
        """Put places in place of the values that are not to be sent again as they are."""
        for path, value in list(leaves(tree)):
            if path == ("headers",) or (path[0] == "headers" and COMMON.fullmatch(str(path[1]))):
                continue
            text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
            if text and "{{" not in text:
                new = self._place(path, text, value, index)
                if new is not None:
                    put(tree, path, new)

    def _place(self, path: Path, text: str, value: Any, index: int) -> str | None:
        """What stands for a value; None when it is always the same."""
        key = key_of(path)
        scheme, space, rest = text.rpartition(" ")
        bare = rest if space and re.fullmatch(r"[A-Za-z]+", scheme) and path[0] == "headers" else text
        secret = _SECRET.search(key) is not None
        if is_token(key, bare) or secret:
            found = origin_of(bare, self._exchanges, index)
            if found is None and self._by_name and not looks_like_made_here(key, bare):
                found = origin_of_name(key, self._exchanges, index)
            if found is not None:
                return text.replace(bare, f"{{{{token.{self._token(found, key)}}}}}")
        if made := self._made(path, text, index):
            return made
        if secret or (is_token(key, bare) and re.search(r"nonce|csrf|xsrf|token|auth|session", key, re.I)):
            return text.replace(bare, self._variable(key, bare, secret=secret))
        return None

    def _made(self, path: Path, text: str, index: int) -> str:
        """The place for a value that the page made itself; empty when it did not."""
        key = key_of(path)
        if _OF_THE_PLACE.search(key):
            return ""
        if _UUID.fullmatch(text):
            return self._id(path, text, "uuid")
        # What pages make themselves goes into bodies; hexadecimal digits in a header were given to them.
        if (
            path[0] != "headers"
            and re.fullmatch(r"[0-9a-f]{16,64}", text)
            and not re.search(r"hash|sign|nonce|csrf|key", key, re.I)
        ):
            return self._id(path, text, f"hex{len(text)}")
        started = self._exchanges[index].started
        if re.fullmatch(r"1[5-9]\d{8}", text) and _near(float(text), started):
            return self._time(key, "now.seconds")
        if re.fullmatch(r"1[5-9]\d{11}", text) and _near(float(text) / 1000, started):
            return self._time(key, "now.ms")
        if re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", text):
            return self._time(key, "now.iso")
        return ""

    def _time(self, key: str, name: str) -> str:
        self.parts.append(Part(f"time {key}", key, 0.85, "a time near that of the question: the time of each question"))
        return f"{{{{{name}}}}}"

    def _id(self, path: Path, text: str, kind: str) -> str:
        """The place for an id of the page's: of a conversation, unless it is seen or said to be of one question.

        Never of a visitor: where the service remembers by it, two callers would share a conversation.
        """
        key = key_of(path)
        label = re.sub(r"[^A-Za-z0-9_-]", "-", key) or "id"
        if self._of_one_question(path, text):
            self.parts.append(Part(f"id {key}", key, 0.8, "no response gave it: the page makes it for each question"))
            return f"{{{{random.{kind}.{label}}}}}"
        self.conversation.setdefault(label, {"new": f"{{{{random.{kind}.{label}}}}}"})
        seen = "; both recorded questions have the same" if self._later is not None else ""
        sure = 0.92 if seen or _TALK.search(key) else 0.75
        self.parts.append(
            Part(f"conversation {key}", key, sure, f"an id that the page made: one for each conversation{seen}")
        )
        return f"{{{{conversation.{label}}}}}"

    def _of_one_question(self, path: Path, text: str) -> bool:
        if self._later is not None and path in self._later:
            return bool(self._later[path] != text)
        below = any(isinstance(part, int) for part in path[1:-1])  # one of a list's items, such as a message
        return below or (_TURN.search(key_of(path)) is not None and not _TALK.search(key_of(path)))

    def _token(self, found: Origin, key: str) -> str:
        """The name of the token that an origin gives; its step is added."""
        self.uses_tokens = True
        same = (found.index, repr(sorted(found.extractor.items())))
        if same in self._names:
            return self._names[same]
        base = re.sub(r"[^A-Za-z0-9_]+", "_", key).strip("_").lower() or "token"
        name, number = base, 2
        while name in self._names.values():
            name, number = f"{base}{number}", number + 1
        self._names[same] = name
        step = self._step(found.index)
        step.setdefault("tokens", {})[name] = found.extractor
        request = self._exchanges[found.index].request
        how = "" if found.sure > 0.6 else "; found by its name, since the recorded value is another"
        reason = f"{request.method} {urlsplit(request.url).path} gave it: {found.where}{how}"
        self.parts.append(Part(f"token {name}", key, found.sure, reason))
        return name

    def _step(self, index: int) -> dict[str, Any]:
        """The step for an exchange, whose own values are traced as well."""
        if index in self._steps:
            return self._steps[index]
        self._steps[index] = {}
        asked = written(self._exchanges[index].request)
        tree = asked.tree()
        self.replace(tree, index)
        asked.query, asked.headers, asked.body = tree["query"], tree["headers"], tree["body"]
        tokens = self._steps[index].get("tokens")
        self._steps[index].update(self.table(index, asked))
        if tokens:
            self._steps[index]["tokens"] = tokens
        return self._steps[index]

    def _cookies(self, index: int) -> str:
        """Steps for the cookies that responses set; what stands for those that none did."""
        missing = []
        for pair in self._exchanges[index].request.headers.get("cookie", "").split(";"):
            name = pair.partition("=")[0].strip()
            if not name or _TRACKING.match(name):
                continue
            setter = self._setter(name, index)
            if setter is None:
                missing.append(pair.strip())
            elif setter not in self._steps:
                self._step(setter)
                self.uses_tokens = True
                path = urlsplit(self._exchanges[setter].request.url).path
                self.parts.append(Part(f"cookie {name}", "cookie", 0.9, f"{path} sets it; the session keeps it"))
        return self._variable("cookie", "; ".join(missing), secret=True) if missing else ""

    def _setter(self, name: str, before: int) -> int | None:
        for index in range(before - 1, -1, -1):
            head = self._exchanges[index].head
            if head is not None and any(line.partition("=")[0].strip() == name for line in head.cookies):
                return index
        return None

    def _variable(self, key: str, value: str, *, secret: bool) -> str:
        """A reference to a variable of the environment, which the user sets."""
        host = urlsplit(self._url).hostname or "site"
        name = re.sub(r"[^A-Z0-9]+", "_", f"{host}_{key}".upper()).strip("_")
        name = name if not name[0].isdigit() else f"SITE_{name}"
        self.variables[name] = f"{key}, as the browser sends it"
        self.secrets[name] = value
        reason = (
            "a secret of yours; it is not written into the recipe"
            if secret
            else "no recorded response gave it; record a HAR from the page's beginning to have it fetched"
        )
        self.parts.append(Part(f"variable {name}", key, 0.9 if secret else 0.3, f"{reason}: set {name}"))
        return f"${{{name}}}"

    # Conversations

    def conversation_values(self, tree: dict[str, Any], known: dict[Path, tuple[str, bool]], parts: list[Part]) -> None:
        """Put places for the values by which the service knows a conversation."""
        for path, (place, shown) in known.items():
            name = re.sub(r"[^A-Za-z0-9_-]", "-", key_of(path)) or "id"
            before = dict(leaves(tree)).get(path, _ABSENT)
            table: dict[str, Any] = {"answer": place}
            if before is _ABSENT:
                pass  # the first question does not have it
            elif before is None:
                table["new"] = "{{null}}"
            elif isinstance(before, str) and not (_UUID.fullmatch(before) and before.strip("0-")):
                # Also one that means none, such as zeros.
                table["new"] = before
            elif isinstance(before, str):
                table["new"] = f"{{{{random.uuid.{name}}}}}"
            self.conversation[name] = table
            put(tree, path, f"{{{{conversation.{name}}}}}")
            reason = "a later question sends what the answer gave" if shown else "the answer has a value of this name"
            parts.append(
                Part(f"conversation {name}", f"{path[0]} {pointer(path[1:])}", 0.95 if shown else 0.75, reason)
            )


def looks_like_made_here(key: str, value: str) -> bool:
    """Whether a page makes such a value itself: an id of a message or of a visitor."""
    return _UUID.fullmatch(value) is not None and not re.search(r"csrf|xsrf|nonce|token", key, re.I)


def _near(seconds: float, started: float) -> bool:
    """Whether a time is that of the question, give or take an hour; without one, whether it may be any."""
    return abs(seconds - started) < 3600 if started else True
