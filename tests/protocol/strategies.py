"""Frames as hypothesis draws them."""

from __future__ import annotations

from types import NoneType
from typing import Any

from hypothesis import strategies as st

from telpher.protocol import frames as f

numbers = st.integers(0, 2**64 - 1)
integers = st.integers(-(2**63), 2**64 - 1)
texts = st.text(max_size=20)
blobs = st.binary(max_size=40)
plain = st.one_of(st.none(), st.booleans(), integers, st.floats(allow_nan=False), texts, blobs)
values = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple), st.dictionaries(texts, inner, max_size=4)
    ),
    max_leaves=8,
)
options = st.dictionaries(texts, values, max_size=4)
rows = st.lists(values, max_size=5).map(tuple)
offset_rows = st.lists(st.integers(0, 2**63), max_size=8, unique=True).map(
    lambda row: tuple(sorted(row[: len(row) // 2 * 2]))
)
_part = st.tuples(numbers, numbers, numbers, blobs)
parts = st.lists(
    st.one_of(_part, st.tuples(_part, options).map(lambda pair: (*pair[0], pair[1]))), max_size=3
).map(tuple)

# Of the fields whose rows are of a kind.
_BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "offsets": offset_rows,
    "lost": offset_rows,
    "parts": parts,
    "settles": st.lists(st.tuples(integers, rows), max_size=3).map(tuple),
    "publishes": st.lists(st.tuples(texts, blobs), max_size=3).map(tuple),
}


@st.composite
def fates(draw: st.DrawFn) -> tuple[Any, ...]:
    """The level, offsets, duplicates and refusals of a CONFIRM_EACH."""
    offsets = draw(st.lists(st.integers(-1, 2**63), max_size=6).map(tuple))
    stored = [index for index, offset in enumerate(offsets) if offset >= 0]
    duplicates = tuple(draw(st.sets(st.sampled_from(stored)))) if stored else ()
    refused = tuple(
        (index, draw(texts), draw(texts)) for index, offset in enumerate(offsets) if offset < 0
    )
    return draw(integers), offsets, duplicates, refused


_BY_TYPE: dict[type, st.SearchStrategy[Any]] = {
    int: integers,
    str: texts,
    bytes: blobs,
    tuple: rows,
    dict: options,
    NoneType: st.none(),
}


def frames_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Frames of one kind, with whatever its fields may have."""
    _, fields = f.SHAPES[f.NUMBERS[kind]]
    if kind is f.ConfirmEach:
        return st.tuples(numbers, fates()).map(lambda pair: f.ConfirmEach(pair[0], *pair[1]))
    drawn = [st.one_of(*(_BY_TYPE[t] for t in sorted(types, key=repr))) for types in fields]
    names = kind._fields[1:]
    drawn = [_BY_NAME.get(name, one) for name, one in zip(names, drawn, strict=True)]
    return st.tuples(numbers, *drawn).map(kind._make)


frames = st.sampled_from([kind for kind, _ in f.SHAPES.values()]).flatmap(frames_of)
