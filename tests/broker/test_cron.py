"""Cron expressions: what is due when, also where clocks are put forward or back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher_broker.cron import next_time

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def times(expression: str, timezone: str, after: str, count: int) -> list[str]:
    """The next ones, as UTC without the year."""
    found, at = [], ms(after)
    for _ in range(count):
        due = next_time(expression, timezone, at)
        assert due is not None
        assert due > at
        at = due
        found.append(datetime.fromtimestamp(at / 1000, UTC).strftime("%m-%d %H:%M:%S"))
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", ["01-30 12:01:00", "01-30 12:02:00"]),
        ("*/20 * * * *", ["01-30 12:20:00", "01-30 12:40:00"]),
        ("30 8 * * mon-fri", ["02-02 08:30:00", "02-03 08:30:00"]),
        ("0 0 L * *", ["01-31 00:00:00", "02-28 00:00:00"]),
        ("0 0 13 * fri", ["02-06 00:00:00", "02-13 00:00:00"]),
        ("*/30 0 12 * * *", ["01-30 12:00:30", "01-31 12:00:00"]),
        ("@daily", ["01-31 00:00:00", "02-01 00:00:00"]),
        (" @Hourly ", ["01-30 13:00:00", "01-30 14:00:00"]),
    ],
)
def test_what_an_expression_means(expression: str, expected: list[str]) -> None:
    assert times(expression, "UTC", "2026-01-30T12:00:00+00:00", 2) == expected


def test_a_time_zone_counts() -> None:
    """08:00 in New York is 13:00 UTC in winter and 12:00 in summer."""
    assert times("0 8 7 3 *", NEW_YORK, "2026-01-01T00:00:00+00:00", 1) == ["03-07 13:00:00"]
    assert times("0 8 8 3 *", NEW_YORK, "2026-01-01T00:00:00+00:00", 1) == ["03-08 12:00:00"]


def test_in_the_gap_a_fixed_time_is_due_right_after_it_once() -> None:
    """On 2026-03-29 Berlin goes from 02:00 to 03:00, at 01:00 UTC."""
    before = "2026-03-28T12:00:00+00:00"
    assert times("30 2 * * *", BERLIN, before, 2) == ["03-29 01:00:00", "03-30 00:30:00"]
    assert times("0,20,40 2 * * *", BERLIN, before, 2) == ["03-29 01:00:00", "03-30 00:00:00"]


def test_in_the_gap_an_interval_goes_on_by_real_time() -> None:
    before = "2026-03-29T00:35:00+00:00"
    assert times("*/30 * * * *", BERLIN, before, 2) == ["03-29 01:00:00", "03-29 01:30:00"]


def test_in_the_fold_a_fixed_time_is_due_the_first_time_only() -> None:
    """On 2026-10-25 Berlin goes from 03:00 back to 02:00, at 01:00 UTC."""
    before = "2026-10-24T12:00:00+00:00"
    assert times("30 2 * * *", BERLIN, before, 2) == ["10-25 00:30:00", "10-26 01:30:00"]
    # Set between the two: the first is over, the second does not count.
    assert times("30 2 * * *", BERLIN, "2026-10-25T01:10:00+00:00", 1) == ["10-26 01:30:00"]


def test_in_the_fold_an_interval_goes_on_by_real_time() -> None:
    before = "2026-10-25T00:00:00+00:00"
    expected = ["10-25 00:30:00", "10-25 01:00:00", "10-25 01:30:00", "10-25 02:00:00"]
    assert times("*/30 * * * *", BERLIN, before, 4) == expected
    seconds = times("0 30 2 * * *", BERLIN, "2026-10-24T12:00:00+00:00", 2)
    assert seconds == ["10-25 00:30:00", "10-25 01:30:00"]


def test_a_zone_of_half_hours() -> None:
    """Lord Howe puts its clocks forward by half an hour: 02:00 is 02:30, at 15:30 UTC."""
    before = "2026-10-03T00:00:00+00:00"
    assert times("15 2 * * *", "Australia/Lord_Howe", before, 1) == ["10-03 15:30:00"]


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("", "number of fields"),
        ("* * * *", "number of fields"),
        ("* * * * * * *", "number of fields"),
        ("60 * * * *", "bad minute"),
        ("*/0 * * * *", "bad minute"),
        ("* 24 * * *", "bad hour"),
        ("0 0 31 2 *", "bad day-of-month"),
        ("* * * 13 *", "bad month"),
        ("* * * * 1#6", "bad day-of-week"),
        ("@reboot", "number of fields"),
        ("1," * 200, "at most 255"),
    ],
)
def test_a_wrong_expression_is_told(expression: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        next_time(expression, "UTC", 0)


@pytest.mark.parametrize("zone", ["", "Mars/Base", "Europe", "../etc/passwd", "/etc/passwd", "\0"])
def test_a_wrong_time_zone_is_told(zone: str) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        next_time("* * * * *", zone, 0)


def test_what_never_comes() -> None:
    """A first day of the month that is a fifth Monday; and the end of all calendars."""
    assert next_time("0 0 */31 * 1#5", "UTC", 0) is None
    assert next_time("@yearly", "UTC", ms("9999-12-31T12:00:00+00:00")) is None


def _matches(field: str, value: int) -> bool:
    return field == "*" or value in map(int, field.split(","))


fields = [
    st.one_of(st.just("*"), st.lists(st.integers(*bounds), min_size=1, max_size=3))
    for bounds in ((0, 59), (0, 23), (1, 28))
]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(fields=st.tuples(*fields), after_s=st.integers(0, 2 * 10**9))
def test_it_is_the_first_minute_that_matches(fields: tuple, after_s: int) -> None:
    minute, hour, day = (f if f == "*" else ",".join(map(str, f)) for f in fields)
    due = next_time(f"{minute} {hour} {day} * *", "UTC", after_s * 1000 + 999)
    assert due is not None
    at = datetime.fromtimestamp(after_s // 60 * 60 + 60, UTC)
    while not (_matches(day, at.day) and _matches(hour, at.hour) and _matches(minute, at.minute)):
        if _matches(day, at.day):
            at += timedelta(minutes=1)
        else:
            at = (at + timedelta(days=1)).replace(hour=0, minute=0)
    assert due == round(at.timestamp() * 1000)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    expression=st.sampled_from(
        [
            "* * * * *",
            "30 2 * * *",
            "0 0 * * *",
            "*/7 1-3 * * *",
            "15,45 */2 * * 0",
            "59 30 1 * * *",
        ]
    ),
    zone=st.sampled_from(
        ["UTC", BERLIN, NEW_YORK, "Australia/Lord_Howe", "Africa/Cairo", "America/Sao_Paulo"]
    ),
    after_ms=st.integers(946_684_800_000, 2_524_608_000_000),
)
def test_it_always_moves_on(expression: str, zone: str, after_ms: int) -> None:
    """Strictly later, and the same for every time before it."""
    due = next_time(expression, zone, after_ms)
    assert due is not None
    assert due > after_ms
    for between_ms in (after_ms + (due - after_ms) // 2, due - 1):
        assert next_time(expression, zone, between_ms) == due
