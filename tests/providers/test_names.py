"""Whom a name means: rows above classes, classes above services, and never one of several."""

import pytest

from tolmach.errors import ConfigError, ModelNotFound
from tolmach.protocols.recipe.json_text import JsonText
from tolmach.providers import registry
from tolmach.providers.base import AbstractProvider
from tolmach.providers.names import Named, find_named, named


@pytest.fixture(autouse=True)
def own_registrations(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


@pytest.mark.parametrize(
    ("name", "rows", "found"),
    [
        ("groq", (), Named("service", "groq")),
        ("Groq", (), Named("service", "groq")),
        ("Chatgpt4o", (), Named("class", "Chatgpt4o")),
        ("chatgpt4o", (), Named("class", "Chatgpt4o")),
        ("local", ("local",), Named("row", "local")),
        ("LOCAL", ("local",), Named("row", "local")),
        ("groq", ("groq", "local"), Named("row", "groq")),
        ("Chatgpt4o", ("Chatgpt4o",), Named("row", "Chatgpt4o")),
        ("chatgpt4o", ("chatgpt4o",), Named("row", "chatgpt4o")),
    ],
)
def test_who_is_meant(name, rows, found):
    assert named(name, rows) == find_named(name, rows) == found


def test_a_name_that_several_have_is_an_error_that_lists_them():
    with pytest.raises(ConfigError, match="several providers are called 'GROQ': groq, Groq; write it as one of them"):
        named("GROQ", ("Groq",))
    assert named("Groq", ("Groq",)) == Named("row", "Groq")
    assert named("groq", ("Groq",)) == Named("service", "groq")


def test_a_class_of_the_program_stands_in_the_place_of_a_service():
    registry.register(type("groq", (AbstractProvider,), {"url": "https://a.test", "protocol": JsonText()}))
    assert named("groq") == Named("class", "groq")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("grok", "no provider 'grok'; did you mean groq?"),
        ("locl", "did you mean local"),
        ("", "no provider ''; there are: local, Chatgpt4o"),
        ("Nobody", "there are: local, Chatgpt4o, .* and .* services such as groq"),
    ],
)
def test_a_name_that_nobody_has(name, says):
    assert find_named(name, ["local"]) is None
    with pytest.raises(ModelNotFound, match=says):
        named(name, ["local"])
