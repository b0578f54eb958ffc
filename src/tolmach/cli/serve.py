"""`tolmach serve`: the gateway, as `tolmach.toml` says."""

import asyncio
import gc
import os
import signal
import socket
import sys
from contextlib import aclosing
from pathlib import Path

import click

from tolmach.access.rules import in_words
from tolmach.cli.config import config_option
from tolmach.cli.failures import debug_option
from tolmach.cli.output import say
from tolmach.configuration import LiveSettings
from tolmach.gateway.addresses import url_of
from tolmach.gateway.assembly import build, check_served
from tolmach.gateway.reloading import follow
from tolmach.gateway.serving.server import reserved, run, serving
from tolmach.gateway.serving.workers import CHANNEL, READY, Workers
from tolmach.gateway.telemetry.logs import set_up

__all__ = ["serve"]


_COLLECT_AFTER = 10_000
"""New objects between two looks of the collector at the youngest; nearly nothing here is a cycle."""


@click.command()
@config_option
@click.option("--host", default=None, metavar="ADDRESS", help="Address to listen on, over the configuration's.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Port, over the configuration's; 0: any.")
@click.option("--workers", type=click.IntRange(1, 512), default=None, help="Processes, over the configuration's.")
@debug_option
def serve(file: Path | None, host: str | None, port: int | None, workers: int | None) -> None:
    """Serve the providers of tolmach.toml behind the OpenAI and Anthropic APIs, until Ctrl-C.

    A changed file, or SIGHUP, is read again with no answer broken off; a broken one changes nothing.
    Ctrl-C or SIGTERM lets answers under way end; a second one does not.
    """
    live = LiveSettings(file, overrides={"gateway.host": host, "gateway.port": port, "gateway.workers": workers})
    channel = os.environ.pop(CHANNEL, None)
    set_up(live.settings.gateway.log.level)
    if channel is not None:
        run(_serve(live, socket.socket(fileno=int(channel))))
        return
    if live.settings.gateway.workers > 1:
        asyncio.run(_supervise(live))
    else:
        run(_serve(live, None))
    # The terminal has shown ^C on the line.
    say(f"{os.linesep if sys.stderr.isatty() else ''}tolmach stopped.", err=True)


async def _serve(live: LiveSettings, channel: socket.socket | None) -> None:
    """Serve in this process; `channel` is a worker's, to the process that started it."""
    table = live.settings.gateway
    gateway = build(live.settings)
    await gateway.start()
    stopping, at_once, reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
    _on_signals(stopping, at_once)
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.set)
    # What is there at the start stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 20, 50)
    async with (
        aclosing(gateway),
        serving(
            gateway,
            table.host,
            table.port,
            header_seconds=table.limits.header_seconds,
            header_bytes=table.limits.header_bytes,
            shared=channel is not None,
            grace=0.5,
        ) as url,
    ):
        if channel is None:
            say(f"tolmach serves {len(gateway.targets.models())} model names at {url}/v1. Ctrl-C stops it.")
            say(in_words(len(gateway.callers.keys), required=gateway.callers.need_keys) + ".")
        else:
            _watch(channel, stopping, at_once)
        following = asyncio.ensure_future(follow(gateway, live, reload))
        try:
            await stopping.wait()
            seconds = live.settings.gateway.timeouts.shutdown
            if gateway.under_way and channel is None:
                say(
                    f"{gateway.under_way} requests under way have {seconds:g} s to end; Ctrl-C again breaks them off.",
                    err=True,
                )
            draining = {asyncio.ensure_future(gateway.drain(seconds)), asyncio.ensure_future(at_once.wait())}
            await asyncio.wait(draining, return_when=asyncio.FIRST_COMPLETED)
            await gateway.cut_off()
        finally:
            following.cancel()


def _on_signals(stopping: asyncio.Event, at_once: asyncio.Event) -> None:
    def stop() -> None:
        if stopping.is_set():
            at_once.set()
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)


def _watch(channel: socket.socket, *gone: asyncio.Event) -> None:
    """Tell the process at the other end that this one serves, and find out when that one is gone."""
    channel.setblocking(False)
    channel.send(READY)
    loop = asyncio.get_running_loop()

    def readable() -> None:
        # Nothing is ever sent here: what can be read is the end.
        loop.remove_reader(channel)
        for event in gone:
            event.set()

    loop.add_reader(channel, readable)


async def _supervise(live: LiveSettings) -> None:
    """Run the workers as processes of their own on one port."""
    table = live.settings.gateway
    # What cannot be served is said here, once, and not by each of them.
    callers = check_served(live.settings)
    with reserved(table.host, table.port) as (_, port):
        command = [sys.executable, "-m", "tolmach", "serve", "--host", table.host, "--port", str(port)]
        if live.settings.file is not None:
            command += ["--config", str(live.settings.file)]
        workers = Workers([*command, "--workers", "1"], table.workers, shutdown=table.timeouts.shutdown)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, workers.stop)
        loop.add_signal_handler(signal.SIGHUP, workers.tell, signal.SIGHUP)
        url = url_of(table.host, port)

        def announce() -> None:
            say(f"tolmach serves with {table.workers} workers at {url}/v1. Ctrl-C stops it.")
            say(callers + ".")

        await workers.run(announce)
