"""Names and models to providers: built in, registered, from other packages; and endpoints that no class names."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import ClassVar

import pytest

from tolmach.errors import ConfigError, ModelNotFound
from tolmach.protocols.recipe.json_text import JsonText
from tolmach.protocols.wordpress.ai_engine import AIEngine
from tolmach.providers import registry
from tolmach.providers.base import AbstractProvider, ProviderModelMixin
from tolmach.providers.registry import (
    ProviderWarning,
    endpoint,
    get_provider,
    provider_names,
    providers,
    register,
    registered,
    resolve,
    sites_having,
)
from tolmach.providers.sites.chatgpt import ChatGpt
from tolmach.providers.sites.json_text import Aichat
from tolmach.providers.sites.wordpress import Chatgpt4o, Chatgpt4Online, ChatGptt

BUILT_IN = [Chatgpt4o, Chatgpt4Online, ChatGptt, Aichat, ChatGpt]


class Corner(AbstractProvider, ProviderModelMixin):
    """A provider of the test's own."""

    url = "https://corner.test"
    protocol = JsonText()
    default_model = "corner-1"
    models: ClassVar[list[str]] = ["corner-1", "org/corner-2"]
    model_aliases: ClassVar[dict[str, str]] = {"corner": "corner-1"}


@pytest.fixture(autouse=True)
def own_registrations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_registered", {})
    registry._entry_points.cache_clear()
    yield
    registry._entry_points.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution that offers providers: one good, one of no use, one broken."""
    info = tmp_path / "corner_shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corner-shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tolmach.providers]\nShop = corner_shop:Shop\nNoProvider = corner_shop:SOMETHING\nBroken = corner_broken:X\n"
    )
    (tmp_path / "corner_shop.py").write_text(
        dedent("""
        from tolmach.protocols.recipe.json_text import JsonText
        from tolmach.providers.base import AbstractProvider

        SOMETHING = 3

        class Shop(AbstractProvider):
            url = "https://shop.test"
            protocol = JsonText()
            models = ["shop-1"]
        """)
    )
    (tmp_path / "corner_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "corner_shop", raising=False)
    return tmp_path


# Names


def test_the_built_in_providers_by_name():
    assert [get_provider(provider.__name__) for provider in BUILT_IN] == BUILT_IN
    assert list(providers().values()) == BUILT_IN
    assert provider_names() == [provider.__name__ for provider in BUILT_IN]


@pytest.mark.parametrize(("name", "provider"), [("chatgpt4o", Chatgpt4o), ("CHATGPT", ChatGpt), ("chatGPTT", ChatGptt)])
def test_upper_and_lower_case_do_not_count(name, provider):
    assert get_provider(name) is provider


def test_case_counts_where_two_names_differ_by_nothing_else():
    lower = register(type("chatgpt4o", (Corner,), {}))
    assert get_provider("chatgpt4o") is lower
    assert get_provider("Chatgpt4o") is Chatgpt4o
    with pytest.raises(ModelNotFound, match="no provider 'CHATGPT4O'"):
        get_provider("CHATGPT4O")


def test_an_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(ModelNotFound, match="no provider 'Nobody'; there are: Chatgpt4o, Chatgpt4Online"):
        get_provider("Nobody")


def test_register_makes_known_and_takes_the_place_of_others():
    assert register(Corner) is Corner
    assert get_provider("corner") is Corner
    assert next(iter(providers())) == "Corner"
    mine = register(type("Aichat", (Corner,), {}))
    assert get_provider("Aichat") is mine
    assert provider_names().count("Aichat") == 1


@pytest.mark.parametrize("thing", [int, Corner(), JsonText(), "Corner"])
def test_only_providers_can_be_registered(thing):
    with pytest.raises((ConfigError, AttributeError)):
        register(thing)
    assert provider_names() == [provider.__name__ for provider in BUILT_IN]


def test_to_know_the_names_loads_no_site():
    program = "import sys; from tolmach.providers.registry import provider_names; provider_names();"
    program += "print([name for name in sys.modules if '.sites' in name])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Other packages


def test_another_package_offers_a_provider(package):
    shop = get_provider("shop")
    assert shop.url == "https://shop.test"
    assert resolve("Shop/other") == (shop, "other")
    # It is installed, but nobody has named it.
    with pytest.raises(ModelNotFound):
        resolve("shop-1")
    with pytest.warns(ProviderWarning):
        assert sites_having("shop-1") == ["Shop"]


def test_a_provider_that_cannot_be_loaded_is_named_with_its_package(package):
    with pytest.raises(
        ConfigError, match=r"'Broken' \(corner_broken:X, of corner-shop\) .*ZeroDivisionError"
    ) as caught:
        get_provider("Broken")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(ConfigError, match=r"'NoProvider' .* is no provider class"):
        get_provider("NoProvider")


def test_a_broken_package_does_not_hide_the_others(package):
    with pytest.warns(ProviderWarning) as caught:
        found = providers()
    assert list(found) == [*(provider.__name__ for provider in BUILT_IN), "Shop"]
    assert sorted(str(warning.message).split("'")[1] for warning in caught) == ["Broken", "NoProvider"]


# Models


@pytest.mark.parametrize(
    ("model", "provider", "found"),
    [
        ("Chatgpt4Online/gpt-4", None, (Chatgpt4Online, "gpt-4")),
        ("chatgpt4o/gpt-4o-mini", None, (Chatgpt4o, "gpt-4o-mini-2024-07-18")),
        ("Chatgpt4o/", None, (Chatgpt4o, "gpt-4o-mini-2024-07-18")),
        ("", Chatgpt4o, (Chatgpt4o, "gpt-4o-mini-2024-07-18")),
        ("", "chatgptt", (ChatGptt, "gpt-4o")),
        ("gpt-4", "ChatGptt", (ChatGptt, "gpt-4")),
        ("ChatGptt/gpt-4", ChatGptt, (ChatGptt, "gpt-4")),
        ("chatgptt/gpt-4", ChatGptt, (ChatGptt, "gpt-4")),
        ("gpt-4o", ChatGpt, (ChatGpt, "chatgpt-4o-latest")),
        ("nonsense", ChatGpt, (ChatGpt, "auto")),
    ],
)
def test_who_answers(model, provider, found):
    assert resolve(model, provider) == found


def test_a_slash_may_belong_to_the_model():
    register(Corner)
    assert resolve("org/corner-2") == (Corner, "org/corner-2")
    assert resolve("Corner/org/corner-2") == (Corner, "org/corner-2")
    assert resolve("org/corner-2", Corner) == (Corner, "org/corner-2")
    assert resolve("corner") == (Corner, "corner-1")


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-mini", "gpt-3.5-turbo", "gpt-4", "auto"])
def test_a_model_alone_is_asked_of_no_public_site(model):
    with pytest.raises(ModelNotFound, match="no provider that the program names has a model"):
        resolve(model)
    register(Corner)
    with pytest.raises(ModelNotFound):
        resolve(model)


def test_the_sites_that_have_a_model_are_known():
    assert sites_having("gpt-4o") == ["ChatGptt", "ChatGpt"]
    assert sites_having("corner-1") == []
    register(Corner)
    assert sites_having("corner-1") == []
    assert registered() == [Corner]


def test_a_model_of_several_registered_classes_is_an_error_that_lists_them():
    register(Corner)
    register(type("Other", (Corner,), {}))
    with pytest.raises(ConfigError, match="several providers have 'corner-1': Corner, Other; write Corner/corner-1"):
        resolve("corner-1")
    assert resolve("Other/corner-1")[0].__name__ == "Other"


@pytest.mark.parametrize(
    ("model", "provider", "error", "says"),
    [
        ("gpt-99", None, ModelNotFound, "no provider that the program names has a model 'gpt-99'"),
        ("", None, ModelNotFound, "a model or a provider is needed"),
        ("Nobody/gpt-4", None, ModelNotFound, "Nobody/gpt-4"),
        ("gpt-99", "ChatGptt", ModelNotFound, "ChatGptt has no model 'gpt-99'; it has: gpt-4, gpt-4o"),
        ("", "Nobody", ModelNotFound, "no provider 'Nobody'"),
        ("", 3, ConfigError, "provider: 3 is no provider class"),
        (None, None, ConfigError, "model: a text"),
        (4, ChatGptt, ConfigError, "model: a text .* not int"),
    ],
)
def test_what_cannot_be_resolved(model, provider, error, says):
    with pytest.raises(error, match=says):
        resolve(model, provider)


# Endpoints


def test_an_endpoint_is_a_protocol_at_an_address():
    site = endpoint("https://shop.example:8443/blog/", "ai-engine", api_key="k", bot_id="b7")
    assert (site.name, site.url) == ("shop.example:8443", "https://shop.example:8443/blog")
    assert site.protocol == AIEngine(bot_id="b7")
    assert site.api_key == "k"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.example",
        "ftp://shop.example",
        "https://",
        "http://[::1",
        "https://shop.example:99999",
        None,
        3,
        b"http://a",
    ],
)
def test_an_address_that_is_none(url):
    with pytest.raises(ConfigError, match=r"base_url: an http or https address"):
        endpoint(url, "openai")


def test_an_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(ConfigError, match="base_url: no name and password") as caught:
        endpoint("https://ann:s3cret@shop.example", "openai")
    assert "s3cret" not in str(caught.value)


def test_an_unknown_protocol_or_option():
    with pytest.raises(ConfigError, match=r"no protocol 'gopher'; there are: ai-engine"):
        endpoint("https://shop.example", "gopher")
    with pytest.raises(ConfigError, match=r"protocol ai-engine: .*`bot`"):
        endpoint("https://shop.example", "ai-engine", bot="x")
    with pytest.raises(ConfigError, match=r"protocol ai-engine: .*`int`.*bot_id"):
        endpoint("https://shop.example", "ai-engine", bot_id=7)
