"""Values without a declared type: they say themselves what they are."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durum.wire import shapes, untyped, values

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.datetimes()
    | st.datetimes(timezones=st.just(dt.timezone(dt.timedelta(hours=-3))))
    | st.dates()
    | st.times()
    | st.timedeltas()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
        | st.frozensets(st.integers() | st.uuids(), max_size=3)
        | st.sets(st.decimals(allow_nan=False), max_size=3)
    ),
    max_leaves=10,
)


@given(VALUES)
@settings(max_examples=300, deadline=None)
def test_builtin_values_come_back_as_they_went(value: Any) -> None:
    """An exception's arguments: a Decimal that became text would break the handler."""
    back = untyped.decode(untyped.encode(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("value", [object(), [print], {1: {2: Exception()}}, {(1, 2): 3}, type])
def test_other_values_are_refused(value: Any) -> None:
    """Nothing may be rebuilt by a class name from data, so nothing else is written."""
    with pytest.raises(shapes.Misfit):
        untyped.encode(value)


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_a_value_or_a_misfit(data: bytes) -> None:
    """They come from the network."""
    for content in (data, b"\xc7" + bytes([len(data)]) + b"\x13" + data):
        try:
            untyped.decode(content)
        except shapes.Misfit:
            continue


@pytest.mark.parametrize("code", [3, 15, 25, 100])
def test_an_unknown_tag_is_refused(code: int) -> None:
    """A newer release may write more; an older one must not guess."""
    data = b"\xd4" + bytes([code]) + b"\xc0"
    with pytest.raises(shapes.Misfit):
        untyped.decode(data)


def test_a_tag_with_the_wrong_content_is_refused() -> None:
    """A list inside a Decimal's tag is nobody's honest encoding."""
    honest = untyped.encode(Decimal(1))
    tag = honest[1:2] if honest[0] in range(0xD4, 0xD9) else honest[2:3]
    inner = values.encode([1])
    with pytest.raises(shapes.Misfit, match="malformed"):
        untyped.decode(b"\xc7" + bytes([len(inner)]) + tag + inner)
