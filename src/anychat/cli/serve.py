"""`anychat serve`: the gateway, as `anychat.toml` says."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from anychat.cli.failures import debug_option
from anychat.configuration import LiveSettings
from anychat.gateway.configured import build, follow, reload
from anychat.gateway.logs import set_up
from anychat.gateway.serve import check_port, serving

__all__ = ["serve"]

_WORKER = "ANYCHAT_WORKER"
"""Set for the processes that `workers` starts, which share one port."""


@click.command()
@click.option("--config", type=click.Path(path_type=Path), default=None, help="The configuration; see `anychat init`.")
@click.option("--host", default=None, metavar="ADDRESS", help="Address to listen on, over the configuration's.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Port, over the configuration's.")
@click.option("--workers", type=click.IntRange(1, 512), default=None, help="Processes, over the configuration's.")
@debug_option
def serve(config: Path | None, host: str | None, port: int | None, workers: int | None) -> None:
    """Serve the providers of anychat.toml behind the OpenAI and Anthropic APIs, until Ctrl-C.

    A changed file, or SIGHUP, is read again with no answer broken off; a broken one changes nothing.
    """
    live = LiveSettings(config, overrides={"gateway.host": host, "gateway.port": port, "gateway.workers": workers})
    table = live.settings.gateway
    set_up(table.log.level)
    if table.workers > 1 and _WORKER not in os.environ:
        _supervise(live)
    else:
        asyncio.run(_serve(live))


async def _serve(live: LiveSettings) -> None:
    table = live.settings.gateway
    gateway = build(live.settings)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, reload, gateway, live)
    # What is there at the start stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    shared = _WORKER in os.environ
    async with serving(
        gateway,
        table.host,
        table.port,
        header_seconds=table.limits.header_seconds,
        shared=shared,
    ) as url:
        if not shared:
            _announce(url, gateway.targets.models())
        following = asyncio.ensure_future(follow(gateway, live))
        try:
            await stop.wait()
            await gateway.drain(table.timeouts.shutdown)
        finally:
            following.cancel()


def _announce(url: str, models: list[tuple[str, str]]) -> None:
    click.echo(f"anychat serves {len(models)} model names at {url}/v1. Ctrl-C stops it.")


def _supervise(live: LiveSettings) -> None:
    """Run the workers as processes of their own on one port; one that dies is started again."""
    table = live.settings.gateway
    port = check_port(table.host, table.port)
    command = [
        sys.executable,
        "-m",
        "anychat.cli",
        "serve",
        "--host",
        table.host,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    if live.settings.file is not None:
        command += ["--config", str(live.settings.file)]
    environment = {**os.environ, _WORKER: "1"}
    workers = [_start(command, environment) for _ in range(table.workers)]
    click.echo(f"anychat serves with {table.workers} workers at http://{table.host}:{port}/v1. Ctrl-C stops it.")
    _forward_signals(workers)
    while workers:
        pid, status = os.wait()
        for i, worker in enumerate(workers):
            if worker.pid == pid:
                if os.waitstatus_to_exitcode(status) in (0, -signal.SIGTERM, -signal.SIGINT) or _Stopping.now:
                    del workers[i]
                else:
                    click.echo(f"anychat: worker {pid} died; another takes its place", err=True)
                    workers[i] = _start(command, environment)
                break


class _Stopping:
    now = False


def _start(command: list[str], environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, env=environment)


def _forward_signals(workers: "list[subprocess.Popen[bytes]]") -> None:
    def forward(number: int, _: Any) -> None:
        _Stopping.now = _Stopping.now or number != signal.SIGHUP
        for worker in list(workers):
            worker.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
