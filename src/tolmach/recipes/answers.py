"""Where the answer stands in a response."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise, zip_longest
from typing import Any

from msgspec import Struct

from tolmach.decoding import ServerSentEvents
from tolmach.errors import RemoteProtocolError
from tolmach.protocols.recipe.tables import join_texts
from tolmach.recipes.traffic import AS_TEXT, Exchange, Path, expand, json_of, key_of, leaves, pointer

__all__ = ["End", "FoundAnswer", "find_answers", "human"]

_GOOD = re.compile(
    r"answer|reply|respon|message|content|text|output|result|completion|delta|token|data|say|msg|chunk", re.I
)
_BAD = re.compile(
    r"^(id|type|role|model|object|status|url|title|prompt|question|query|system|name|lang|event|echo|user_?message|"
    r"finish_reason|version|greeting|placeholder|avatar|user_?agent|__?typename|time|date|created|description|instructions?)$|_id$|[a-z]Id$",
    re.I,
)
_PLAIN = re.compile(r"\w+://\S+|[0-9a-fA-F-]{16,}|[A-Za-z0-9_=+/.-]{24,}|[\d\s.:,TZ+-]+|#[0-9a-fA-F]{3,8}")
_LAST = re.compile(
    r"^(done|finished|final|is_?last|last|end|ended|complete|completed|is_?end|eof|stop|is_?final)$", re.I
)


_KIND = re.compile(r"type|kind|event|status|finish|reason|state|op|phase", re.I)
_FINAL = re.compile(r"end|stop|done|finish|complete|final|close|last", re.I)
_MARK = re.compile(r"\s*[\[<]\W*\w+\W*[\]>]\s*|\s*[A-Z_]{3,12}\s*")
"""An event that is a mark alone, such as `[DONE]`."""
_ASIDE = re.compile(
    r"reason|think|thought|tool|function|search|source|citation|status|error|debug|log|progress|title|input|user|echo",
    re.I,
)
_TEXTUAL = re.compile(r"text|answer|content|message|token|delta|chunk|output|reply", re.I)
_HEADERS = re.compile(r"headers|cookies|args", re.I)
"""Below these a service repeats what it was sent."""
_MOST = 6
"""So many places of a response are candidates."""


class End(Struct, frozen=True):
    """A way to tell an answer's end: the keys of `[answer]` for it, what it is in words, and how sure."""

    words: str
    sure: float
    table: dict[str, Any] = {}


class FoundAnswer(Struct, kw_only=True):
    """The answer's text, how it is read, and how much it looks like one."""

    text: str
    score: float
    table: dict[str, Any]
    """The recipe's `[answer]`."""
    sure: float
    reason: str
    ends: tuple["End", ...] = ()
    """How the end may be known, the likeliest first."""


def human(text: str) -> float:
    """How much a text looks like what a person or an assistant says; 0 for what does not."""
    text = text.strip()
    if not text or _PLAIN.fullmatch(text) or not re.search(r"[^\W\d_]", text):
        return 0.0
    words = len(text.split())
    return (
        min(words, 60) / 4 + min(len(text), 400) / 100 + (2 if " " in text else 0) + (1 if text[-1] in ".!?…。" else 0)
    )


def find_answers(exchange: Exchange, question: str = "") -> list[FoundAnswer]:
    """What may be the answer in a response, the likeliest first; none of it is tried."""
    if exchange.head is None or not exchange.body.strip():
        return []
    body = exchange.body.removeprefix(b"\xef\xbb\xbf")
    kind = exchange.head.content_type
    if kind == "text/event-stream" or re.match(rb"\s*(?:data|event|id):", body) or body.startswith(b": "):
        return _events(body, question)
    value = json_of(body)
    if isinstance(value, dict | list | str):
        return _json(value, question)
    lines = [line for line in body.decode("utf-8", "replace").splitlines() if line.strip()]
    if found := _lines(lines, question):
        return found
    text = body.decode("utf-8", "replace")
    if text.lstrip().startswith(")]}'"):
        return []  # a guard against scripts: batches of calls, which are no answer
    if kind in ("text/html", "text/css") or "javascript" in kind or body.lstrip()[:1] == b"<":
        return []
    answer = FoundAnswer(
        text=text,
        score=human(text),
        table={"format": "text"},
        sure=0.85 if kind == "text/plain" else 0.6,
        reason=f"the body ({kind or 'no type'}) is neither JSON nor events: it is taken as the text",
        ends=(End("the end of the body", 0.8),),
    )
    return [answer] if answer.score > 0 else []


def _weight(path: Path, text: str, question: str) -> float:
    """How much the text at a path looks like the answer."""
    if question and text.strip() == question.strip():
        return 0.0
    key = key_of(path)
    score = human(text)
    if not score:
        return 0.0
    if any(_HEADERS.fullmatch(str(part)) for part in path):
        return 0.0
    if _BAD.search(key) or _ASIDE.search(key):
        score *= 0.2
    elif _GOOD.search(key):
        score = score * 1.5 + 2
    return score - 0.05 * len(path)


def _json(value: Any, question: str) -> list[FoundAnswer]:
    end = (End("the end of the JSON", 1.0),)
    if isinstance(value, str):
        said = "the body is a text"
        table = {"format": "json", "text": ""}
        return [FoundAnswer(text=value, score=human(value), table=table, sure=0.8, reason=said, ends=end)]
    texts = [(path, leaf) for path, leaf in leaves(expand(value)) if isinstance(leaf, str)]
    rated = sorted(
        ((_weight(path, leaf, question), path, leaf) for path, leaf in (*_lists_of(texts), *texts)),
        key=lambda row: row[0],
        reverse=True,
    )
    found: list[FoundAnswer] = []
    for (score, path, text), following in zip_longest(rated, rated[1:]):
        if score <= 0 or len(found) == _MOST:
            break
        clear = following is None or following[0] <= score / 2
        reason = f"of {len(rated)} texts it looks most like an answer"
        if not clear and following is not None:
            reason += f"; the next likely stands at {pointer(following[1])}"
        table = {"format": "json", "text": pointer(path)}
        sure = 0.95 if clear else 0.75
        found.append(FoundAnswer(text=text, score=score, table=table, sure=sure, reason=reason, ends=end))
    return found


def _lists_of(texts: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """Texts that stand at one place of several items of a list, as one: `/*/text`."""
    found: dict[Path, list[str]] = {}
    for path, text in texts:
        if AS_TEXT in path:
            continue
        for at, part in enumerate(path):
            if isinstance(part, int):
                found.setdefault((*path[:at], "*", *path[at + 1 :]), []).append(text)
                break
    return [(path, join_texts(pieces)) for path, pieces in found.items() if len(pieces) > 1 and len(set(pieces)) > 1]


# Streams

_Event = tuple[str, str]


def _events(body: bytes, question: str) -> list[FoundAnswer]:
    reader = ServerSentEvents()
    try:
        # A blank line more, for a recording that a browser cut behind the last event.
        events = [
            (event.event or "message", event.data.decode("utf-8", "replace")) for event in reader.feed(body + b"\n\n")
        ]
    except RemoteProtocolError:
        return []
    return _stream(events, "sse", {}, question)


def _lines(lines: list[str], question: str) -> list[FoundAnswer]:
    if len(lines) >= 2 and all(isinstance(json_of(line), dict | list) for line in lines):
        return _stream([("message", line) for line in lines], "ndjson", {}, question)
    prefixes = Counter(match[0] for line in lines if (match := re.match(r"[A-Za-z0-9_]{1,8}: ?", line)))
    if sum(prefixes.values()) != len(lines):
        return []
    found: list[FoundAnswer] = []
    for prefix, _ in prefixes.most_common():
        values = [line[len(prefix) :] for line in lines if line.startswith(prefix)]
        if all(json_of(value) is not None for value in values):
            found += _stream([("message", value) for value in values], "ndjson", {"prefix": prefix}, question)
    for one in found:
        if (end := _end_line(lines, one.table["prefix"])) is not None:
            one.ends = (end, *one.ends)
    return sorted(found, key=lambda one: one.score, reverse=True)


def _end_line(lines: list[str], prefix: str) -> End | None:
    """The prefix that only the last line has ends the stream, unless it is that of the text."""
    last = re.match(r"[A-Za-z0-9_]{1,8}:", lines[-1])
    if last is None or prefix.startswith(last[0]) or sum(line.startswith(last[0]) for line in lines) != 1:
        return None
    return End(f"the line that begins with {last[0]}", 0.85, {"end": last[0]})


def _stream(events: list[_Event], format: str, table: dict[str, Any], question: str) -> list[FoundAnswer]:
    values = [(name, data, json_of(data)) for name, data in events]
    structured = [row for row in values if isinstance(row[2], dict | list)]
    texts = [row for row in values if isinstance(row[2], str)]
    if structured and len(structured) * 2 >= len(values) - 1:
        found = _pieces(structured, question, several=len({row[0] for row in values}) > 1)
    elif texts and len(texts) * 2 >= len(values) - 1:
        names = dict.fromkeys(row[0] for row in texts)
        several = len({row[0] for row in values}) > 1
        found = [
            _Pieces(
                path=(),
                texts=[row[2] for row in texts if row[0] == name],
                table={"events": [name]} if several else {},
                bonus=_meaning(name) if several else 0.0,
            )
            for name in names
        ]
        found.sort(key=lambda one: _weight((), "".join(one.texts), question) + one.bonus, reverse=True)
    else:
        return _text_events(values, format, table)
    return [_answer_of(pieces, values, {"format": format, **table}, question) for pieces in found]


def _answer_of(
    found: "_Pieces", values: list[tuple[str, str, Any]], table: dict[str, Any], question: str
) -> FoundAnswer:
    snapshots = _grows(found.texts)
    text = (found.texts[-1] if snapshots else "".join(found.texts)).replace("\0", "")
    place = pointer(found.path) if found.path else ""
    return FoundAnswer(
        text=text,
        score=_weight(found.path, text, question) + found.bonus + 2,
        table=table | {"text": place, **found.table} | ({"snapshots": True} if snapshots else {}),
        sure=0.95 if found.path else 0.85,
        reason=f"{len(found.texts)} of {len(values)} events have a piece there"
        + (", each the whole text so far" if snapshots else ", which make the longest text"),
        ends=tuple(_ends(values, place)),
    )


class _Pieces(Struct, kw_only=True):
    path: Path
    texts: list[str]
    table: dict[str, Any] = {}
    bonus: float = 0.0


def _pieces(rows: list[tuple[str, str, Any]], question: str, *, several: bool) -> list[_Pieces]:
    """The places whose texts, put together, look like an answer, the likeliest first."""
    opened = [(name, expand(value)) for name, _, value in rows]
    found: dict[Path, list[tuple[int, str]]] = {}
    for index, (_, value) in enumerate(opened):
        for path, leaf in leaves(value):
            if isinstance(leaf, str) and leaf:
                found.setdefault(path, []).append((index, leaf))
    rated: list[tuple[float, _Pieces]] = []
    for path, pieces in found.items():
        for table, kept, bonus in _conditions(opened, path, pieces, named=several):
            texts = [text for _, text in kept]
            # The same text again and again is a name or an id.
            joined = texts[-1] if _grows(texts) or len(set(texts)) == 1 else "".join(texts)
            spread = 1 + min(len(texts), 20) / 10 if len(set(texts)) > 1 else 1
            score = _weight(path, joined, question) * spread + bonus
            if score > 0:
                rated.append((score, _Pieces(path=path, texts=texts, table=table, bonus=bonus)))
    rated.sort(key=lambda row: row[0], reverse=True)
    return [pieces for _, pieces in rated[:_MOST]]


_Choice = tuple[dict[str, Any], list[tuple[int, str]], float]
"""What tells the events, the pieces of those, and how much the words for them speak for an answer."""


def _conditions(
    opened: list[tuple[str, Any]], path: Path, pieces: list[tuple[int, str]], *, named: bool
) -> list[_Choice]:
    """What may tell the events with the text from others that have something else there.

    `named` says that the events have more than one name.
    """
    names: dict[str, list[tuple[int, str]]] = {}
    for index, text in pieces:
        names.setdefault(opened[index][0], []).append((index, text))
    if named:
        return [({"events": [name]}, kept, _meaning(name)) for name, kept in names.items()]
    for kind in _discriminators(opened, path):
        groups: dict[Any, list[tuple[int, str]]] = {}
        everywhere = {dict(leaves(value)).get(kind) for _, value in opened}
        for index, text in pieces:
            value = dict(leaves(opened[index][1])).get(kind)
            if isinstance(value, str | int):
                groups.setdefault(value, []).append((index, text))
        # Also where one kind alone has the text now: another answer may have others, such as thoughts.
        if len(groups) > 1 or (groups and len(everywhere) > 1):
            return [({"where": {pointer(kind): said}}, kept, _meaning(str(said))) for said, kept in groups.items()]
    return [({}, pieces, 0.0)]


def _meaning(kind: str) -> float:
    """How much the name of a kind of events speaks for the answer's text in them."""
    if _ASIDE.search(kind):
        return -12.0
    return 4.0 if _TEXTUAL.search(kind) else 0.0


def _discriminators(opened: list[tuple[str, Any]], path: Path) -> list[Path]:
    """The places that say what kind of event it is."""
    found = Counter(
        where
        for _, value in opened
        for where, leaf in leaves(value)
        if where != path
        and isinstance(leaf, str | int)
        and re.fullmatch(r"type|kind|event|op|action|t|subtype|phase|role|channel", key_of(where))
    )
    return [where for where, _ in found.most_common()]


def _grows(texts: list[str]) -> bool:
    """Whether each text begins with the one before."""
    pairs = list(pairwise(texts))
    return len(pairs) >= 1 and all(new.startswith(old) for old, new in pairs) and len(texts[-1]) > len(texts[0])


def _text_events(rows: list[tuple[str, str, Any]], format: str, table: dict[str, Any]) -> list[FoundAnswer]:
    """A stream whose events are text as it is."""
    if format != "sse" or not rows:
        return []
    found: list[FoundAnswer] = []
    names = Counter(name for name, _, _ in rows)
    for name in names:
        kept = [(n, data, value) for n, data, value in rows if n == name]
        mark = kept[-1][1].strip() if _MARK.fullmatch(kept[-1][1]) else ""
        pieces = [data for _, data, _ in kept[: -1 if mark else None]]
        snapshots = _grows(pieces)
        text = (pieces or [""])[-1] if snapshots else "".join(pieces)
        said = {"format": format, **table, "pieces": "text", "text": ""} | ({"snapshots": True} if snapshots else {})
        answer = FoundAnswer(
            text=text,
            score=human(text) + _meaning(name) + min(len(pieces), 10) / 2,
            table=said | ({"events": [name]} if len(names) > 1 else {}),
            sure=0.85,
            reason="the events are no JSON: each is a piece of the text",
            ends=tuple(_ends(rows, "")),
        )
        if human(text) > 0:
            found.append(answer)
    return sorted(found, key=lambda one: one.score, reverse=True)[:_MOST]


def _ends(rows: list[tuple[str, str, Any]], place: str) -> Iterator[End]:
    """What may tell the last event, the plainest first."""
    name, data, value = rows[-1]
    if _MARK.fullmatch(data) and len(rows) > 1:
        yield End(f"the event {data.strip()}", 0.98, {"end": data.strip()})
    for last, *_ in reversed(rows[1:]):
        once = sum(row[0] == last for row in rows) == 1
        if not once or last == "message":
            break
        if last != name and _FINAL.fullmatch(last):
            # Behind it come counts, which tell nothing that the answer needs.
            yield End(f"the event called {last}", 0.96, {"end_event": [last]})
    if len(rows) > 1 and name != "message" and all(row[0] != name for row in rows[:-1]):
        yield End(f"the event called {name}", 0.95, {"end_event": [name]})
    seen = [dict(leaves(expand(row[2]))) for row in rows[:-1]]
    named = []
    for path, leaf in leaves(expand(value)):
        where = pointer(path)
        if AS_TEXT in path or not isinstance(leaf, str | bool | int) or where == place:
            continue
        before = [row.get(path) for row in seen]
        if leaf is True and _LAST.search(key_of(path)) and True not in before:
            yield End(f"{where} is true in the last event alone", 0.95, {"end_flag": where})
        if isinstance(leaf, str) and leaf and _KIND.search(key_of(path)) and leaf not in before:
            table = {"end_flag": where, "end_values": [leaf]}
            named.append(End(f'{where} is "{leaf}" in the last event alone', 0.85, table))
    # A word for an end says more than another, whichever stands first.
    yield from sorted(named, key=lambda end: not _FINAL.search(str(end.table["end_values"][0])))
    yield End("the end of the body: no event looks like the last", 0.6)
