"""The tables of protocols, sites and services in the documents, written from the code.

    python -m tolmach.testing.tables [--check] [FILE ...]

A table stands between `<!-- table: NAME LANGUAGE -->` and `<!-- end of table -->`. Without `--check` the files are
written; with it, nothing is, and the exit code is 1 when one is not as it should be. FILE is by
default those of `FILES` in the current folder.
"""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tolmach.errors import ConfigError
from tolmach.protocols import PROTOCOLS, create, load
from tolmach.providers.registry import providers
from tolmach.providers.sites.apis import apis

__all__ = ["FILES", "LANGUAGES", "TABLES", "main", "protocols_table", "services_table", "sites_table", "with_tables"]

FILES = ("README.md", "README.ru.md", "docs/services.md")
LANGUAGES = ("en", "ru")

_RUSSIAN = {
    # Headings
    "Protocol": "Протокол",
    "What speaks it": "Кто на нём говорит",
    "Streams": "Поток",
    "History": "История",
    "System message": "Системное сообщение",
    "Keeps the conversation": "Сам хранит беседу",
    "Honours": "Учитывает",
    "Class": "Класс",
    "Address": "Адрес",
    "Default model": "Модель по умолчанию",
    "Needs cookies": "Нужны cookies",
    "Name": "Имя",
    "Service": "Сервис",
    "Key": "Ключ",
    "Checked live": "Проверен вживую",
    # Cells
    "yes": "да",
    "all options": "все параметры",
    "as declared": "как объявлено",
    # Titles of protocols
    "ai-engine": "AI Engine для WordPress (mwai), от 2.4.1 до 3.6.2",
    "ai-power": "AI Power для WordPress (wpaicg), от 1.8.79 до 1.9.18 и 2.2",
    "aipkit": "AI Power для WordPress (AIPKit), от 2.3 до 2.4.71",
    "json-text": "Один запрос, JSON или форма; один ответ: JSON, текст или поток",
    "recipe": "Любой API из запросов и ответов (JSON, текст, поток), описанный рецептом",
    "chatgpt-web": "chatgpt.com, беседа на веб-странице",
    "openai": "OpenAI chat completions и совместимые с ними серверы",
    "anthropic": "Anthropic Messages и совместимые с ними серверы",
    "gemini": "Gemini от Google, generateContent",
    "ollama": "Ollama, /api/chat",
    "openai-responses": "OpenAI Responses и совместимые с ними серверы",
}

Words = Callable[[str], str]


def _words(language: str) -> Words:
    if language not in LANGUAGES:
        raise ConfigError(f"tables are written in {' and '.join(LANGUAGES)}, not in {language!r}")
    return (lambda text: _RUSSIAN[text]) if language == "ru" else (lambda text: text)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def protocols_table(language: str = "en") -> str:
    """The protocols and what each does, as a markdown table."""
    say = _words(language)
    traits = {"stream": "Streams", "history": "History", "system": "System message"}
    traits["conversation"] = "Keeps the conversation"
    rows = []
    for name in PROTOCOLS:
        protocol = create(name)
        title = _RUSSIAN.get(name, protocol.title) if language == "ru" else protocol.title
        declared = _DECLARABLE if _by_declaration(name, "traits") else frozenset()
        declared |= {"conversation"} if name == "recipe" else frozenset()
        marks = [say("as declared") if t in declared else _mark(t in protocol.traits, say) for t in traits]
        rows.append([f"`{name}`", title, *marks, _features(name, protocol.features, say)])
    return _table([say(h) for h in ("Protocol", "What speaks it", *traits.values(), "Honours")], rows)


def sites_table(language: str = "en") -> str:
    """The sites and what each supports, as a markdown table."""
    say = _words(language)
    flags = ("Streams", "System message", "History", "Needs cookies", "Checked live")
    rows = []
    for name, site in providers().items():
        has = (
            site.supports_stream,
            site.supports_system_message,
            site.supports_message_history,
            bool(site.cookie_domain),
            site.working,
        )
        address = site._declared_url or site.url
        model = f"`{site.default_model}`" if site.default_model else "–"
        rows.append([f"`{name}`", address, f"`{site.protocol.name}`", model, *(_mark(flag, say) for flag in has)])
    return _table([say(h) for h in ("Class", "Address", "Protocol", "Default model", *flags)], rows)


def services_table(language: str = "en") -> str:
    """The services and self-hosted servers that are known by name, as a markdown table."""
    say = _words(language)
    rows = [
        [f"`{name}`", row.title, f"`{row.key}`" if row.key else "–", f"`{row.protocol}`", row.url]
        for name, row in apis().items()
    ]
    return _table([say(h) for h in ("Name", "Service", "Key", "Protocol", "Address")], rows)


_DECLARABLE = frozenset({"stream", "history", "system"})
"""What a site's declaration can say of a protocol whose traits depend on it."""


def _by_declaration(name: str, attribute: str) -> bool:
    return isinstance(getattr(load(name), attribute, None), property)


def _mark(has: bool, say: Words) -> str:
    return say("yes") if has else "–"


def _features(name: str, features: frozenset[str], say: Words) -> str:
    if _by_declaration(name, "features"):
        return say("as declared")
    if "*" in features:
        return say("all options")
    return ", ".join(f"`{feature}`" for feature in sorted(features)) or "–"


TABLES: dict[str, Callable[[str], str]] = {
    "protocols": protocols_table,
    "sites": sites_table,
    "services": services_table,
}

_PLACE = re.compile(r"(<!-- table: (\S+) (\S+) -->\n)(?:.*?\n)??(<!-- end of table -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """The text with its tables as they should be. Raises `ConfigError` for a table that there is not."""

    def written(place: re.Match[str]) -> str:
        table = TABLES.get(place[2])
        if table is None:
            raise ConfigError(f"no table {place[2]!r}; there are: {', '.join(TABLES)}")
        return f"{place[1]}{table(place[3])}\n{place[4]}"

    return _PLACE.sub(written, text)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0, or with `--check` 1 when a file is not as it should be."""
    check = "--check" in arguments
    changed = []
    for file in map(Path, [a for a in arguments if a != "--check"] or FILES):
        text = file.read_text(encoding="utf-8")
        if (new := with_tables(text)) != text:
            changed.append(str(file))
            if not check:
                file.write_text(new, encoding="utf-8")
    if changed:
        print("not as the code has it (`make docs`):" if check else "written:", ", ".join(changed))
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
