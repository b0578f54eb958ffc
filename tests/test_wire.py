"""HTTP as values: heads, dates, and the seconds that a response asks to wait."""

import pytest

from tolmach.wire import Head, http_date, retry_after

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("Tue, 14 Nov 2023 22:13:20 GMT", NOW),
        (" Thu, 01 Jan 1970 00:00:00 GMT ", 0.0),
        ("Tuesday", None),
        ("", None),
        ("2023-11-14T22:13:20Z", None),
    ],
)
def test_http_date(value, seconds):
    assert http_date(value) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        (" 1.5 ", 1.5),
        ("0", 0.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:12:20 GMT", 0.0),
        ("", None),
        ("-5", None),
        (".", None),
        ("soon", None),
        ("٣", None),
        ("1e3", None),
    ],
)
def test_retry_after_is_seconds_and_never_negative(value, seconds):
    assert retry_after(Head(429, {"retry-after": value}), NOW) == seconds


def test_retry_after_is_none_when_the_header_is_absent():
    assert retry_after(Head(429), NOW) is None


@pytest.mark.parametrize(
    ("value", "media_type"),
    [("Text/HTML; charset=UTF-8", "text/html"), ("application/json", "application/json"), ("", "")],
)
def test_content_type_is_the_media_type_alone(value, media_type):
    assert Head(200, {"content-type": value}).content_type == media_type
    assert Head(200).content_type == ""
