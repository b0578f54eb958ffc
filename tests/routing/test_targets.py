"""A model's name and what it leads to: one target has one name, however it is spelled."""

import pytest

from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.routing.targets import Provider, Route, Targets


def provider(name: str = "local", **fields: object) -> Provider:
    site = Site(name=name, url="http://127.0.0.1:9/v1", protocol=create("openai"), default_model="gpt-4o")
    given = {"models": {"gpt-4o": "gpt-4o", "gpt-4o-mini": "gpt-4o", "other": "other-1", "usual": "default"}, **fields}
    return Provider(name=name, site=site, access=Access(), **given)  # type: ignore[arg-type]


SPELLINGS = ("local", "local/", "local/default", "local/gpt-4o", "local/gpt-4o-mini", "local/usual", "gpt-4o", "usual")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_one_model_has_one_name(spelling: str):
    target = Targets([provider()]).find(spelling)
    assert (target.name, target.header, target.choice.id) == ("local/gpt-4o", "local/gpt-4o", "local/gpt-4o#0")
    assert target.model == "gpt-4o"


def test_another_model_has_another():
    targets = Targets([provider()])
    assert {targets.find(name).name for name in ("local/other", "other", "local/other-1")} == {"local/other-1"}
    assert targets.find("local/unheard-of").name == "local/unheard-of"


def test_a_service_without_names_of_models():
    site = Site(name="shop", url="http://127.0.0.1:9", protocol=create("openai"))
    targets = Targets([Provider(name="shop", site=site, access=Access())])
    assert {targets.find(name).name for name in ("shop", "shop/default")} == {"shop/default"}
    assert targets.find("shop").model == ""


def test_a_route_that_names_a_target_twice_asks_it_as_one():
    route = Route(targets=("local/gpt-4o", "far/gpt-4o", "local/gpt-4o-mini", "local/default"), weights=(1, 2, 3, 4))
    plan = Targets([provider(more_keys=("second",)), provider("far")], {"r": route}).plan("r")
    assert [choice.id for choice in plan.choices] == ["local/gpt-4o#0", "local/gpt-4o#1", "far/gpt-4o#0"]
    assert [choice.weight for choice in plan.choices] == [1, 1, 2]
    assert plan.first.name == "local/gpt-4o"


def test_every_spelling_is_known():
    assert provider().spellings() == {
        "local": "local/gpt-4o",
        "local/default": "local/gpt-4o",
        "local/gpt-4o": "local/gpt-4o",
        "local/gpt-4o-mini": "local/gpt-4o",
        "local/usual": "local/gpt-4o",
        "local/other": "local/other-1",
    }
