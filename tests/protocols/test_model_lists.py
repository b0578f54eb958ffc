"""Lists of models: what is asked, page by page, and what is read out of it."""

import json
from typing import Any

import pytest

from tolmach.errors import AuthError, ProviderError, RateLimited, RemoteProtocolError
from tolmach.protocols import PROTOCOLS, create
from tolmach.protocols.base import Site
from tolmach.protocols.model_lists import ListedModel, ListsModels, seconds_of
from tolmach.session import new_state
from tolmach.wire import Head, Request, Response

LISTING = ("anthropic", "gemini", "ollama", "openai", "openai-responses")


def listing(protocol: str, url: str, *bodies: Any, status: int = 200, **options: Any) -> Any:
    """The models, and the requests that were made for them, of a service that answers with these bodies."""
    site = Site(name="S", url=url, protocol=create(protocol, options), api_key="k")
    assert isinstance(site.protocol, ListsModels)
    steps = site.protocol.list_models(site, new_state())
    asked: list[Request] = []
    try:
        asked.append(next(steps))
        for body in bodies:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            head = Head(status, {"content-type": "application/json"}, (), asked[-1].url)
            asked.append(steps.send(Response(head, data)))
    except StopIteration as end:
        return end.value, asked
    raise AssertionError(f"it asks for {asked[-1].url} as well")


def test_these_protocols_have_a_list_and_no_other():
    assert all(isinstance(create(name, {}), ListsModels) for name in LISTING)
    others = [name for name in PROTOCOLS if name not in (*LISTING, "recipe", "json-text")]
    assert not [name for name in others if isinstance(create(name, {}), ListsModels)]


@pytest.mark.parametrize(
    ("protocol", "url", "asked"),
    [
        ("openai", "https://a.test/v1", "https://a.test/v1/models"),
        ("openai", "https://a.test/v1/?v=2", "https://a.test/v1/models?v=2"),
        ("openai-responses", "https://a.test/v1", "https://a.test/v1/models"),
        ("anthropic", "https://a.test", "https://a.test/v1/models?limit=1000"),
        ("anthropic", "https://a.test/v1", "https://a.test/v1/models?limit=1000"),
        ("gemini", "https://a.test", "https://a.test/v1beta/models?pageSize=1000"),
        ("gemini", "https://a.test/v1", "https://a.test/v1/models?pageSize=1000"),
        ("ollama", "http://a.test:11434", "http://a.test:11434/api/tags"),
        ("ollama", "http://a.test:11434/api", "http://a.test:11434/api/tags"),
    ],
)
def test_where_the_list_is(protocol, url, asked):
    key = "models" if protocol in ("gemini", "ollama") else "data"
    models, [request] = listing(protocol, url, {key: []})
    assert (models, request.method, request.url) == ((), "GET", asked)
    assert "k" in {value.removeprefix("Bearer ") for value in request.headers.values()}


def test_a_chat_that_stands_elsewhere():
    _, [request] = listing("openai", "https://a.test/base", {"data": []}, path="/chat")
    assert request.url == "https://a.test/base/models"


def test_what_is_read():
    rows = [{"id": "m", "created": 5, "owned_by": "o"}, {"id": "n"}, {"id": 7}, "odd", {"name": "x"}]
    assert listing("openai", "https://a.test", {"data": rows})[0] == (ListedModel("m", 5, "o"), ListedModel("n"))
    row = {"id": "claude", "created_at": "2025-09-29T00:00:00Z"}
    assert listing("anthropic", "https://a.test", {"data": [row]})[0] == (
        ListedModel("claude", 1_759_104_000, "anthropic"),
    )
    row = {"name": "llama3.2:latest", "modified_at": "2025-09-29T02:00:00.123456789+02:00"}
    assert listing("ollama", "http://a.test", {"models": [row]})[0] == (
        ListedModel("llama3.2:latest", 1_759_104_000, "ollama"),
    )
    assert listing("gemini", "https://a.test", {"models": [{"name": "models/gemini-x"}]})[0] == (
        ListedModel("gemini-x", 0, "google"),
    )


def test_pages_are_followed():
    first = {"data": [{"id": "a"}], "has_more": True, "last_id": "a b"}
    models, asked = listing("anthropic", "https://a.test", first, {"data": [{"id": "c"}], "has_more": False})
    assert [model.id for model in models] == ["a", "c"]
    assert asked[1].url == "https://a.test/v1/models?limit=1000&after_id=a%20b"
    first = {"models": [{"name": "models/a"}], "nextPageToken": "p&1"}
    models, asked = listing("gemini", "https://a.test", first, {"models": [{"name": "models/c"}]})
    assert [model.id for model in models] == ["a", "c"]
    assert asked[1].url == "https://a.test/v1beta/models?pageSize=1000&pageToken=p%261"


def test_a_service_that_names_the_same_page_again_is_not_asked_for_ever():
    page = {"data": [{"id": "a"}], "has_more": True, "last_id": "a"}
    assert len(listing("anthropic", "https://a.test", page, page)[1]) == 2
    page = {"models": [{"name": "models/a"}], "nextPageToken": "p"}
    assert len(listing("gemini", "https://a.test", page, page)[1]) == 2


@pytest.mark.parametrize("protocol", LISTING)
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"data": 1, "models": 1}', b"\xff"])
def test_what_is_no_list(protocol, body):
    with pytest.raises(RemoteProtocolError):
        listing(protocol, "https://a.test", body)


@pytest.mark.parametrize("protocol", LISTING)
@pytest.mark.parametrize(("status", "kind"), [(401, AuthError), (429, RateLimited), (500, ProviderError)])
def test_a_refusal_is_the_protocols_own_error(protocol, status, kind):
    with pytest.raises(kind) as caught:
        listing(protocol, "https://a.test", {"error": {"message": "no", "status": "X"}}, status=status)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        (5, 5),
        (5.9, 5),
        (-1, 0),
        (True, 0),
        (1 << 60, 0),
        (None, 0),
        ("", 0),
        ("soon", 0),
        ("2025-09-29", 1_759_104_000),
    ],
)
def test_times(time, seconds):
    assert seconds_of(time) == seconds
