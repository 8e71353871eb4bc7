"""What is done again and again in the audit log: few lines, and nobody is hidden by others."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest

from telpher_broker import logs
from telpher_broker.audit import IN_THE_LOG, Audit
from telpher_broker.repeats import OF_ALL_MAX, OF_ONE_MAX

from .test_audit import about, lines


def test_what_is_done_again_and_again_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    audit = Audit(path)
    for number in range(1000):
        audit.note_seldom("refused", {"user": "app", "verb": "publish"}, 0.0, session=number)
        audit.note_seldom("refused", {"user": "app", "verb": "consume"}, 50.0, session=number)
    audit.note_repeats(59.0)
    assert len(lines(path)) == 2
    audit.note_repeats(60.0)
    audit.note_repeats(61.0)
    audit.note_repeats(120.0)
    assert about(path)[2:] == [
        {"event": "refused", "user": "app", "verb": "publish", "times": 999},
        {"event": "refused", "user": "app", "verb": "consume", "times": 999},
    ]
    audit.close()


def test_however_many_things_are_done_the_lines_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    audit = Audit(path)
    for number in range(5000):
        audit.note_seldom("turned_away", {"address": f"10.0.{number >> 8}.{number & 255}"}, 0.0)
    assert len(lines(path)) == OF_ALL_MAX + 1
    audit.note_repeats(60.0)
    assert about(path)[-1] == {"event": "turned_away", "times": 5000 - 1001}
    assert len(audit._repeats) == 0
    audit.close()


def test_one_user_is_told_of_so_often_and_the_count_says_what_it_has_in_common(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit"
    audit = Audit(path)
    for _ in range(2):
        for number in range(1000):
            what = {"user": "mallory", "verb": f"v{number}", "address": "10.0.0.9"}
            audit.note_seldom("refused", what, 0.0)
    assert len(lines(path)) == OF_ONE_MAX + 1
    audit.note_repeats(60.0)
    common = {"event": "refused", "user": "mallory", "address": "10.0.0.9"}
    assert about(path)[-1] == {**common, "times": 2 * (1000 - OF_ONE_MAX) - 1}
    audit.close()


def test_whoever_fills_the_log_each_user_is_told_of(tmp_path: Path) -> None:
    """Strangers with a thousand addresses, and users with all that they can do."""
    path = tmp_path / "audit"
    audit = Audit(path)
    for number in range(5000):
        audit.note_seldom("turned_away", {"address": f"2001:db8:{number:x}::/64"}, 0.0)
        what = {"user": f"user{number % 100}", "by": f"{number}", "address": "10.0.0.9"}
        audit.note_seldom("turned_away", what, 0.0)
    before = len(lines(path))
    guess = {"user": "root", "by": "SCRAM", "address": "203.0.113.7", "code": "wrong"}
    for number in range(100):
        audit.note_seldom("turned_away", guess, 1.0, peer=f"203.0.113.7:{number}")
    assert about(path)[before:] == [{"event": "turned_away", **guess}]
    audit.note_repeats(61.0)
    assert about(path)[-1] == {"event": "turned_away", **guess, "times": 99}
    assert len(lines(path)) <= 2 * (2 * OF_ALL_MAX + 101)
    assert not audit._repeats._sizes
    audit.close()


@pytest.mark.parametrize("file", ["audit", "-"])
def test_what_was_counted_is_told_at_the_end(tmp_path: Path, file: str) -> None:
    stream = StringIO()
    logs.configure("info", "json", stream)
    try:
        audit = Audit(IN_THE_LOG if file == "-" else tmp_path / file)
        for _ in range(51):
            audit.note_seldom("turned_away", {"user": "root"}, 0.0)
        audit.close()
    finally:
        logs.configure("info", "auto")
    text = stream.getvalue() if file == "-" else (tmp_path / file).read_text()
    last = json.loads(text.splitlines()[-1])
    assert (last["user"], last["times"]) == ("root", 50)
