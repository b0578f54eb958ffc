"""Writes the recordings that are not observed: by hand, from the description of the protocol.

Run it after a change of them: `python -m tests.captures.make_written`. A test holds the files against it.
"""

import json
from pathlib import Path

from tests.captures.writing import Case
from tests.captures.written_anthropic import ANTHROPIC
from tests.captures.written_chatgpt_web import CHATGPT_WEB
from tests.captures.written_gemini import GEMINI
from tests.captures.written_json_text import JSON_TEXT
from tests.captures.written_ollama import OLLAMA
from tests.captures.written_openai import OPENAI
from tests.captures.written_openai_responses import OPENAI_RESPONSES

HERE = Path(__file__).parent

FAMILIES: dict[str, dict[str, tuple[str, list[Case]]]] = {
    "json-text": JSON_TEXT,
    "openai": OPENAI,
    "anthropic": ANTHROPIC,
    "gemini": GEMINI,
    "ollama": OLLAMA,
    "openai-responses": OPENAI_RESPONSES,
    "chatgpt-web": CHATGPT_WEB,
}


def recordings() -> dict[Path, str]:
    """The text of every file."""
    out = {}
    for family, cases in FAMILIES.items():
        for name, (description, exchanges) in cases.items():
            recording = {
                "case": name,
                "description": f"{description}. Written by hand from the protocol's description, not observed.",
                "family": family,
                "observed": False,
                "exchanges": exchanges,
            }
            out[HERE / family / f"{name}.json"] = json.dumps(recording, ensure_ascii=False, indent=0) + "\n"
    return out


if __name__ == "__main__":
    for path, text in recordings().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
