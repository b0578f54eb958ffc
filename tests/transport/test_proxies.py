"""Every kind of proxy, each with its credentials, which no error tells."""

from contextlib import aclosing
from urllib.parse import quote

import pytest

from tests.transport.conftest import LONG, SHORT, Authority
from tests.transport.proxies import PASSWORD, USER, proxying
from tests.transport.server import Conn, Got, Server, closed_port
from tolmach.errors import ConfigError, ConnectFailed, TimedOut, UnsupportedFeature
from tolmach.transport import Timeouts, TransportOptions, create, read
from tolmach.wire import Request

CREDENTIALS = f"{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@"
WRONG = f"{quote(USER, safe='')}-not:wr0ng@"


@pytest.fixture(autouse=True)
def _answers(server: Server, tls_server: Server) -> None:
    async def answer(conn: Conn, got: Got) -> None:
        await conn.reply(b"ok")

    server.routes["/"] = tls_server.routes["/"] = answer


async def _ask(kind: str, proxy: str, url: str, authority: Authority, timeouts: Timeouts = LONG) -> bytes:
    async with aclosing(create(TransportOptions(proxy=proxy, verify=authority.pem), kind)) as transport:
        return await read(await transport.send(Request("GET", url), timeouts), 100)


SCHEMES = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"]


def _credentials(kind: str, scheme: str) -> str:
    """What this transport may be given for this kind of proxy: wreq tells SOCKS4 no user."""
    return "" if kind != "aiohttp" and scheme.startswith("socks4") else CREDENTIALS


def _handler(scheme: str) -> str:
    return "http" if scheme.startswith("http") else "socks"


@pytest.mark.parametrize("credentials", ["", CREDENTIALS], ids=["open", "credentials"])
@pytest.mark.parametrize("target", ["http", "https"])
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_request_goes_through(
    kind: str,
    scheme: str,
    target: str,
    credentials: str,
    server: Server,
    tls_server: Server,
    authority: Authority,
) -> None:
    origin = tls_server if target == "https" else server
    tls = authority.context if scheme == "https" else None
    if credentials and not _credentials(kind, scheme):
        with pytest.raises(UnsupportedFeature, match="the aiohttp transport can") as caught:
            create(TransportOptions(proxy=f"{scheme}://{credentials}127.0.0.1:1"), kind)
        _tells_nothing(caught.value)
        return
    async with proxying(_handler(scheme), demands=bool(credentials), tls=tls) as proxy:
        url = f"{target}://localhost:{origin.port}/?q=1"
        address = f"{scheme}://{credentials}{'localhost' if tls else '127.0.0.1'}:{proxy.port}"
        assert await _ask(kind, address, url, authority) == b"ok"

    [(how, host, port)] = proxy.asked
    if scheme.startswith("http"):
        assert how == ("CONNECT" if target == "https" else "absolute")
    else:
        assert how == scheme
        assert host == ("localhost" if scheme in ("socks4a", "socks5h") else "127.0.0.1"), "who looks the name up"
    assert port == origin.port
    [got] = origin.got
    assert (got.target, got.header("proxy-authorization")) == ("/?q=1", "")


@pytest.mark.parametrize(
    ("scheme", "credentials"),
    [("http", ""), ("http", WRONG), ("socks4", ""), ("socks5", ""), ("socks5", WRONG)],
)
async def test_a_proxy_that_refuses(
    kind: str, scheme: str, credentials: str, tls_server: Server, authority: Authority
) -> None:
    async with proxying(_handler(scheme), demands=True) as proxy:
        address = f"{scheme}://{credentials}127.0.0.1:{proxy.port}"
        with pytest.raises(ConnectFailed) as caught:
            await _ask(kind, address, f"{tls_server.url}/?q=1,s3cr3t", authority)
    assert f"the proxy {scheme}://127.0.0.1:{proxy.port} gives no connection" in str(caught.value)
    _tells_nothing(caught.value)
    assert tls_server.got == []


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_no_proxy_there(kind: str, scheme: str, authority: Authority) -> None:
    port = closed_port()
    address = f"{scheme}://{_credentials(kind, scheme)}127.0.0.1:{port}"
    with pytest.raises(ConnectFailed) as caught:
        await _ask(kind, address, "https://localhost:9/?q=1,s3cr3t", authority)
    assert str(caught.value).startswith(
        f"https://localhost:9: the proxy {scheme}://127.0.0.1:{port} gives no connection"
    )
    _tells_nothing(caught.value)


@pytest.mark.parametrize("scheme", ["http", "socks4", "socks5"])
async def test_a_proxy_that_never_answers(kind: str, scheme: str, authority: Authority) -> None:
    async with proxying(_handler(scheme), stall=True) as proxy:
        address = f"{scheme}://{_credentials(kind, scheme)}127.0.0.1:{proxy.port}"
        with pytest.raises(TimedOut) as caught:
            await _ask(kind, address, "https://localhost:9/", authority, Timeouts(connect=SHORT, first_byte=5))
    assert (caught.value.phase, caught.value.seconds) == ("connect", SHORT)
    _tells_nothing(caught.value)


async def test_an_http_proxy_that_refuses_an_open_request_is_an_answer(
    kind: str, server: Server, authority: Authority
) -> None:
    """Without a tunnel, the proxy's 407 is a response like any other."""
    async with (
        proxying("http", demands=True) as proxy,
        aclosing(create(TransportOptions(proxy=f"http://127.0.0.1:{proxy.port}"), kind)) as transport,
    ):
        exchange = await transport.send(Request("GET", server.url + "/"), LONG)
        await exchange.aclose()
    assert exchange.head.status == 407


@pytest.mark.parametrize(
    "proxy", ["ftp://127.0.0.1:1", "http://", "http://u:s3cr3t@h:x", "socks6://u:s3cr3t@h:1", "http://u:s3cr3t@[h"]
)
def test_what_is_no_proxy(kind: str, proxy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create(TransportOptions(proxy=proxy), kind)
    _tells_nothing(caught.value)


async def test_the_environment_counts_only_when_asked(
    kind: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with proxying("http") as proxy:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        asked = []
        for trust_env in (False, True):
            async with aclosing(create(TransportOptions(trust_env=trust_env), kind)) as transport:
                await read(await transport.send(Request("GET", server.url + "/"), LONG), 10)
            asked.append(len(proxy.asked))
    assert asked == [0, 1]


async def test_aiohttp_cannot_pin_behind_socks() -> None:
    options = TransportOptions(proxy="socks5://127.0.0.1:1", resolve={"a.test": ("127.0.0.1",)})
    with pytest.raises(UnsupportedFeature) as caught:
        create(options, "aiohttp")
    assert caught.value.feature == "resolve"


def _tells_nothing(error: BaseException) -> None:
    told: BaseException | None = error
    while told is not None:
        for secret in (PASSWORD, USER, CREDENTIALS, WRONG, "wr0ng", "s3cr3t"):
            assert secret not in str(told)
        told = told.__cause__ or told.__context__
