"""Why a model's targets are asked in their order: the plan of a name, and how its targets are doing now."""

import time
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct, structs

from tolmach.errors import ModelNotFound
from tolmach.routing.health import CircuitState, Health
from tolmach.routing.policy import Ask, Choice, Failed, Rules, next_step, unwell
from tolmach.routing.targets import Plan, Targets

__all__ = [
    "SURFACES",
    "Explained",
    "ExplainedKey",
    "ExplainedTarget",
    "Limits",
    "explain",
    "explained_body",
    "with_health",
]

SURFACES = ("openai", "responses", "anthropic", "embeddings")
"""The APIs of callers, of which a target may take the bodies as they are."""

_NEVER_DRAWN = 0.999
"""A number that draws no target for its measuring alone."""


class Limits(Struct, frozen=True):
    """Time limits in seconds; None for none."""

    connect: float | None
    first_token: float | None
    idle: float | None
    total: float | None


class ExplainedKey(Struct, frozen=True, kw_only=True):
    """How one key of a target is doing, and what would become of it if the model was asked for now."""

    key: int
    """From 1."""
    circuit: CircuitState
    opens_in: float
    """Seconds until an open circuit lets a probe through."""
    rests_for: float
    """Seconds for which the service asked to be left alone."""
    probing: bool
    place: int | None
    """Its place in the order of asking, from 1; None when it is not asked at all, or drawn by weight."""
    now: str
    """In words for people."""


class ExplainedTarget(Struct, frozen=True, kw_only=True):
    """One target of a plan. `first_token` (seconds), `failures` (in a row) and `keys_now` are told of a live one."""

    name: str
    model: str
    """The service's own name."""
    protocol: str
    passes_through: dict[str, bool]
    """Surface -> whether a body of it reaches the target as it is."""
    timeouts: Limits
    keys: int
    prefill: bool
    weight: float
    emulate: list[str]
    first_token: float | None = None
    failures: int | None = None
    keys_now: list[ExplainedKey] | None = None


class Explained(Struct, frozen=True, kw_only=True):
    """The plan for a model's name. `route` is the name of the route, empty where none names the model."""

    model: str
    route: str
    rules: Rules
    targets: list[ExplainedTarget]
    live: bool = False
    """Whether it says how the targets are doing."""


def explained_body(query: str, targets: Targets, health: Health) -> tuple[int, bytes]:
    """The status and body of an answer that explains the model which a query names, live."""
    model = parse_qs(query).get("model", [""])[-1]
    if not model:
        return 400, _error("name a model: /admin/explain?model=NAME", None)
    try:
        plan = targets.plan(model)
    except ModelNotFound as error:
        return 404, _error(str(error), "model_not_found")
    # The clock of the router.
    return 200, msgspec.json.encode(with_health(explain(model, targets), plan, health, time.monotonic()))


def _error(text: str, code: str | None) -> bytes:
    return msgspec.json.encode(
        {"error": {"message": text, "type": "invalid_request_error", "param": None, "code": code}}
    )


def explain(model: str, targets: Targets) -> Explained:
    """The plan as it is configured. Raises `ModelNotFound`."""
    plan = targets.plan(model)
    return Explained(
        model=model,
        route=plan.name if plan.name in targets.routes() else "",
        rules=plan.rules,
        targets=[_target(keys, plan) for keys in _by_target(plan).values()],
    )


def _by_target(plan: Plan) -> dict[str, list[Choice]]:
    found: dict[str, list[Choice]] = {}
    for choice in plan.choices:
        found.setdefault(choice.target, []).append(choice)
    return found


def _target(keys: list[Choice], plan: Plan) -> ExplainedTarget:
    target = plan.targets[keys[0].id]
    times = target.timeouts
    return ExplainedTarget(
        name=target.name,
        model=target.model,
        protocol=target.provider.site.protocol.name,
        passes_through={surface: surface in target.forwards for surface in SURFACES},
        timeouts=Limits(times.connect, times.first_byte, times.idle, times.total),
        keys=len(keys),
        prefill=target.provider.prefill,
        weight=keys[0].weight,
        emulate=sorted(target.provider.emulate),
    )


def with_health(explained: Explained, plan: Plan, health: Health, now: float) -> Explained:
    """The same, with how each target is doing at the time `now`, and what would become of it."""
    order = _order(plan, health, now)
    shares = _shares(plan, health, now)
    seen = {one.id: one for one in health.snapshot(now)}
    targets = []
    for target, keys in zip(explained.targets, _by_target(plan).values(), strict=True):
        known = next((seen[key.id] for key in keys if key.id in seen), None)
        targets.append(
            structs.replace(
                target,
                first_token=health.first_token(target.name),
                failures=0 if known is None else known.failures,
                keys_now=[_key(key, order, shares, health, now) for key in keys],
            )
        )
    return Explained(model=explained.model, route=explained.route, rules=explained.rules, targets=targets, live=True)


def _key(choice: Choice, order: list[Ask], shares: dict[str, float], health: Health, now: float) -> ExplainedKey:
    state = health.state(choice.id, now)
    place, words = _outlook(choice, order, shares, unwell(choice, health, now))
    return ExplainedKey(
        key=choice.key + 1,
        circuit=state,
        opens_in=health.opens_until(choice.id) - now if state == "open" else 0.0,
        rests_for=max(0.0, health.rest_until(choice.id) - now),
        probing=health.probing(choice.id),
        place=place,
        now=words,
    )


def _outlook(choice: Choice, order: list[Ask], shares: dict[str, float], ill: str) -> tuple[int | None, str]:
    """The choice's place in the order, and what would become of it, in words. `ill` says what is wrong with it."""
    if choice.target in shares and not ill:
        return None, f"asked first in {shares[choice.target]:.0%} of the questions"
    place = next((at for at, step in enumerate(order, 1) if step.choice == choice), None)
    if place is None:
        if any(step.choice.target == choice.target for step in order):
            why = "takes turns with the other keys of the target"
        else:
            why = "not asked: others use up the attempts" if order else "not asked"
        return None, f"{ill}; {why}" if ill else why
    step = order[place - 1]
    told = "asked first" if place == 1 else f"asked when {place - 1} before it failed"
    if step.probe:
        told += ", as the one probe of its circuit"
    if place == 1 and step.wait:
        told += f", after {step.wait:.1f} s"
    return place, f"{ill}; {told}" if ill else told


def _order(plan: Plan, health: Health, now: float) -> list[Ask]:
    """Whom a question would ask now, if each of them failed without a word of when to come back."""
    steps: list[Ask] = []
    failed: list[Failed] = []
    while True:
        step = next_step(plan.rules, plan.choices, failed, health, now, lambda: _NEVER_DRAWN)
        if not isinstance(step, Ask):
            return steps
        steps.append(step)
        failed.append(Failed(step.choice, "transient", now))


def _shares(plan: Plan, health: Health, now: float) -> dict[str, float]:
    """Target -> the part of the questions that it gets, where they are drawn by weight among those that are well."""
    if plan.rules.strategy != "weighted":
        return {}
    ready = {
        name: keys[0].weight
        for name, keys in _by_target(plan).items()
        if any(health.usable(key.id, now) for key in keys)
    }
    total = sum(ready.values())
    return {name: weight / total for name, weight in ready.items()} if len(ready) > 1 and total else {}
