"""Where the answer stands in a response."""

import re
from collections import Counter
from itertools import pairwise
from typing import Any

from msgspec import Struct

from tolmach.decoding import ServerSentEvents
from tolmach.errors import RemoteProtocolError
from tolmach.recipes.traffic import AS_TEXT, Exchange, Path, expand, json_of, key_of, leaves, pointer

__all__ = ["FoundAnswer", "find_answer", "human"]

_GOOD = re.compile(
    r"answer|reply|respon|message|content|text|output|result|completion|delta|token|data|say|msg|chunk", re.I
)
_BAD = re.compile(
    r"^(id|type|role|model|object|status|url|title|prompt|question|query|system|name|lang|event|echo|user_?message|"
    r"finish_reason|version|greeting|placeholder|avatar|time|date|created|description|instructions?)$|_id$|[a-z]Id$",
    re.I,
)
_PLAIN = re.compile(r"https?://\S+|[0-9a-fA-F-]{16,}|[A-Za-z0-9_=+/.-]{24,}|[\d\s.:,TZ+-]+|#[0-9a-fA-F]{3,8}")
_LAST = re.compile(
    r"^(done|finished|final|is_?last|last|end|ended|complete|completed|is_?end|eof|stop|is_?final)$", re.I
)


class FoundAnswer(Struct, kw_only=True):
    """The answer's text, how it is read, and how much it looks like one."""

    text: str
    score: float
    table: dict[str, Any]
    """The recipe's `[answer]`."""
    sure: float
    reason: str
    end: str = ""
    """How the end is known, in words."""
    end_sure: float = 1.0


def human(text: str) -> float:
    """How much a text looks like what a person or an assistant says; 0 for what does not."""
    text = text.strip()
    if not text or _PLAIN.fullmatch(text) or not re.search(r"[^\W\d_]", text):
        return 0.0
    words = len(text.split())
    return (
        min(words, 60) / 4 + min(len(text), 400) / 100 + (2 if " " in text else 0) + (1 if text[-1] in ".!?…。" else 0)
    )


def find_answer(exchange: Exchange, question: str = "") -> FoundAnswer | None:
    """The likeliest answer in a response; None when there is none."""
    if exchange.head is None or not exchange.body.strip():
        return None
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
    if kind in ("text/html", "text/css") or "javascript" in kind or body.lstrip()[:1] == b"<":
        return None
    return FoundAnswer(
        text=text,
        score=human(text),
        table={"format": "text"},
        sure=0.85 if kind == "text/plain" else 0.6,
        reason=f"the body ({kind or 'no type'}) is neither JSON nor events: it is taken as the text",
        end="the end of the body",
        end_sure=0.8,
    )


def _weight(path: Path, text: str, question: str) -> float:
    """How much the text at a path looks like the answer."""
    if question and text.strip() == question.strip():
        return 0.0
    key = key_of(path)
    score = human(text)
    if _BAD.search(key):
        score *= 0.2
    elif _GOOD.search(key):
        score = score * 1.5 + 2
    return score - 0.05 * len(path)


def _json(value: Any, question: str) -> FoundAnswer | None:
    if isinstance(value, str):
        return FoundAnswer(
            text=value, score=human(value), table={"format": "json", "text": ""}, sure=0.8, reason="the body is a text"
        )
    rated = sorted(
        ((_weight(path, leaf, question), path, leaf) for path, leaf in leaves(expand(value)) if isinstance(leaf, str)),
        key=lambda row: row[0],
        reverse=True,
    )
    if not rated or rated[0][0] <= 0:
        return None
    score, path, text = rated[0]
    second = rated[1][0] if len(rated) > 1 else 0.0
    sure = 0.95 if second <= score / 2 else 0.75
    return FoundAnswer(
        text=text,
        score=score,
        table={"format": "json", "text": pointer(path)},
        sure=sure,
        reason=f"of {len(rated)} texts it looks most like an answer"
        + (f"; the next likely stands at {pointer(rated[1][1])}" if sure < 0.9 else ""),
        end="the end of the JSON",
    )


# Streams

_Event = tuple[str, str]


def _events(body: bytes, question: str) -> FoundAnswer | None:
    reader = ServerSentEvents()
    try:
        # A blank line more, for a recording that a browser cut behind the last event.
        events = [
            (event.event or "message", event.data.decode("utf-8", "replace")) for event in reader.feed(body + b"\n\n")
        ]
    except RemoteProtocolError:
        return None
    return _stream(events, "sse", {}, question)


def _lines(lines: list[str], question: str) -> FoundAnswer | None:
    if len(lines) >= 2 and all(isinstance(json_of(line), dict | list) for line in lines):
        return _stream([("message", line) for line in lines], "ndjson", {}, question)
    prefixes = Counter(match[0] for line in lines if (match := re.match(r"[A-Za-z0-9_]{1,8}: ?", line)))
    tails = {
        prefix: [line[len(prefix) :] for line in lines if line.startswith(prefix)]
        for prefix, _ in prefixes.most_common()
    }
    rated = []
    for prefix, values in tails.items():
        if sum(prefixes.values()) == len(lines) and all(json_of(v) is not None for v in values):
            found = _stream([("message", value) for value in values], "ndjson", {"prefix": prefix}, question)
            if found is not None:
                rated.append(found)
    if not rated:
        return None
    best = max(rated, key=lambda found: found.score)
    _end_line(best, lines)
    return best


def _end_line(found: FoundAnswer, lines: list[str]) -> None:
    """The prefix that only the last line has ends the stream."""
    last = re.match(r"[A-Za-z0-9_]{1,8}:", lines[-1])
    if last and sum(line.startswith(last[0]) for line in lines) == 1:
        found.table["end"] = last[0]
        found.end, found.end_sure = f"the line that begins with {last[0]}", 0.85


def _stream(events: list[_Event], format: str, table: dict[str, Any], question: str) -> FoundAnswer | None:
    values = [(name, data, json_of(data)) for name, data in events]
    structured = [row for row in values if isinstance(row[2], dict | list)]
    texts = [row for row in values if isinstance(row[2], str)]
    if structured and len(structured) * 2 >= len(values) - 1:
        found = _pieces(structured, question)
    elif texts and len(texts) * 2 >= len(values) - 1:
        found = _Pieces(path=(), name="message", texts=[row[2] for row in texts])
    else:
        return _text_events(values, format, table)
    if found is None:
        return None
    snapshots = _grows(found.texts)
    text = found.texts[-1] if snapshots else "".join(found.texts)
    table = {"format": format, **table, "text": pointer(found.path) if found.path else "", **found.table}
    if snapshots:
        table["snapshots"] = True
    answer = FoundAnswer(
        text=text,
        score=_weight(found.path, text, question) + 2,
        table=table,
        sure=0.95 if found.path else 0.85,
        reason=f"{len(found.texts)} of {len(values)} events have a piece there"
        + (", each the whole text so far" if snapshots else ", which make the longest text"),
    )
    _mark_end(answer, values)
    return answer


class _Pieces(Struct, kw_only=True):
    path: Path
    name: str
    texts: list[str]
    table: dict[str, Any] = {}


def _pieces(rows: list[tuple[str, str, Any]], question: str) -> _Pieces | None:
    """The place whose texts, put together, look most like an answer."""
    opened = [(name, expand(value)) for name, _, value in rows]
    found: dict[Path, list[tuple[int, str]]] = {}
    for index, (_, value) in enumerate(opened):
        for path, leaf in leaves(value):
            if isinstance(leaf, str) and leaf:
                found.setdefault(path, []).append((index, leaf))
    rated: list[tuple[float, Path]] = []
    for path, pieces in found.items():
        texts = [text for _, text in pieces]
        # The same text again and again is a name or an id.
        joined = texts[-1] if _grows(texts) or len(set(texts)) == 1 else "".join(texts)
        spread = 1 + min(len(texts), 20) / 10 if len(set(texts)) > 1 else 1
        rated.append((_weight(path, joined, question) * spread, path))
    if not rated:
        return None
    score, path = max(rated, key=lambda row: row[0])
    if score <= 0:
        return None
    table, kept = _conditions(opened, path, found[path])
    return _Pieces(path=path, name="", texts=[text for _, text in kept], table=table)


def _conditions(
    opened: list[tuple[str, Any]], path: Path, pieces: list[tuple[int, str]]
) -> tuple[dict[str, Any], list[tuple[int, str]]]:
    """What tells the events with the text from others that have something else there."""
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for index, text in pieces:
        sizes[opened[index][0]] += len(text)
        counts[opened[index][0]] += 1
    if len(sizes) > 1:
        name = counts.most_common(1)[0][0]
        return {"events": [name]}, [piece for piece in pieces if opened[piece[0]][0] == name]
    for kind in _discriminators(opened, path):
        groups: dict[Any, list[tuple[int, str]]] = {}
        for index, text in pieces:
            value = dict(leaves(opened[index][1])).get(kind)
            if isinstance(value, str | int):
                groups.setdefault(value, []).append((index, text))
        if len(groups) > 1:
            best = max(groups, key=lambda value: (len(groups[value]), sum(len(text) for _, text in groups[value])))
            return {"where": {pointer(kind): best}}, groups[best]
    return {}, pieces


def _discriminators(opened: list[tuple[str, Any]], path: Path) -> list[Path]:
    """The places that say what kind of event it is."""
    found = Counter(
        where
        for _, value in opened
        for where, leaf in leaves(value)
        if where != path
        and isinstance(leaf, str | int)
        and re.fullmatch(r"type|kind|event|op|action|t|subtype", key_of(where))
    )
    return [where for where, _ in found.most_common()]


def _grows(texts: list[str]) -> bool:
    """Whether each text begins with the one before."""
    pairs = list(pairwise(texts))
    return len(pairs) >= 1 and all(new.startswith(old) for old, new in pairs) and len(texts[-1]) > len(texts[0])


def _text_events(rows: list[tuple[str, str, Any]], format: str, table: dict[str, Any]) -> FoundAnswer | None:
    """A stream whose events are text as it is."""
    if format != "sse" or not rows:
        return None
    names = Counter(name for name, _, _ in rows)
    name = names.most_common(1)[0][0]
    kept = [(n, data, value) for n, data, value in rows if n == name]
    mark = kept[-1][1].strip() if re.fullmatch(r"\s*[\[<]\W*\w+\W*[\]>]\s*|\s*[A-Z_]{3,12}\s*", kept[-1][1]) else ""
    pieces = [data for _, data, _ in kept[: -1 if mark else None]]
    snapshots = _grows(pieces)
    text = (pieces or [""])[-1] if snapshots else "".join(pieces)
    answer = FoundAnswer(
        text=text,
        score=human(text) + 1,
        table={"format": format, **table, "pieces": "text", "text": ""} | ({"snapshots": True} if snapshots else {}),
        sure=0.85,
        reason="the events are no JSON: each is a piece of the text",
    )
    if len(names) > 1:
        answer.table["events"] = [name]
    _mark_end(answer, rows)
    return answer


def _mark_end(answer: FoundAnswer, rows: list[tuple[str, str, Any]]) -> None:
    """What tells the last event, in the order of how plainly it says so."""
    name, data, value = rows[-1]
    names = Counter(row[0] for row in rows)
    if re.fullmatch(r"\s*[\[<]\W*\w+\W*[\]>]\s*|\s*[A-Z_]{3,12}\s*", data) and len(rows) > 1:
        answer.table["end"] = data.strip()
        answer.end, answer.end_sure = f"the event {data.strip()}", 0.98
        return
    if names[name] == 1 and len(rows) > 1 and name != "message":
        answer.table["end_event"] = [name]
        answer.end, answer.end_sure = f"the event called {name}", 0.95
        return
    seen = [dict(leaves(expand(row[2]))) for row in rows[:-1]]
    for path, leaf in leaves(expand(value)):
        if AS_TEXT in path or not isinstance(leaf, str | bool | int) or pointer(path) == answer.table.get("text"):
            continue
        before = [row.get(path) for row in seen]
        if leaf is True and _LAST.search(key_of(path)) and True not in before:
            answer.table["end_flag"] = pointer(path)
            answer.end, answer.end_sure = f"{pointer(path)} is true in the last event alone", 0.95
            return
        named = re.search(r"type|kind|event|status|finish|reason|state|op", key_of(path), re.I)
        if isinstance(leaf, str) and leaf and named and leaf not in before:
            answer.table |= {"end_flag": pointer(path), "end_values": [leaf]}
            answer.end, answer.end_sure = f'{pointer(path)} is "{leaf}" in the last event alone', 0.85
            return
    answer.end, answer.end_sure = "the end of the body: no event looks like the last", 0.6
