"""Sessions with sites that all replicas of a gateway share: one handshake for all of them, and one visitor.

What a handshake gave (tokens, the visitor's ids, cookies) is published in the shared state; who needs tokens
looks there first, and one at a time shakes hands. So a site sees one visitor, not one for each worker.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256

import msgspec
from msgspec import Struct

from tolmach.cookies import make_cookie
from tolmach.protocols.base import Site, Token
from tolmach.providers.base import Access, open_session
from tolmach.session import Session
from tolmach.state import State

__all__ = ["SharedSession", "open_shared"]

_KEPT_SECONDS = 43_200.0
"""WordPress' nonces, of which most are, live for half a day at least."""
_LEASE_SECONDS = 30.0
"""After so long another replica shakes hands in the place of one that was killed meanwhile."""
_PATIENCE = 10.0
_LOOK_SECONDS = 0.05
_YOUNG = 60.0
"""Tokens that a site refuses are replaced by those of others that are not older; and where such tokens are
refused so soon, the site does not know us by what it knows the others by."""


class _Cookie(Struct, frozen=True):
    name: str
    value: str
    domain: str
    path: str
    secure: bool
    expires: int | None
    host_only: bool

    def __repr__(self) -> str:
        return f"_Cookie({self.name!r}, {self.domain!r})"


class _Published(Struct, frozen=True):
    """What makes one session the same visitor as another; `at` in unix seconds."""

    at: float
    tokens: dict[str, Token]
    visitor: dict[str, str]
    cookies: list[_Cookie]

    def __repr__(self) -> str:
        return f"_Published(at={self.at!r})"


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Published)


class SharedSession:
    """The part of a session that others share under a name (`tolmach.session.Sharing`). `now` gives unix seconds."""

    def __init__(self, state: State, name: str, session: Session, *, now: Callable[[], float] = time.time) -> None:
        self._state = state
        self._place = f"visitor:{name}"
        self._session = session
        self._now = now
        self._known: bytes | None = None
        """What was last taken over or published here."""
        self._young_until = 0.0
        self._alone = False

    async def make_ready(self, shake: Callable[[], Awaitable[object]]) -> None:
        """Take over the tokens of others, or shake hands and publish. Raises what `shake` raises."""
        if self._now() < self._young_until:
            self._alone = True
        lease, holder = f"{self._place}:handshake", secrets.token_hex(8)
        ends = self._now() + _PATIENCE
        while not await self._taken_over():
            if await self._state.lease(lease, holder, 1, _LEASE_SECONDS) or self._now() > ends:
                try:
                    # It may have been published between the look and the lease.
                    if not await self._taken_over():
                        await shake()
                        await self._publish()
                finally:
                    self._state.release(lease, holder)
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _taken_over(self) -> bool:
        """Whether the session has the tokens of another now, which are none that it had before."""
        data = None if self._alone else await self._state.get(self._place)
        if data is None or data == self._known:
            return False
        try:
            told = _decoder.decode(data)
        except msgspec.DecodeError:
            return False  # another version of tolmach wrote it
        young = self._now() - told.at < _YOUNG
        if self._known is not None and not young:
            return False
        session = self._session
        session.state.tokens.update(told.tokens)
        if not session.site.protocol.ready(session.site, session.state):
            session.state.tokens.clear()
            return False
        session.state.visitor.update(told.visitor)
        for one in told.cookies:
            session.cookies.add(
                make_cookie(
                    one.name,
                    one.value,
                    one.domain,
                    path=one.path,
                    secure=one.secure,
                    expires=one.expires,
                    host_only=one.host_only,
                )
            )
        self._known = data
        self._young_until = self._now() + _YOUNG if young else 0.0
        return True

    async def _publish(self) -> None:
        session = self._session
        cookies = [
            _Cookie(one.name, one.value or "", one.domain, one.path, one.secure, one.expires, not one.domain_specified)
            for one in session.cookies
        ]
        self._known = _encode(_Published(self._now(), session.state.tokens, session.state.visitor, cookies))
        self._young_until = 0.0
        await self._state.put(self._place, self._known, _KEPT_SECONDS)


def open_shared(state: State) -> Callable[[Site, Access], Session]:
    """Opens sessions whose visitors are shared by all who have the same state, the same sites and accesses."""

    def open(site: Site, access: Access) -> Session:
        session = open_session(site, access)
        # A page is asked by a session of its own kind, which keeps more than tokens.
        if type(session) is Session:
            known_by = (site.name, site.url, site.headers, site.protocol.name, site.protocol)
            told = msgspec.json.encode(known_by, enc_hook=repr, order="sorted") + access.key()
            session.sharing = SharedSession(state, sha256(told).hexdigest(), session)
        return session

    return open
