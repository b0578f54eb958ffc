"""`tolmach explain`: whom a model is asked of, in which order and why."""

import asyncio
from pathlib import Path
from urllib.parse import quote

import click
import msgspec

from tolmach.cli.config import config_option, load_settings
from tolmach.cli.failures import debug_option
from tolmach.cli.output import say, say_json
from tolmach.configuration import GatewayTable
from tolmach.errors import ConfigError, TolmachError
from tolmach.gateway.addresses import url_of
from tolmach.gateway.explain import Explained, ExplainedTarget, explain
from tolmach.routing.from_settings import targets_of
from tolmach.routing.policy import Rules
from tolmach.safe_text import one_line
from tolmach.transport import Timeouts, TransportOptions, create, read
from tolmach.wire import Request

__all__ = ["explain_model"]

_TIMEOUTS = Timeouts(connect=2, first_byte=3, idle=3, total=5)
_LONGEST = 1 << 20
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""An address to listen on that is none to ask at -> where the same gateway answers on this machine."""


@click.command("explain")
@click.argument("model")
@config_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON; `live` says whether it has how the targets are doing."
)
@debug_option
def explain_model(model: str, file: Path | None, as_json: bool) -> None:
    """Tell whom a MODEL is asked of, in which order and why.

    The plan is that of the configuration. When its gateway is running, it says how each target is doing now, and what
    would become of it if the model was asked for.
    """
    settings = load_settings(file)
    if not settings.providers:
        where = f"{settings.file} names no provider" if settings.file else "there is no tolmach.toml"
        raise ConfigError(f"{where}; `tolmach init` writes one to begin with")
    explained = explain(model, targets_of(settings))
    url = _address(settings.gateway)
    live, why = asyncio.run(_asked(url, model, settings.gateway.admin_key))
    explained = live or explained
    if as_json:
        say_json(explained, indent=2)
        return
    for line in _lines(explained):
        say(one_line(line))
    if why:
        say(f"How the targets are doing is not known: {why}", err=True)


def _address(table: GatewayTable) -> str:
    return url_of(_EVERYWHERE.get(table.host, table.host), table.port)


async def _asked(url: str, model: str, admin_key: str) -> tuple[Explained | None, str]:
    """What the running gateway says, or why it says nothing."""
    headers = {"authorization": f"Bearer {admin_key}"} if admin_key else {}
    request = Request("GET", f"{url}/admin/explain?model={quote(model, safe='')}", headers)
    transport = create(TransportOptions())
    try:
        exchange = await transport.send(request, _TIMEOUTS)
        status, body = exchange.head.status, await read(exchange, _LONGEST)
    except TolmachError as error:
        return None, f"no gateway answers at {url} ({type(error).__name__})"
    finally:
        await transport.aclose()
    if status == 401:
        return None, f"the gateway at {url} wants another admin key than the configuration's"
    try:
        return msgspec.json.decode(body, type=Explained), ""
    except msgspec.MsgspecError:
        return None, f"what answers at {url} does not know the model, or is no gateway (status {status})"


def _lines(explained: Explained) -> list[str]:
    rules = explained.rules
    how = f"the route {explained.route}" if explained.route else "no route names it, so one target is asked"
    lines = [f"{explained.model}: {how}", f"  {_rules(rules)}"]
    weighted = rules.strategy == "weighted"
    for number, target in enumerate(explained.targets, 1):
        lines += ["", f"{number}. {target.name}", *(f"     {line}" for line in _about(target, weighted))]
    return lines


def _rules(rules: Rules) -> str:
    told = f"{rules.strategy}, {rules.attempts} attempt{'s' * (rules.attempts > 1)} at most, recover {rules.recover}"
    return told if rules.hedge_after is None else f"{told}, a second target after {rules.hedge_after:g} s"


def _about(target: ExplainedTarget, weighted: bool) -> list[str]:
    whole = [surface for surface, passes in target.passes_through.items() if passes]
    others = [surface for surface, passes in target.passes_through.items() if not passes and surface != "embeddings"]
    limits = {name.replace("_", " "): getattr(target.timeouts, name) for name in target.timeouts.__struct_fields__}
    rows = [
        ("model", target.model or "the service's default"),
        ("protocol", target.protocol),
        ("bodies", _bodies(whole, others)),
        ("limits", ", ".join(f"{name} {value:g} s" for name, value in limits.items() if value is not None)),
        ("keys", str(target.keys)),
    ]
    if target.prefill:
        rows.append(("prefill", "goes on from the answer so far"))
    if target.emulate:
        rows.append(("emulated", ", ".join(target.emulate)))
    if weighted:
        rows.append(("weight", f"{target.weight:g}"))
    if target.first_token is not None:
        rows.append(("measured", f"{target.first_token:.3f} s to the first token"))
    if target.failures:
        rows.append(("failures", f"{target.failures} in a row"))
    for key in target.keys_now or ():
        which = f"key {key.key}: " if target.keys > 1 else ""
        circuit = "" if key.now.startswith("circuit ") else f"circuit {key.circuit}; "
        rows.append(("now", f"{which}{circuit}{key.now}"))
    return [f"{name:<9} {value}" for name, value in rows]


def _bodies(whole: list[str], others: list[str]) -> str:
    """Which APIs' bodies reach the target as they are, and which are put into its own."""
    passed = [f"{', '.join(whole)} passed on"] if whole else []
    return "; ".join([*passed, f"{', '.join(others)} translated"])
