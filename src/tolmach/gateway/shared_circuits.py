"""Circuits that all replicas of a gateway share: what opens here, opens there."""

import json
import logging
import time

from tolmach.routing.health import Health
from tolmach.state import State

__all__ = ["SharedCircuits"]

_log = logging.getLogger("tolmach.gateway")

_CIRCUITS = "circuits"


class SharedCircuits:
    """Tells the other replicas of circuits that open in `health`, and takes over theirs."""

    def __init__(self, state: State, health: Health) -> None:
        self._state = state
        self._health = health

    async def start(self) -> None:
        await self._state.subscribe(_CIRCUITS, self._take_over)

    async def aclose(self) -> None:
        """The state ends the subscription."""

    def tell(self, id: str, key_only: bool) -> None:
        """A circuit has opened here: that of a choice, or of its key only."""
        seconds = max(0.0, self._health.opens_until(id) - time.monotonic())
        told = {"id": id, "until": time.time() + seconds, "key_only": key_only}
        self._state.publish(_CIRCUITS, json.dumps(told).encode())

    def _take_over(self, told: bytes) -> None:
        try:
            said = json.loads(told)
            seconds = float(said["until"]) - time.time()
            id, key_only = str(said["id"]), bool(said["key_only"])
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("a replica told of a circuit in words that are not understood: %s", error)
            return
        if seconds > 0:
            self._health.merge(id, time.monotonic() + seconds, key_only=key_only)
