"""Values of one kind, remembered in a state: conversations and responses that all workers know."""

from hashlib import sha256
from typing import Generic, TypeVar

import msgspec

from tolmach.state.base import State

__all__ = ["StateStore"]

T = TypeVar("T")


class StateStore(Generic[T]):
    """A store (`gateway.conversations.Store`) of values of the type `kind`, for `seconds` after the last use.

    Its keys in the state are `name` and a hash: what the gateway's keys say of callers stays here.
    """

    def __init__(self, state: State, name: str, kind: type[T], *, seconds: float = 3600.0) -> None:
        self._state = state
        self._name = name
        self._seconds = seconds
        self._encode = msgspec.msgpack.Encoder().encode
        self._decoder = msgspec.msgpack.Decoder(kind)

    async def get(self, key: str) -> T | None:
        place = self._place(key)
        data = await self._state.get(place)
        if data is None:
            return None
        await self._state.put(place, data, self._seconds)
        return self._value(data)

    async def take(self, key: str) -> T | None:
        data = await self._state.take(self._place(key))
        return None if data is None else self._value(data)

    async def put(self, key: str, value: T) -> None:
        """Remember a value; one with text that is not Unicode (half of a surrogate pair) is not remembered."""
        try:
            data = self._encode(value)
        except UnicodeEncodeError:
            return
        await self._state.put(self._place(key), data, self._seconds)

    def _place(self, key: str) -> str:
        return f"{self._name}:{sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"

    def _value(self, data: bytes) -> T | None:
        try:
            return self._decoder.decode(data)
        except msgspec.DecodeError:
            # Another version of tolmach wrote it.
            return None
