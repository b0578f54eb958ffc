"""Callers' keys while a gateway runs: what is under way for one that is not good any more, and keys that vanish."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.gateway.keyed import PATIENCE, ask, body_of, config, make_key, opened
from tests.gateway.program import raw
from tests.gateway.upstream import Upstream
from tolmach.access.keys import Key
from tolmach.configuration import Settings
from tolmach.gateway import key_watch
from tolmach.gateway.assembly import build
from tolmach.gateway.core import Gateway
from tolmach.gateway.serving.server import serving
from tolmach.ledger.keys import remove_key, save_key
from tolmach.ledger.opening import open_database

LEDGER = "ledger.sqlite"


@asynccontextmanager
async def running(folder: Path, upstream: Upstream, gateway: str = "") -> AsyncGenerator[tuple[str, Gateway]]:
    """A gateway over the upstream, with the ledger in the folder."""
    file = folder / "tolmach.toml"
    file.write_text(config(folder / LEDGER, upstream.url, gateway), "utf-8")
    made = build(Settings.load(file, environ={}))
    await made.start()
    try:
        async with serving(made) as url:
            yield url, made
    finally:
        await made.aclose()


def change(folder: Path, key: Key | None, removed: str = "") -> None:
    database = open_database(folder / LEDGER)
    if key is not None:
        save_key(database, key)
    if removed:
        assert remove_key(database, removed)
    database.close()


def test_the_keys_are_looked_at_so_often_that_a_change_counts_within_a_second() -> None:
    assert key_watch.LOOK_SECONDS <= 0.5


# What is under way


@pytest.mark.parametrize("how", ["removed", "disabled", "expired"])
async def test_what_is_under_way_ends_with_its_key(tmp_path: Path, how: str) -> None:
    plain, key = make_key(tmp_path / LEDGER)
    other, _ = make_key(tmp_path / LEDGER, name="other")
    async with Upstream() as upstream, running(tmp_path, upstream) as (url, gateway):
        stream = await opened(url, plain)
        whole = asyncio.ensure_future(ask(url, plain, "up/held"))
        early = asyncio.ensure_future(ask(url, plain, "up/silent", stream=True))
        kept = await opened(url, other)
        await upstream.until_active(4)
        if how == "removed":
            change(tmp_path, None, key.id)
        else:
            fields: dict[str, Any] = {"disabled": True} if how == "disabled" else {"expires": int(time.time())}
            change(tmp_path, structs.replace(key, **fields))
        said = await stream.rest()
        assert b'"code":"invalid_api_key"' in said.splitlines()[-2]
        assert b"[DONE]" not in said
        status, _, body = await whole
        assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")
        assert (await early)[0] == 401
        await upstream.until_active(1)  # the service is not asked any more, either
        assert gateway.under_way == 1
        assert (await ask(url, plain))[0] == 401
        upstream.gate.set()
        assert (await kept.rest()).endswith(b"data: [DONE]\n\n")


async def test_an_expiry_needs_no_change_of_the_ledger(tmp_path: Path) -> None:
    plain, _ = make_key(tmp_path / LEDGER, expires=int(time.time()) + 3)
    async with Upstream() as upstream, running(tmp_path, upstream) as (url, _):
        stream = await opened(url, plain)
        assert b"has expired" in await stream.rest()


async def test_a_changed_key_that_is_good_still_goes_on(tmp_path: Path) -> None:
    plain, key = make_key(tmp_path / LEDGER)
    async with Upstream() as upstream, running(tmp_path, upstream) as (url, gateway):
        stream = await opened(url, plain)
        change(tmp_path, structs.replace(key, models=("up/good",)))
        async with asyncio.timeout(PATIENCE):
            while next(iter(gateway.callers.keys)).models != ("up/good",):  # noqa: ASYNC110 - read by a thread
                await asyncio.sleep(0.02)
        upstream.gate.set()
        assert (await stream.rest()).endswith(b"data: [DONE]\n\n")


# What a key for a few models is told of others


async def test_a_model_that_is_not_allowed_looks_like_one_that_there_is_not(tmp_path: Path) -> None:
    plain, _ = make_key(tmp_path / LEDGER, models=("up/good", "nothing*"))
    paths = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/v1/embeddings")
    async with Upstream() as upstream, running(tmp_path, upstream) as (url, _):

        async def told(method: str, path: str, model: str) -> tuple[int, bytes]:
            body = body_of(model, input="What?") if method == "POST" else b""
            head = f"x-api-key: {plain}\r\nx-request-id: one\r\n"
            status, headers, said = await raw(url, method, path, body, head)
            assert not {name for name in headers if name.startswith("x-tolmach")}
            return status, said.replace(model.encode(), b"MODEL")

        # There and not allowed; not there and not allowed; not there, but allowed by its pattern.
        models = ("smart", "up/bad", "neither", "nothing-here")
        for path in paths:
            [(status, _)] = {await told("POST", path, model) for model in models}
            assert status == 404
        [(status, _)] = {await told("GET", f"/v1/models/{model}", model) for model in models}
        assert status == 404
        assert (await ask(url, plain, "up/good"))[0] == 200
