"""Keys of maps: bytes that sort as they do, and come back as they went."""

from __future__ import annotations

from typing import Any, NewType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durum.grains.keys import LIMIT_BYTES, KeyCodec
from durum.wire.shapes import Misfit, Unsupported

Name = NewType("Name", str)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
blobs = st.binary(max_size=8)
numbers = st.integers() | st.integers(-300, 300) | st.sampled_from([2**63, 2**64, -(2**64)])
KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, texts),
    (bytes, blobs),
    (int, numbers),
    (tuple[str, int], st.tuples(texts, numbers)),
    (tuple[int, ...], st.lists(numbers, max_size=4).map(tuple)),
    (
        tuple[bytes, tuple[str, int], int],
        st.tuples(blobs, st.tuples(texts, numbers), st.integers(-5, 5)),
    ),
]


@pytest.mark.parametrize(("annotation", "strategy"), KINDS, ids=[str(each[0]) for each in KINDS])
def test_bytes_sort_as_keys_do_and_come_back(
    annotation: Any, strategy: st.SearchStrategy[Any]
) -> None:
    """A page goes on behind the last key by its bytes: in another order some would be left out."""
    codec = KeyCodec(annotation)

    @given(strategy, strategy)
    def holds(a: Any, b: Any) -> None:
        first, second = codec.encode(a), codec.encode(b)
        assert (first < second) == (a < b)
        assert (first == second) == (a == b)
        assert codec.decode(first) == a

    holds()


@given(texts, texts)
def test_prefix_of_texts_is_a_prefix_of_their_bytes(start: str, rest: str) -> None:
    """`items(prefix=...)` reads only what it gives."""
    codec = KeyCodec(str)
    prefix = codec.prefix(start)
    assert codec.encode(start + rest).startswith(prefix)
    assert codec.encode(rest).startswith(prefix) == rest.startswith(start)


@given(texts, numbers, texts, numbers)
def test_prefix_of_tuples_is_their_first_elements(a: str, b: int, c: str, d: int) -> None:
    """All orders of one customer, and of no customer whose name begins alike."""
    codec = KeyCodec(tuple[str, int])
    assert codec.encode((a, b)).startswith(codec.prefix((c,))) == (a == c)
    assert codec.encode((a, b)).startswith(codec.prefix((c, d))) == ((a, b) == (c, d))
    assert codec.encode((a, b)).startswith(codec.prefix(()))


def test_form_is_that_of_the_tuple_layer() -> None:
    """Stored keys outlive this release: the examples of FoundationDB's design/tuple.md, as bytes."""
    assert KeyCodec(bytes).encode(b"foo\x00bar") == b"\x01foo\x00\xffbar\x00"
    assert KeyCodec(str).encode("F\u00d4O\u0000bar") == b"\x02F\xc3\x94O\x00\xffbar\x00"
    assert KeyCodec(int).encode(-5551212) == b"\x11\xab\x4b\x93"
    assert KeyCodec(int).encode(0) == b"\x14"
    nested = tuple[tuple[bytes, tuple[int, ...]], ...]
    found = KeyCodec(nested).encode(((b"foo\x00bar", ()),))
    assert found == b"\x05\x01foo\x00\xffbar\x00\x05\x00\x00"


@pytest.mark.parametrize(
    ("annotation", "key"),
    [
        (str, 1),
        (int, "1"),
        (int, True),
        (str, b"a"),
        (str, "\ud800"),
        (str, "x" * LIMIT_BYTES),
        (int, 256**300),
        (tuple[str, int], ("a",)),
        (tuple[str, int], ("a", "b")),
        (tuple[str, ...], ["a"]),
        (str | int, 1.5),
    ],
)
def test_key_of_another_type_is_refused(annotation: Any, key: Any) -> None:
    """Two keys that are equal in Python, or of no order, must not become two entries."""
    with pytest.raises(Misfit):
        KeyCodec(annotation).encode(key)


@pytest.mark.parametrize("annotation", [float, bool, dict, list[int], tuple, Any, str | None])
def test_type_without_an_order_of_bytes_is_refused(annotation: Any) -> None:
    """Said when the class is created, not when the first key is set."""
    with pytest.raises(Unsupported, match="str, int, bytes"):
        KeyCodec(annotation)


def test_unions_and_new_types_of_keys_are_keys() -> None:
    """Ids are often NewTypes."""
    assert KeyCodec(Name).decode(KeyCodec(Name).encode(Name("a"))) == "a"
    codec = KeyCodec(str | int)
    assert [codec.decode(codec.encode(key)) for key in ("a", 1)] == ["a", 1]


@pytest.mark.parametrize(
    "data", [b"", b"\x07", b"\x16\x01", b"\x02abc", b"\x15", b"\x02a\x00\x02b\x00", b"\x14\x00"]
)
def test_bytes_that_are_no_key_are_refused(data: bytes) -> None:
    """Whatever wrote them, it was not this."""
    with pytest.raises(Misfit):
        KeyCodec(str).decode(data)
    with pytest.raises(Misfit):
        KeyCodec(tuple[int, ...]).decode(b"\xf0" + data)


@pytest.mark.parametrize(("annotation", "start"), [(int, 1), (str, ("a",)), (tuple[str, int], "a")])
def test_prefix_that_makes_no_sense_is_refused(annotation: Any, start: Any) -> None:
    """Numbers have no beginnings."""
    with pytest.raises(Misfit):
        KeyCodec(annotation).prefix(start)
