"""The assistant behind traffic that no known protocol claims: a recipe that is made of it, with how sure it is."""

import os
from pathlib import Path
from typing import Any

import msgspec

from tolmach.configuration.adding import add_provider
from tolmach.discovery import Evidence, Found, Missing
from tolmach.errors import ConfigError
from tolmach.recipes.draft import Draft, Ignored, Part
from tolmach.recipes.files import with_file
from tolmach.recipes.writing import to_toml, write_recipe

__all__ = ["FoundRecipe", "found_recipe", "save_recipe", "with_secrets"]

_LONGEST = 80


class FoundRecipe(Found, frozen=True, kw_only=True):
    """An assistant that is asked by a recipe. Its row has `${VARIABLE}` where a secret was recorded."""

    sure: float
    """How sure the whole is, from 0 to 1: as its least sure part."""
    parts: tuple[Part, ...]
    ignored: tuple[Ignored, ...]
    """The exchanges that the recipe does not need."""
    variables: dict[str, str]
    """Variable of the environment that the row asks for -> what it stands for."""


def found_recipe(draft: Draft) -> FoundRecipe:
    """What was inferred, as a finding; without the recorded secrets."""
    request = draft.options["request"]
    model = request.get("defaults", {}).get("model", "")
    answer_format = draft.options["answer"]["format"]
    row: dict[str, Any] = {"protocol": "recipe", "url": draft.url, **draft.options}
    if model:
        row["models"] = [model]
    return FoundRecipe(
        protocol="recipe",
        row=row,
        page=draft.url,
        kind="api",
        # A plain text may come in pieces or at once: a recording does not tell.
        stream=None if answer_format == "text" else answer_format in ("sse", "ndjson"),
        models=(model,) if model else (),
        missing=tuple(Missing("variable", f"set {name}: {meaning}") for name, meaning in draft.variables.items()),
        evidence=(
            Evidence(
                f"{request.get('method', 'POST')} {request['url']}",
                f"{_short(draft.question)} is answered by {_short(draft.answer)}",
            ),
        ),
        sure=round(draft.sure, 2),
        parts=tuple(draft.parts),
        ignored=tuple(draft.ignored),
        variables=draft.variables,
    )


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…")


def with_secrets(draft: Draft) -> dict[str, Any]:
    """The recipe's options with the recorded secrets in them, to ask at once."""
    text = msgspec.json.encode(draft.options).decode()
    for name, value in draft.secrets.items():
        text = text.replace(f"${{{name}}}", msgspec.json.encode(value).decode()[1:-1])
    options: dict[str, Any] = msgspec.json.decode(text)
    return with_file(options)


def save_recipe(place: Path, name: str, draft: Draft, models: tuple[str, ...]) -> Path:
    """Write the recipe beside the configuration, as NAME.recipe.toml, and `[providers.NAME]` that names it.

    Raises `ConfigError` when either is there already or cannot be written; then both are as they were.
    """
    if not name or Path(name).name != name or "\0" in name:
        raise ConfigError(f"--save {name!r}: a provider's name is a text without /, for callers write NAME/MODEL")
    file = place.with_name(f"{name}.recipe.toml")
    row: dict[str, Any] = {"protocol": "recipe", "recipe": file.name}
    if models:
        row["models"] = list(models)
    write_recipe(file, to_toml(draft), replace=False)
    try:
        # The variables need not be set yet: the recorded values stand for them in the check.
        add_provider(place, name, row, os.environ | draft.secrets)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return file
