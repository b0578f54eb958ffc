"""From recorded exchanges to a recipe."""

from typing import Any

from tolmach.errors import ConfigError
from tolmach.recipes.answers import End, FoundAnswer
from tolmach.recipes.diagnosis import why_nothing
from tolmach.recipes.draft import Draft, Ignored, Part
from tolmach.recipes.history import find_history
from tolmach.recipes.judging import makes_the_request, reads_the_answer
from tolmach.recipes.question import Chat, find_chat, is_noise
from tolmach.recipes.tables import answer_errors, conversation_of, stale_rules
from tolmach.recipes.tracing import Tracer
from tolmach.recipes.traffic import Exchange, Path, Written, at, leaves, pointer, put, site_of, written

__all__ = ["infer"]

_OPTIONS = frozenset(("temperature", "top_p", "top_k", "max_tokens", "presence_penalty", "frequency_penalty", "seed"))


def infer(exchanges: list[Exchange], question: str = "", *, by_name: bool = False) -> Draft:
    """The recipe of the chat API in the exchanges, which stand in the order in which they happened.

    `question` is what was asked, where it is known. `by_name` has tokens found by their names as well,
    for a page that was fetched anew and gives others than the recorded ones.
    Raises `ConfigError` when nothing in them is a question with an answer.
    """
    chat = find_chat(exchanges, question)
    if chat is None:
        raise ConfigError(why_nothing(exchanges, question))
    return _Inference(exchanges, chat, by_name=by_name).draft()


_FAILED = 0.3
"""How sure a recipe is at most that failed over its own recording."""
_TELLING = 6
"""Characters of a question that stands nowhere by accident."""


def _filled(value: Any, known: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(part, known) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, known) for part in value]
    if isinstance(value, str):
        for name, said in known.items():
            value = value.replace(name, said)
    return value


class _Inference:
    """The parts of one recipe, as they are found."""

    def __init__(self, exchanges: list[Exchange], chat: Chat, *, by_name: bool) -> None:
        self._exchanges = exchanges
        self._chat = chat
        self._asked = chat.request
        self._url = self._page_url()
        own = {i for i, e in enumerate(exchanges) if i != chat.index and written(e.request).path == self._asked.path}
        others = [Exchange(request=e.request) if i in own else e for i, e in enumerate(exchanges)]
        self._tracer = Tracer(others, self._url, by_name=by_name, later=self._second_question())
        self._parts: list[Part] = []
        self._defaults: dict[str, Any] = {}
        self._history: tuple[Path, ...] = ()

    def draft(self) -> Draft:
        self._note_question()
        options = self._tables()
        answer, end, wrong = self._tried(options)
        options["answer"] = answer.table | end.table
        self._note_answer(answer, end)
        wrong = wrong or makes_the_request(
            self._with_secrets(options),
            self._url,
            self._exchanges,
            self._chat.index,
            self._chat.question,
            self._history,
        )
        said = wrong or "played over its own recording, it asks and reads as recorded"
        self._parts.append(Part("replay", "the recording", _FAILED if wrong else 0.98, said))
        return Draft(
            url=self._url,
            options=options,
            question=self._chat.question,
            answer=answer.text,
            parts=self._parts + self._tracer.parts,
            ignored=self._ignored(),
            variables=self._tracer.variables,
            secrets=self._tracer.secrets,
        )

    def _tables(self) -> dict[str, Any]:
        """All tables but that of the answer."""
        request = self._request()
        steps = self._tracer.steps()
        options: dict[str, Any] = {"bootstrap": steps} if steps else {}
        options["request"] = request
        if errors := answer_errors(self._exchanges[self._chat.index]):
            options["errors"] = errors
        if self._tracer.uses_tokens:
            options["stale"] = stale_rules(self._exchanges, self._chat.index)
            self._parts.append(
                Part("refresh", "status and words", 0.7, "how services commonly say that a token is stale; check it")
            )
        if self._tracer.conversation:
            options["conversation"] = self._tracer.conversation
        return options

    def _tried(self, options: dict[str, Any]) -> tuple[FoundAnswer, End, str]:
        """The first candidate by which the recording is read; else the likeliest, and what is wrong with it."""
        first: tuple[FoundAnswer, End, str] | None = None
        for answer in self._chat.answers:
            for end in answer.ends:
                table = options | {"answer": answer.table | end.table}
                wrong = reads_the_answer(self._with_secrets(table), self._exchanges[self._chat.index], answer.text)
                first = first or (answer, end, wrong)
                if not wrong:
                    return answer, end, ""
        assert first is not None  # each answer has an end, and there is an answer
        return first

    def _with_secrets(self, options: dict[str, Any]) -> dict[str, Any]:
        """The tables with the recorded values in place of the variables that stand for them."""
        known = {f"${{{name}}}": said for name, said in self._tracer.secrets.items()}
        filled: dict[str, Any] = _filled(options, known)
        return filled

    def _note_answer(self, answer: FoundAnswer, end: End) -> None:
        self._parts.append(Part("answer", str(answer.table.get("text") or "the body"), answer.sure, answer.reason))
        self._parts.append(Part("format", answer.table["format"], answer.sure, f"its end: {end.words}"))
        if answer.table["format"] in ("sse", "ndjson"):
            self._parts.append(Part("end", end.words, end.sure, "how the last event is told from the others"))

    def _second_question(self) -> dict[Path, Any] | None:
        """What the next recorded question to the same API sent, by its places."""
        for exchange in self._exchanges[self._chat.index + 1 :]:
            asked = written(exchange.request)
            if exchange.answered and (asked.path, asked.kind) == (self._asked.path, self._asked.kind):
                return dict(leaves(asked.tree()))
        return None

    def _page_url(self) -> str:
        request = self._exchanges[self._chat.index].request
        referer = request.headers.get("referer", "")
        return referer if referer.startswith(("http://", "https://")) else f"{site_of(request.url)}/"

    def _note_question(self) -> None:
        chat = self._chat
        where = f"{chat.path[0]} {pointer(chat.path[1:])}"
        self._parts.append(Part("question", where, chat.sure, chat.reason))

    # The request

    def _request(self) -> dict[str, Any]:
        asked, chat = self._asked, self._chat
        tree = {"query": asked.query, "headers": asked.headers, "body": asked.body}
        known = conversation_of(self._exchanges, chat.index, asked)
        item, roles = self._place_question(tree)
        self._place_options(tree)
        self._tracer.conversation_values(tree, known, self._parts)
        self._tracer.replace(tree, chat.index)
        table = self._tracer.table(
            chat.index,
            Written(path=asked.path, query=tree["query"], headers=tree["headers"], kind=asked.kind, body=tree["body"]),
        )
        if self._defaults:
            table["defaults"] = self._defaults
        if item:
            table["item"] = item
        if roles:
            table["roles"] = roles
        return table

    def _place_question(self, tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        chat = self._chat
        history = find_history(tree, chat.path, chat.question)
        if history is None:
            text = at(tree, chat.path)
            put(tree, chat.path, str(text).replace(chat.question, "{{message}}"))
            self._fill_copies(tree)
            return {}, {}
        for path, template in history.places.items():
            put(tree, path, template)
        self._history = tuple(history.places)
        self._fill_copies(tree)
        self._fill_copies(history.item, "{{content}}")
        self._parts.append(Part("history", history.where, history.sure, history.reason))
        return history.item, history.roles

    def _fill_copies(self, tree: dict[str, Any], place: str = "{{message}}") -> None:
        """Put the question wherever else the request had it: several fields may say the same."""
        question = self._chat.question.strip()
        if len(question) < _TELLING:
            return
        for path, leaf in list(leaves(tree)):
            if isinstance(leaf, str) and question in leaf and path:
                put(tree, path, leaf.replace(question, place))

    def _place_options(self, tree: dict[str, Any]) -> None:
        """The model and what the caller may choose by its OpenAI name."""
        body = tree["body"]
        if not isinstance(body, dict) or self._asked.kind != "json":
            return
        for key, value in list(body.items()):
            if key in ("model", "model_id", "modelId", "engine") and isinstance(value, str) and value:
                body[key] = "{{model}}"
                self._defaults["model"] = value
                self._parts.append(Part("model", f"body /{key}", 0.9, f"the recorded one, {value}, is the default"))
            elif key in _OPTIONS and isinstance(value, int | float) and not isinstance(value, bool):
                body[key] = f"{{{{{key}}}}}"
                self._defaults[key] = value

    def _ignored(self) -> list[Ignored]:
        found = []
        own = (written(self._exchanges[self._chat.index].request).path, self._asked.kind)
        for index, exchange in enumerate(self._exchanges):
            if index == self._chat.index or index in self._tracer.used:
                continue
            request = exchange.request
            same = written(request).path == own[0]
            reason = is_noise(exchange) or ("another question of the same kind" if same else self._why(exchange))
            found.append(Ignored(f"{request.method} {request.url.partition('?')[0]}", reason))
        return found

    def _why(self, exchange: Exchange) -> str:
        if exchange.head is None:
            return "no response was recorded"
        if exchange.head.status >= 400:
            return f"it failed (status {exchange.head.status})"
        return "nothing that the question needs comes from it"
