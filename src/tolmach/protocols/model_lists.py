"""The models that a service says it has: what the protocols with such a list share."""

from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from tolmach.decoding import parse_json
from tolmach.errors import RemoteProtocolError
from tolmach.protocols.base import SessionState, Site
from tolmach.wire import Decoder, Head, Request, Response

__all__ = ["ListedModel", "Listing", "ListsModels", "listed", "models_of", "seconds_of", "text_of"]


class ListedModel(Struct, frozen=True):
    """A model by the service's own name; `created` is in seconds since 1970, 0 where it is not said."""

    id: str
    created: int = 0
    owner: str = ""


Listing = Generator[Request, Response, tuple[ListedModel, ...]]
"""Requests out, their responses in; at the end the models."""


@runtime_checkable
class ListsModels(Protocol):
    """A protocol whose services say which models they have."""

    def list_models(self, site: Site, state: SessionState) -> Listing:
        """Ask for them. Raises `ProviderError` for a refusal, `RemoteProtocolError` for what is no list."""


def listed(response: Response, key: str, refused: Callable[[Head], Decoder] | None) -> tuple[dict[str, Any], list[Any]]:
    """The body of a response, and the list in it.

    `refused` reads a failed response as the protocol's own answers are read. Raises what it raises, and
    `RemoteProtocolError`.
    """
    head = response.head
    if refused is not None and not 200 <= head.status < 300:
        decoder = refused(head)
        for _ in (*decoder.feed(response.body), *decoder.close()):
            """Nothing comes of a refusal: it ends in its error."""
    value = parse_json(response.body)
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise RemoteProtocolError("no list of models came", status=head.status)
    return value, found


def models_of(rows: list[Any], make: Callable[[dict[str, Any]], ListedModel]) -> Iterator[ListedModel]:
    """The rows of a list that name a model."""
    for row in rows:
        if isinstance(row, dict) and (model := make(row)).id:
            yield model


def text_of(row: dict[str, Any], key: str) -> str:
    """The text there, or an empty one."""
    value = row.get(key)
    return value if isinstance(value, str) else ""


def seconds_of(time: Any) -> int:
    """A time as seconds since 1970: a number, or a text as RFC 3339 writes it; 0 for anything else."""
    if isinstance(time, int | float) and not isinstance(time, bool):
        return int(time) if 0 <= time < 1 << 53 else 0
    try:
        moment = datetime.fromisoformat(time)
        return max(0, int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()))
    except (TypeError, ValueError, OverflowError):
        return 0
