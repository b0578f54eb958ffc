"""What `tolmach init` writes serves at once, in a folder and a home that have nothing else."""

import json
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.cli.terminal import PATIENCE, program


def _asked(url: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_what_init_writes_serves_and_answers(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.delenv("TOLMACH_CONFIG", raising=False)
    assert "tolmach serve" in run("init").stdout
    serving = subprocess.Popen(
        program("serve", "-c", "tolmach.toml", "--port", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert serving.stdout is not None
        line = serving.stdout.readline()
        assert line.startswith("tolmach serves ")
        url = next(word for word in line.split() if word.startswith("http"))
        status, listed = _asked(f"{url.rstrip('.,')}/models")
        assert (status, [model["id"] for model in listed["data"]]) == (200, ["ollama/default"])
        question = {"model": "nobody", "messages": [{"role": "user", "content": "hi"}]}
        status, refused = _asked(f"{url.rstrip('.,')}/chat/completions", question)
        assert (status, refused["error"]["code"]) == (404, "model_not_found")
    finally:
        serving.send_signal(signal.SIGINT)
        serving.communicate(timeout=PATIENCE)
