"""The help texts, and how fast they come."""

import subprocess
import sys

import pytest

from tolmach.cli import COMMANDS
from tolmach.cli.failures import EXIT_CODES
from tolmach.demo.faults import FAULTS

_COMMANDS = [(), *((name,) for name in COMMANDS), ("demo", "serve")]


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_help_reads_well_in_80_columns(run, command):
    result = run(*command, "--help", terminal_width=80)
    assert result.exit_code == 0
    assert result.output.startswith("Usage: tolmach")
    assert [line for line in result.output.splitlines() if len(line) > 80] == []
    assert "--debug" in result.output


def test_the_help_lists_every_command_and_exit_code(run):
    text = run("--help").output
    assert [name for name in COMMANDS if f"\n  {name}  " not in text] == []
    codes = {0, 1, 130, 141, *EXIT_CODES.values()}
    assert [code for code in codes if f"\n  {code}  " not in text] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_short_help_is_the_commands_own(run, name):
    short = COMMANDS[name][1].rstrip(".")
    assert short in " ".join(run(name, "--help").output.split())


def test_the_help_of_demo_lists_all_faults(run):
    text = run("demo", "--help").output
    assert [fault.usage for fault in FAULTS.values() if f"\n  {fault.usage}  " not in text] == []


def test_without_a_command_the_help_comes_and_it_is_wrong_use(run):
    result = run()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr
    assert result.stdout == ""


def test_the_version(run):
    from tolmach import __version__

    assert run("--version").output == f"tolmach {__version__}\n"


def test_the_help_needs_none_of_the_heavy_packages():
    heavy = (
        "wreq",
        "aiohttp",
        "rich",
        "prompt_toolkit",
        "selectolax",
        "httptools",
        "msgspec",
        "asyncio",
        "http.cookiejar",
    )
    code = f"import sys, tolmach.cli; print(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
