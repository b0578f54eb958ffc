"""A caller's body that is passed on: all of it stays as it was written, but for what has to be another."""

import msgspec

from tolmach.errors import BadRequest

__all__ = ["Fields", "given", "limited", "read_fields", "written"]

Fields = dict[str, msgspec.Raw]
"""The fields of a JSON object, each as it was written."""


def read_fields(body: bytes) -> Fields:
    """The fields of a body. Raises `BadRequest` when it is no object."""
    try:
        return msgspec.json.decode(body, type=Fields)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON object: {error}", code="invalid_json") from error


def given(fields: Fields, *names: str) -> bool:
    """Whether any of these fields says something: `null` says nothing."""
    return any(name in fields and bytes(fields[name]) != b"null" for name in names)


def limited(fields: Fields, name: str, limit: int | None, *names: str) -> dict[str, int]:
    """The field `name` with the most tokens of an answer, in place of what the fields of these `names` say."""
    if limit is None:
        return {}
    for other in names:
        fields.pop(other, None)
    return {name: limit}


def written(fields: Fields, **others: object) -> bytes:
    """The body again, with these fields in place of what the caller wrote."""
    return msgspec.json.encode({**fields, **others})
