"""`[ledger]` and `[prices]` of `tolmach.toml`."""

from pathlib import Path

import pytest

from tolmach.configuration import InvalidSettings, LedgerTable, PriceTable, Settings
from tolmach.configuration.rendering import show, show_toml


def load(folder: Path, text: str, **environ: str) -> Settings:
    file = folder / "tolmach.toml"
    file.write_text(text)
    return Settings.load(file, environ)


def test_without_the_tables_the_default_file_is_kept_for_ninety_days(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    assert settings.ledger == LedgerTable(url="", retention_days=90)
    assert settings.prices == {}


def test_a_file_counts_from_the_folder_of_the_configuration(tmp_path: Path) -> None:
    assert load(tmp_path, '[ledger]\nurl = "data/l.db"').ledger.url == str(tmp_path / "data/l.db")
    assert load(tmp_path, '[ledger]\nurl = "off"').ledger.url == "off"
    assert load(tmp_path, '[ledger]\nurl = "sqlite:///l.db"').ledger.url == "sqlite:///l.db"


def test_the_password_of_an_address_is_shown_nowhere(tmp_path: Path) -> None:
    settings = load(tmp_path, '[ledger]\nurl = "postgresql://me:s3cret@db.example/x?password=s3cret2"')
    assert "s3cret@db" in settings.ledger.url
    shown = {one.key: one.value for one in show(settings)}
    assert shown["ledger.url"] == "postgresql://…@db.example/x?…"
    assert "s3cret" not in repr(settings) + repr(settings.ledger) + show_toml(settings)
    from_variable = load(tmp_path, '[ledger]\nurl = "postgresql://me:${DB_PASSWORD}@db/x"', DB_PASSWORD="s3cret")
    assert "s3cret" not in show_toml(from_variable)
    assert "s3cret" in from_variable.ledger.url


def test_prices_are_read_by_pattern(tmp_path: Path) -> None:
    settings = load(
        tmp_path, '[prices."local/*"]\ninput = 0.5\noutput = 1\n[prices.gpt]\ninput=1\noutput=2\ncached=0.1'
    )
    assert settings.prices == {
        "local/*": PriceTable(input=0.5, output=1),
        "gpt": PriceTable(input=1, output=2, cached=0.1),
    }
    assert '[prices."local/*"]' in show_toml(settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[ledger]\nurl = "mysql://x"', 'ledger.url: a file, an address such as "postgresql://'),
        ('[ledger]\nurl = "mysql://me:s3cret@x"', "not"),
        ("[ledger]\nretention_days = -1", "a number of days, 0 for ever, not -1"),
        ("[ledger]\nretension_days = 1", "retention_days"),
        ("ledger = 1", "ledger: a table, not 1"),
        ('[prices."x"]\ninput = 1', "prices.x.output: is missing: a number of US dollars"),
        ('[prices."x"]\ninput = -1\noutput = 1', "0 or more, not -1"),
        ("[prices]\ninput = 1", "write [prices.input]"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        load(tmp_path, text)
    told = "\n".join(str(problem) for problem in caught.value.problems)
    assert said in told
    assert "s3cret" not in told
