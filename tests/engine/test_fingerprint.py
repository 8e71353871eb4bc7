"""The law of a fingerprint: what varies from message to message does not show, all else does."""

from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telpher_broker.engine.failure.fingerprint import fingerprint, normalized

CALM = settings(deadline=None, derandomize=True, max_examples=300)
words = st.text("ghijklmnopqrstuvwxyz", min_size=1, max_size=8)
values = {
    "digits": st.integers(0, 10**9).map(str),
    "hex": st.integers(16, 2**64).map("{:#x}".format),
    "uuid": st.uuids().map(str),
    "quoted": st.text("abc 12-:/", max_size=9).map("'{}'".format),
    "ip": st.ip_addresses(v=4).map(str),
    "mail": words.map("{}@example.org".format),
    "url": words.map("https://example.org/{}?page=3".format),
}
variable = st.one_of([st.tuples(st.just(kind), value) for kind, value in values.items()])
templates = st.lists(st.tuples(words, variable), min_size=1, max_size=5)


def text_of(template: list[tuple[str, tuple[str, str]]]) -> str:
    return " ".join(f"{word} {value}" for word, (_, value) in template)


@CALM
@given(templates, st.data())
def test_other_values_are_the_same_error(
    template: list[tuple[str, tuple[str, str]]], data: st.DataObject
) -> None:
    other = [(word, (kind, data.draw(values[kind]))) for word, (kind, _) in template]
    assert normalized(text_of(other)) == normalized(text_of(template))
    assert fingerprint(text_of(other)) == fingerprint(text_of(template))


@CALM
@given(templates, words)
def test_another_word_is_another_error(
    template: list[tuple[str, tuple[str, str]]], word: str
) -> None:
    assert fingerprint(f"{text_of(template)} {word}") != fingerprint(text_of(template))


@CALM
@given(st.text())
def test_any_text_has_a_fingerprint(text: str) -> None:
    assert len(fingerprint(text)) == 16
    assert not any(digit in normalized(text) for digit in "0123456789")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("", ""),
        ("user 4711 has 3 orders", "user # has # orders"),
        ("timed out after 1,234.5 s\n  at 12:30:45", "timed out after # s at <address>"),
        ("can't open 'a b' and \"c's\"", "can't open '*' and '*'"),
        ("KeyError: 'customer-7'", "KeyError: '*'"),
        ("<Job object at 0x7f3a91c0>", "<Job object at <hex>>"),
        (
            "commit 9fceb02d0ae5 is gone, decade and facade stay",
            "commit <hex> is gone, decade and facade stay",
        ),
        (
            "10.0.0.7:5432 refused, ::1 too, fe80::1:2 also",
            "<address> refused, <address> too, <address> also",
        ),
        ("mail to anna.b@example.org: 550", "mail to <address>: #"),
        ("GET https://example.org/a?b=1 -> 503", "GET <url> -> #"),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id <hex>"),
        ("utf8 and v2", "utf# and v#"),
    ],
)
def test_what_is_masked(text: str, masked: str) -> None:
    assert normalized(text) == masked


@pytest.mark.parametrize(
    "piece", ["'", '"', "a'", "0x", "1.", ":", "a@", "f", "ab1", "http://", "a.a"]
)
def test_no_text_takes_more_than_linear_time(piece: str) -> None:
    """Ten times the text takes about ten times as long; a backtracking pattern takes a hundred."""
    seconds = []
    for length in (20_000, 200_000):
        text = piece * (length // len(piece))
        best = 1e9
        for _ in range(3):
            began = perf_counter()
            normalized(text)
            best = min(best, perf_counter() - began)
        seconds.append(best)
    assert seconds[1] < 40 * seconds[0] + 0.05
