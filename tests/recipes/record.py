"""Records the traffic of the pages of `apis.py` with headless Chromium: `python -m tests.recipes.record [NAME...]`.

It drives the browser over the DevTools protocol, and writes for each API the HAR of a visit with
two questions, and the curl command of the first as browsers copy it. Nothing of the machine is in
them: the address is one that is reserved for documents.
"""

import asyncio
import base64
import json
import shlex
import shutil
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from tests.recipes.apis import APIS, KEY, serve

__all__ = ["ADDRESS", "QUESTIONS", "TRAFFIC", "record"]

TRAFFIC = Path(__file__).parent / "traffic"
ADDRESS = "http://chat.example:8080"
"""What stands in the recordings in place of the server's own address."""
QUESTIONS = ("Why is the sky blue in the evening?", 'And "why" is it red & grey, at 5 o\'clock?')
_BROWSERS = ("chromium-headless-shell", "chromium")


class _Page:
    """One page of the browser, and the events of its network."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self._more = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            value = json.loads(message.data)
            if "id" in value:
                self._waiting.pop(value["id"]).set_result(value)
            else:
                self.events.append(value)
                self._more.set()

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        future = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(future, 30)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def evaluate(self, script: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    async def until(self, name: str) -> None:
        async with asyncio.timeout(30):
            while not any(event["method"] == name for event in self.events):
                self._more.clear()
                await self._more.wait()

    async def close(self) -> None:
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader


async def _visit(session: aiohttp.ClientSession, port: str, address: str, name: str) -> dict[str, Any]:
    """The HAR of a visit of one API's page, with two questions."""
    async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as made:
        target = await made.json(content_type=None)
    async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
        page = _Page(socket)
        try:
            await page.call("Network.enable")
            await page.call("Page.enable")
            await page.call("Page.navigate", url=f"{address}/{name}/")
            await page.until("Page.loadEventFired")
            await page.evaluate(f"localStorage.setItem('key', {json.dumps(KEY)})")
            for question in QUESTIONS:
                await page.evaluate(f"ask({json.dumps(question)})")
            await page.evaluate("new Promise(done => setTimeout(done, 200))")
            entries = [entry for each in _requests(page.events) if (entry := await _entry(page, each)) is not None]
        finally:
            await page.close()
    return {"log": {"version": "1.2", "creator": {"name": "tolmach tests", "version": "1"}, "entries": entries}}


def _requests(events: list[dict[str, Any]]) -> list[dict[str, dict[str, Any]]]:
    """The events of the network by request."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for event in events:
        name = event["method"].removeprefix("Network.")
        if event["method"].startswith("Network.") and "requestId" in event["params"]:
            found.setdefault(event["params"]["requestId"], {})[name] = event["params"]
    return [each for each in found.values() if "requestWillBeSent" in each and "responseReceived" in each]


async def _entry(page: _Page, events: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    sent, received = events["requestWillBeSent"], events["responseReceived"]["response"]
    request = sent["request"]
    body = {"body": "", "base64Encoded": False}
    with suppress(RuntimeError):  # a response without a body has none to give
        body = await page.call("Network.getResponseBody", requestId=sent["requestId"])
    post = request.get("postData", "")
    if request.get("hasPostData") and not post:
        post = (await page.call("Network.getRequestPostData", requestId=sent["requestId"]))["postData"]
    headers = events.get("requestWillBeSentExtraInfo", {}).get("headers", request["headers"])
    answered = events.get("responseReceivedExtraInfo", {}).get("headers", received["headers"])
    entry: dict[str, Any] = {
        "startedDateTime": datetime.fromtimestamp(sent["wallTime"], UTC).isoformat(timespec="milliseconds"),
        "request": {"method": request["method"], "url": request["url"], "headers": _pairs(headers)},
        "response": {
            "status": received["status"],
            "headers": _pairs(answered),
            "content": {"mimeType": received["mimeType"], "text": _text(body)},
        },
    }
    if post:
        kind = next((value for name, value in headers.items() if name.lower() == "content-type"), "")
        entry["request"]["postData"] = {"mimeType": kind, "text": post}
    return entry


def _text(body: dict[str, Any]) -> str:
    text: str = body["body"]
    return base64.b64decode(text).decode("utf-8", "replace") if body["base64Encoded"] else text


def _pairs(headers: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in headers.items()]


def _curl(entry: dict[str, Any]) -> str:
    """The command that browsers copy for bash."""
    request = entry["request"]
    words = [f"curl {shlex.quote(request['url'])}"]
    skipped = ("content-length", "host", "connection", "accept-encoding")
    words += [
        f"-H {shlex.quote(pair['name'] + ': ' + pair['value'])}"
        for pair in request["headers"]
        if pair["name"].lower() not in skipped and not pair["name"].startswith(":")
    ]
    if "postData" in request:
        words.append(f"--data-raw {_dollar(request['postData']['text'])}")
    return " \\\n  ".join([*words, "--compressed"]) + "\n"


def _dollar(text: str) -> str:
    """As browsers write what has quotes or line ends in it."""
    if "'" not in text and "\r" not in text and "\n" not in text:
        return f"'{text}'"
    plain = text.replace("\\", "\\\\").replace("'", "\\'").replace("\r", "\\r").replace("\n", "\\n")
    return f"$'{plain}'"


async def record(browser: str, names: list[str]) -> None:
    """Record these APIs, or all."""
    with serve() as address, tempfile.TemporaryDirectory() as profile:
        process = await asyncio.create_subprocess_exec(
            browser,
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-port=0",
            "--remote-allow-origins=*",
            f"--user-data-dir={profile}",
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            port = await asyncio.wait_for(_port(process), 60)
            async with aiohttp.ClientSession() as session:
                for name in names or APIS:
                    _write(name, await _visit(session, port, address, name), address)
        finally:
            process.terminate()
            await process.communicate()


async def _port(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    while line := await process.stderr.readline():
        if b"DevTools listening on" in line:
            return line.decode().split("://", 1)[1].split("/")[0].rpartition(":")[2]
    raise RuntimeError("the browser ended")


def _write(name: str, har: dict[str, Any], address: str) -> None:
    host, own = address.removeprefix("http://"), ADDRESS.removeprefix("http://")
    text = json.dumps(har, ensure_ascii=False, indent=1).replace(host, own) + "\n"
    (TRAFFIC / f"{name}.har").write_text(text, encoding="utf-8")
    asked = [entry for entry in har["log"]["entries"] if "/api" in entry["request"]["url"]]
    (TRAFFIC / f"{name}.curl").write_text(_curl(asked[0]).replace(host, own), encoding="utf-8")
    print(f"{name}: {len(har['log']['entries'])} exchanges")


if __name__ == "__main__":
    asyncio.run(record(shutil.which(_BROWSERS[0]) or _BROWSERS[1], sys.argv[1:]))
