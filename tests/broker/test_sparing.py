"""What clients bring about is logged so many times a minute, and then counted."""

from __future__ import annotations

import io
import json

from telpher_broker import logs
from telpher_broker.sparing import LINES_MAX, SPAN_SECONDS, Sparing, Withheld

BAD, WORSE = ("broke", "bad_frame"), ("broke", "frame_too_large")


def test_the_first_lines_of_each_cause_are_written_and_the_others_counted() -> None:
    sparing = Sparing()
    written = [sparing.may_write(BAD, 1.0) for _ in range(LINES_MAX + 5)]
    assert written == [True] * LINES_MAX + [False] * 5
    assert sparing.may_write(WORSE, 1.0)
    assert sparing.due(SPAN_SECONDS) == []
    assert sparing.due(1.0 + SPAN_SECONDS) == [Withheld(BAD, 5, SPAN_SECONDS)]
    assert sparing.may_write(BAD, 62.0)


def test_lines_that_come_seldom_are_all_written() -> None:
    sparing = Sparing()
    assert all(sparing.may_write(BAD, 10.0 * n) for n in range(100))
    assert sparing.due(10_000.0) == []


def test_what_was_withheld_is_said_and_not_forgotten_by_a_line_after_the_minute() -> None:
    sparing = Sparing()
    for _ in range(LINES_MAX + 3):
        sparing.may_write(BAD, 0.0)
    assert not sparing.may_write(BAD, SPAN_SECONDS + 1)
    assert [row.lines for row in sparing.due(SPAN_SECONDS + 1)] == [4]


def test_a_log_says_how_many_lines_there_would_have_been() -> None:
    stream, log = io.StringIO(), logs.get_logger()
    logs.configure("info", "json", stream)
    try:
        for number in range(LINES_MAX + 7):
            log.seldom("warning", "broke", code="bad_frame", peer=f"127.0.0.1:{number}")
        logs.say_withheld()
        for span in logs._sparing._spans.values():
            span.began -= SPAN_SECONDS
        logs.say_withheld()
        logs.say_withheld()
    finally:
        logs.configure("info", "auto")
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [row["event"] for row in rows] == ["broke"] * LINES_MAX + ["more of the same"]
    assert rows[-1]["lines"] == 7
    assert (rows[-1]["event_withheld"], rows[-1]["code"]) == ("broke", "bad_frame")
