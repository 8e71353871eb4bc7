"""Keys and who holds them, against lists that are looked through from end to end."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from telpher.protocol.uniqueness import UniqueWhile
from telpher_broker.engine.uniqueness.uniques import Holder, Uniques

A_TIME = UniqueWhile.A_TIME
takes = st.tuples(st.just("take"), st.sampled_from("abc"), st.sampled_from([1, 2, 3]))
ends = st.tuples(st.just("settle"), st.integers(0, 20), st.integers(1, 30))
passes = st.tuples(st.just("free"), st.integers(0, 5), st.just(0))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(st.one_of(takes, ends, passes), max_size=50))
def test_a_key_is_held_until_its_message_is_settled_or_its_time_is_over(
    steps: list[tuple[str, object, object]],
) -> None:
    uniques, held, timed = Uniques(), list[tuple[str, Holder]](), dict[str, Holder]()
    now_ms = offset = 0
    for what, one, other in steps:
        if what == "take":
            assert isinstance(one, str)
            assert isinstance(other, int)
            holder = Holder(offset, other, now_ms + offset % 7 if other == A_TIME else 0)
            uniques.take(one, holder)
            timed.pop(one, None)
            if other == A_TIME:
                timed[one] = holder
            else:
                held.append((one, holder))
            offset += 1
        elif what == "settle":
            assert isinstance(one, int)
            assert isinstance(other, int)
            uniques.settled(one, one + other)
            held = [row for row in held if not one <= row[1].offset < one + other]
        else:
            assert isinstance(one, int)
            now_ms += one
            uniques.free(now_ms)
            timed = {key: holder for key, holder in timed.items() if holder.until_ms > now_ms}
        assert len(uniques) == len(held) + len(timed)
        assert uniques.next_end_ms == min((h.until_ms for h in timed.values()), default=None)
        for key in "abc":
            expected = [holder for name, holder in held if name == key]
            expected += [timed[key]] if key in timed else []
            assert list(uniques.holders(key)) == expected
        again = Uniques()
        rows = list(uniques.frozen())
        for key, *fields in rows:
            again.take(key, Holder(*fields))
        assert list(again.frozen()) == rows
