"""`tolmach config check`, `tolmach config show` and `tolmach init`."""

import json
import os
import tomllib
from pathlib import Path

import pytest

VARIABLES = ("LEDGER_PASSWORD", "TOLMACH_ADMIN_KEY", "TOLMACH_METRICS_KEY", "LOCAL_KEY", "GROQ_API_KEY")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of its own, and none of the variables that count."""
    monkeypatch.chdir(tmp_path)
    for name in ("TOLMACH_CONFIG", *VARIABLES):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def full(run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `init` writes, with every setting taken over."""
    assert run("init").exit_code == 0
    file = folder / "tolmach.toml"
    file.write_text(file.read_text(encoding="utf-8").replace("#: ", ""), encoding="utf-8")
    for name in VARIABLES:
        monkeypatch.setenv(name, f"hush-{name}")
    return file


def test_init_writes_a_file_for_its_owner_alone_that_has_no_mistake(run, folder):
    umask = os.umask(0)
    try:
        result = run("init")
    finally:
        os.umask(umask)
    assert result.exit_code == 0
    assert (folder / "tolmach.toml").stat().st_mode & 0o777 == 0o600
    assert run("config", "check").stdout == "tolmach.toml: no mistake; 1 provider, 0 routes\n"


def test_init_leaves_a_file_alone_unless_forced(run, folder):
    file = folder / "tolmach.toml"
    file.write_text("mine")
    file.chmod(0o644)
    result = run("init")
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert file.read_text() == "mine"
    assert run("init", "--force").exit_code == 0
    assert "[gateway]" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in folder.iterdir() if entry.is_file()] == ["tolmach.toml"]


def test_init_says_where_it_cannot_write(run):
    result = run("init", "no/such/folder/x.toml")
    assert result.exit_code == 2
    assert "no/such/folder/x.toml: No such file or directory" in result.stderr


def test_the_settings_that_init_offers_are_right(run, full):
    result = run("config", "check")
    assert result.stdout == "tolmach.toml: no mistake; 5 providers, 1 route\n"


def test_init_offers_the_defaults(run, full):
    rows = json.loads(run("config", "show", "--json").stdout)
    offered = {row["key"]: row["value"] for row in rows if row["key"].startswith(("gateway.", "ledger."))}
    full.write_text("")
    defaults = {row["key"]: row["value"] for row in json.loads(run("config", "show", "--json").stdout)}
    del offered["ledger.url"], offered["gateway.admin_key"], offered["gateway.cors.origins"]
    del offered["gateway.hosts"], offered["gateway.keys"], offered["gateway.metrics_key"]
    del offered["gateway.state"], offered["gateway.egress.allow"], offered["gateway.otel.endpoint"]
    assert offered == {key: value for key, value in defaults.items() if key in offered}
    assert offered.keys() == defaults.keys()


def test_show_is_toml_without_secrets(run, full):
    result = run("config", "show")
    assert result.exit_code == 0
    assert tomllib.loads(result.stdout)["providers"]["local"]["api_key"] == "…"
    assert "hush" not in result.output
    assert "# tolmach.toml:" in result.stdout
    assert "$GROQ_API_KEY" in result.stdout


def test_check_names_every_mistake(run, folder):
    (folder / "tolmach.toml").write_text("[gateway]\nport = 'x'\nworker = 1\n")
    result = run("config", "check")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        'tolmach.toml:2: gateway.port: a port number from 0 to 65535, not "x"',
        'tolmach.toml:3: gateway.worker: unknown key; did you mean "workers"?',
        "tolmach: 2 mistakes in the configuration",
    ]
    shown = run("config", "show")
    assert (shown.exit_code, shown.stderr) == (2, result.stderr)


def test_check_as_json(run, folder):
    (folder / "other.toml").write_text("[gateway]\nport = 'x'\n")
    result = run("config", "check", "--json", "-c", "other.toml")
    assert result.exit_code == 2
    text = 'a port number from 0 to 65535, not "x"'
    assert json.loads(result.stdout) == [{"file": "other.toml", "line": 2, "key": "gateway.port", "text": text}]
    assert run("config", "check", "--json").stdout == "[]\n"


def test_no_file_at_all(run):
    assert "the defaults hold" in run("config", "check").stdout
    missing = run("config", "check", "-c", "none.toml")
    assert missing.exit_code == 2
    assert missing.stderr.startswith("none.toml: there is no such file; `tolmach init` writes one\n")


def test_a_mistake_cannot_steer_the_terminal(run, folder):
    (folder / "tolmach.toml").write_text('[gateway]\nhost = 1\n"\\u001b[2J" = 1\n')
    result = run("config", "check")
    assert "\x1b" not in result.stderr
    assert len(result.stderr.splitlines()) == 3


def test_config_alone_shows_help(run):
    result = run("config")
    assert result.exit_code == 2
    assert "check" in result.stderr
