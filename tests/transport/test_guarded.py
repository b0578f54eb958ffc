"""The guard over real sockets: what a server does not ask, whatever a name, a redirect or a body tries."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest

from tests.transport.conftest import LONG, Authority
from tests.transport.server import Conn, Got, Server, listening, serving
from tests.transport.test_redirects import CREDENTIALS, HARMLESS, ending, redirecting
from tolmach.cookies import CookieJar
from tolmach.egress import GuardedTransport, guarded
from tolmach.errors import AddressRefused, ConfigError, ConnectFailed, RemoteProtocolError, TimedOut, UnsupportedFeature
from tolmach.transport import Timeouts, TransportOptions, open_exchange, read
from tolmach.wire import Limits, Request

HERE = "127.0.0.1"
LISTED = [f"{HERE}/32"]
"""Stands for the public addresses in these tests: only this one is allowed."""


class Names:
    """A resolver whose answers change: the first list of a name is its first answer, the last one stays."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self._answers = {name.replace("_", "."): lists for name, lists in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        lists = self._answers.get(host)
        if not lists:
            raise OSError("no such name")
        return lists.pop(0) if len(lists) > 1 else lists[0]


def guard(kind: str, names: Names | None = None, allow: Sequence[str] = tuple(LISTED)) -> GuardedTransport:
    return GuardedTransport(TransportOptions(), allow, kind=kind, resolver=names or Names())


async def fetch(
    transport: GuardedTransport, url: str, jar: CookieJar | None = None, limits: Limits = Limits()
) -> bytes:
    request = Request("GET", url, {**CREDENTIALS, **HARMLESS})
    exchange = await open_exchange(transport, request, jar or CookieJar(), LONG, limits)
    return await read(exchange, limits.response_bytes)


@asynccontextmanager
async def neighbour(server: Server) -> AsyncIterator[Server]:
    """A server at 127.0.0.2, at the port of the other: it stands for a private address."""
    other = Server(f"http://127.0.0.2:{server.port}", server.port)
    ending(other, "/")
    async with listening(other._serve, host="127.0.0.2", port=server.port):
        yield other
    assert other.faults == []


async def test_private_addresses_are_not_asked_unless_they_are_listed(server: Server, kind: str) -> None:
    ending(server)
    async with aclosing(guard(kind, allow=())) as transport:
        for host in (HERE, "127.1", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]", "localhost", "localhost."):
            with pytest.raises(AddressRefused):
                await fetch(transport, f"http://{host}:{server.port}/end")
    assert server.connections == 0
    async with aclosing(guard(kind)) as transport:
        assert await fetch(transport, f"http://127.1:{server.port}/end?a=b#c") == b"ok"
    assert server.got[0].target == "/end?a=b"
    assert server.got[0].header("host") == f"{HERE}:{server.port}"


async def test_a_name_is_asked_at_the_address_that_was_judged(server: Server, kind: str) -> None:
    """The system knows no such name: the connection could be made only by what the resolver said."""
    ending(server)
    names = Names(site_example=[[HERE]])
    async with aclosing(guard(kind, names)) as transport:
        assert await fetch(transport, f"http://Site.Example.:{server.port}/end") == b"ok"
    assert names.asked == ["site.example"], "once"
    assert server.got[0].header("host") == f"site.example:{server.port}"


async def test_a_name_that_turns_private_between_two_requests(server: Server, kind: str) -> None:
    ending(server, "/")
    names = Names(rebind_example=[[HERE], ["127.0.0.2"]])
    async with neighbour(server) as private, aclosing(guard(kind, names)) as transport:
        url = f"http://rebind.example:{server.port}/"
        assert await fetch(transport, url) == b"ok"
        with pytest.raises(AddressRefused) as caught:
            await fetch(transport, url)
        assert caught.value.reason == "resolved"
        assert private.connections == 0
    assert len(server.got) == 1
    assert names.asked == ["rebind.example"] * 2


async def test_a_name_that_turns_private_before_its_redirect(server: Server, kind: str) -> None:
    names = Names(rebind_example=[[HERE], ["127.0.0.2"]])
    redirecting(server, "/")
    async with neighbour(server) as private, aclosing(guard(kind, names)) as transport:
        with pytest.raises(AddressRefused):
            await fetch(transport, f"http://rebind.example:{server.port}/")
        assert private.connections == 0
    assert len(server.got) == 1


async def test_a_name_with_one_private_address_among_public_ones(server: Server, kind: str) -> None:
    names = Names(both_example=[[HERE, "127.0.0.2"]])
    async with neighbour(server) as private, aclosing(guard(kind, names)) as transport:
        with pytest.raises(AddressRefused):
            await fetch(transport, f"http://both.example:{server.port}/")
        assert (server.connections, private.connections) == (0, 0)


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2:{port}/",
        "//127.0.0.2:{port}/",
        "http://0x7f000002:{port}/",
        "http://127.2:{port}/",
        "http://[::ffff:127.0.0.2]:{port}/",
        "http://localhost:{port}/",
        "http://inside.example:{port}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]:{port}/",
        "http://10.0.0.1/",
        "http://127.0.0.1:6379/",
    ],
)
@pytest.mark.parametrize("status", [302, 307])
async def test_redirects_to_private_addresses(server: Server, kind: str, target: str, status: int) -> None:
    names = Names(site_example=[[HERE]], inside_example=[["127.0.0.2"]], localhost=[["127.0.0.2"]])
    redirecting(server, target.format(port=server.port), status)
    async with neighbour(server) as private, aclosing(guard(kind, names)) as transport:
        with pytest.raises(AddressRefused):
            await fetch(transport, f"http://site.example:{server.port}/")
        assert private.connections == 0
    assert len(server.got) == 1


async def test_credentials_do_not_go_to_another_origin(server: Server, kind: str) -> None:
    names = Names(a_example=[[HERE]], b_example=[[HERE]])
    jar = CookieJar()
    jar.set("http://a.example/", {"session": "s3cr3t"})
    async with serving() as other:
        redirecting(server, f"http://b.example:{other.port}/end")
        ending(other)
        async with aclosing(guard(kind, names)) as transport:
            assert await fetch(transport, f"http://a.example:{server.port}/", jar) == b"ok"
        [first], [second] = server.got, other.got
    assert first.header("authorization") == "Bearer s3cr3t"
    assert "session=s3cr3t" in first.header("cookie")
    assert not [name for name, value in second.headers if "s3cr3t" in value or name == "cookie"]
    assert second.header("accept") == HARMLESS["accept"]


async def test_certificates_are_still_for_the_name(tls_server: Server, authority: Authority, kind: str) -> None:
    ending(tls_server)
    names = Names(localhost=[[HERE]], other_example=[[HERE]])
    options = TransportOptions(verify=authority.pem)
    async with aclosing(GuardedTransport(options, LISTED, kind=kind, resolver=names)) as transport:
        assert await fetch(transport, f"https://localhost:{tls_server.port}/end") == b"ok"
        with pytest.raises(ConnectFailed):
            await fetch(transport, f"https://other.example:{tls_server.port}/end")
    assert len(tls_server.got) == 1


async def test_redirects_and_bodies_have_limits(server: Server, kind: str) -> None:
    redirecting(server, "/loop", path="/loop")

    @server.on("/bomb")
    async def bomb(conn: Conn, got: Got) -> None:
        await conn.reply(gzip.compress(bytes(4 << 20)), headers="Content-Encoding: gzip\r\n")

    async with aclosing(guard(kind)) as transport:
        with pytest.raises(RemoteProtocolError, match="more than 5 redirects"):
            await fetch(transport, f"{server.url}/loop", limits=Limits(redirects=5))
        assert len(server.got) == 6
        with pytest.raises(RemoteProtocolError, match="longer than 100000 bytes"):
            await fetch(transport, f"{server.url}/bomb", limits=Limits(response_bytes=100_000))


async def test_names_that_are_not_found_or_not_in_time(kind: str) -> None:
    async def never(host: str, port: int) -> Sequence[str]:
        await asyncio.get_running_loop().create_future()
        return []

    request = Request("GET", "http://none.example/")
    async with aclosing(guard(kind)) as transport:
        with pytest.raises(ConnectFailed, match=r"none\.example: the name was not found"):
            await transport.send(request, LONG)
    async with aclosing(guard(kind, Names(none_example=[[]]))) as transport:
        with pytest.raises(ConnectFailed, match="no address"):
            await transport.send(request, LONG)
    async with aclosing(GuardedTransport(kind=kind, resolver=never)) as transport:
        with pytest.raises(TimedOut) as caught:
            await transport.send(request, Timeouts(connect=0.05))
    assert (caught.value.phase, caught.value.seconds) == ("connect", 0.05)


async def test_pinned_hosts_are_judged_as_well(server: Server, kind: str) -> None:
    ending(server)
    options = TransportOptions(resolve={"good.example": (HERE,), "bad.example": ("127.0.0.2",)})
    async with aclosing(GuardedTransport(options, LISTED, kind=kind, resolver=Names())) as transport:
        assert await fetch(transport, f"http://good.example:{server.port}/end") == b"ok"
        with pytest.raises(AddressRefused):
            await fetch(transport, f"http://bad.example:{server.port}/end")


async def test_many_hosts_do_not_keep_many_pools_and_end_no_answer(server: Server, kind: str) -> None:
    release = asyncio.Event()

    @server.on("/slow")
    async def slow(conn: Conn, got: Got) -> None:
        await conn.start()
        await conn.chunk(b"first ")
        await release.wait()
        await conn.chunk(b"last")
        await conn.chunk(b"")

    ending(server)
    hosts = [f"h{number}.example" for number in range(80)]
    names = Names(**{host: [[HERE]] for host in ["slow.example", *hosts]})
    async with aclosing(guard(kind, names)) as transport:
        request = Request("GET", f"http://slow.example:{server.port}/slow")
        exchange = await transport.send(request, LONG)
        assert await anext(aiter(exchange)) == b"first "
        for host in hosts:
            assert await fetch(transport, f"http://{host}:{server.port}/end") == b"ok"
        assert len(transport._places) <= 33
        release.set()
        assert await read(exchange, 100) == b"last"
        assert exchange.head.status == 200


def test_no_proxy_before_the_guard() -> None:
    for options in (TransportOptions(proxy="http://127.0.0.1:1"), TransportOptions(trust_env=True)):
        with pytest.raises(UnsupportedFeature, match="proxy"):
            guarded(options)


async def test_a_closed_guard_and_the_systems_resolver(server: Server) -> None:
    ending(server)
    transport = guarded(allow=["localhost"])
    async with aclosing(transport):
        exchange = await transport.send(Request("GET", f"http://localhost:{server.port}/end"), LONG)
        assert await read(exchange, 10) == b"ok"
        await exchange.aclose()
    with pytest.raises(ConfigError, match="closed"):
        await transport.send(Request("GET", "http://8.8.8.8/"), LONG)
