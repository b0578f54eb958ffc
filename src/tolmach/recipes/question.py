"""Which of the recorded exchanges is the question, and where the question stands in it."""

import re
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from tolmach.recipes.answers import FoundAnswer, find_answers, human
from tolmach.recipes.traffic import Exchange, Path, Written, at, key_of, leaves, written
from tolmach.wire import Request

__all__ = ["Chat", "find_chat", "is_noise", "may_ask"]

_KEYS = re.compile(
    r"^(message|messages|msg|prompt|question|query|q|text|input|content|new_?message|user_?(input|message|text|prompt)|"
    r"ask|utterance|say|input_?text|body|value|parts|search)$",
    re.I,
)
_NEAR = re.compile(r"message|prompt|question|query|text|input|content|ask", re.I)
_NOT = re.compile(
    r"system|instruct|context|url|refer|title|page|lang|locale|role|model|persona|greeting|agent|zone|^id$|name|token|"
    r"nonce|session|action|operation|mutation|description|stack|frame|file",
    re.I,
)
_NOISE = re.compile(
    r"google-analytics|googletagmanager|doubleclick|/g/collect|/collect(\?|$)|segment\.(io|com)|mixpanel|amplitude|"
    r"hotjar|sentry|clarity\.ms|facebook\.|plausible|matomo|posthog|datadog|newrelic|bugsnag|/beacon|/telemetry|"
    r"/_next/|__nextjs|/batchexecute|/analytics|/metrics|/track(ing)?(/|\?|$)|/events?/batch|/log(s|ging)?(\?|$)|cloudflareinsights|/cdn-cgi/",
    re.I,
)
_STATIC = re.compile(r"\.(css|js|mjs|png|jpe?g|gif|svg|ico|webp|woff2?|ttf|map|mp4|webm|wasm)$", re.I)
_SCHEMA = re.compile(r"tools|functions|tool_choice|schema|parameters|variables_schema|frames|stack", re.I)
"""Below these stand descriptions for the model, or for a debugger."""
_USER = ("user", "human", "visitor", "customer", "client", "you", "me")


class Chat(Struct, kw_only=True):
    """The exchange that asks, and what is known about it."""

    index: int
    request: Written
    path: Path
    question: str
    answers: list[FoundAnswer]
    """What may be its answer, the likeliest first."""
    sure: float
    reason: str


def is_noise(exchange: Exchange) -> str:
    """Why an exchange has nothing to do with a chat; empty when it may have."""
    url = exchange.request.url
    if _NOISE.search(url):
        return "counts or logs visitors"
    if _STATIC.search(urlsplit(url).path):
        return "a static file"
    kind = exchange.head.content_type if exchange.head else ""
    if kind.startswith(("image/", "font/", "audio/", "video/")) or kind in ("text/css", "text/javascript"):
        return "a static file"
    return "asks only what is allowed (CORS)" if exchange.request.method == "OPTIONS" else ""


def may_ask(request: Request, question: str = "") -> bool:
    """Whether a request has a text in it that may be a question."""
    return bool(_asked(written(request), question))


def find_chat(exchanges: list[Exchange], question: str = "") -> Chat | None:
    """The likeliest question with its answer; None when no exchange looks like one."""
    rated: list[tuple[float, Chat]] = []
    for index, exchange in enumerate(exchanges):
        if is_noise(exchange) or not exchange.answered:
            continue
        asked = written(exchange.request)
        places = _asked(asked, question)
        if not places:
            continue
        score, path, text = places[0]
        answers = [answer for answer in find_answers(exchange, text) if answer.score > 0]
        if not answers:
            continue
        rival = places[1][0] if len(places) > 1 else 0.0
        rated.append(
            (score + min(answers[0].score, 30), _chat(index, asked, path, text, answers, question, score, rival))
        )
    if not rated:
        return None
    best = max(rated, key=lambda row: row[0])[1]
    # A conversation is learnt from its first question: what that does not send yet, its answer gives.
    alike = (chat for _, chat in rated if (chat.request.path, chat.path[0]) == (best.request.path, best.path[0]))
    return best if question else min(alike, key=lambda chat: chat.index)


def _chat(
    index: int,
    asked: Written,
    path: Path,
    text: str,
    answers: list[FoundAnswer],
    question: str,
    score: float,
    rival: float,
) -> Chat:
    if question:
        sure, reason = 0.99, "the question that was given stands there"
    elif rival < score - 4:
        sure, reason = 0.9, f"the only text of the request that looks like a question: {_short(text)}"
    else:
        sure, reason = 0.65, f"of several texts the likeliest: {_short(text)}; say --question when it is another"
    return Chat(
        index=index, request=asked, path=path, question=question or text, answers=answers, sure=sure, reason=reason
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")


def _asked(asked: Written, question: str) -> list[tuple[float, Path, str]]:
    """The texts of a request that may be the question, the likeliest first."""
    tree: dict[str, Any] = {"query": asked.query, "body": asked.body}
    found: list[tuple[float, Path, str]] = []
    for path, leaf in leaves(tree):
        if not isinstance(leaf, str):
            continue
        if question:
            if question in leaf:
                found.append((20 + _fit(tree, path) + (5 if leaf.strip() == question else 0), path, leaf))
            continue
        score = human(leaf) / 2
        if score and (fit := _fit(tree, path)) + score > 0:
            found.append((score + fit + (2 if leaf.rstrip().endswith(("?", "？")) else 0), path, leaf))
    # Of equal ones the last: a conversation ends with the question.
    return sorted(found, key=lambda row: (row[0], row[1][-1] if isinstance(row[1][-1], int) else 0), reverse=True)


def _fit(tree: Any, path: Path) -> float:
    """How much the place of a text is one for a question."""
    key = key_of(path)
    fit = 6.0 if _KEYS.match(key) else 3.0 if _NEAR.search(key) else 0.0
    if _NOT.search(key) and not _KEYS.match(key):
        fit -= 8
    if any(_SCHEMA.fullmatch(str(part)) for part in path):
        fit -= 20
    for depth in range(len(path), 0, -1):
        if isinstance(path[depth - 1], int):
            item = at(tree, path[:depth])
            said = (
                [str(value).lower() for value in item.values() if isinstance(value, str)]
                if isinstance(item, dict)
                else []
            )
            if any(role in said for role in _USER):
                fit += 4
            elif any(role in said for role in ("assistant", "system", "bot", "ai", "model", "developer")):
                fit -= 10
            fit += int(path[depth - 1]) * 0.2
            break
    return fit
