"""OpenAI's list of models, `GET /models`."""

from collections.abc import Callable

from tolmach.protocols.model_lists import ListedModel, Listing, listed, models_of, seconds_of, text_of
from tolmach.wire import Decoder, Head, Request

__all__ = ["openai_models"]


def openai_models(url: str, api_key: str, refused: Callable[[Head], Decoder] | None) -> Listing:
    """The models at this address; `refused` reads a failed response."""
    headers = {"accept": "application/json"}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    response = yield Request("GET", url, headers)
    _, rows = listed(response, "data", refused)
    return tuple(
        models_of(
            rows, lambda row: ListedModel(text_of(row, "id"), seconds_of(row.get("created")), text_of(row, "owned_by"))
        )
    )
