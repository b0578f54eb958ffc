"""The exception tree, its second bases, and what errors carry."""

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from tolmach import errors
from tolmach.errors import (
    ChallengeRequired,
    ProtocolDrift,
    ProviderError,
    TimedOut,
    TolmachError,
    TruncatedAnswer,
    UnsupportedFeature,
    error_for_status,
)

TREE = {
    "TolmachError": {
        "LocalError": {
            "ConfigError": {"AddressRefused": {}},
            "ModelNotFound": {},
            "UnsupportedFeature": {},
            "MissingCookies": {},
            "MissingDependency": {},
            "StorageError": {},
        },
        "TransportError": {"ConnectFailed": {}, "ConnectionLost": {}, "TimedOut": {}},
        "ProviderError": {
            "StaleSession": {},
            "AuthError": {"ConsentNeeded": {}},
            "BadRequest": {"ContextTooLong": {}},
            "Refused": {},
            "RateLimited": {},
            "ChallengeRequired": {},
            "ProviderUnavailable": {},
            "RemoteProtocolError": {"TruncatedAnswer": {}},
            "ProtocolDrift": {"AssistantGone": {}},
            "ProofOfWorkError": {},
        },
    }
}

SECOND_BASES = {
    "AddressRefused": ValueError,
    "ConfigError": ValueError,
    "ModelNotFound": ValueError,
    "UnsupportedFeature": ValueError,
    "MissingCookies": RuntimeError,
    "StorageError": RuntimeError,
    "MissingDependency": RuntimeError,
    "TimedOut": TimeoutError,
    "ProviderError": RuntimeError,
    "RateLimited": RuntimeError,
    "TruncatedAnswer": RuntimeError,
}

CLASSES = [value for name in errors.__all__ if isinstance(value := getattr(errors, name), type)]
PROVIDER_ERRORS = [kind for kind in CLASSES if issubclass(kind, ProviderError)]


def _tree(kind):
    return {child.__name__: _tree(child) for child in kind.__subclasses__() if child.__module__ == errors.__name__}


def test_the_tree_is_the_documented_one():
    assert {"TolmachError": _tree(TolmachError)} == TREE


def test_every_class_of_the_tree_is_drawn_in_the_docstring_and_exported():
    drawing = errors.__doc__
    for kind in CLASSES:
        assert kind.__name__ in drawing, kind
    assert {kind.__name__ for kind in CLASSES} == set(_names(TREE))


def _names(tree: dict[str, Any]) -> Iterator[str]:
    for name, children in tree.items():
        yield name
        yield from _names(children)


@pytest.mark.parametrize(("name", "base"), SECOND_BASES.items())
def test_second_bases_keep_older_except_clauses_working(name, base):
    assert issubclass(getattr(errors, name), base)


@pytest.mark.parametrize("kind", CLASSES)
def test_each_class_says_what_it_means_and_is_caught_as_an_tolmach_error(kind):
    assert kind.__doc__
    error = kind("what happened")
    assert isinstance(error, TolmachError)
    assert str(error) == "what happened"
    assert (error.partial, error.provider) == ("", "")


@pytest.mark.parametrize("kind", PROVIDER_ERRORS)
def test_a_copy_of_a_provider_error_keeps_what_it_carries(kind):
    error = kind("text", status=429, code="limit", retry_after=2.5)
    error.partial = "so far"
    error.provider = "Site"
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is kind
        assert str(other) == "text"
        assert (other.text, other.status, other.code, other.retry_after) == ("text", 429, "limit", 2.5)
        assert (other.partial, other.provider) == ("so far", "Site")


def test_a_copy_keeps_the_attributes_of_its_class():
    cases = [
        (TimedOut("slow", phase="idle", seconds=3.0), ("phase", "seconds")),
        (UnsupportedFeature("no tools", feature="tools"), ("feature",)),
        (ChallengeRequired("prove it", kind="turnstile", url="https://example.org/"), ("kind", "url")),
        (ProtocolDrift("gone", missing="data-nonce"), ("missing",)),
        (TruncatedAnswer(partial="half an"), ("partial", "text")),
    ]
    for error, names in cases:
        other = copy.copy(error)
        assert other is not error
        assert [getattr(other, name) for name in names] == [getattr(error, name) for name in names]


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BadRequest"),
        (401, "AuthError"),
        (402, "AuthError"),
        (403, "AuthError"),
        (404, "BadRequest"),
        (407, "AuthError"),
        (408, "ProviderUnavailable"),
        (413, "ContextTooLong"),
        (422, "BadRequest"),
        (425, "RateLimited"),
        (429, "RateLimited"),
        (500, "ProviderUnavailable"),
        (502, "ProviderUnavailable"),
        (599, "ProviderUnavailable"),
        (200, "RemoteProtocolError"),
        (302, "RemoteProtocolError"),
    ],
)
def test_error_for_status(status, name):
    error = error_for_status(status, "said", code="c", retry_after=7.0)
    assert type(error).__name__ == name
    assert (error.text, error.status, error.code, error.retry_after) == ("said", status, "c", 7.0)


def test_error_for_status_without_a_text_names_the_status():
    assert str(error_for_status(503, "")) == "HTTP 503"
