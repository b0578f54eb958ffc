"""A response of which a service wrote the beginning: what goes on with it has to name the same items."""

from typing import Any

from msgspec import Struct

from tolmach.decoding import ServerSentEvents, parse_json
from tolmach.errors import RemoteProtocolError

__all__ = ["PartialResponse", "read_partial"]


class PartialResponse(Struct):
    """What had been sent. `ids` are those of the items by their places, `done` the items that were whole.

    `place` is that of the item that was begun last, -1 for none; `numbers` how many events were numbered.
    """

    id: str = ""
    created: int = 0
    numbers: int = 0
    place: int = -1
    ids: dict[int, str] = {}
    done: dict[int, dict[str, Any]] = {}


def read_partial(sent: bytes) -> PartialResponse:
    """What the events in `sent` began. What cannot be read is passed over: it was passed over before."""
    found = PartialResponse(ids={}, done={})
    for event in ServerSentEvents(max(1, len(sent))).feed(sent):
        try:
            value = parse_json(event.data)
        except RemoteProtocolError:
            continue
        if isinstance(value, dict):
            _note(found, value)
    return found


def _note(found: PartialResponse, value: dict[str, Any]) -> None:
    match value:
        case {"type": "response.created", "response": {"id": str(id), **rest}}:
            found.id = id
            created = rest.get("created_at")
            found.created = int(created) if isinstance(created, int | float) else 0
        case {"type": "response.output_item.added", "output_index": int(at), "item": {"id": str(id)}}:
            found.ids[at] = id
            found.place = max(found.place, at)
        case {"type": "response.output_item.done", "output_index": int(at), "item": dict(item)}:
            found.done[at] = item
    number = value.get("sequence_number")
    if isinstance(number, int):
        found.numbers = max(found.numbers, number + 1)
