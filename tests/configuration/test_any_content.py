"""Whatever stands in the file, it is settings or a mistake that is told, and nothing else."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tolmach.configuration import InvalidSettings, LiveSettings, Settings
from tolmach.configuration.checking import fields_of
from tolmach.configuration.settings import environment_names
from tolmach.configuration.tables import LedgerTable, PriceTable, ProviderTable, Route
from tolmach.errors import ConfigError
from tolmach.gateway.from_settings import InForce

GOOD = '[providers.o]\nprotocol = "openai"\nurl = "http://127.0.0.1:1/v1"\n'
NUMBERS = ("9" * 5000, "-" + "9" * 5000, "0x" + "f" * 20_000, "0b" + "1" * 64, "1e400", "nan", "-inf", "-1", "0.5")
TEXTS = (
    *('""', '"\\u0000"', '"~nobody-here/x"', '"~"', '"\\u001b[2J"', '"\\U0010FFFF"', f'"{"x" * 5000}"', '"//"'),
    *('"http://["', '"http://h:99999/"', '"http://h:x/"', '"redis://["', '"redis://:pw@h:port"', '"postgresql://["'),
    *('"http://\\u2100.example/"', '"file:///etc/passwd"', '"${A"', '"${A:-${B}}"', '"$"'),
)
OTHERS = (
    *("1979-05-27T07:32:00Z", "1979-05-27", "07:32:00", "true", "[]", "[[]]", "{}", "{a = {}}", '[1, "x"]'),
    *('["http://["]', '["10.0.0.0/99"]', '["\\u0000"]', '{a = "\\u0000"}', '{"\\u0000" = "x"}', '{"" = "x"}'),
)
VALUES = (*NUMBERS, *TEXTS, *OTHERS)


def contents(value: str) -> Iterator[str]:
    """Configurations with the value in every place where there may be one."""
    for path in environment_names().values():
        yield f"{'.'.join(map(str, path))} = {value}\n{GOOD}"
    for key in fields_of(LedgerTable):
        yield f"ledger.{key} = {value}\n{GOOD}"
    for table in ("gateway", "gateway.limits", "ledger", "prices", "providers", "routes", "unknown"):
        yield f"{table} = {value}\n{GOOD if table != 'providers' else ''}"
    for key in fields_of(PriceTable):
        others = "".join(f"{other} = 1\n" for other in ("input", "output") if other != key)
        yield f'{GOOD}[prices."*"]\n{others}{key} = {value}\n'
    for key in fields_of(Route):
        targets = "" if key == "targets" else 'targets = ["o/m"]\n'
        yield f"{GOOD}[routes.r]\n{targets}{key} = {value}\n"
    for key in (*fields_of(ProviderTable), "recipe", "request", "page", "unknown"):
        for kind in ('protocol = "openai"\nurl = "http://h/v1"', 'protocol = "recipe"', 'type = "Chatgpt4o"', ""):
            yield f"[providers.o]\n{key} = {value}\n" + "".join(
                f"{line}\n" for line in kind.splitlines() if not line.startswith(key)
            )
    if value.startswith('"'):
        yield f"[providers.{value}]\nprotocol = 'openai'\nurl = 'http://h/v1'\n"
        yield f"{GOOD}[routes.{value}]\ntargets = ['o/m']\n"
        yield f"{GOOD}[{value}]\n"


@pytest.mark.parametrize("value", VALUES, ids=lambda value: value[:24].encode("unicode-escape").decode())
def test_a_value_in_every_place(tmp_path: Path, value: str) -> None:
    file = tmp_path / "tolmach.toml"
    file.write_text(GOOD)
    live = LiveSettings(file, {})
    for content in contents(value):
        file.write_text(content)
        settings = live.reload()
        if settings is None:
            assert live.last_error is not None
            assert len(str(live.last_error)) < 20_000
            continue
        with suppress(ConfigError):  # such as no provider at all
            InForce.of(settings, loopback=True)


def test_a_number_that_cannot_be_read_is_told_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "tolmach.toml"
    file.write_text(f"{GOOD}x = 1\ny = {'9' * 5000}\n")
    with pytest.raises(InvalidSettings, match=r"tolmach\.toml:5: a number has more digits") as raised:
        Settings.load(file, {})
    assert raised.value.problems[0].line == 5


@pytest.mark.parametrize("digits", ["0x" + "f" * 20_000, "9223372036854775808"])
def test_a_number_of_more_than_64_bits_is_none(tmp_path: Path, digits: str) -> None:
    file = tmp_path / "tolmach.toml"
    file.write_text(f"gateway.limits.depth = {digits}\n{GOOD}")
    with pytest.raises(InvalidSettings, match=r"tolmach\.toml:1: gateway\.limits\.depth: .*more than 64 bits"):
        Settings.load(file, {})


def test_of_many_mistakes_the_first_hundred_are_told(tmp_path: Path) -> None:
    file = tmp_path / "tolmach.toml"
    file.write_text("".join(f"unknown{i} = 1\n" for i in range(5000)))
    with pytest.raises(InvalidSettings) as raised:
        Settings.load(file, {})
    assert len(raised.value.problems) == 5000
    assert str(raised.value).count("\n") == 100
    assert str(raised.value).endswith("\n... and 4900 more")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_place_of_the_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "tolmach.toml"
    os.mkfifo(file)
    with pytest.raises(InvalidSettings, match="it is a pipe or a device"):
        Settings.load(file, {})
    file.unlink()
    file.write_text(GOOD)
    live = LiveSettings(file, {})
    file.unlink()
    os.mkfifo(file)
    assert live.changed()
    assert live.reload() is None
    file.unlink()
    file.write_text(GOOD)
    assert live.changed()
    assert live.reload() is not None


DEEP = [part * 50_000 + "b" for part in ("a.", '"a" . ', "'.'.")]
NO_TOML = [b"\xff\xfe", b"\x00" * 100, b"x = " + b"[" * 100_000, *(f"{key} = 1".encode() for key in DEEP)]
NO_TOML += [f"[{key}]".encode() for key in DEEP]


@pytest.mark.parametrize("content", NO_TOML, ids=lambda content: repr(content[:9]))
def test_what_is_no_toml_or_too_deep_is_told_at_once(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "tolmach.toml"
    file.write_text(GOOD)
    live = LiveSettings(file, {})
    file.write_bytes(content)
    assert live.reload() is None
    file.write_text(f'{GOOD}api_key = "{"a." * 1000}"\n')
    assert live.reload() is not None
