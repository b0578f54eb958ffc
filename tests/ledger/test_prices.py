"""Prices: what is known, and what is not guessed."""

import sys
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import strategies as st

from tolmach.ledger import Prices, Rate
from tolmach.providers.sites.apis import apis

SERVICES = {"openai": "openai", "mine": "openai", "g": "gemini", "groq": "groq", "pplx": "perplexity"}


def test_prices_of_the_configuration_come_first_and_the_first_that_fits_counts() -> None:
    prices = Prices({"openai/gpt-4o": Rate(1, 2), "gpt-4o*": Rate(10, 20), "*/x": Rate(5, 5)}, SERVICES)
    assert prices.cost("openai/gpt-4o", 100, 10) == 120
    assert prices.cost("local/gpt-4o", 100, 10) == 1200
    assert prices.cost("local/gpt-4o-mini", 1, 0) == 10
    assert prices.cost("any/x", 1, 1) == 10
    assert prices.cost("any/y", 1, 1) is None


@pytest.mark.parametrize(
    ("target", "service", "model"),
    [
        ("openai/gpt-4o", "openai", "gpt-4o"),
        ("mine/gpt-4o-mini", "openai", "gpt-4o-mini"),
        ("g/gemini-2.5-pro", "google", "gemini-2.5-pro"),
        ("groq/llama-3.3-70b-versatile", "groq", "llama-3.3-70b-versatile"),
    ],
)
@given(prompt=st.integers(0, 400_000), completion=st.integers(0, 100_000), part=st.floats(0, 1))
def test_a_cost_is_that_of_genai_prices(
    target: str, service: str, model: str, prompt: int, completion: int, part: float
) -> None:
    cached = int(prompt * part)
    usage = Usage(input_tokens=prompt, output_tokens=completion, cache_read_tokens=cached)
    told = calc_price(usage, model, provider_id=service).total_price * 1_000_000
    cost = Prices({}, SERVICES).cost(target, prompt, completion, cached)
    assert cost is not None
    assert abs(Decimal(cost) - told) <= Decimal("0.51")


def test_a_service_that_is_paid_by_the_request_too() -> None:
    assert Prices({}, SERVICES).cost("pplx/sonar", 1000, 100) == 12_000 + 1100


def test_a_pattern_may_name_a_target_by_any_of_its_spellings() -> None:
    spellings = {"openai/smart": "openai/gpt-4o", "openai/gpt-4o-mini": "openai/gpt-4o", "openai": "openai/gpt-4o"}
    listed = Prices({}, SERVICES).cost("openai/gpt-4o", 1000, 10)
    assert listed is not None
    assert Prices({}, SERVICES, spellings).cost("openai/gpt-4o", 1000, 10) == listed
    for pattern in ("openai/smart", "smart", "openai/gpt-4o", "gpt-4o", "openai"):
        assert Prices({pattern: Rate(1, 2)}, SERVICES, spellings).cost("openai/gpt-4o", 1000, 10) == 1020
    # The first that fits any of them, so that it does not depend on how the target is called.
    two = {"gpt-4o-mini": Rate(3, 3), "smart": Rate(1, 2)}
    assert Prices(two, SERVICES, spellings).cost("openai/gpt-4o", 1000, 10) == 3030


@pytest.mark.parametrize("target", ["openai/gpt-99", "unknown/gpt-4o", "openai", "", "openai/", "/gpt-4o"])
def test_what_is_not_known_is_not_guessed(target: str) -> None:
    assert Prices({}, SERVICES).cost(target, 1000, 10) is None


def test_a_price_that_lacks_what_is_needed_is_none() -> None:
    assert Rate(input=1).cost(10, 0, 0) == 10
    assert Rate(input=1).cost(10, 1, 0) is None
    assert Rate(output=1).cost(1, 0, 0) is None
    assert Rate(output=1).cost(0, 7, 0) == 7


def test_cached_input_has_its_own_price_and_is_part_of_the_input() -> None:
    assert Rate(10, 0, 1).cost(100, 0, 40) == 60 * 10 + 40
    assert Rate(10, 0, 1).cost(100, 0, 1000) == 100
    assert Rate(10, 0).cost(100, 0, 40) == 1000
    assert Rate(0, 0).cost(100, 100, 40) == 0


def test_a_price_counts_at_the_time_of_the_request() -> None:
    # DeepSeek's price went with the time of the day until September 2025.
    prices = Prices({}, {"d": "deepseek"})
    day, night = (1_750_000_000 // 86_400 * 86_400 + hour * 3600 for hour in (12, 20))
    told = [prices.cost("d/deepseek-chat", 1_000_000, 0, at=at) for at in (day, night)]
    assert None not in told
    assert told[0] != told[1]


def test_without_genai_prices_only_the_configuration_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    prices = Prices({"a/*": Rate(1, 1)}, SERVICES)
    assert prices.cost("openai/gpt-4o", 1000, 10) is None
    assert prices.cost("a/b", 1, 1) == 2


def test_names_that_callers_make_up_do_not_fill_the_memory() -> None:
    prices = Prices({"openai/gpt-4o": Rate(1, 1)})
    for number in range(25_000):
        assert prices.cost(f"openai/{number}", 1, 1) is None
    assert len(prices._known) <= 10_000
    assert prices.cost("openai/gpt-4o", 1, 1) == 2


@pytest.mark.parametrize("service", ["openai", "anthropic", "gemini", "groq", "mistral", "deepseek", "xai", "moonshot"])
def test_well_known_services_are_found(service: str) -> None:
    from genai_prices.data import providers

    from tolmach.ledger.prices import _SERVICES

    assert service in apis()
    assert _SERVICES.get(service, service) in {provider.id for provider in providers}
