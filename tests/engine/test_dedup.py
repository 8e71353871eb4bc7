"""The window of remembered ids, against a dict of id to (offset, time)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from telpher_broker.engine.uniqueness.dedup import DedupWindow, Remembered

ids = st.one_of(st.none(), st.sampled_from("abcdefgh"))
steps = st.lists(
    st.tuples(st.integers(0, 3), st.lists(ids, min_size=1, max_size=4), st.integers(1, 9)),
    max_size=60,
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(steps)
def test_it_knows_what_came_within_the_window(
    steps: list[tuple[int, list[str | None], int]],
) -> None:
    window, model = DedupWindow(), dict[str, tuple[int, int]]()
    now_ms = offset = 0
    for passed_ms, wanted, window_ms in steps:
        now_ms += passed_ms
        until_ms = now_ms - window_ms
        for one, (offset_then, at_ms) in model.items():
            # Before it is forgotten, what is to be forgotten counts as that.
            known = offset_then if at_ms > until_ms else None
            assert window.offset_of(one, until_ms) == known
        window.forget(until_ms)
        model = {key: row for key, row in model.items() if row[1] > now_ms - window_ms}
        # As the broker does: what is known already, also from this very batch, is not added.
        new: list[str | None] = []
        for one in wanted:
            if one is None or (one not in model and one not in new):
                new.append(one)
        if any(new):
            window.remember(Remembered(now_ms, offset, tuple(new)))
        model |= {one: (offset + n, now_ms) for n, one in enumerate(new) if one is not None}
        offset += len(new)
        assert len(window) == len(model)
        for one in "abcdefgh":
            assert window.offset_of(one, now_ms - window_ms) == model.get(one, (None, 0))[0]


def test_what_is_frozen_does_not_change() -> None:
    window = DedupWindow()
    window.remember(Remembered(5, 10, ("a", None, "b")))
    frozen = window.frozen()
    assert window.oldest_ms == 5
    window.forget(5)
    window.remember(Remembered(6, 13, ("a",)))
    assert frozen == [Remembered(5, 10, ("a", None, "b"))]
    assert window.offset_of("a", 5) == 13
    assert window.offset_of("b", 5) is None


def test_forgetting_takes_no_longer_the_more_there_is() -> None:
    """It looks at what goes and at one more, whatever else is remembered."""
    window = DedupWindow()
    for n in range(5000):
        window.remember(Remembered(n, n, (str(n),)))
    for n in range(4000):
        window.forget(n)
        assert window.oldest_ms == n + 1
        assert len(window._runs) <= 2 * len(window) + 1
    assert len(window) == 1000
