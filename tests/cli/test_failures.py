"""Errors: one line that says what to do, and an exit code."""

import warnings

import click
import pytest

from tolmach import errors
from tolmach.cli.failures import EXIT_CODES, Reporting, as_event, describe, exit_code, reported
from tolmach.errors import (
    ChallengeRequired,
    ConfigError,
    ConnectFailed,
    ConnectionLost,
    MissingCookies,
    ModelNotFound,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    RemoteProtocolError,
    StaleSession,
    TimedOut,
    TolmachError,
    TruncatedAnswer,
    UnsupportedFeature,
)


def _kinds(kind: type[TolmachError]) -> list[type[TolmachError]]:
    return [kind, *(below for sub in kind.__subclasses__() for below in _kinds(sub))]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (ModelNotFound("x"), 2),
        (MissingCookies("x"), 2),
        (ConnectFailed("x"), 3),
        (TimedOut("x"), 3),
        (ProviderUnavailable("x"), 4),
        (StaleSession("x"), 4),
        (RateLimited("x"), 5),
        (ChallengeRequired("x"), 6),
        (TruncatedAnswer(), 7),
        (RemoteProtocolError("x"), 7),
    ],
)
def test_exit_codes(error, code):
    assert exit_code(error) == code


@pytest.mark.parametrize("kind", [kind for kind in _kinds(TolmachError)[1:] if kind.__module__ == errors.__name__])
def test_every_error_of_the_library_has_an_exit_code_of_its_own_kind(kind):
    assert any(issubclass(kind, known) for known in EXIT_CODES)
    assert exit_code(kind("what happened")) in (2, 3, 4, 5, 6, 7)


def test_the_line_says_what_where_and_what_to_do():
    error = RateLimited("too many questions", status=429, retry_after=7)
    error.provider = "ChatGptt"
    line = describe(error)
    assert line == "RateLimited: ChatGptt: too many questions (HTTP 429) (wait 7 s). Wait and ask again later."


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (MissingCookies("none"), "--cookies"),
        (UnsupportedFeature("no tools"), "--lenient"),
        (TimedOut("too long"), "--timeout"),
        (ChallengeRequired("a page"), "person"),
        (ConnectionLost("broke"), "Ask again"),
    ],
)
def test_advice_is_in_the_commands_words(error, advice):
    line = describe(error)
    assert advice in line
    assert "strict=" not in line
    assert "set_cookies" not in line


def test_a_services_text_and_name_cannot_send_control_sequences_or_more_lines():
    error = ProviderError("bad\x1b]0;title\x07\r\nsecond\x9b2J line")
    error.provider = "evil\x1b[2J.example"
    line = describe(error)
    assert line.isprintable()
    assert "bad\\x1b]0;title\\x07 second\\x9b2J line" in line


def test_a_page_of_text_becomes_a_line_of_bounded_length():
    line = describe(ProviderError("word " * 5000))
    assert len(line) < 700
    assert line.endswith("…")


def test_an_error_without_text_is_still_told():
    assert "no reason was given" in describe(ProviderError())


def test_an_error_as_event_has_what_a_program_needs():
    assert as_event(RateLimited("slow down", status=429, retry_after=3)) == {
        "type": "error",
        "error": "RateLimited",
        "message": "slow down",
        "status": 429,
        "retry_after": 3,
    }


def _failing(error: BaseException, capsys: pytest.CaptureFixture[str], *, debug: bool = False) -> tuple[int, str]:
    reporting = Reporting()
    reporting.debug = debug
    with pytest.raises(SystemExit) as end, reported(reporting):
        raise error
    assert isinstance(end.value.code, int)
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("no such thing"), 2),
        (click.UsageError("no such option"), 2),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (OSError(28, "No space left on device"), 1),
        (ZeroDivisionError("a bug"), 1),
        (RuntimeError(), 1),
    ],
)
def test_every_failure_is_one_line_and_no_traceback(error, code, capsys):
    ended, told = _failing(error, capsys)
    assert ended == code
    assert told.startswith("tolmach: ")
    assert told.count("\n") == 1
    assert "Traceback" not in told


def test_an_unexpected_failure_says_how_to_learn_more(capsys):
    _, told = _failing(ZeroDivisionError("a bug"), capsys)
    assert "ZeroDivisionError: a bug" in told
    assert "--debug" in told


def test_debug_shows_the_cause_and_still_the_line(capsys):
    error = ConnectFailed("no connection")
    error.__cause__ = OSError("the cause\x1b[2J")
    code, told = _failing(error, capsys, debug=True)
    assert code == 3
    assert "OSError: the cause" in told
    assert "\x1b" not in told
    assert told.splitlines()[-1].startswith("tolmach: ConnectFailed: no connection")


def test_a_reader_that_went_away_is_no_error(capsys):
    assert _failing(BrokenPipeError(), capsys) == (141, "")


def test_warnings_are_lines_too(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with reported(Reporting()):
            warnings.warn("cookies.txt: left out\x1b[2J", stacklevel=1)
    assert capsys.readouterr().err == "tolmach: warning: cookies.txt: left out\\x1b[2J\n"
