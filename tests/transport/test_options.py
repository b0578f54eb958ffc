"""Choosing a transport, browser profiles, pinned addresses."""

import asyncio
import os
import sys
from contextlib import aclosing

import pytest

from tests.transport.conftest import LONG, SHORT
from tests.transport.server import Conn, Got, Server, full_backlog
from tolmach.errors import ConfigError, MissingDependency, TimedOut, UnsupportedFeature
from tolmach.transport import Timeouts, TransportOptions, create, read, shared
from tolmach.transport.aiohttp import AiohttpTransport
from tolmach.transport.default import DefaultTransport
from tolmach.transport.wreq import WreqTransport
from tolmach.wire import Request


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOLMACH_TRANSPORT", raising=False)


def test_which_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(create(), DefaultTransport)
    assert isinstance(create(kind="aiohttp"), AiohttpTransport)
    monkeypatch.setenv("TOLMACH_TRANSPORT", "aiohttp")
    assert isinstance(create(), AiohttpTransport)
    assert isinstance(create(kind="wreq"), WreqTransport)
    with pytest.raises(ConfigError, match="no transport 'carrier pigeon', only auto, wreq, aiohttp"):
        create(kind="carrier pigeon")


def test_equal_options_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pins = {"a.test": ("127.0.0.1",), "b.test": ("127.0.0.2",)}
    one = shared(TransportOptions(resolve=pins))
    assert shared(TransportOptions(resolve=dict(reversed(pins.items())))) is one
    assert shared(TransportOptions()) is not one
    assert shared(TransportOptions(verify=False)) is not shared(TransportOptions())
    monkeypatch.setenv("TOLMACH_TRANSPORT", "aiohttp")
    assert isinstance(shared(TransportOptions()), AiohttpTransport)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_its_own() -> None:
    one = shared(TransportOptions())
    child = os.fork()
    if child == 0:
        os._exit(17 if shared(TransportOptions()) is not one else 18)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 17
    assert shared(TransportOptions()) is one


def test_aiohttp_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MissingDependency, match=r"pip install .*\[aiohttp\]"):
        create(kind="aiohttp")


def test_aiohttp_says_what_it_cannot() -> None:
    with pytest.raises(UnsupportedFeature, match="impersonate") as caught:
        create(TransportOptions(impersonate="chrome"), "aiohttp")
    assert caught.value.feature == "impersonate"


def test_pins_are_addresses(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"'not\.an\.address'"):
        create(TransportOptions(resolve={"a.test": ("not.an.address",)}), kind)


async def test_a_pinned_name_goes_where_it_is_pinned(kind: str, server: Server) -> None:
    options = TransportOptions(resolve={"pinned.test": ("127.0.0.1",)})
    async with aclosing(create(options, kind)) as transport:
        await read(await transport.send(Request("GET", f"http://pinned.test:{server.port}/"), LONG), 100)
        await read(await transport.send(Request("GET", f"http://localhost:{server.port}/"), LONG), 100)
    assert [got.header("host") for got in server.got] == [f"pinned.test:{server.port}", f"localhost:{server.port}"]


@pytest.mark.parametrize(
    ("name", "agent"),
    [
        ("chrome131", "Chrome/131."),
        ("Chrome_131", "Chrome/131."),
        ("firefox135", "Firefox/135."),
        ("safari18", "Version/18"),
        ("safari18_0", "Version/18"),
        ("safari17_2_1", "Version/17.2.1"),
        ("edge131", "Edg/131."),
        ("chrome", "Chrome/1"),
        ("firefox", "Firefox/1"),
        ("safari", "Version/"),
        ("opera", "OPR/"),
        ("okhttp", "OkHttp/"),
    ],
)
async def test_a_profile_speaks_as_its_browser(server: Server, name: str, agent: str) -> None:
    async with aclosing(create(TransportOptions(impersonate=name), "wreq")) as transport:
        await read(await transport.send(Request("GET", server.url + "/"), LONG), 100)
        mine = Request("GET", server.url + "/", {"user-agent": "mine", "accept": "text/event-stream"})
        await read(await transport.send(mine, LONG), 100)
    assert agent in server.got[0].header("user-agent")
    assert server.got[1].all("user-agent") == ["mine"]
    assert server.got[1].all("accept") == ["text/event-stream"]


def test_an_unknown_profile_names_near_ones() -> None:
    with pytest.raises(ConfigError, match=r"no browser profile 'chrome1310'.*chrome131"):
        create(TransportOptions(impersonate="chrome1310"), "wreq")


async def test_a_call_may_have_its_own_limit_on_connecting(kind: str, server: Server) -> None:
    held, port = full_backlog()
    try:
        async with aclosing(create(kind=kind)) as transport:
            for connect in (SHORT, 2 * SHORT):
                with pytest.raises(TimedOut) as caught:
                    await transport.send(Request("GET", f"http://127.0.0.1:{port}/"), Timeouts(connect=connect))
                assert (caught.value.phase, caught.value.seconds) == ("connect", connect)
    finally:
        for one in held:
            one.close()


async def test_many_limits_on_connecting_do_not_keep_many_pools(server: Server) -> None:
    @server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.start()
        await conn.chunk(b"ok")
        await conn.chunk(b"")

    transport = WreqTransport()
    first = await transport.send(Request("GET", server.url + "/"), Timeouts(connect=100))
    for number in range(30):
        await read(await transport.send(Request("GET", server.url + "/"), Timeouts(connect=10 + number)), 10)
    assert len(transport._clients) == 8
    assert await read(first, 10) == b"ok", "what was under way goes on"
    await transport.aclose()
    await asyncio.sleep(0)
