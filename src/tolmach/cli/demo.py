"""`tolmach demo`: a local server plays the services, and a gateway before it is asked all five at once."""

import asyncio
import signal
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tolmach.chat import Delta
from tolmach.cli.failures import EXIT_CODES, Reporting, debug_option, describe
from tolmach.cli.output import new_console, say, say_answer
from tolmach.client.clients import AsyncClient
from tolmach.demo.app import MOUNTS
from tolmach.demo.faults import FAULTS
from tolmach.demo.pages import PAGES
from tolmach.demo.server import Demo
from tolmach.errors import ProviderError, TolmachError
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.server import serving
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.providers.base import Access
from tolmach.providers.registry import get_provider
from tolmach.routing.targets import Provider, Targets
from tolmach.safe_text import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["SERVICES", "Asked", "demo", "demo_targets", "serve"]

SERVICES = ("Chatgpt4o", "Chatgpt4Online", "ChatGptt", "Aichat", "ChatGpt")

QUESTION = "Hello! What can you do?"

_PANEL_WIDTH = 38
"""Columns that a panel needs to be readable."""
_PANEL_HEIGHT = 3
"""Lines that it needs, frame and all."""

_delay = click.option(
    "--delay",
    type=click.FloatRange(0, 60),
    default=0.03,
    show_default=True,
    metavar="SECONDS",
    help="Time between two tokens.",
)


class _DemoGroup(click.Group):
    """A group whose help ends with the table of faults."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Faults"):
            formatter.write_text(
                "For all requests of a service: tolmach demo serve --fault /Chatgpt4o=cut=5. "
                "For one question: [[fault:cut=5]] in its text, or the header x-tolmach-demo: cut=5. "
                "Several are separated by commas; cut=5*2 happens the first two times, cut=5/2 every second time."
            )
            formatter.write_paragraph()
            formatter.write_dl([(fault.usage, _about(name)) for name, fault in FAULTS.items()])


def _about(name: str) -> str:
    fault = FAULTS[name]
    default = "" if fault.value is None else f" (default {fault.value:g})"
    where = f" [{', '.join(fault.services)}]" if fault.services else ""
    return f"{fault.about}{default}{where}"


@click.group(cls=_DemoGroup, invoke_without_command=True)
@click.option("--once", is_flag=True, help="End after the answers.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port of the gateway; 0 takes a free one.",
)
@_delay
@click.option("-q", "--question", default=QUESTION, show_default=True, metavar="TEXT", help="What to ask.")
@debug_option
@click.pass_context
def demo(ctx: click.Context, once: bool, port: int, delay: float, question: str) -> None:
    """See five services answer, played by a local server.

    A gateway is started before them, and all five are asked the same question through it at the same
    time. On a terminal the answers stream side by side; in a pipe they come one after another. Then
    the gateway serves until Ctrl-C. Ends with 0 only if all five answered.
    """
    if ctx.invoked_subcommand is None:
        failed = asyncio.run(_demo(port, delay, question, once))
        if failed:
            ctx.ensure_object(Reporting).tell(f"no whole answer from {', '.join(failed)}; what stands above says why")
            ctx.exit(EXIT_CODES[ProviderError])


@demo.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8190, show_default=True, help="0 takes a free one.")
@_delay
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="PATH=FAULT",
    help="A fault of one service, such as /Chatgpt4o=cut=5, or of all: *=429. May be repeated.",
)
@debug_option
def serve(host: str, port: int, delay: float, faults: tuple[str, ...]) -> None:
    """Serve the local server that plays the services, until Ctrl-C.

    `tolmach demo --help` lists the faults.
    """
    wanted: dict[str, str] = {}
    for fault in faults:
        mount, equals, name = fault.partition("=")
        if not equals:
            raise click.BadParameter(f"{fault!r}: write PATH=FAULT", param_hint="--fault")
        wanted[mount] = f"{wanted[mount]},{name}" if mount in wanted else name
    try:
        asyncio.run(_serve(Demo(host=host, port=port, delay=delay, faults=wanted)))
    except KeyboardInterrupt:
        say()  # how it is meant to end


async def _serve(server: Demo) -> None:
    async with server:
        for mount, what in MOUNTS.items():
            say(f"{server.url}{mount:<16} {what}")
        say(f"{server.url}/ lists {len(PAGES)} pages with an assistant, to discover and ask.")
        say("Ctrl-C stops it.")
        await asyncio.get_running_loop().create_future()


class Asked:
    """One service's answer while it comes. Times are seconds since the question."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.pieces = 0
        self.first: float | None = None
        self.total: float | None = None
        self.error: TolmachError | None = None

    @property
    def answered(self) -> bool:
        return self.error is None and self.total is not None and bool(self.text)

    async def ask(self, url: str, question: str) -> None:
        """Ask the service by the gateway at `url`; an error is kept, not raised."""
        client = AsyncClient(base_url=f"{url}/v1", protocol="openai")
        started = time.perf_counter()
        events = client.events(model=self.name, messages=[{"role": "user", "content": question}])
        try:
            async for event in events:
                if isinstance(event, Delta):
                    if self.first is None:
                        self.first = time.perf_counter() - started
                    self.text += event.text
                    self.pieces += 1
        except TolmachError as error:
            error.provider = self.name  # not the gateway, which only passed it on
            self.error = error
        finally:
            await events.aclose()
            self.total = time.perf_counter() - started

    @property
    def times(self) -> str:
        """Time to the first token and in all, as far as it is known."""
        first = "" if self.first is None else f"first token {_ms(self.first)}"
        total = "" if self.total is None else f"total {_ms(self.total)}"
        return ", ".join(filter(None, (first, total))) or "waiting"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:.0f} ms"


def demo_targets(url: str) -> Targets:
    """The five services of the demo at `url`, its plugin of the newer kind, and its OpenAI API."""
    access = Access(cookies={"visit": "demo"})
    sites = [get_provider(name).site_at(f"{url}/{name}") for name in SERVICES]
    sites.append(Site(name="aipkit", url=f"{url}/aipkit", protocol=create("aipkit"), default_model="aipkit"))
    sites.append(
        Site(
            name="openai",
            url=f"{url}/v1",
            protocol=create("openai"),
            api_key="demo",
            default_model="gpt-4o-mini",
            models=("gpt-4o-mini",),
        )
    )
    return Targets(
        Provider(name=site.name, site=site, access=access, models={model: model for model in site.models})
        for site in sites
    )


async def _demo(port: int, delay: float, question: str, once: bool) -> list[str]:
    """Names of the services that did not answer."""
    console = new_console()
    answers = [Asked(name) for name in SERVICES]
    async with Demo(delay=delay) as server, serving(Gateway(demo_targets(server.url)), port=port) as url:
        tasks = [asyncio.create_task(answer.ask(url, question)) for answer in answers]
        try:
            if console.is_terminal and not console.is_dumb_terminal:
                await _show(console, answers, tasks)
            else:
                await _print(answers, tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        say(f"The gateway: {url}/v1 (OpenAI), {url} (Anthropic). Any program that speaks either may ask:")
        say(_curl(url))
        if not once:
            say("Ctrl-C stops it.")
            await _until_interrupt()
    return [answer.name for answer in answers if not answer.answered]


def _curl(url: str) -> str:
    body = '{"model": "Chatgpt4Online", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
    return f"curl -N {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'"


async def _until_interrupt() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


async def _print(answers: Sequence[Asked], tasks: Sequence["asyncio.Task[None]"]) -> None:
    for answer, task in zip(answers, tasks, strict=True):
        await task
        say(f"=== {answer.name}: {answer.times}, {answer.pieces} piece{'s' * (answer.pieces != 1)}")
        if answer.text:
            say_answer(answer.text.rstrip("\n"), nl=True)
        if answer.error is not None:
            say(describe(answer.error))
        say()


async def _show(console: "Console", answers: Sequence[Asked], tasks: Sequence["asyncio.Task[None]"]) -> None:
    from rich.live import Live

    # The other screen is drawn over in place: nothing flickers, and nothing is left when it closes.
    with Live(console=console, auto_refresh=False, screen=True) as live:
        waiting: set[asyncio.Task[None]] = set(tasks)
        while waiting:
            live.update(_side_by_side(console, answers), refresh=True)
            _, waiting = await asyncio.wait(waiting, timeout=1 / 15)
    for task in tasks:
        task.result()
    console.print(_side_by_side(console, answers, whole=True))
    console.print(_summary(answers, narrow=console.width < 60))


def _summary(answers: Sequence[Asked], *, narrow: bool) -> "RenderableType":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Service", no_wrap=True)
    for column in ("First", "Total") if narrow else ("First token", "Total", "Pieces"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("Outcome", overflow="fold")
    for answer in answers:
        wrong = type(answer.error).__name__ if answer.error and not narrow else "failed"
        pieces = () if narrow else (str(answer.pieces),)
        table.add_row(answer.name, _ms(answer.first), _ms(answer.total), *pieces, "ok" if answer.answered else wrong)
    return table


def _side_by_side(console: "Console", answers: Sequence[Asked], *, whole: bool = False) -> "RenderableType":
    """The answers in panels, as many beside each other as are readable.

    While they stream each shows its last lines, so that all are on the screen; `whole` shows all of them.
    """
    from rich.table import Table

    across = max(1, min(len(answers), console.width // _PANEL_WIDTH))
    down = -(-len(answers) // across)
    height = None if whole else max(_PANEL_HEIGHT, console.height // down)
    width = console.width // across
    grid = Table.grid(expand=True)
    for _ in range(across):
        grid.add_column(ratio=1)
    panels = [_panel(console, answer, width, height) for answer in answers]
    for i in range(0, len(panels), across):
        grid.add_row(*panels[i : i + across])
    return grid


def _panel(console: "Console", answer: Asked, width: int, height: int | None) -> "RenderableType":
    from rich.panel import Panel
    from rich.text import Text

    lines = list(Text(printable(answer.text.rstrip("\n"))).wrap(console, width - 4, tab_size=4))
    if answer.error is not None:
        lines += Text(describe(answer.error), style="red").wrap(console, width - 4)
    if height is not None:
        lines = lines[-(height - 2) :]
    shown: Text = Text("\n").join(lines)
    style = "red" if answer.error is not None else "green" if answer.answered else "dim"
    times = answer.times.replace(" token", "") if width < 50 else answer.times
    return Panel(shown, title=Text(answer.name, "bold"), subtitle=Text(times), height=height, border_style=style)
