"""The texts of a question and its answer, kept for the log on their way: only where the configuration asks for it."""

from collections.abc import Callable, Mapping

from tolmach.gateway.http import Headers, Incoming, Reply, Writer

__all__ = ["LONGEST_TEXT", "Transcript"]

LONGEST_TEXT = 64 << 10
"""Bytes of a body that are kept."""


class Transcript:
    """A request and its reply that remember the beginning of the bodies."""

    def __init__(self, incoming: Incoming, reply: Reply) -> None:
        self.method = incoming.method
        self.path = incoming.path
        self.query = incoming.query
        self.client = incoming.client
        self.hosts = incoming.hosts
        self.authority = incoming.authority
        self.raw_path = incoming.raw_path
        self.headers: Mapping[str, str] = incoming.headers
        self._incoming = incoming
        self._reply = reply
        self._question = b""
        self._answer = bytearray()

    @property
    def question(self) -> str:
        return self._question.decode("utf-8", "replace")

    @property
    def answer(self) -> str:
        return self._answer.decode("utf-8", "replace")

    async def body(self, limit: int, seconds: float) -> bytes:
        body = await self._incoming.body(limit, seconds)
        self._question = body[:LONGEST_TEXT]
        return body

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        self._keep(body)
        await self._reply.whole(status, headers, body)

    async def stream(self, status: int, headers: Headers) -> Writer:
        return _TranscriptWriter(await self._reply.stream(status, headers), self._keep)

    def _keep(self, data: bytes) -> None:
        self._answer += data[: LONGEST_TEXT - len(self._answer)]


class _TranscriptWriter:
    """A reply's body that is remembered."""

    def __init__(self, writer: Writer, keep: Callable[[bytes], None]) -> None:
        self._writer = writer
        self._keep = keep

    async def write(self, data: bytes) -> None:
        self._keep(data)
        await self._writer.write(data)
