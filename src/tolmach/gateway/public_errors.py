"""What callers are shown of an error: its words, without the addresses behind the gateway."""

import copy
import re
from urllib.parse import urlsplit

from tolmach.errors import (
    LocalError,
    MissingDependency,
    ProviderError,
    RemoteProtocolError,
    TolmachError,
    TransportError,
)
from tolmach.gateway.telemetry.logs import secrets
from tolmach.routing.targets import Target

__all__ = ["public_error"]

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#,;()\"'<>]+?(?=:\s|[\s/?#,;()\"'<>]|$)", re.I)

_OURS = (TransportError, RemoteProtocolError)
"""Errors whose words are tolmach's own: no address in them is one that the service wanted to tell."""

_LEAST_SECRET = 8
"""A key shorter than this is none, and may stand in any text."""


def public_error(error: TolmachError, target: Target) -> TolmachError:
    """The error with the target's name for its address; the same error when it tells none.

    Its keys and what else the configuration keeps secret are taken out as well, should a service repeat them.
    """
    text = told = str(error)
    site = target.provider.site
    if isinstance(error, MissingDependency):
        text = text.removesuffix(f": {error.install}")  # for the operator, and names folders
    if isinstance(error, _OURS):
        text = _ADDRESS.sub(lambda found: "an address" if found.start() else target.name, text)
    if isinstance(error, (*_OURS, LocalError)) or "://" in text:
        parts = urlsplit(site.url)
        for address in (f"{parts.scheme}://{parts.netloc}", parts.netloc):
            text = text.replace(address, target.name) if address else text
    # Not the session's key: the error may be that none could be opened.
    provider = target.provider
    for key in (provider.access.api_key, site.api_key or "", *provider.more_keys):
        if len(key) >= _LEAST_SECRET:
            text = text.replace(key, "[key]")
    text = secrets.hide(text)
    if text == told:
        return error
    other = copy.copy(error)
    other.args = (text,)
    if isinstance(other, ProviderError):
        other.text = text
    return other
