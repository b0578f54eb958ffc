"""`anychat demo`: a local server plays the services, and all five are asked at once."""

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from anychat.chat import Delta
from anychat.cli.failures import describe
from anychat.cli.render import printable
from anychat.client import AsyncClient
from anychat.demo.faults import help_text
from anychat.demo.server import Demo
from anychat.errors import AnychatError, ProviderUnavailable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["SERVICES", "Asked", "demo", "serve"]

SERVICES = ("Chatgpt4o", "Chatgpt4Online", "ChatGptt", "Aichat", "ChatGpt")

QUESTION = "Hello! What can you do?"


@click.group(
    invoke_without_command=True,
    epilog="\b\nFaults, for `anychat demo serve --fault /Chatgpt4o=cut=5` and the header x-anychat-demo:\n"
    + "\n".join(f"  {line}" for line in help_text().splitlines()),
)
@click.option("--once", is_flag=True, help="End after the answers (it always does, so far).")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port of the local server; a free one if not given."
)
@click.option(
    "--delay", type=click.FloatRange(0, 60), default=0.03, show_default=True, help="Seconds between two tokens."
)
@click.option("-q", "--question", default=QUESTION, show_default=True, help="What to ask.")
@click.pass_context
def demo(ctx: click.Context, once: bool, port: int, delay: float, question: str) -> None:
    """See all five services answer, from a local server that plays them.

    On a terminal the answers stream side by side; in a pipe they come one after another. Ends with 0
    only if all five answered.
    """
    if ctx.invoked_subcommand is None:
        failed = asyncio.run(_demo(port, delay, question))
        if failed:
            raise ProviderUnavailable(f"no whole answer from {', '.join(failed)}")


@demo.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8190, show_default=True, help="0 takes a free one.")
@click.option(
    "--delay", type=click.FloatRange(0, 60), default=0.03, show_default=True, help="Seconds between two tokens."
)
@click.option(
    "--fault", "faults", multiple=True, metavar="PATH=FAULT", help="A fault of one service, such as /Chatgpt4o=cut=5."
)
def serve(host: str, port: int, delay: float, faults: tuple[str, ...]) -> None:
    """Serve the local server that plays the services, until Ctrl-C.

    `anychat demo --help` lists the faults.
    """
    wanted: dict[str, str] = {}
    for fault in faults:
        mount, equals, name = fault.partition("=")
        if not equals:
            raise click.BadParameter(f"{fault!r}: write PATH=FAULT", param_hint="--fault")
        wanted[mount] = f"{wanted[mount]},{name}" if mount in wanted else name
    asyncio.run(_serve(Demo(host=host, port=port, delay=delay, faults=wanted)))


async def _serve(server: Demo) -> None:
    from anychat.demo.app import MOUNTS

    async with server:
        for mount, what in MOUNTS.items():
            click.echo(f"{server.url}{mount:<16} {what}")
        click.echo("Ctrl-C stops it.")
        await asyncio.get_running_loop().create_future()


class Asked:
    """One service's answer while it comes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = ""
        self.pieces = 0
        self.first: float | None = None
        self.total: float | None = None
        self.error: AnychatError | None = None

    async def ask(self, url: str, question: str) -> None:
        """Ask the service at `url`; times are seconds since now."""
        client = AsyncClient(provider=self.name, base_url=f"{url}/{self.name}", cookies={"visit": "demo"})
        started = time.perf_counter()
        events = client.events(messages=[{"role": "user", "content": question}])
        try:
            async for event in events:
                if isinstance(event, Delta):
                    if self.first is None:
                        self.first = time.perf_counter() - started
                    self.text += event.text
                    self.pieces += 1
        except AnychatError as error:
            self.error = error
        finally:
            await events.aclose()
            self.total = time.perf_counter() - started

    @property
    def times(self) -> str:
        if self.error is not None:
            return describe(self.error)
        if self.total is None:
            return "…" if self.first is None else f"first token {self.first * 1000:.0f} ms"
        first = 0.0 if self.first is None else self.first
        pieces = f"{self.pieces} piece{'s' * (self.pieces != 1)}"
        return f"first token {first * 1000:.0f} ms, total {self.total * 1000:.0f} ms, {pieces}"


async def _demo(port: int, delay: float, question: str) -> list[str]:
    """Names of the services that did not answer."""
    from rich.console import Console

    console = Console()
    answers = [Asked(name) for name in SERVICES]
    async with Demo(port=port, delay=delay) as server:
        tasks = [asyncio.create_task(answer.ask(server.url, question)) for answer in answers]
        try:
            if console.is_terminal:
                await _show(console, answers, tasks)
            else:
                await _print(answers, tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return [answer.name for answer in answers if answer.error is not None or not answer.text]


async def _print(answers: list[Asked], tasks: list["asyncio.Task[None]"]) -> None:
    for answer, task in zip(answers, tasks, strict=True):
        await task
        click.echo(f"=== {answer.name}: {answer.times}")
        click.echo(answer.text.rstrip("\n") + "\n")


async def _show(console: "Console", answers: list[Asked], tasks: list["asyncio.Task[None]"]) -> None:
    from rich.live import Live
    from rich.table import Table

    with Live(console=console, refresh_per_second=15, transient=True) as live:
        waiting: set[asyncio.Task[None]] = set(tasks)
        while waiting:
            live.update(_side_by_side(console, answers))
            _, waiting = await asyncio.wait(waiting, timeout=1 / 15)
    console.print(_side_by_side(console, answers))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Service", "First token", "Total", "Pieces", "Outcome"):
        table.add_column(column, justify="right" if column in ("First token", "Total", "Pieces") else "left")
    for answer in answers:
        table.add_row(
            answer.name,
            f"{answer.first * 1000:.0f} ms" if answer.first is not None else "–",
            f"{answer.total * 1000:.0f} ms" if answer.total is not None else "–",
            str(answer.pieces),
            "answered" if answer.error is None else describe(answer.error),
        )
    console.print(table)


def _side_by_side(console: "Console", answers: Iterable[Asked]) -> "RenderableType":
    """The answers in panels, as many beside each other as are readable; each shows its last lines."""
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    answers = list(answers)
    across = max(1, min(len(answers), console.width // 36))
    down = -(-len(answers) // across)
    height = max(6, min(24, (console.height - 8) // down))
    width = console.width // across
    grid = Table.grid(expand=True)
    for _ in range(across):
        grid.add_column(ratio=1)
    panels: list[RenderableType] = []
    for answer in answers:
        lines = Text(printable(answer.text)).wrap(console, width - 4)
        shown = Text("\n").join(list(lines)[-(height - 2) :])
        panels.append(Panel(shown, title=answer.name, subtitle=answer.times, height=height))
    for i in range(0, len(panels), across):
        grid.add_row(*panels[i : i + across])
    return grid
