"""The services that no recording exists of: what they accept, what they refuse, what they stream."""

import base64
import hashlib
import itertools
import json
import re
import uuid
from typing import Any

import pytest

from tests.demo.client import Got, ask, post_form, post_json
from tolmach.demo import Demo
from tolmach.demo.chatgpt.sentinel import proof_holds, requirements_token_holds

# chatgpt.com

CONFIG: list[Any] = [
    3000,
    "Mon",
    None,
    0,
    "Mozilla/5.0",
    None,
    "b",
    "en",
    "en,ru",
    0,
    "a",
    "b",
    "c",
    1.5,
    "u",
    "",
    8,
    17,
]
DEVICE = {"oai-device-id": str(uuid.UUID(int=7, version=4)), "oai-language": "en-US"}
ANON = "/ChatGpt/backend-anon"
UNUSUAL = {"detail": "Unusual activity has been detected from your device. Try again later."}


def encoded(at: int) -> str:
    config = [*CONFIG]
    config[3], config[9] = at, at >> 1
    return base64.b64encode(json.dumps(config, separators=(",", ":"), ensure_ascii=False).encode()).decode()


def solve(prefix: str, seed: str, difficulty: str) -> str:
    target = bytes.fromhex(difficulty)
    for at in range(500_000):
        text = encoded(at)
        if hashlib.sha3_512((seed + text).encode()).digest()[: len(target)] <= target:
            return prefix + text
    raise AssertionError("no proof")


def message(text: str) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "author": {"role": "user"},
        "content": {"content_type": "text", "parts": [text]},
        "metadata": {"serialization_metadata": {"custom_symbol_offsets": []}},
        "create_time": 1.0,
    }


def body(text: str = "Привет", **more: Any) -> dict[str, Any]:
    return {
        "action": "next",
        "messages": [message(text)],
        "parent_message_id": str(uuid.uuid4()),
        "model": "auto",
        "timezone_offset_min": -180,
        "history_and_training_disabled": False,
        "conversation_mode": {"kind": "primary_assistant"},
        "websocket_request_id": str(uuid.uuid4()),
        "supported_encodings": ["v1"],
        **more,
    }


async def tokens(
    demo: Demo, prefix: str = ANON, fault: str = "", **headers: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """The requirements, and the headers that meet them but for a challenge's."""
    p = solve("gAAAAAC", "0.5", "0fffff")
    path = f"{prefix}/sentinel/chat-requirements"
    got = await post_json(demo.url, path, {"p": p}, headers=DEVICE | headers, fault=fault)
    assert got.status == 200, got.text
    proof = got.json["proofofwork"]
    return got.json, {
        "accept": "text/event-stream",
        "openai-sentinel-chat-requirements-token": got.json["token"],
        "openai-sentinel-proof-token": solve("gAAAAAB", proof["seed"], proof["difficulty"]),
        **DEVICE,
        **headers,
    }


async def talk(demo: Demo, asked: Any, fault: str = "") -> Got:
    _, headers = await tokens(demo)
    return await post_json(demo.url, f"{ANON}/conversation", asked, headers=headers, fault=fault)


def applied(got: Got) -> dict[str, Any]:
    """What the answer's deltas build, by the rules of the encoding."""
    root: Any = {}
    last: dict[str, Any] = {"p": "", "o": "add", "c": 0}

    def apply(operation: dict[str, Any]) -> None:
        nonlocal root
        parts = [part for part in operation["p"].split("/") if part]
        if operation["o"] == "patch":
            for inner in operation["v"]:
                apply(inner)
            return
        if not parts:
            root = operation["v"]
            return
        holder = root
        for part in parts[:-1]:
            holder = holder[int(part) if isinstance(holder, list) else part]
        key: Any = int(parts[-1]) if isinstance(holder, list) else parts[-1]
        if operation["o"] == "append" and isinstance(holder[key], dict):
            holder[key] |= operation["v"]
        elif operation["o"] == "append":
            holder[key] += operation["v"]
        else:
            holder[key] = operation["v"]

    for name, data in got.events:
        if name == "delta":
            last = {**last, **json.loads(data)}
            apply(last)
    assert isinstance(root, dict)
    return root


def test_tokens_are_checked_by_what_can_be_known() -> None:
    assert requirements_token_holds("gAAAAAC" + encoded(6))
    assert not requirements_token_holds("gAAAAAB" + encoded(6))
    assert not requirements_token_holds("gAAAAAC" + encoded(6)[:-5] + "*")
    assert not requirements_token_holds(None)
    short = base64.b64encode(json.dumps(CONFIG[:-1]).encode()).decode()
    assert not requirements_token_holds("gAAAAAC" + short)
    skewed = base64.b64encode(json.dumps([*CONFIG[:3], 6, *CONFIG[4:]]).encode()).decode()
    assert not requirements_token_holds("gAAAAAC" + skewed)


def test_a_proof_is_computed_anew() -> None:
    """The digest decides, not the form: of sixteen attempts about one wins at 0fffff."""
    won = [at for at in range(400) if proof_holds("gAAAAAB" + encoded(at), "0.42", "0fffff")]
    target = bytes.fromhex("0fffff")
    expected = [at for at in range(400) if hashlib.sha3_512(f"0.42{encoded(at)}".encode()).digest()[:3] <= target]
    assert won == expected
    assert 5 < len(won) < 60


async def test_a_conversation_as_deltas() -> None:
    async with Demo(delay=0) as demo:
        page = await ask(demo.url, "GET", "/ChatGpt/")
        assert re.search(r"oai-did=[0-9a-f-]{36}; ", page.header("set-cookie"))
        first = await talk(demo, body())
        assert first.header("content-type") == "text/event-stream; charset=utf-8"
        assert first.events[0] == ("delta_encoding", '"v1"')
        assert first.text.endswith("data: [DONE]\n\n")
        root = applied(first)
        text = root["message"]["content"]["parts"][0]
        assert "> Привет" in text
        assert "hist=1" in text
        assert "👩‍💻" in text
        assert (root["message"]["status"], root["message"]["end_turn"]) == ("finished_successfully", True)
        assert len([1 for name, data in first.events if name == "delta" and list(json.loads(data)) == ["v"]]) > 30
        asked = body("дальше", conversation_id=root["conversation_id"], parent_message_id=root["message"]["id"])
        second = applied(await talk(demo, asked))
        assert "hist=3" in second["message"]["content"]["parts"][0]
        assert second["conversation_id"] == root["conversation_id"]


@pytest.mark.parametrize("how", ["fault", "encodings"])
async def test_a_conversation_as_snapshots(how: str) -> None:
    async with Demo(delay=0) as demo:
        asked = body() if how == "fault" else body(supported_encodings=[])
        got = await talk(demo, asked, fault="snapshots" if how == "fault" else "")
        messages = [json.loads(data)["message"] for _, data in got.events if data != "[DONE]"]
        answers = [m["content"]["parts"][0] for m in messages if m["author"]["role"] == "assistant"]
        assert len(answers) > 30
        assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(answers))
        assert [m["author"]["role"] for m in messages[:2]] == ["system", "user"]
        assert messages[-1]["status"] == "finished_successfully"
        assert got.events[-1] == ("", "[DONE]")


async def test_a_rewritten_answer() -> None:
    async with Demo(delay=0) as demo:
        root = applied(await talk(demo, body(), "rewritten"))
        assert root["message"]["content"]["parts"][0].startswith("Let me say that again.")


async def test_a_requirements_token_works_once_and_only_with_its_own_proof() -> None:
    # So hard that another's proof does not hold by chance.
    async with Demo(delay=0, difficulty="000fff") as demo:
        path = f"{ANON}/conversation"
        _, headers = await tokens(demo)
        assert (await post_json(demo.url, path, body(), headers=headers)).status == 200
        again = await post_json(demo.url, path, body(), headers=headers)
        assert (again.status, again.json) == (403, UNUSUAL)
        _, headers = await tokens(demo)
        _, others = await tokens(demo)
        for wrong in (others["openai-sentinel-proof-token"], "", "gAAAAAB" + encoded(0)[:-4]):
            mixed = headers | {"openai-sentinel-proof-token": wrong}
            assert (await post_json(demo.url, path, body(), headers=mixed)).json == UNUSUAL
            _, headers = await tokens(demo)
        assert demo.log.refusals["/ChatGpt"] == 4
        assert demo.log.handshakes["/ChatGpt"] == 6


async def test_a_requirements_token_grows_old() -> None:
    now = [1e9]
    async with Demo(delay=0, now=lambda: now[0]) as demo:
        _, headers = await tokens(demo)
        now[0] += 601
        assert (await post_json(demo.url, f"{ANON}/conversation", body(), headers=headers)).status == 403


async def test_the_requirements_are_refused_without_a_good_token_or_device() -> None:
    async with Demo(delay=0) as demo:
        path = f"{ANON}/sentinel/chat-requirements"
        good = {"p": "gAAAAAC" + encoded(0)}
        assert (await post_json(demo.url, path, good, headers=DEVICE)).status == 200
        assert (await post_json(demo.url, path, {"p": "gAAAAAC"}, headers=DEVICE)).json == UNUSUAL
        assert (await post_json(demo.url, path, good)).json == UNUSUAL
        assert (await post_json(demo.url, path, b"{", headers=DEVICE)).status == 422
        assert (await ask(demo.url, "GET", path)).status == 405
        got = await post_json(demo.url, path, good, headers=DEVICE, fault="unusual-activity")
        assert (got.status, got.json) == (403, UNUSUAL)


@pytest.mark.parametrize("kind", ["turnstile", "arkose"])
async def test_a_challenge_is_required(kind: str) -> None:
    async with Demo(delay=0) as demo:
        asked, headers = await tokens(demo, fault=kind)
        assert asked[kind] == {"required": True, "dx": f"demo-{kind}"}
        path = f"{ANON}/conversation"
        assert (await post_json(demo.url, path, body(), headers=headers)).json == UNUSUAL
        _, headers = await tokens(demo, fault=kind)
        headers[f"openai-sentinel-{kind}-token"] = "a person's answer"
        assert (await post_json(demo.url, path, body(), headers=headers)).status == 200


async def test_signed_in_needs_a_bearer() -> None:
    async with Demo(delay=0) as demo:
        api = "/ChatGpt/backend-api"
        got = await post_json(demo.url, f"{api}/sentinel/chat-requirements", {}, headers=DEVICE)
        assert got.status == 401
        asked, headers = await tokens(demo, api, authorization="Bearer x")
        assert asked["persona"] == "chatgpt-freeaccount"
        assert (await post_json(demo.url, f"{api}/conversation", body(), headers=headers)).status == 200


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        (b"{", 422, "field required"),
        (body(action="dance"), 422, "action"),
        (body(messages=[]), 422, "messages"),
        (body(messages=[{"role": "user", "content": "hi"}]), 422, '"messages",0'),
        (body(model="gpt-99"), 404, "model_not_found"),
        (body(parent_message_id=None), 422, "parent_message_id"),
        (body(conversation_id="nope"), 404, "conversation_not_found"),
    ],
)
async def test_a_wrong_body_is_refused(asked: Any, status: int, words: str) -> None:
    async with Demo(delay=0) as demo:
        got = await talk(demo, asked)
        assert got.status == status
        assert words in got.text


async def test_a_wrong_parent_and_a_wrong_accept_are_refused() -> None:
    async with Demo(delay=0) as demo:
        root = applied(await talk(demo, body()))
        got = await talk(demo, body(conversation_id=root["conversation_id"]))
        assert (got.status, got.json["detail"]["code"]) == (404, "message_not_found")
        _, headers = await tokens(demo)
        headers["accept"] = "application/json"
        assert (await post_json(demo.url, f"{ANON}/conversation", body(), headers=headers)).status == 406


async def test_faults_of_the_ai_behind_it() -> None:
    async with Demo(delay=0) as demo:
        for fault in ("upstream-error", "upstream-event=3"):
            errors = [json.loads(data) for _, data in (await talk(demo, body(), fault)).events if '"error":"' in data]
            assert len(errors) == 1
        cut = await talk(demo, body(), "upstream-cut=3")
        assert "[DONE]" not in cut.text
        assert (await talk(demo, body(), "guest-limit")).status == 429
        assert (await talk(demo, body(model="fault:429-retry-after=9"))).header("retry-after") == "9"


# AI Power 2


async def test_a_handed_in_question_brings_its_faults_along() -> None:
    async with Demo(delay=0) as demo:
        ajax = "/aipkit/wp-admin/admin-ajax.php"
        nonce = (await ask(demo.url, "GET", f"{ajax}?action=aipkit_get_frontend_chat_nonce")).json["data"]["nonce"]

        async def turn(text: str, fault: str = "") -> tuple[Got, Got | None]:
            fields = {"action": "aipkit_cache_sse_message", "message": text, "_ajax_nonce": nonce, "bot_id": "5"}
            sent = await post_form(demo.url, ajax, fields, fault=fault)
            if sent.status != 200:
                return sent, None
            key = sent.json["data"]["cache_key"]
            query = f"action=aipkit_frontend_chat_stream&cache_key={key}&_ajax_nonce={nonce}"
            query += "&bot_id=5&session_id=s&conversation_uuid=c"
            return sent, await ask(demo.url, "GET", f"{ajax}?{query}", fault=fault)

        sent, got = await turn("[[fault:429]]")
        assert got is not None
        assert (sent.status, got.status) == (200, 429)
        _, got = await turn("hi", "guest-limit")
        assert got is not None
        assert "quota_notice" in got.text
        # Step 2 answers a refused nonce with status 200.
        _, got = await turn("hi", "nonce-refused@chat")
        assert got is not None
        assert "Security check failed" in got.text
        sent, got = await turn("hi", "stale-nonce")
        assert (sent.status, got) == (403, None)
        assert sent.json["data"]["code"] == "nonce_failure_cache_sse"


async def test_a_handed_in_question_is_forgotten_after_a_minute() -> None:
    now = [1e9]
    async with Demo(delay=0, now=lambda: now[0]) as demo:
        ajax = "/aipkit/wp-admin/admin-ajax.php"
        nonce = (await ask(demo.url, "GET", f"{ajax}?action=aipkit_get_frontend_chat_nonce")).json["data"]["nonce"]
        fields = {"action": "aipkit_cache_sse_message", "message": "late", "_ajax_nonce": nonce}
        key = (await post_form(demo.url, ajax, fields)).json["data"]["cache_key"]
        now[0] += 63
        query = f"action=aipkit_frontend_chat_stream&cache_key={key}&_ajax_nonce={nonce}&bot_id=5"
        got = await ask(demo.url, "GET", f"{ajax}?{query}&session_id=s&conversation_uuid=c")
        assert got.events[0] == ("error", '{"error":"Cached message has expired."}')


# AI Engine


@pytest.mark.parametrize("wrong", [{"newMessage": {"a": 1}}, {"messages": "nope"}])
async def test_wrong_types_are_a_php_fatal(wrong: dict[str, Any]) -> None:
    async with Demo(delay=0) as demo:
        rest = "/Chatgpt4Online/wp-json"
        nonce = (await ask(demo.url, "POST", f"{rest}/mwai/v1/start_session")).json["restNonce"]
        asked = {"botId": "default", "newMessage": "hi", "messages": []} | wrong
        got = await post_json(demo.url, f"{rest}/mwai-ui/v1/chats/submit", asked, headers={"x-wp-nonce": nonce})
        assert (got.status, got.json["code"]) == (500, "internal_server_error")


# One JSON request


@pytest.mark.parametrize("path", ["/api/text", "/Aichat/api/text"])
async def test_one_json_request(path: str) -> None:
    async with Demo(delay=0) as demo:
        asked = {
            "message": "Hello, world!",
            "temperature": 0.5,
            "presence_penalty": 0,
            "top_p": 1,
            "frequency_penalty": 0,
        }
        got = await post_json(demo.url, path, asked, headers={"cookie": "a=b"})
        assert got.json["response"] is True
        assert "> Hello, world!" in got.json["message"]


@pytest.mark.parametrize(
    ("asked", "headers", "status"),
    [
        ({"message": "hi"}, {}, 403),
        ({"message": "hi"}, {"cookie": ""}, 403),
        ({"message": ""}, {"cookie": "a=b"}, 200),
        ({}, {"cookie": "a=b"}, 200),
        ({"message": "hi", "top_p": "1"}, {"cookie": "a=b"}, 200),
        ({"message": "a forbiddenword"}, {"cookie": "a=b"}, 200),
        (b"{", {"cookie": "a=b"}, 400),
        ({"message": "hi"}, {"cookie": "a=b", "content-type": "text/plain"}, 415),
    ],
)
async def test_one_json_request_refused(asked: Any, headers: dict[str, str], status: int) -> None:
    async with Demo(delay=0) as demo:
        got = await post_json(demo.url, "/api/text", asked, headers=headers)
        assert (got.status, got.json["response"]) == (status, False)
        assert got.json["message"]


# OpenAI

CHAT = "/v1/chat/completions"
KEY = {"authorization": "Bearer any"}
HELLO = [{"role": "user", "content": "Hello"}]


async def test_chat_completions() -> None:
    async with Demo(delay=0) as demo:
        asked = {"model": "gpt-4o", "messages": [{"role": "system", "content": "Be brief."}, *HELLO]}
        whole = await post_json(demo.url, CHAT, asked, headers=KEY)
        choice = whole.json["choices"][0]
        assert (whole.json["object"], choice["finish_reason"], choice["message"]["role"]) == (
            "chat.completion",
            "stop",
            "assistant",
        )
        assert "hist=2" in choice["message"]["content"]
        options = {"stream": True, "stream_options": {"include_usage": True}}
        got = await post_json(demo.url, CHAT, asked | options, headers=KEY)
        chunks = [json.loads(data) for _, data in got.events[:-1]]
        assert got.events[-1] == ("", "[DONE]")
        assert (
            "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks[:-1]) == choice["message"]["content"]
        )
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"] == whole.json["usage"]
        assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
        short = await post_json(demo.url, CHAT, asked | {"max_tokens": 3}, headers=KEY)
        assert short.json["choices"][0]["finish_reason"] == "length"
        two = await post_json(demo.url, CHAT, asked | {"n": 2}, headers=KEY)
        assert [made["index"] for made in two.json["choices"]] == [0, 1]


async def test_tool_calls() -> None:
    properties = {"city": {"type": "string"}, "days": {"type": "integer"}}
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"properties": properties}}}
    asked: dict[str, Any] = {
        "model": "demo",
        "tools": [tool],
        "messages": [{"role": "user", "content": "Use tool now"}],
    }
    async with Demo(delay=0) as demo:
        whole = (await post_json(demo.url, CHAT, asked, headers=KEY)).json["choices"][0]
        assert whole["finish_reason"] == "tool_calls"
        call = whole["message"]["tool_calls"][0]["function"]
        assert (call["name"], json.loads(call["arguments"])) == ("weather", {"city": "Париж", "days": 1})
        got = await post_json(demo.url, CHAT, asked | {"stream": True}, headers=KEY)
        parts = [
            part
            for _, data in got.events[:-1]
            for part in json.loads(data)["choices"][0]["delta"].get("tool_calls", [])
        ]
        assert "".join(part["function"]["arguments"] for part in parts) == call["arguments"]
        assert parts[0]["function"]["name"] == "weather"
        assert len(parts) > 3
        asked["messages"] += [
            {"role": "assistant", "content": None, "tool_calls": whole["message"]["tool_calls"]},
            {"role": "tool", "tool_call_id": "x", "content": "sunny"},
        ]
        assert "hist=3" in (await post_json(demo.url, CHAT, asked, headers=KEY)).text


@pytest.mark.parametrize(
    ("asked", "status", "code", "words"),
    [
        (b"{", 400, None, "could not parse the JSON body"),
        ({"messages": HELLO}, 400, None, "must provide a model"),
        ({"model": "nope", "messages": HELLO}, 404, "model_not_found", "`nope` does not exist"),
        ({"model": "demo"}, 400, "missing_required_parameter", "'messages'"),
        ({"model": "demo", "messages": []}, 400, "empty_array", "empty array"),
        ({"model": "demo", "messages": "hi"}, 400, "invalid_type", "a string"),
        ({"model": "demo", "messages": HELLO, "tools": True}, 400, "invalid_type", "a boolean"),
        ({"model": "demo", "messages": [{"role": "pope", "content": "x"}]}, 400, "invalid_value", "'pope'"),
        ({"model": "demo", "messages": [{"role": "user", "content": None}]}, 400, None, "got null"),
        ({"model": "demo", "messages": HELLO, "nonsense": 1}, 400, None, "nonsense"),
        ({"model": "demo", "messages": HELLO, "temperature": 3}, 400, "decimal_above_max_value", "temperature"),
        ({"model": "demo", "messages": HELLO, "top_p": "1"}, 400, "invalid_type", "top_p"),
        ({"model": "demo", "messages": HELLO, "stream_options": {}}, 400, None, "stream_options"),
        (
            {"model": "demo", "messages": [{"role": "user", "content": "x" * 600_000}]},
            400,
            "context_length_exceeded",
            "128000",
        ),
        (
            {"model": "demo", "messages": [{"role": "user", "content": "forbiddenword"}]},
            400,
            "content_policy_violation",
            "",
        ),
    ],
)
async def test_chat_completions_refused(asked: Any, status: int, code: str | None, words: str) -> None:
    async with Demo(delay=0) as demo:
        got = await post_json(demo.url, CHAT, asked, headers=KEY)
        assert (got.status, got.json["error"]["code"]) == (status, code)
        assert words in got.json["error"]["message"]


async def test_keys_models_and_addresses() -> None:
    async with Demo(delay=0) as demo, Demo(delay=0, require_key=False) as free:
        assert (await post_json(demo.url, CHAT, {"model": "demo", "messages": HELLO})).status == 401
        assert (await post_json(free.url, CHAT, {"model": "demo", "messages": HELLO})).status == 200
        models = (await ask(demo.url, "GET", "/v1/models", headers=KEY)).json["data"]
        assert {"demo", "gpt-4o"} <= {model["id"] for model in models}
        assert (await ask(demo.url, "GET", "/v1/models/demo", headers=KEY)).json["id"] == "demo"
        assert (await ask(demo.url, "GET", "/v1/models/nope", headers=KEY)).status == 404
        assert (await ask(demo.url, "GET", CHAT, headers=KEY)).status == 405
        assert (await ask(demo.url, "GET", "/v1/nope", headers=KEY)).json["error"][
            "message"
        ] == "Invalid URL (GET /v1/nope)"
