"""The way to a site of the operator: what is its own, and what goes past the guard."""

import pytest

from tests.transport.conftest import LONG
from tests.transport.server import serving
from tests.transport.test_redirects import ending
from tolmach.egress import SiteTransport
from tolmach.errors import AddressRefused, ConnectFailed
from tolmach.protocols import create
from tolmach.protocols.base import Site
from tolmach.transport import Timeouts, TransportOptions, read
from tolmach.wire import Request

SOON = Timeouts(connect=5, first_byte=5, idle=5, total=5)


async def test_the_sites_own_addresses_are_asked_and_other_ports_of_their_host_are_not() -> None:
    async with serving() as own, serving() as other:
        ending(own)
        ending(other)
        transport = SiteTransport((f"{own.url}/v1?key=1", "/a/path"))
        assert await read(await transport.send(Request("GET", f"{own.url}/end"), LONG), 10) == b"ok"
        with pytest.raises(AddressRefused):
            await transport.send(Request("GET", f"{other.url}/end"), LONG)
        allowing = SiteTransport((own.url,), allow=("127.0.0.1",))
        assert await read(await allowing.send(Request("GET", f"{other.url}/end"), LONG), 10) == b"ok"
        await allowing.aclose()
        await transport.aclose()
        assert await read(await transport.send(Request("GET", f"{own.url}/end"), LONG), 10) == b"ok"
    assert other.connections == 1


async def test_a_private_site_may_go_over_to_https() -> None:
    transport = SiteTransport(("http://127.0.0.1/",))
    with pytest.raises(ConnectFailed):
        await transport.send(Request("GET", "https://127.0.0.1/"), SOON)
    for elsewhere in ("https://127.0.0.1:8443/", "http://127.0.0.1:443/", "http://127.0.0.2/"):
        with pytest.raises(AddressRefused):
            await transport.send(Request("GET", elsewhere), SOON)
    from_https = SiteTransport(("https://127.0.0.1/",))
    with pytest.raises(AddressRefused):
        await from_https.send(Request("GET", "http://127.0.0.1/"), SOON)


async def test_behind_a_proxy_no_other_origin_is_asked() -> None:
    for options in (TransportOptions(proxy="http://127.0.0.1:1"), TransportOptions(trust_env=True)):
        transport = SiteTransport(("http://127.0.0.1:9/",), options)
        with pytest.raises(AddressRefused) as caught:
            await transport.send(Request("GET", "http://8.8.8.8/"), SOON)
        assert caught.value.reason == "proxy"


def test_what_a_site_names_is_its_own() -> None:
    protocol = create(
        "recipe",
        {
            "bootstrap": [
                {"url": "https://login.example/start", "tokens": {"t": {"json": "/t"}}},
                {"url": "https://{{token.t}}.example/next"},
                {"url": "/path"},
            ],
            "request": {"url": "{{site}}/ask", "json": {"q": "{{message}}"}},
            "answer": {"text": "/a"},
        },
    )
    site = Site(name="s", url="https://shop.example", protocol=protocol, api_endpoint="https://api.example/x")
    assert set(site.addresses) == {"https://shop.example", "https://api.example/x", "https://login.example/start"}
    assert Site(name="s", url="https://a.example", protocol=create("openai")).addresses == ("https://a.example", "")
