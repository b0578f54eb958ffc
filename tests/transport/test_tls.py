"""Certificates are checked, unless somebody says otherwise in so many words."""

import asyncio
import ssl
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from tests.transport.conftest import LONG, Authority
from tests.transport.server import Conn, Got, Server, listening, serving
from tolmach.errors import ConfigError, ConnectFailed
from tolmach.transport import TransportOptions, create, read
from tolmach.wire import Request


@pytest.fixture(autouse=True)
def _answers(tls_server: Server) -> None:
    @tls_server.on("/")
    async def _(conn: Conn, got: Got) -> None:
        await conn.reply(b"ok")


async def _ask(kind: str, options: TransportOptions, url: str) -> bytes:
    async with aclosing(create(options, kind)) as transport:
        return await read(await transport.send(Request("GET", url), LONG), 100)


async def test_an_unknown_authority_is_refused(kind: str, tls_server: Server) -> None:
    with pytest.raises(ConnectFailed, match="certificate verify failed") as caught:
        await _ask(kind, TransportOptions(), tls_server.url + "/?q=1,s3cr3t")
    assert str(caught.value).startswith(f"https://localhost:{tls_server.port}: no connection: ")
    assert "s3cr3t" not in str(caught.value.__cause__)
    assert tls_server.got == []


async def test_an_authority_of_ones_own(kind: str, tls_server: Server, authority: Authority) -> None:
    assert await _ask(kind, TransportOptions(verify=authority.pem), tls_server.url + "/") == b"ok"


async def test_another_authority_is_refused(kind: str, tls_server: Server, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with pytest.raises(ConnectFailed, match="certificate verify failed"):
        await _ask(kind, TransportOptions(verify=str(other)), tls_server.url + "/")


async def test_a_certificate_for_another_name_is_refused(kind: str, tls_server: Server, authority: Authority) -> None:
    """The certificate is for localhost, and so is 127.0.0.1 not."""
    with pytest.raises(ConnectFailed, match="certificate verify failed"):
        await _ask(kind, TransportOptions(verify=authority.pem), f"https://127.0.0.1:{tls_server.port}/")


async def test_an_expired_certificate_is_refused(kind: str, tmp_path: Path) -> None:
    ca, pem = trustme.CA(), tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    begin, end = datetime(2001, 1, 1, tzinfo=UTC), datetime(2002, 1, 1, tzinfo=UTC)
    ca.issue_cert("localhost", not_before=begin, not_after=end).configure_cert(context)
    async with serving(context, "localhost") as server:
        with pytest.raises(ConnectFailed, match="certificate verify failed"):
            await _ask(kind, TransportOptions(verify=str(pem)), server.url + "/")


async def test_checks_are_off_only_when_told_so(kind: str, tls_server: Server) -> None:
    assert await _ask(kind, TransportOptions(verify=False), f"https://127.0.0.1:{tls_server.port}/") == b"ok"


async def test_no_tls_where_tls_was_asked_for(kind: str) -> None:
    async def speak_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.test ESMTP\r\n")
        await reader.read()

    async with listening(speak_first) as port:
        with pytest.raises(ConnectFailed):
            await _ask(kind, TransportOptions(), f"https://127.0.0.1:{port}/")


DAMAGED = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("content", [None, "", "no PEM", DAMAGED], ids=["no file", "empty", "text", "damaged"])
async def test_a_file_without_certificates_is_a_config_error(kind: str, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=f"verify: {path}"):
        await _ask(kind, TransportOptions(verify=str(path)), "https://127.0.0.1:9/")
