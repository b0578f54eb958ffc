"""`tolmach recipe`: from recorded traffic to a recipe."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import msgspec

from tolmach.chat import Delta
from tolmach.cli.failures import debug_option
from tolmach.cli.inferred import with_secrets
from tolmach.cli.output import say, say_answer, say_json
from tolmach.cli.traffic import exchanges_of, read_source, the_question
from tolmach.client.clients import AsyncClient
from tolmach.errors import ConfigError, RemoteProtocolError
from tolmach.recipes.draft import Draft
from tolmach.recipes.infer import infer
from tolmach.recipes.judging import answers_anew
from tolmach.recipes.running import run_once
from tolmach.recipes.traffic import Exchange
from tolmach.recipes.writing import to_toml, write_recipe
from tolmach.transport import TransportOptions, create
from tolmach.wire import Head, Request

__all__ = ["as_json", "draft_of", "draft_of_request", "recipe", "try_draft"]


@click.command()
@click.argument("source", metavar="TRAFFIC")
@click.option("--question", default="", metavar="TEXT", help="What was asked in the recording; else it is guessed.")
@click.option(
    "--answer",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    metavar="FILE",
    help="The response to a curl command, so that it is not run.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write the recipe there.")
@click.option("--try", "trial", default="", metavar="TEXT", help="Ask this with the recipe, and print the answer.")
@click.option("--json", "json_wanted", is_flag=True, help="Print what was found as JSON.")
@debug_option
def recipe(source: str, question: str, answer: Path | None, out: Path | None, trial: str, json_wanted: bool) -> None:
    """Make a recipe of a HAR file or a curl command.

    TRAFFIC is a HAR file, or a curl command: in a file, as it stands, or on standard input (-).
    The recipe goes to standard output or to the file of --out; how sure it is of each part, and
    what it ignored, to standard error. A curl command is run once, to see its answer.

    \b
    tolmach recipe chat.har --out chat.toml
    tolmach recipe chat.har --try "Another question"
    """
    draft = asyncio.run(draft_of(source, question=question, answer=answer))
    if out is not None:
        write_recipe(out, to_toml(draft), replace=True)
    if json_wanted:
        say_json(as_json(draft))
    elif out is None:
        say(to_toml(draft), nl=False)
    if not json_wanted:
        for line in _told(draft):
            say(line, err=True)
    if trial:
        said = asyncio.run(try_draft(draft, trial))
        say_answer(said, err=json_wanted, nl=True)


async def draft_of(source: str, *, question: str = "", answer: Path | None = None) -> Draft:
    """The recipe of a HAR file or of a copied request (the text itself, a file with it, or `-`).

    Raises `ConfigError` for traffic that cannot be read or has no question in it, and what the
    transport raises when the request is run.
    """
    recorded = exchanges_of(read_source(source), source)
    if not recorded:
        raise ConfigError(
            f"{source[:200]}: no traffic; give a HAR file, or a request as browsers copy it (cURL, fetch, PowerShell)"
        )
    if any(one.head is not None for one in recorded):
        if answer is not None:
            raise ConfigError("--answer goes with a copied request; a HAR file has the answers in it")
        return infer(list(recorded), question)
    request = the_question(recorded, question) or recorded[0].request
    said = None if answer is None else read_source(str(answer))
    return await draft_of_request(request, question, said, TransportOptions())


async def draft_of_request(request: Request, question: str, answer: bytes | None, way: TransportOptions) -> Draft:
    """The recipe of one request. Without its answer it is run once. Raises as `draft_of`."""
    if answer is not None:
        head = Head(200, {}, (), request.url)
        return infer([Exchange(request=request, head=head, body=answer)], question)
    transport = create(way)
    try:
        exchanges = await run_once(request, transport)
    finally:
        await transport.aclose()
    head_now = exchanges[-1].head
    if head_now is not None and head_now.status >= 400:
        text = exchanges[-1].body[:200].decode("utf-8", "replace")
        raise ConfigError(
            f"the command was run once and got status {head_now.status}: {text}; copy it anew from the "
            "browser, or give the response with --answer FILE"
        )
    return infer(exchanges, question)


async def try_draft(draft: Draft, question: str) -> str:
    """The answer to a question that the recipe asks, with the recorded secrets.

    Raises what asking raises, and `RemoteProtocolError` for what is no answer to it, such as the recorded one.
    """
    async with AsyncClient(base_url=draft.url, protocol="recipe", **with_secrets(draft)) as client:
        events = client.events(model="", messages=[{"role": "user", "content": question}])
        said = "".join([event.text async for event in events if isinstance(event, Delta)])
    if wrong := answers_anew(said, question, draft):
        raise RemoteProtocolError(f"the recipe does not work: {wrong}")
    return said


def as_json(draft: Draft) -> dict[str, Any]:
    """What was found, for JSON; without the recorded secrets."""
    return {
        "url": draft.url,
        "sure": round(draft.sure, 2),
        "question": draft.question,
        "answer": draft.answer,
        "parts": msgspec.to_builtins(draft.parts),
        "ignored": msgspec.to_builtins(draft.ignored),
        "variables": draft.variables,
        "recipe": draft.options,
    }


def _told(draft: Draft) -> Iterable[str]:
    yield f"question: {draft.question[:100]}"
    yield f"answer:   {draft.answer[:100]}"
    for part in draft.parts:
        yield f"{part.sure:4.0%}  {part.name}: {part.reason}"
    for ignored in draft.ignored:
        yield f"ignored {ignored.what}: {ignored.reason}"
