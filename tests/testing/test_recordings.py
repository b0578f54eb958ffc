"""Every recording has a protocol or is known to hold no answer; every protocol has recordings."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from tests.recipes.sites import RECIPES
from tolmach.errors import ConfigError, RemoteProtocolError
from tolmach.protocols import PROTOCOLS, create
from tolmach.testing import recordings
from tolmach.testing.decode import decode_file, decode_recording, find_reader, known_protocols, rechunk
from tolmach.testing.recordings import Exchange, load
from tolmach.wire import Request

CAPTURES = Path(__file__).parents[1] / "captures"
PATHS = recordings.find(CAPTURES)

NO_ANSWER = {
    r"GET /((chat|plain|widget-page)[a-z0-9-]*/)?": "a page, where widgets and nonces are found",
    r"GET /wp-content/plugins/[a-z0-9-]+/readme\.txt": "a plugin's readme, which tells its version",
    r"(GET|OPTIONS) /wp-json/.*": "WordPress's own list of its routes, or a route asked in the wrong way",
    r"POST /wp-json/mwai/v1/start_session": "AI Engine's handshake",
    r"POST /index\.php \?rest_route=/mwai/v1/start_session": "AI Engine's handshake, with plain permalinks",
    r"POST /wp-json/mwai-ui/v1/discussions/list": "the list of a visitor's conversations",
    r"POST /wp-json/mwai-ui/v1/files/upload": "an upload",
    r"\w+ /wp-admin/admin-ajax\.php aipkit_get_frontend_chat_nonce": "AIPKit's handshake: a new nonce",
    r"POST /wp-admin/admin-ajax\.php aipkit_frontend_chat_upload_file": "an upload",
    r"POST /wp-admin/admin-ajax\.php aipkit_get_conversation(s_list|_history)": "a visitor's conversations",
    r"POST /wp-admin/admin-ajax\.php (wpaicg_no_such_action)?": "an action that does not exist",
    r"POST /ChatGpt/backend-anon/sentinel/chat-requirements": "ChatGPT's handshake",
}
"""Requests whose answers are no chat answers: method, path and what tells the action -> why."""


def _question(request: Request) -> str:
    """Method, path, and the action of WordPress where there is one."""
    path, _, query = re.sub(r"^\w+://[^/]+", "", request.url).partition("?")
    said = query + "\n" + request.body.decode("utf-8", "replace")
    action = re.search(r'(?:^|[&?\n])action=([\w-]+)|name="action"\s+([\w-]+)|"action": ?"([\w-]+)"', said)
    words = [request.method, path]
    if action is not None:
        words.append(action[1] or action[2] or action[3])
    elif query.startswith("rest_route="):
        words.append("?" + query.replace("%2F", "/"))
    elif path.endswith("admin-ajax.php"):
        words.append("")
    return " ".join(words)


def test_every_exchange_is_a_chat_answer_or_known_to_be_none():
    unknown, used = [], set()
    for path in PATHS:
        for index, exchange in enumerate(load(path).exchanges):
            if find_reader(exchange.request) is None:
                question = _question(exchange.request)
                reasons = {pattern for pattern in NO_ANSWER if re.fullmatch(pattern, question, re.I)}
                used |= reasons
                if not reasons:
                    unknown.append(f"{path.parent.name}/{path.stem} {index}: {question}")
    assert unknown == []
    assert set(NO_ANSWER) - used == set(), "reasons that no recording needs"


def test_no_two_protocols_claim_the_same_question():
    for path in PATHS:
        for index, exchange in enumerate(load(path).exchanges):
            claims = {known.name for known in known_protocols() if known.reader(exchange.request) is not None}
            assert len(claims) < 2, (path, index, claims)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_has_recorded_answers_that_succeed_and_that_fail(name):
    # A recipe says nothing by itself: those of sites read their recordings.
    known = list(RECIPES.values()) if name == "recipe" else [create(name)]
    kinds = {event["type"] for path in PATHS for event in decode_recording(load(path), protocols=known)}
    assert {"delta", "done", "error"} <= kinds


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recording_is_what_its_folder_and_file_say(path):
    recording = load(path)
    assert recording.name == f"{path.parent.name}/{path.stem}"
    assert (recording.family, recording.case) == (path.parent.name, path.stem)
    assert recording.description
    assert recording.exchanges


def test_decoding_the_recordings_gives_json_lines_for_every_cut_alike():
    merged = []
    for chunking in ("whole", "bytes", "random:7", None):
        texts: dict[tuple[str, int], str] = {}
        ends: dict[tuple[str, int], str] = {}
        for path in PATHS[::9]:
            for event in decode_file(path, chunking):
                key = event["recording"], event["exchange"]
                assert json.loads(msgspec.json.encode(event)) == event
                assert key not in ends, "an event came after the end"
                texts[key] = texts.get(key, "") + event.get("text", "")
                if event["type"] in ("done", "error"):
                    ends[key] = event["type"] + event.get("error", "") + event.get("message", "")
        # (A preparatory step that went well leaves no events at all.)
        assert texts.keys() == ends.keys()
        merged.append((texts, ends))
    assert merged[0][0]
    assert all(other == merged[0] for other in merged[1:])


def test_a_decoded_answer_and_a_decoded_error():
    events = list(decode_file(CAPTURES / "aiengine-3.6.2" / "chat-minimal-body.json"))
    assert events[0] == {
        "recording": "aiengine-3.6.2/chat-minimal-body",
        "exchange": 0,
        "type": "delta",
        "text": "pong: h",
    }
    assert events[-1]["type"] == "done"
    assert events[-1]["reason"] == "stop"
    errors = [e for e in decode_file(CAPTURES / "aiengine-3.6.2" / "error-guest-limit.json") if e["type"] == "error"]
    assert {e["error"] for e in errors} == {"RateLimited"}
    assert all(e["message"] for e in errors)


def test_a_known_site_is_read_with_its_own_options():
    # Without them, what stands at the place of the answer would be taken for one.
    events = list(decode_file(CAPTURES / "json-text" / "error-flag-false.json"))
    assert [event["type"] for event in events] == ["error"]
    assert "Daily limit is used up" in events[0]["message"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a recording"),
        (b"\xff\xfe", "not a recording"),
        (b"[]", "not a recording: Expected `object`, got `array`"),
        (b'{"case": "x"}', "not a recording: .*`family`"),
        (
            b'{"case": "x", "family": "y", "exchanges": [{}]}',
            r"not a recording: .*request.*\$\.exchanges\[0\]|`request`",
        ),
        (b'{"case": "x", "family": "y", "exchanges": 5}', r"not a recording: .*\$\.exchanges"),
        (b"[" * 100_000, "not a recording"),
    ],
)
def test_a_file_that_is_no_recording_is_named_with_what_is_wrong(tmp_path, content, complaint):
    path = tmp_path / "thing.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"(?s)thing.json: .*{complaint}"):
        list(decode_file(path))


def test_a_file_that_cannot_be_read_and_a_folder_without_recordings(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.json: No such file"):
        load(tmp_path / "absent.json")
    with pytest.raises(ConfigError, match="no recordings there"):
        recordings.find(tmp_path)


@pytest.mark.parametrize("chunking", ["", "half", "random", "random:", "random:x", "bytes:1"])
def test_a_wrong_way_to_cut_is_refused_by_name(chunking):
    with pytest.raises(ConfigError, match=r"chunks: one of recorded, whole, bytes, random:SEED"):
        list(decode_recording(load(PATHS[0]), chunking=chunking))


@pytest.mark.parametrize("chunking", ["recorded", "whole", "bytes", "random:0", "random:-3"])
def test_cutting_keeps_the_bytes(chunking):
    pieces = [b"abc", b"", b"defgh", b"i"]
    cut = list(rechunk(pieces, chunking))
    assert b"".join(cut) == b"abcdefghi"
    assert cut == list(rechunk(pieces, chunking))


def _compressed() -> Exchange:
    return load(CAPTURES / "aiengine-3.6.2" / "chat-accept-gzip.json").exchanges[2]


def test_a_compressed_body_is_decompressed_piece_by_piece():
    exchange = _compressed()
    assert exchange.head.header("content-encoding") == "gzip"
    assert exchange.body().startswith(b"<!doctype html>")
    halves = [piece for chunk in exchange.chunks for piece in (chunk.data[:100], chunk.data[100:])]
    cut = msgspec.structs.replace(exchange, chunks=tuple(recordings.Chunk(piece) for piece in halves))
    assert cut.body() == exchange.body()


def test_a_damaged_or_unknown_compression_is_a_protocol_error():
    exchange = _compressed()
    damaged = msgspec.structs.replace(exchange, chunks=(recordings.Chunk(b"\x1f\x8bnonsense and more"),))
    with pytest.raises(RemoteProtocolError, match="damaged"):
        damaged.body()
    head = msgspec.structs.replace(exchange.head, headers={"content-encoding": "zstd"})
    with pytest.raises(RemoteProtocolError, match="'zstd'"):
        msgspec.structs.replace(exchange, head=head).body()


def test_heads_have_lower_case_names_and_cookies_apart():
    head = load(CAPTURES / "aiengine-3.6.2" / "start-session.json").exchanges[0].head
    assert all(name == name.lower() for name in head.headers)
    assert "set-cookie" not in head.headers
    assert any(cookie.startswith("mwai_session_id=") for cookie in head.cookies)
    assert head.url.startswith("http://wordpress.test/wp-json/")
