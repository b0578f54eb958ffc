"""Recipes themselves: their checks, their files, their steps, and in configurations."""

from pathlib import Path
from typing import Any

import pytest

from tests.protocols.driving import ask, by_bytes, drive, new_state, read, turn
from tolmach.chat import Conversation, Delta, Done
from tolmach.configuration import Settings
from tolmach.errors import ConfigError, ProtocolDrift, RateLimited, StaleSession
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.protocols.recipe.protocol import Recipe
from tolmach.recipes.files import read_recipe
from tolmach.recipes.har import read_har
from tolmach.recipes.infer import infer
from tolmach.wire import Head, Response

REQUEST: dict[str, Any] = {"url": "/api", "json": {"q": "{{message}}"}}


def site(recipe: Any) -> Site:
    return Site(name="site", url="http://chat.test/chat", protocol=recipe)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"request": {"url": "api", "json": {"q": "{{message}}"}}}, "request.url"),
        ({"request": {"url": "/api", "json": {"q": "x"}}}, "message"),
        ({"request": {**REQUEST, "form": {"a": "b"}}}, "form"),
        ({"request": {"url": "/api", "json": {"q": "{{message}}", "t": "{{token.csrf}}"}}}, "token.csrf"),
        ({"request": REQUEST, "answer": {"text": "reply"}}, "pointer"),
        ({"request": REQUEST, "stale": [{"text": "("}]}, "stale.text"),
        ({"request": REQUEST, "bootstrap": [{"url": "/", "tokens": {"a": {}}}]}, "tokens.a"),
        ({"request": REQUEST, "errors": {"kinds": {"429": "odd"}}}, "odd"),
        ({"request": REQUEST, "sauce": 1}, "sauce"),
        ({"request": {**REQUEST, "item": {"x": "{{name}}"}}}, "name"),
    ],
)
def test_a_wrong_recipe_is_said_before_the_first_question(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        create("recipe", options)


def test_a_recipe_without_a_request_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="recipe"):
        ask(Recipe(), site(Recipe()), turn("hi"))


PAGE = b"""<html><meta name=csrf content=" T1 "><div data-x='{"a": {"b": "T2"}}'></div>
<script>var other = {"key": 0}; window.CFG = {"nonce": "T3"};</script><script>key("T4")</script>"""


@pytest.mark.parametrize(
    ("extractor", "value"),
    [
        ({"html": "meta[name=csrf]", "attribute": "content"}, "T1"),
        ({"html": "div", "attribute": "data-x", "json": "/a/b"}, "T2"),
        ({"after": "window.CFG", "json": "/nonce"}, "T3"),
        ({"pattern": r'key\("(\w+)'}, "T4"),
        ({"header": "X-Token"}, "T5"),
        ({"cookie": "sid"}, "T6"),
    ],
)
def test_a_step_takes_a_value_out_of_its_response(extractor: dict[str, Any], value: str) -> None:
    recipe = create(
        "recipe",
        {
            "bootstrap": [{"url": "/", "tokens": {"t": extractor}}],
            "request": {"url": "/api", "json": {"q": "{{message}}"}, "headers": {"x-t": "{{token.t}}"}},
        },
    )
    state = new_state()
    response = Response(Head(200, {"x-token": "T5"}, ("sid=T6; Path=/",)), PAGE)
    drive(recipe.prepare(site(recipe), state), response)
    assert recipe.ready(site(recipe), state)
    assert ask(recipe, site(recipe), turn("hi"), state=state).request.headers["x-t"] == value
    with pytest.raises(ProtocolDrift) as caught:
        drive(recipe.prepare(site(recipe), new_state()), Response(Head(200), b"<html>"))
    assert caught.value.missing == "t"


def outcome(options: dict[str, Any], body: str, status: int = 200) -> Any:
    recipe = create("recipe", {"request": REQUEST, **options})
    call = ask(recipe, site(recipe), turn("hi"))
    whole = read(call.decoder(Head(status)), [body.encode()])
    assert read(call.decoder(Head(status)), by_bytes(body.encode())).said == whole.said
    return whole


def test_answers_inside_texts_conversations_and_refusals() -> None:
    said = outcome(
        {"answer": {"text": "/d -> /a"}, "conversation": {"id": {"answer": "/c"}}},
        '{"d": "{\\"a\\": \\"yes\\"}", "c": "c1"}',
    )
    assert said.events == [Delta("yes"), Conversation({"id": "c1"}), Done()]
    stale = outcome({"stale": [{"status": [403], "text": "nonce"}]}, '{"message": "Bad nonce"}', 403)
    assert type(stale.error) is StaleSession
    assert type(outcome({"stale": [{"body": ["-1"]}]}, "-1").error) is StaleSession
    assert type(outcome({"errors": {"flags": {"/full": "rate_limited"}}}, '{"full": true}').error) is RateLimited


def test_a_file_has_variables_and_says_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('url = "http://chat.test/"\n[request]\nurl = "/a"\ntext = "{{message}} $$1 ${KEY} ${NO:-none}"\n')
    read_file = read_recipe(file, {"KEY": "k"})
    assert read_file.options["request"]["text"] == "{{message}} $1 k none"
    for text, named in (("[request", "TOML"), ("a = '${KEY}'", "KEY"), ("url = 1\n[request]", "url"), ("", "request")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=named):
            read_recipe(file, {})


def test_a_configuration_names_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "shop.toml").write_text(
        'url = "http://chat.test/"\n[request]\nurl = "/a"\njson = { q = "{{message}}" }\n'
    )
    config = tmp_path / "tolmach.toml"
    config.write_text('[providers.shop]\nprotocol = "recipe"\nrecipe = "shop.toml"\nmodels = ["m"]\n')
    settings = Settings.load(config, {})
    assert settings.providers["shop"].url == "http://chat.test/"
    config.write_text('[providers.shop]\nprotocol = "recipe"\nurl = "http://chat.test/"\n')
    with pytest.raises(ConfigError, match="recipe"):
        Settings.load(config, {})


@pytest.mark.parametrize("data", [b"", b"{}", b'{"log": 1}', b"\xff"])
def test_what_is_no_har_is_said(data: bytes) -> None:
    with pytest.raises(ConfigError, match="HAR"):
        read_har(data)


def test_traffic_without_a_question_is_said() -> None:
    with pytest.raises(ConfigError, match="--question"):
        infer([])
