"""What a message may consist of is checked before it shares a batch with others."""

from __future__ import annotations

from typing import Any

import pytest

from telpher.content import GIVEN_HEADERS_MAX, as_headers
from telpher.protocol.batch import HEADER_NAME_CHARACTERS_MAX, HEADERS_BYTES_MAX, HEADERS_MAX


@pytest.mark.parametrize(
    ("most", "more", "why"),
    [
        (
            dict.fromkeys(map(str, range(GIVEN_HEADERS_MAX)), 0),
            dict.fromkeys(map(str, range(GIVEN_HEADERS_MAX + 1)), 0),
            f"at most {GIVEN_HEADERS_MAX} headers",
        ),
        (
            {"é" * HEADER_NAME_CHARACTERS_MAX: 1},
            {"é" * (HEADER_NAME_CHARACTERS_MAX + 1): 1},
            "a name of 256 characters",
        ),
        (
            {"a": "x" * (HEADERS_BYTES_MAX - 10), "b": None},
            {"a": "x" * (HEADERS_BYTES_MAX - 9), "b": None},
            "262145 bytes; they may have 262144",
        ),
    ],
    ids=["count", "name", "bytes"],
)
def test_headers_are_taken_up_to_their_bound(
    most: dict[str, Any], more: dict[str, Any], why: str
) -> None:
    assert as_headers(most) == most
    with pytest.raises(ValueError, match=why):
        as_headers(more)


def test_there_is_room_for_what_the_client_adds() -> None:
    assert GIVEN_HEADERS_MAX + 8 == HEADERS_MAX
