"""`tolmach discover`: which assistants a page has, what they speak, and what stands in the way."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import click
import msgspec
from msgspec import Struct, structs

from tolmach.chat import Delta, Notice
from tolmach.cli.failures import as_event, debug_option, describe
from tolmach.cli.findings import print_findings, print_row
from tolmach.cli.output import say, say_answer, say_json
from tolmach.client.clients import AsyncClient
from tolmach.configuration.adding import add_provider
from tolmach.configuration.settings import find_config
from tolmach.discovery import Findings, Found, Page, Traffic, from_traffic, recognise
from tolmach.discovery.sight import is_address
from tolmach.errors import AssistantGone, AuthError, ConfigError, ContextTooLong, RemoteProtocolError, TolmachError
from tolmach.pages.search import USER_AGENT, Manners, Visitor
from tolmach.pages.search import discover as discover_page
from tolmach.recipes.draft import Draft
from tolmach.recipes.traffic import Exchange
from tolmach.transport import TransportOptions, create
from tolmach.wire import Request

__all__ = ["Look", "discover", "look_at", "of_exchanges"]

_FIRST_TAG = 65536
"""Bytes in which a page has its first tag."""
_KEPT_HEADERS = frozenset({"accept-language", "authorization", "cookie"})
"""What of a copied command goes along with the fetching of its page, to its own origin."""


class Look(Struct, frozen=True):
    """What a target was, and what was found there. `unknown` are exchanges with a chat that is not known."""

    findings: Findings
    unknown: tuple[Traffic, ...] = ()
    recorded: tuple[Exchange, ...] = ()
    """What a recipe may be made of; one of a command has no answer."""
    draft: Draft | None = None
    """The recipe behind a finding of the protocol `recipe`."""


class _Way(Struct, frozen=True, kw_only=True):
    """How the network is reached."""

    options: TransportOptions
    user_agent: str
    crawl: int
    headers: dict[str, str]
    """For the origin of the first page alone."""


@click.command()
@click.argument("target", metavar="TARGET")
@click.option("--try", "question", default=None, metavar="QUESTION", help="Ask the assistant, and print its answer.")
@click.option("--accept-consent", is_flag=True, help="Agree to what the site asks its visitors to agree to.")
@click.option("--bot", default=None, metavar="ID", help="Only the assistant with this id or name.")
@click.option(
    "--save", "name", default=None, metavar="NAME", help="Write it as [providers.NAME] into the configuration."
)
@click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FILE",
    help="The configuration for --save; else the one in force, or ./tolmach.toml.",
)
@click.option(
    "--question", "asked", default="", metavar="TEXT", help="What was asked in unknown traffic; else it is guessed."
)
@click.option(
    "--answer",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE",
    help="The response to a curl command of an unknown chat, so that it is not run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: `found` has all assistants, none is an empty list.")
@click.option("--crawl", is_flag=True, help="Look at the pages linked from it too, two links deep, heeding robots.txt.")
@click.option(
    "--api-key", default=None, metavar="KEY", help="Key of the API that is looked at, sent to its origin alone."
)
@click.option("--user-agent", default=None, metavar="TEXT", help=f"Who asks, instead of {USER_AGENT!r}.")
@click.option(
    "--proxy", default=None, envvar="TOLMACH_PROXY", show_envvar=True, metavar="URL", help="As of `tolmach ask`."
)
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False),
    default=None,
    help="CA certificates to trust instead of the system's, PEM.",
)
@click.option("--insecure", is_flag=True, help="Do not check certificates.")
@debug_option
def discover(
    target: str,
    question: str | None,
    accept_consent: bool,
    bot: str | None,
    name: str | None,
    file: Path | None,
    asked: str,
    answer: Path | None,
    as_json: bool,
    crawl: bool,
    api_key: str | None,
    user_agent: str | None,
    proxy: str | None,
    ca: str | None,
    insecure: bool,
) -> None:
    """Find the chat assistants of a page, and ask them.

    TARGET is an address, a saved page (.html), a HAR file of a browser's network tab, a curl command
    copied there (as one argument, or in a file), or - for one of these on standard input. Traffic with
    an unknown chat gives a recipe. Nothing is asked of an assistant without --try, but a copied
    question to an unknown chat is run once, to see its answer.

    \b
    tolmach discover https://shop.example/help
    tolmach discover saved.html --json
    tolmach discover https://shop.example --try "Are you open today?" --save shop
    """
    options = TransportOptions(proxy=proxy, verify=False if insecure else ca or True)
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    way = _Way(options=options, user_agent=user_agent or "", crawl=2 if crawl else 0, headers=headers)
    look = asyncio.run(_look_and_infer(target, way, bot, asked, answer))
    findings = _chosen(look.findings, bot)
    if (question is not None or name is not None) and not findings.found:
        raise AssistantGone(_nothing(findings), missing="assistant")
    tried = None
    if question is not None and not as_json:
        print_findings(findings, len(look.unknown))
    if question is not None:
        _check_question(findings.found[0], question, accept_consent)
        found = findings.found[0]
        asking = _ask(found, _row_to_ask(found, look), question, options, api_key, show=not as_json)
        tried = asyncio.run(asking)
        if tried.error is None and look.draft is not None and findings.found[0].protocol == "recipe":
            tried.error = _no_answer(tried, look.draft)
        findings = _with_outcome(findings, tried)
    if as_json:
        _print_json(target, look, findings, tried)
    elif question is None:
        print_findings(findings, len(look.unknown))
    if name is not None:
        _save(findings.found[0], name, file, look)
    if tried is not None and tried.error is not None:
        raise tried.error


# Looking


async def look_at(target: str, way: _Way) -> Look:
    """What a target shows: it is fetched when it is an address, else read. Raises `ConfigError` for what is neither."""
    if is_address(target.strip()):
        return Look(await _fetched(target.strip(), way))
    from tolmach.cli.traffic import exchanges_of, read_source

    data = read_source(target)
    if not (recorded := exchanges_of(data, target)):
        return Look(structs.replace(recognise(_saved_page(target, data), now=None), wanted=()))
    if len(recorded) == 1 and recorded[0].head is None:
        return await _of_copy(recorded[0].request, way)
    look = of_exchanges([Traffic(one.request, one.head, one.body) for one in recorded])
    return structs.replace(look, recorded=recorded)


def _saved_page(target: str, data: bytes) -> Page:
    """Raises `ConfigError` for a file that is no page."""
    if b"<" not in data[:_FIRST_TAG]:
        raise ConfigError(
            f"{target[:200]}: of no form that is known here; it may be a saved page (HTML), a HAR file, "
            "or a request that a browser copied (cURL, fetch, PowerShell)"
        )
    return Page("", data)


def of_exchanges(exchanges: list[Traffic]) -> Look:
    """What recorded exchanges show; those with an unknown chat stand in `Look.unknown`."""
    findings, unknown = from_traffic(exchanges)
    return Look(findings, tuple(unknown))


async def _of_copy(request: Request, way: _Way) -> Look:
    """The page that a copied request fetches is fetched; a question that it asks is only read."""
    if request.method in ("GET", "HEAD") and not request.body:
        headers = {name: value for name, value in request.headers.items() if name in _KEPT_HEADERS} | way.headers
        agent = way.user_agent or request.headers.get("user-agent", "")
        findings = await _fetched(request.url, structs.replace(way, user_agent=agent, headers=headers))
        return Look(findings, recorded=(Exchange(request=request),))
    return structs.replace(of_exchanges([Traffic(request)]), recorded=(Exchange(request=request),))


async def _look_and_infer(target: str, way: _Way, bot: str | None, asked: str, answer: Path | None) -> Look:
    """What a target shows; of traffic without a known assistant, or with --bot recipe, the recipe that it gives."""
    look = await look_at(target, way)
    if not look.recorded or (look.findings.found and bot != "recipe"):
        return look
    from tolmach.cli.inferred import found_recipe

    try:
        draft = await _inferred(look.recorded, asked, answer, way.options)
    except TolmachError as error:
        hints = (*look.findings.hints, f"no recipe can be made of it: {error}")
        return structs.replace(look, findings=structs.replace(look.findings, hints=hints))
    if draft is None:
        return look
    found = (*look.findings.found, found_recipe(draft))
    # What of the traffic the recipe does not need, it says itself.
    return structs.replace(look, findings=structs.replace(look.findings, found=found), unknown=(), draft=draft)


async def _inferred(
    recorded: tuple[Exchange, ...], asked: str, answer: Path | None, way: TransportOptions
) -> Draft | None:
    """The recipe of what was recorded; None for a command that asks nothing. Raises `TolmachError` for other."""
    from tolmach.cli.recipe import draft_of_request
    from tolmach.cli.traffic import read_source, the_question
    from tolmach.recipes.infer import infer

    if any(one.head is not None for one in recorded):
        return infer(list(recorded), asked)
    request = the_question(recorded, asked)
    if request is None:
        return None
    return await draft_of_request(request, asked, None if answer is None else read_source(str(answer)), way)


async def _fetched(url: str, way: _Way) -> Findings:
    agent = way.user_agent or USER_AGENT
    transport = create(way.options)
    try:
        visitor = Visitor(transport, Manners(user_agent=agent, headers=way.headers))
        return await discover_page(url, visitor.fetch, crawl=way.crawl, visitor=visitor, user_agent=agent)
    finally:
        await transport.aclose()


def _chosen(findings: Findings, bot: str | None) -> Findings:
    if bot is None or not findings.found:
        return findings
    fitting = tuple(one for one in findings.found if one.fits(bot) or (not one.bot and one.protocol == bot))
    if not fitting:
        there = ", ".join(one.bot or one.protocol for one in findings.found)
        raise ConfigError(f"--bot {bot}: no assistant of this page has that id; there are: {there}")
    return structs.replace(findings, found=fitting)


def _nothing(findings: Findings) -> str:
    said = [missing.text for missing in findings.missing] or list(findings.hints)
    said += [one.line for one in findings.named]
    return "; ".join(["no assistant was found", *said])


# Asking


class _Tried(Struct):
    """An answer as it came, or the error that it ended in."""

    bot: str
    question: str
    answer: str = ""
    notices: list[str] = []
    error: TolmachError | None = None


def _check_question(found: Found, question: str, accept_consent: bool) -> None:
    """Raises `ConfigError` where consent is needed and not given, `ContextTooLong` for a question over the limit."""
    if found.consent and not accept_consent:
        raise ConfigError(f"the site asks for consent ({found.consent}); agree to it with --accept-consent")
    if found.limit is not None and not found.limit.allows(question):
        length, unit = found.limit.length(question), found.limit.unit
        raise ContextTooLong(f"the question has {length} {unit}, and the site takes {found.limit.most} at most")


def _row_to_ask(found: Found, look: Look) -> dict[str, Any]:
    """The row that is asked: that of a recipe with the recorded secrets."""
    if found.protocol != "recipe" or look.draft is None:
        return dict(found.row)
    from tolmach.cli.inferred import with_secrets

    return found.row | with_secrets(look.draft)


async def _ask(
    found: Found, row: dict[str, Any], question: str, way: TransportOptions, api_key: str | None, *, show: bool
) -> _Tried:
    """Ask through the ordinary session of a row; what it has beside the protocol's options is taken out of it."""
    models = row.pop("models", None)
    model = row.pop("default_model", "") or (models[0] if models else "")
    url, protocol = row.pop("url"), row.pop("protocol")
    client = AsyncClient(
        base_url=url,
        protocol=protocol,
        api_key=api_key if found.kind == "api" else None,
        proxy=way.proxy,
        verify=way.verify,
        strict=False,
        **row,
    )
    tried = _Tried(found.bot, question)
    events = client.events(model=model, messages=[{"role": "user", "content": question}])
    try:
        async for event in events:
            if isinstance(event, Delta):
                tried.answer += event.text
                if show:
                    say_answer(event.text)
            elif isinstance(event, Notice) and event.kind != "status":
                tried.notices.append(f"{event.kind}: {event.text}")
    except TolmachError as error:
        tried.error = error
    finally:
        await events.aclose()
        await client.close()
    if show and tried.answer:
        say()
    return tried


def _no_answer(tried: _Tried, draft: Draft) -> TolmachError | None:
    """The error that an answer stands for which a recipe gave to no question of this one."""
    from tolmach.recipes.judging import answers_anew

    wrong = answers_anew(tried.answer, tried.question, draft)
    return RemoteProtocolError(f"the recipe does not work: {wrong}") if wrong else None


def _with_outcome(findings: Findings, tried: _Tried) -> Findings:
    """What a question showed of the first assistant: whether a guest may ask it."""
    first = findings.found[0]
    if tried.error is None:
        first = structs.replace(first, guests=True)
    elif isinstance(tried.error, AuthError):
        first = structs.replace(first, guests=False)
    return structs.replace(findings, found=(first, *findings.found[1:]))


def _save(found: Found, name: str, file: Path | None, look: Look) -> None:
    place = file or find_config() or Path("tolmach.toml")
    if found.protocol == "recipe" and look.draft is not None:
        from tolmach.cli.inferred import save_recipe

        print_row(f"{save_recipe(place, name, look.draft, found.models)}: has the recipe now; look it over")
        for variable, meaning in look.draft.variables.items():
            print_row(f"set the environment variable {variable} before it is used: {meaning}")
    else:
        add_provider(place, name, found.row)
    print_row(f"{place}: has [providers.{name}] now; ask it as {name}/MODEL through `tolmach serve`")


def _print_json(target: str, look: Look, findings: Findings, tried: _Tried | None) -> None:
    value: dict[str, Any] = {
        "target": target if len(target) < 2000 else f"{target[:2000]}…",
        "found": [msgspec.to_builtins(one) for one in findings.found],
        "missing": msgspec.to_builtins(findings.missing),
        "hints": findings.hints,
        "named": msgspec.to_builtins(findings.named),
        "not_supported": Counter(one.name for one in findings.named),
        "unknown": [f"{one.request.method} {one.request.url}" for one in look.unknown],
    }
    if tried is not None:
        error = None if tried.error is None else as_event(tried.error) | {"line": describe(tried.error)}
        value["tried"] = {"bot": tried.bot, "question": tried.question, "answer": tried.answer}
        value["tried"] |= {"notices": tried.notices, "error": error}
    say_json(value, indent=2)
