"""A log line is a line, whatever goes into it, and logging never fails."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telpher_broker import logs

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)


@pytest.fixture(autouse=True)
def _afterwards() -> Iterator[None]:
    yield
    logs.configure("info", "auto")


def logged(form: str, event: str, **fields: object) -> str:
    stream = io.StringIO()
    logs.configure("info", form, stream)
    logs.get_logger().info(event, **fields)
    return stream.getvalue()


@given(event=ANY_TEXT, value=ANY_TEXT)
def test_no_control_character_comes_out(event: str, value: str) -> None:
    for form in ("human", "json"):
        text = logged(form, event, client=value)
        assert text.endswith("\n")
        assert text[:-1].isprintable()


@given(value=ANY_TEXT)
def test_json_lines_are_json(value: str) -> None:
    row = json.loads(logged("json", "hello", client=value, count=3))
    assert (row["event"], row["level"], row["count"]) == ("hello", "info", 3)


def test_a_traceback_is_indented_and_cannot_forge_a_line() -> None:
    stream = io.StringIO()
    logs.configure("info", "human", stream)
    error = ValueError("evil\n2026-01-01T00:00:00.000Z info    all is well\x1b[2J")
    logs.get_logger().error("it failed", exc_info=error)
    first, *rest = stream.getvalue().splitlines()
    assert "it failed" in first
    assert rest
    assert all(line.startswith("    | ") for line in rest)
    assert "\x1b" not in stream.getvalue()


def test_the_level_decides_and_may_change() -> None:
    stream = io.StringIO()
    log = logs.get_logger()
    logs.configure("warning", "json", stream)
    log.info("unheard")
    logs.configure("debug", "json", stream)
    log.debug("heard")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["heard"]


def test_a_closed_stream_is_survived() -> None:
    stream = io.StringIO()
    logs.configure("info", "human", stream)
    stream.close()
    logs.get_logger().info("into the void")
    assert stream.closed


def test_the_standard_librarys_logging_comes_along() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logging.getLogger("elsewhere").warning("watch %s", "out")
    row = json.loads(stream.getvalue())
    assert (row["event"], row["level"], row["logger"]) == ("watch out", "warning", "elsewhere")


def test_fields_with_spaces_are_quoted_and_none_is_left_out() -> None:
    line = logged("human", "ready", tcp="a b", unix=None)
    assert 'tcp="a b"' in line
    assert "unix" not in line
    assert "unix" not in json.loads(logged("json", "ready", unix=None))
