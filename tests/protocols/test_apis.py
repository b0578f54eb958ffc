"""The table of services: every row can be used as it stands, and what is odd about a service is sent as it wants it."""

import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.protocols.driving import ask, load, read, turn
from tolmach.errors import ConfigError
from tolmach.protocols import PROTOCOLS
from tolmach.protocols.base import Site
from tolmach.protocols.openai.chat import OpenAI
from tolmach.providers.sites import apis as table
from tolmach.providers.sites.apis import Api, api, api_site, apis
from tolmach.wire import Head


class Everything(dict[str, str]):
    """An environment in which every variable has a value."""

    def get(self, name: str, default: Any = None) -> str:
        return f"value-of-{name}"


def test_there_are_enough():
    assert sum(not row.local for row in apis().values()) >= 25
    assert sum(row.local for row in apis().values()) >= 8


@pytest.mark.parametrize("name", apis())
def test_every_row_is_right(name: str):
    row = api(name)
    parts = urlsplit(row.url)
    assert parts.scheme == ("http" if row.local else "https")
    assert parts.hostname
    assert not parts.query
    assert not row.url.endswith("/")
    assert row.title
    assert row.protocol in PROTOCOLS
    assert row.local or row.key
    assert row.key == row.key.upper()
    assert row.models == "" or row.models.startswith("/")
    assert name == name.lower()


@pytest.mark.parametrize("name", apis())
def test_every_row_makes_a_site_that_can_be_asked(name: str):
    row, site = api(name), api_site(name, Everything())
    request = ask(site.protocol, site, turn("hi", model="m", max_tokens=5)).request
    assert (site.name, site.protocol.name) == (name, row.protocol)
    assert request.url.startswith(row.url)
    assert (f"value-of-{row.key}" in "".join(request.headers.values())) == bool(row.key)
    assert "value-of" not in request.url


def test_rows_are_unique():
    rows = [(row.url, row.protocol) for row in apis().values() if not row.local]
    assert len(set(rows)) == len(rows)
    assert len({row.title for row in apis().values()}) == len(apis())


def test_the_key_comes_from_its_variable_or_from_the_caller():
    assert api_site("groq", {"GROQ_API_KEY": " k\n"}).api_key == "k"
    assert api_site("groq", {}, api_key="own").api_key == "own"
    with pytest.raises(ConfigError, match=r"groq \(Groq\): set the environment variable GROQ_API_KEY"):
        api_site("groq", {"OTHER": "x"})
    assert api_site("vllm", {}).api_key == ""
    assert api_site("vllm", {"VLLM_API_KEY": "k"}).api_key == "k"


def test_what_the_caller_says_stands_above_the_table():
    site = api_site("mistral", {"MISTRAL_API_KEY": "k"}, url="https://x.test/v1", options={"include_usage": True})
    assert site.url == "https://x.test/v1"
    assert site.protocol == OpenAI(include_usage=True, developer_role=False, max_tokens_field="max_tokens")
    with pytest.raises(ConfigError, match="speed"):
        api_site("vllm", {}, options={"speed": 1})


def test_an_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(ConfigError, match="no service 'nobody' in the table; there are: ai21, anthropic"):
        api_site("nobody", {})


def test_a_broken_table_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any):
    (tmp_path / "apis.toml").write_text("[x]\ntitle = 5\n")
    monkeypatch.setattr(table, "files", lambda package: tmp_path)
    with pytest.raises(ConfigError, match=r"apis\.toml: .*title"):
        apis.__wrapped__()


def test_where_the_models_are_listed():
    assert api("groq").models_url == "https://api.groq.com/openai/v1/models"
    assert api("perplexity").models_url == ""
    assert Api(title="x", url="http://[::1]:1/v1").local
    assert not Api(title="x", url="https://example.org").local


# What the rows tell the protocol


def sent(protocol: OpenAI, messages: Any = "hi", url: str = "https://api.test/v1", **options: Any) -> Any:
    site = Site(name="Api", url=url, protocol=protocol)
    return json.loads(ask(protocol, site, turn(messages, **options)).request.body)


@pytest.mark.parametrize(
    ("field", "options", "limits"),
    [
        ("", {"max_tokens": 1, "max_completion_tokens": 2}, {"max_tokens": 1, "max_completion_tokens": 2}),
        ("max_tokens", {"max_completion_tokens": 2}, {"max_tokens": 2}),
        ("max_tokens", {"max_tokens": 1, "max_completion_tokens": 2}, {"max_tokens": 2}),
        ("max_completion_tokens", {"max_tokens": 1}, {"max_completion_tokens": 1}),
        ("max_completion_tokens", {}, {}),
    ],
)
def test_the_limit_goes_by_the_name_that_the_server_knows(field: Any, options: Any, limits: Any):
    fields = sent(OpenAI(max_tokens_field=field), **options)
    assert {name: value for name, value in fields.items() if name.startswith("max_")} == limits


def test_at_openais_own_address_it_is_the_newer_name():
    assert sent(OpenAI(), url="https://eu.api.openai.com/v1", max_tokens=3)["max_completion_tokens"] == 3
    assert "max_tokens" not in sent(OpenAI(), url="https://api.openai.com/v1", max_tokens=3)
    assert sent(OpenAI(max_tokens_field="max_tokens"), url="https://api.openai.com/v1", max_tokens=3)["max_tokens"] == 3
    assert sent(OpenAI(), url="https://notopenai.com/v1", max_tokens=3)["max_tokens"] == 3


def test_a_server_without_the_role_developer_gets_system():
    messages = [{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}]
    assert [m["role"] for m in sent(OpenAI(developer_role=False), messages)["messages"]] == ["system", "user"]
    assert [m["role"] for m in sent(OpenAI(), messages)["messages"]] == ["developer", "user"]


def test_cached_and_reasoning_tokens_are_counted():
    (recorded,) = load("openai", "json")
    value = json.loads(recorded.body)
    value["usage"]["prompt_tokens_details"] = {"cached_tokens": 4}
    value["usage"]["completion_tokens_details"] = {"reasoning_tokens": 7}
    decoder = OpenAI().reader(recorded.request)
    assert decoder is not None
    usage = read(decoder(Head(200, {})), [json.dumps(value).encode()]).events[-2]
    assert (getattr(usage, "cached_tokens", None), getattr(usage, "reasoning_tokens", None)) == (4, 7)
