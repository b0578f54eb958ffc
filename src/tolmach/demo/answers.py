"""The demo's answer to a question: the same text every time, cut into about forty tokens.

It has what trips readers up: Cyrillic, characters beyond U+FFFF, emoji joined by ZWJ, quotes, tags,
line breaks and a fenced code block. It quotes the question and says, as `hist=N`, how many
messages the model was sent.
"""

import re

from tolmach.demo.faults import Wanted
from tolmach.demo.tools import written_answer

__all__ = ["answer", "folded_turns", "last_question", "tokens"]

_TEMPLATE = """\
## {service}

{quote}

Привет, мир! 🚀👩‍💻 "quoted" <b>tag</b> | hist={count}

- **раз**: съешь же ещё этих мягких французских булок
- *два*: 👨‍👩‍👧‍👦 🏳️‍🌈 𝒶𝓈𝓉𝓇𝒶𝓁 𝕥𝕖𝕩𝕥
- три: [ссылка](https://example.org/) и `код`

```python
def greet(name: str) -> str:
    return f"Привет, {{name}}! \\\\o/"
```

Готово ✅"""

_QUOTE_CHARACTERS = 600
_TOKENS = 40


def last_question(text: str) -> str:
    """The last question of a conversation that was folded into `Role: text` lines; else the text itself."""
    if not text.endswith("\nAssistant:"):
        return text
    text = text.removesuffix("\nAssistant:")
    turns = re.split(r"^User: ", text, flags=re.M)
    return turns[-1]


def folded_turns(text: str) -> int:
    """How many messages a folded conversation holds; 1 for a plain text."""
    if not text.endswith("\nAssistant:"):
        return 1
    return len(re.findall(r"^(?:System|User|Assistant): ", text, flags=re.M))


def answer(service: str, question: str, count: int, earlier: str = "") -> str:
    """The whole answer, in Markdown; what the model writes for tools or JSON that it was told of in words.

    `earlier` is what was said before the question, where the question does not have it in itself.
    """
    said = f"{earlier}\n{question}"
    question = last_question(question).strip()
    if (written := written_answer(question, said)) is not None:
        return written
    if len(question) > _QUOTE_CHARACTERS:
        question = question[:_QUOTE_CHARACTERS] + "…"
    quote = "\n".join(f"> {line}" for line in question.splitlines() or [""])
    return _TEMPLATE.format(service=service, quote=quote, count=count)


def tokens(text: str, wanted: Wanted) -> list[str]:
    """The answer in pieces, with the faults that concern its text."""
    if "empty" in wanted:
        return []
    size = max(1, -(-len(text) // _TOKENS))
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    if "lone-surrogate" in wanted:
        pieces[2:2] = ["half: \ud83d."]
    if "split-surrogate" in wanted:
        pieces[2:2] = ["\ud83d", "\ude00"]
    if "big-event" in wanted:
        pieces[3:3] = ["big " * int(wanted["big-event"] * 250_000)]
    return pieces
