"""Fixtures of the transport tests."""

import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from tests.transport.server import Server, serving
from tolmach.transport import Timeouts, Transport, TransportOptions, create


class Authority(NamedTuple):
    """A certificate authority of our own, and a server's context with a certificate of it for `localhost`."""

    pem: str
    context: ssl.SSLContext


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    ca = trustme.CA()
    path: Path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    return Authority(str(path), context)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


@pytest.fixture
async def tls_server(authority: Authority) -> AsyncIterator[Server]:
    async with serving(authority.context, "localhost") as server:
        yield server


@pytest.fixture(params=["auto", "wreq", "aiohttp"])
def kind(request: pytest.FixtureRequest) -> str:
    """The transports that reach the network."""
    name: str = request.param
    return name


@pytest.fixture
async def transport(kind: str) -> AsyncIterator[Transport]:
    async with aclosing(create(TransportOptions(), kind)) as transport:
        yield transport


SHORT = 0.1
"""A time limit that passes, in seconds."""

LONG = Timeouts(connect=10.0, first_byte=10.0, idle=10.0, total=20.0)
"""Limits that never pass in a test, but end one that hangs."""
