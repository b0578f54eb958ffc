"""The settings in use: what is hidden of them, how they are shown, and reading them again."""

import os

import pytest

from tests.configuration.test_settings import ISSUE, KEYS, file, load_text, problems
from tolmach.configuration import InvalidSettings, LiveSettings, Settings
from tolmach.configuration.rendering import HIDDEN, show, show_toml
from tolmach.providers.sites.apis import apis

__all__ = ["file", "load_text", "problems"]  # fixtures

# What is hidden

SECRETS = """\
[gateway]
admin_key = "hush-admin"
host = "${HOST_TOKEN}"
[providers.p]
protocol = "json-text"
url = "https://x.example/${MY_SECRET}"
api_key = "hush-key"
models = ["${MY_SECRET}"]
proxy = "socks5://user:hush-proxy@127.0.0.1:1"
headers = { authorization = "hush-header" }
cookies = { sid = "hush-cookie" }
template = { q = "{{message}}", token = "hush-option", x = ["${MY_SECRET}"] }
[providers.q]
protocol = "openai"
url = "https://x.example/?key=hush-query"
[providers.groq]
"""
SECRET_VALUES = {"HOST_TOKEN": "hush-host", "MY_SECRET": "hush-variable", "GROQ_API_KEY": "hush-groq"}


def test_no_secret_is_in_repr_or_in_what_is_shown(load_text):
    settings = load_text(SECRETS, SECRET_VALUES)
    assert settings.providers["p"].headers == {"authorization": "hush-header"}
    assert settings.providers["groq"].api_key == "hush-groq"
    texts = [repr(settings), str(settings), show_toml(settings), repr(show(settings))]
    texts += [repr(row) for row in (settings.gateway, *settings.providers.values())]
    assert [text for text in texts if "hush" in text] == []
    assert "authorization" in texts[0]
    assert f'proxy = "socks5://{HIDDEN}@127.0.0.1:1"' in texts[2]


def test_no_secret_is_in_an_error(problems):
    text = (
        "[gateway]\nadmin_key = ['hush-admin']\nport = '${HOST_TOKEN}'\n"
        "[providers.p]\nprotocol = 'json-text'\nurl = 'ftp://${MY_SECRET}'\nproxy = 'x://u:hush-proxy@'\n"
        "api_key = 'hush-\\n'\nmethod = '${MY_SECRET}'\ncookies = 'hush-cookie'\n"
        "answer = '${MY_SECRET}'\nimpersonate = '${MY_SECRET}'\nheaders = {a = \"hush\\u0001\"}\n"
        "[routes.m]\ntargets = ['${MY_SECRET}/x']\nstrategy = '${MY_SECRET}'"
    )
    found = problems(text, SECRET_VALUES)
    assert len(found) >= 10
    assert [problem for problem in found if "hush-variable" in problem[2] or "hush-host" in problem[2]] == []
    assert [problem for problem in found if "hush" in problem[2] and problem[1] != "providers.p.cookies"] == []


def test_each_setting_says_where_it_came_from(load_text):
    settings = load_text(ISSUE, KEYS | {"TOLMACH_GATEWAY__WORKERS": "2"}, {"gateway.host": "::1"})
    rows = {one.key: (one.value, one.source) for one in show(settings)}
    assert rows["gateway.port"] == (8080, "tolmach.toml:3")
    assert rows["gateway.host"] == ("::1", "argument")
    assert rows["gateway.workers"] == (2, "TOLMACH_GATEWAY__WORKERS")
    assert rows["gateway.log.level"] == ("info", "default")
    assert rows["providers.local.api_key"] == (HIDDEN, "tolmach.toml:7, $LOCAL_KEY")
    assert rows["providers.local.models"] == (["gpt-4o"], "tolmach.toml:8")
    assert rows["providers.shop.page"] == ("/chat/", "tolmach.toml:12")
    assert rows["providers.groq.url"] == (apis()["groq"].url, "service groq")
    assert rows["providers.groq.api_key"] == (HIDDEN, "$GROQ_API_KEY")
    assert rows["routes.gpt-4o.recover"] == ("resume", "tolmach.toml:22")


def test_what_is_shown_is_toml_and_means_the_same(load_text, tmp_path):
    text = ISSUE.replace('"${LOCAL_KEY}"', '""') + '[providers."o d"]\nprotocol="openai"\nurl="http://x"\n'
    text += 'models = {"a.b" = "q\\"\\u007f\\n", c = "d"}\n[routes."*"]\ntargets = ["o d/c"]'
    settings = load_text(text, KEYS)
    again = tmp_path / "again.toml"
    again.write_text(show_toml(settings).replace('service = "groq"', "").replace(HIDDEN, "x"), encoding="utf-8")
    shown = Settings.load(again, {})
    assert shown.gateway == settings.gateway
    assert shown.routes == settings.routes
    assert shown.providers["o d"] == settings.providers["o d"]
    assert shown.providers["shop"] == settings.providers["shop"]


# Reading again


def test_a_changed_file_is_read_again(file):
    file.write_text("gateway.port = 1")
    live = LiveSettings(file, {})
    assert not live.changed()
    file.write_text("gateway.port = 22")
    assert live.changed()
    assert live.reload() is live.settings
    assert live.settings.gateway.port == 22
    assert not live.changed()


def test_a_broken_file_changes_nothing_and_says_so(file):
    file.write_text("gateway.port = 1")
    live = LiveSettings(file, {})
    good = live.settings
    for broken in ("gateway.port = 'x'", "gateway.port =", "gateway.host = '${NONE}'"):
        file.write_text(broken)
        assert live.changed()
        assert live.reload() is None
        assert live.settings is good
        assert isinstance(live.last_error, InvalidSettings)
        assert live.last_error.problems[0].line == 1
        assert not live.changed()
    file.write_text("gateway.port = 4")
    assert live.reload() is not None
    assert live.last_error is None
    assert live.settings.gateway.port == 4


def test_a_file_that_goes_and_comes_back(file):
    file.write_text("gateway.port = 1")
    live = LiveSettings(file, {})
    file.unlink()
    assert live.changed()
    assert live.reload() is None
    assert live.settings.gateway.port == 1
    assert not live.changed()
    file.write_text("gateway.port = 2")
    assert live.changed()
    assert live.reload() is not None


def test_a_file_put_in_place_of_another_of_the_same_size_and_time(file, tmp_path):
    file.write_text("gateway.port = 1")
    live = LiveSettings(file, {})
    other = tmp_path / "other"
    other.write_text("gateway.port = 2")
    status = file.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(file)
    assert live.changed()
    settings = live.reload()
    assert settings is not None
    assert settings.gateway.port == 2


def test_a_file_that_comes_after_the_start(file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    live = LiveSettings(None, {}, {"gateway.workers": 3})
    assert live.settings.file is None
    assert not live.changed()
    file.write_text("gateway.port = 2")
    assert live.changed()
    settings = live.reload()
    assert settings is not None
    assert (settings.gateway.port, settings.gateway.workers) == (2, 3)
    assert not live.changed()


RECIPE = """url = "https://chat.example/"
request = { url = "/api", json = { q = "{{message}}" } }
"""


def test_a_recipe_that_the_file_names_counts_as_well(file, tmp_path):
    recipe = tmp_path / "shop.recipe.toml"
    recipe.write_text(RECIPE)
    file.write_text('[providers.shop]\nprotocol = "recipe"\nrecipe = "${NAME}.recipe.toml"\n')
    live = LiveSettings(file, {"NAME": "shop"})
    assert not live.changed()
    recipe.write_text(RECIPE.replace("chat.example", "talk.example"))
    assert live.changed()
    settings = live.reload()
    assert settings is not None
    assert settings.providers["shop"].url == "https://talk.example/"
    assert not live.changed()


def test_a_broken_recipe_is_read_again_once_it_is_mended(file, tmp_path):
    recipe = tmp_path / "shop.toml"
    recipe.write_text(RECIPE)
    file.write_text('[providers.shop]\nprotocol = "recipe"\nrecipe = "shop.toml"\n')
    live = LiveSettings(file, {})
    recipe.write_text("request = 1")
    assert live.changed()
    assert live.reload() is None
    assert not live.changed()
    file.write_text('[providers.shop]\nprotocol = "recipe"\nrecipe = "other.toml"\n')
    assert live.reload() is None
    (tmp_path / "other.toml").write_text(RECIPE)
    assert live.changed()
    assert live.reload() is not None


def test_nothing_to_begin_with(file):
    with pytest.raises(InvalidSettings):
        LiveSettings(file, {})


def test_the_environment_is_read_anew(file):
    environ = {"P": "1"}
    file.write_text("gateway.port = '${P}'")
    live = LiveSettings(file, environ)
    environ["P"] = "2"
    settings = live.reload()
    assert settings is not None
    assert settings.gateway.port == 2
