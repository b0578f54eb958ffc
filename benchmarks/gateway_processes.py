"""What the gateway's benchmarks start and look at: servers in processes of their own, their CPU time and memory.

Linux only: the figures are read from /proc.
"""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

__all__ = [
    "ANSWER",
    "QUESTION",
    "STREAMED",
    "NotStarted",
    "Server",
    "free_port",
    "gateway_command",
    "gateway_key",
    "missing_tools",
    "nginx_command",
    "served",
]

_TICKS = os.sysconf("SC_CLK_TCK")

QUESTION = (
    b'{"model":"gpt-4o","messages":[{"role":"system","content":"You are a helpful assistant."},'
    b'{"role":"user","content":"Hello!"}]}'
)
STREAMED = b'{"model":"gpt-4o","stream":true,"max_tokens":1000,"messages":[{"role":"user","content":"Count!"}]}'
"""A question for a stream that OpenAI's and Anthropic's API both take."""
ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Hello! How can I help you today?"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}'
)


class NotStarted(Exception):
    """A server that did not come up; the text is what it said last."""


class Server:
    """A running server with all of its processes. `cold` is the time from its start to its first answer."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, cold: float) -> None:
        self.process = process
        self.port = port
        self.cold = cold

    def pids(self) -> list[int]:
        """The process and its descendants."""
        children: dict[int, list[int]] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and (fields := _stat(int(folder.name))):
                children.setdefault(int(fields[1]), []).append(int(folder.name))
        found = [self.process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def cpu(self) -> float:
        """CPU seconds of all processes so far, in user and kernel mode."""
        return sum((int(fields[11]) + int(fields[12])) / _TICKS for pid in self.pids() if (fields := _stat(pid)))

    def memory(self) -> int:
        """Resident bytes of all processes (shared pages count in each)."""
        pages = sum(int(fields[21]) for pid in self.pids() if (fields := _stat(pid)))
        return pages * os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, the state first; empty when the process has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def served(command: Sequence[str], port: int, path: str = "/", seconds: float = 60.0) -> Iterator[Server]:
    """The server of a command once it answers at `port`, whatever it answers. Its whole group ends with the block.

    Raises `NotStarted` when it ends before, or does not answer within so many seconds.
    """
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, start_new_session=True, stdout=said, stderr=said)
        try:
            while not _answers(port, path):
                if process.poll() is not None or time.perf_counter() - started > seconds:
                    raise NotStarted(_last_line(said) or f"{command[0]} did not answer on port {port}")
                time.sleep(0.005)
            yield Server(process, port, time.perf_counter() - started)
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):  # it has ended by itself
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
    lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")[:200]


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def missing_tools(*names: str) -> str:
    """What to do about programs that are not installed; empty when all are."""
    missing = [name for name in names if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)} (Debian: apt-get install -y wrk nginx-light)" if missing else ""


_NGINX = """
worker_processes 1; worker_rlimit_nofile 20000; daemon off; master_process off; pid {folder}/{name}.pid;
error_log {folder}/{name}.log;
events {{ worker_connections 18000; }}
http {{
  access_log off; keepalive_requests 10000000; client_body_temp_path {folder}/c; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {upstream}
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ {location} }} }}
}}
"""


def nginx_command(folder: Path, port: int, to: int | None = None, *, streams: bool = False) -> list[str]:
    """nginx with one worker: a plain proxy to the port `to` (unbuffered for streams), or the fixed answer itself."""
    name = "fixed" if to is None else "proxy"
    upstream = "" if to is None else f"upstream up {{ server 127.0.0.1:{to}; keepalive 64; }}"
    location = (
        f"default_type application/json; return 200 '{ANSWER.decode()}';"
        if to is None
        else 'proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";'
    )
    if streams:
        location += " proxy_buffering off;"
    file = folder / f"{name}-{port}.conf"
    file.write_text(
        _NGINX.format(folder=folder, name=name, upstream=upstream, port=port, location=location), encoding="utf-8"
    )
    return [shutil.which("nginx") or "nginx", "-c", str(file), "-e", str(folder / f"{name}-start.log")]


def gateway_command(
    folder: Path,
    port: int,
    upstream: int,
    *,
    workers: int = 1,
    loop: str = "",
    ledger: bool = True,
    route: bool = True,
) -> list[str]:
    """`tolmach serve` before the upstream at a port; requests are not logged, as with nginx.

    The model is a route with two targets, and each request is written into a ledger of its own, unless told
    otherwise. The loop "asyncio" hides uvloop from it.
    """
    file = folder / f"tolmach-{port}.toml"
    lines = [
        f'[gateway]\nport = {port}\nworkers = {workers}\n[gateway.log]\nlevel = "warning"',
        f'[ledger]\nurl = "{folder / f"ledger-{port}.sqlite" if ledger else "off"}"',
        *(
            f'[providers.{name}]\nprotocol = "openai"\nurl = "http://127.0.0.1:{upstream}/v1"\nmodels = ["gpt-4o"]'
            for name in (("upstream", "second") if route else ("upstream",))
        ),
    ]
    if route:
        lines.append('[routes.gpt-4o]\ntargets = ["upstream/gpt-4o", "second/gpt-4o"]\nrecover = "resume"')
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    hide = "import sys; sys.modules['uvloop'] = None; " if loop == "asyncio" else ""
    start = f"{hide}from tolmach.cli import main; main()"
    return [sys.executable, "-c", start, "serve", "--config", str(file)]


def gateway_key(folder: Path, port: int, *, limits: bool = False) -> str:
    """A caller's key of that gateway, which must have a ledger; with limits, they are such that nobody reaches them."""
    file = folder / f"tolmach-{port}.toml"
    start = "from tolmach.cli import main; main()"
    more = ["--rpm", "1000000000", "--tpm", "1000000000000", "--streams", "100000"] if limits else []
    command = [sys.executable, "-c", start, "keys", "add", "bench", *more, "--config", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
