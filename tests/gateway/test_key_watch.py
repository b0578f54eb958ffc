"""Callers' keys while a gateway runs: what is under way for one that is not good any more, and keys that vanish."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.gateway.keyed import METRICS_KEY, PATIENCE, ask, body_of, config, make_key, opened
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


# Keys that vanish


async def ready(url: str) -> dict[str, str]:
    told: dict[str, str] = json.loads((await raw(url, "GET", "/health/ready"))[2])
    return told


async def until_told(url: str, of: str) -> None:
    """Wait until `/health/ready` says this of the keys."""
    async with asyncio.timeout(PATIENCE):
        while of not in (await ready(url)).get("keys", ""):  # noqa: ASYNC110 - read by a thread
            await asyncio.sleep(0.02)


async def metrics(url: str) -> bytes:
    return (await raw(url, "GET", "/metrics", headers=f"authorization: Bearer {METRICS_KEY}\r\n"))[2]


def removed(folder: Path) -> None:
    for file in folder.glob(f"{LEDGER}*"):
        file.unlink()


def emptied(folder: Path) -> None:
    (folder / LEDGER).write_bytes(b"")
    (folder / f"{LEDGER}-wal").write_bytes(b"")
    (folder / f"{LEDGER}-shm").unlink(missing_ok=True)


@pytest.mark.parametrize("lose", [removed, emptied])
async def test_a_lost_ledger_opens_nothing(
    tmp_path: Path, lose: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    plain, _ = make_key(tmp_path / LEDGER)
    async with Upstream() as upstream:
        async with running(tmp_path, upstream) as (url, _):
            assert "keys" not in await ready(url)
            assert (await ask(url, plain))[0] == 200
            lose(tmp_path)
            await until_told(url, "has lost the keys")
            assert (await ask(url))[0] == 401
            assert (await ask(url, plain))[0] == 200  # nobody has removed it
            assert b"tolmach_keys_missing 1.0" in await metrics(url)
            assert b"tolmach_keys 1.0" in await metrics(url)
        [line] = [line for line in capsys.readouterr().err.splitlines() if "has lost the keys" in line]
        assert json.loads(line)["level"] == "warning"
        # Started again, nothing is known of them but that they were.
        async with running(tmp_path, upstream) as (url, _):
            assert "there were keys" in (await ready(url))["keys"]
            assert [(await ask(url, key))[0] for key in ("", plain)] == [401, 401]
            assert (await raw(url, "GET", "/v1/models"))[0] == 401
            assert b"tolmach_keys_missing 1.0" in await metrics(url)
            other, _ = make_key(tmp_path / LEDGER)
            async with asyncio.timeout(PATIENCE):
                while (await ask(url, other))[0] != 200:  # noqa: ASYNC110 - read by a thread
                    await asyncio.sleep(0.02)
            assert "keys" not in await ready(url)
            assert (await ask(url))[0] == 401


async def test_the_last_key_that_is_removed_opens_nothing(tmp_path: Path) -> None:
    plain, key = make_key(tmp_path / LEDGER)
    async with Upstream() as upstream:
        async with running(tmp_path, upstream) as (url, _):
            change(tmp_path, None, key.id)
            await until_told(url, "there is none any more")
            assert [(await ask(url, one))[0] for one in ("", plain)] == [401, 401]
            assert b"tolmach_keys 0.0" in await metrics(url)
        async with running(tmp_path, upstream) as (url, _):
            assert (await ask(url))[0] == 401
        async with running(tmp_path, upstream, 'keys = "optional"') as (url, _):
            assert (await ask(url))[0] == 200
            assert "keys" not in await ready(url)


async def test_keys_may_be_required_before_there_is_one(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        async with running(tmp_path, upstream) as (url, _):
            assert (await ask(url))[0] == 200
        async with running(tmp_path, upstream, 'keys = "required"') as (url, _):
            assert (await ask(url))[0] == 401
            assert "there are no keys for callers" in (await ready(url))["keys"]


async def test_nothing_is_written_into_a_ledger_that_was_removed(tmp_path: Path) -> None:
    async with Upstream() as upstream, running(tmp_path, upstream) as (url, gateway):
        assert (await ask(url, id="before"))[0] == 200
        assert gateway.ledger is not None
        async with asyncio.timeout(PATIENCE):
            while gateway.ledger.written < 2:  # noqa: ASYNC110 - written by a thread
                await asyncio.sleep(0.02)
        removed(tmp_path)
        assert (await ask(url, id="after"))[0] == 200
        async with asyncio.timeout(PATIENCE):
            while gateway.ledger.written < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        database = open_database(tmp_path / LEDGER)
        assert database.query("SELECT request FROM tolmach_requests") == [("after",)]
        database.close()


async def test_an_idle_gateway_makes_its_ledger_again(tmp_path: Path) -> None:
    async with Upstream() as upstream, running(tmp_path, upstream):
        removed(tmp_path)
        async with asyncio.timeout(PATIENCE):
            while not (tmp_path / LEDGER).exists():  # noqa: ASYNC110 - made by a thread
                await asyncio.sleep(0.02)
    with closing(open_database(tmp_path / LEDGER)) as database:
        assert database.query("SELECT count(*) FROM tolmach_requests") == [(0,)]
