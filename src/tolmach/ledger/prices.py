"""What tokens cost: by the prices of the configuration, else by the `genai-prices` package where it is installed.

Money is millionths of a US dollar in whole numbers. A dollar for a million tokens is one of them for a token.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

__all__ = ["Prices", "Rate"]


class Rate(Struct, frozen=True, gc=False):
    """US dollars for a million tokens; None for unknown."""

    input: float | None = None
    output: float | None = None
    cached: float | None = None
    """For those tokens of the input that the service had in its cache; None for the price of `input`."""
    request: float = 0.0
    """US dollars for a million requests."""

    def cost(self, prompt: int, completion: int, cached: int) -> int | None:
        """None where a price that is needed is unknown."""
        if (prompt and self.input is None) or (completion and self.output is None):
            return None
        total = self.request + completion * (self.output or 0.0)
        if self.input is not None:
            total += prompt * self.input
            if cached and self.cached is not None:
                total += min(cached, prompt) * (self.cached - self.input)
        return round(total)


_SERVICES = {
    "gemini": "google",
    "gemini-openai": "google",
    "moonshot": "moonshotai",
    "openai-responses": "openai",
    "xai": "x-ai",
    "zhipu": "zhipuai",
}
"""Our name of a service -> genai-prices', where it is another one."""

_PLAIN = frozenset({"input_mtok", "output_mtok", "cache_read_mtok", "requests_kcount"})
"""genai-prices' keys of what the ledger counts."""

_TOO_MANY = 10_000
"""Targets whose prices are remembered; callers may make up names of models."""

_Pricer = Callable[[int, int, int, float], int | None]


class Prices:
    """What an answer of a target costs; unknown rather than guessed.

    `rates` are the configuration's: pattern (`*`, `?`) of a target (PROVIDER/MODEL) or of a model alone ->
    price. The first that fits counts. `services` says of which service a provider is (its name in the
    table of services); a provider that is not in it has only the configuration's prices, since the same
    model at another place costs something else. `spellings` maps other names of targets to the one that they have: a
    pattern may name any of them. genai-prices' own data are used; nothing is fetched.
    """

    def __init__(
        self,
        rates: Mapping[str, Rate] | None = None,
        services: Mapping[str, str] | None = None,
        spellings: Mapping[str, str] | None = None,
    ) -> None:
        self._rates: Final = dict(rates or {})
        self._services: Final = dict(services or {})
        self._others: Final[dict[str, set[str]]] = {}
        for spelling, target in (spellings or {}).items():
            self._others.setdefault(target, set()).add(spelling)
        self._known: dict[str, Rate | _Pricer | None] = {}

    def cost(self, target: str, prompt: int, completion: int, cached: int = 0, at: float | None = None) -> int | None:
        """Millionths of a dollar; None where the price is unknown.

        `cached` tokens are among those of the prompt. `at` (unix seconds, now by default) counts for
        prices that change with time.
        """
        try:
            price = self._known[target]
        except KeyError:
            price = self._find(target)
        if isinstance(price, Rate):
            return price.cost(prompt, completion, cached)
        if price is None:
            return None
        return price(prompt, completion, cached, datetime.now(UTC).timestamp() if at is None else at)

    def _find(self, target: str) -> Rate | _Pricer | None:
        if len(self._known) >= _TOO_MANY:
            self._known.clear()
        provider, _, model = target.partition("/")
        spellings = {target, *self._others.get(target, ())}
        names = spellings | {name.partition("/")[2] for name in spellings}
        found: Rate | _Pricer | None = next(
            (rate for pattern, rate in self._rates.items() if any(fnmatchcase(name, pattern) for name in names)),
            None,
        )
        if found is None and model and (service := self._services.get(provider)):
            found = _listed(service, model)
        self._known[target] = found
        return found


def _listed(service: str, model: str) -> Rate | _Pricer | None:
    """The price in genai-prices; None when it has none, or is not installed."""
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError:
        return None
    try:
        provider, info = get_snapshot().find_provider_model(model, None, _SERVICES.get(service, service), None)
    except LookupError:
        return None
    if isinstance(info.prices, list):
        return _changing(provider, info)
    values = _values(info.prices)
    if any(value is not None and not hasattr(value, "as_tuple") for value in values.values()):
        return _changing(provider, info)
    return _rate(values) if values else None


def _values(price: "ModelPrice") -> dict[str, Any]:
    """The prices of what the ledger counts, each a decimal number or one with tiers."""
    return {key: value for key, value in vars(price).items() if key in _PLAIN and value is not None}


def _rate(values: Mapping[str, Any]) -> Rate:
    given = {key: float(value) for key, value in values.items()}
    return Rate(
        given.get("input_mtok"),
        given.get("output_mtok"),
        given.get("cache_read_mtok"),
        given.get("requests_kcount", 0.0) * 1000,
    )


def _changing(provider: "Provider", info: "ModelInfo") -> _Pricer:
    """Prices that depend on the time or the number of tokens: genai-prices works each of them out."""
    from genai_prices import Usage

    def cost(prompt: int, completion: int, cached: int, at: float) -> int | None:
        when = datetime.fromtimestamp(at, UTC)
        values = _values(info.get_prices(when))
        if (
            "requests_kcount" in values
            or (prompt and "input_mtok" not in values)
            or (completion and "output_mtok" not in values)
        ):
            return None
        usage = Usage(input_tokens=prompt, output_tokens=completion, cache_read_tokens=min(cached, prompt) or None)
        price = info.calc_price(usage, provider, genai_request_timestamp=when)
        return round(price.total_price * 1_000_000)

    return cost
