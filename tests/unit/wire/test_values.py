"""The value codec: what comes back equals what went, and what cannot is refused by name."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import pathlib
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durum.wire import shapes, values


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Item:
    name: str
    count: int = 1
    tags: set[str] = dataclasses.field(default_factory=set)


class Order(msgspec.Struct):
    id: UUID
    items: list[Item] = []
    note: str | None = None


class Node(msgspec.Struct):
    value: int
    kids: list[Node] = []


class Loose(msgspec.Struct):
    name: str
    extra: dict[str, Any] = {}
    kids: list[Loose] = []


class Point(NamedTuple):
    x: int
    y: float


class Options(TypedDict, total=False):
    size: int
    colour: Colour


class Address(pydantic.BaseModel):
    street: str
    since: dt.date
    total: Decimal = Decimal(0)
    raw: bytes = b""
    other: Address | None = None


class Renamed(pydantic.BaseModel):
    from_: str = pydantic.Field(alias="from")

    @pydantic.computed_field
    def shout(self) -> str:
        return self.from_.upper()


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
INTS = st.integers() | st.integers(-(2**70), 2**70)
DECIMALS = st.decimals(allow_nan=False)
MOMENTS = st.datetimes() | st.datetimes(
    dt.datetime(2, 1, 1), dt.datetime(9998, 1, 1), timezones=st.just(dt.UTC)
)
ITEMS = st.builds(Item, TEXT, INTS, st.sets(TEXT, max_size=3))
LOOSE = st.recursive(
    st.none() | st.booleans() | INTS | st.floats(allow_nan=False) | TEXT | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)

CASES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, INTS),
    (float, st.floats(allow_nan=False)),
    (bool, st.booleans()),
    (str, TEXT),
    (bytes, st.binary()),
    (bytearray, st.binary().map(bytearray)),
    (Decimal, DECIMALS),
    (UUID, st.uuids()),
    (dt.datetime, MOMENTS),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.timedelta, st.timedeltas()),
    (Colour, st.sampled_from(Colour)),
    (Level, st.sampled_from(Level)),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (list[int], st.lists(INTS, max_size=5)),
    (set[int], st.sets(INTS, max_size=5)),
    (frozenset[tuple[int, str]], st.frozensets(st.tuples(INTS, TEXT), max_size=3)),
    (tuple[int, str, None], st.tuples(INTS, TEXT, st.none())),
    (tuple[Decimal, ...], st.lists(DECIMALS, max_size=3).map(tuple)),
    (dict[str, Decimal | None], st.dictionaries(TEXT, st.none() | DECIMALS, max_size=3)),
    (dict[int, list[bytes]], st.dictionaries(INTS, st.lists(st.binary(), max_size=2), max_size=3)),
    (
        dict[tuple[int, str], dt.date],
        st.dictionaries(st.tuples(INTS, TEXT), st.dates(), max_size=3),
    ),
    (int | str | None, st.none() | INTS | TEXT),
    (Item, ITEMS),
    (Order, st.builds(Order, st.uuids(), st.lists(ITEMS, max_size=2), st.none() | TEXT)),
    (list[Point], st.lists(st.builds(Point, INTS, st.floats(allow_nan=False)), max_size=3)),
    (
        Options,
        st.fixed_dictionaries({}, optional={"size": INTS, "colour": st.sampled_from(Colour)}),
    ),
    (Any, LOOSE),
    (dict[str, Any], st.dictionaries(TEXT, LOOSE, max_size=3)),
    (Loose, st.builds(Loose, TEXT, st.dictionaries(TEXT, LOOSE, max_size=2), st.just([]))),
    (
        Address,
        st.builds(
            Address,
            street=TEXT,
            since=st.dates(),
            total=st.decimals(allow_nan=False, allow_infinity=False),
            raw=st.binary(),
        ),
    ),
]


@pytest.mark.parametrize(("annotation", "strategy"), CASES, ids=lambda case: str(case)[:40])
def test_a_value_comes_back_equal_and_of_its_type(
    annotation: Any, strategy: st.SearchStrategy[Any]
) -> None:
    """State that changes on its way through the store is corruption nobody notices."""
    codec = values.codec(annotation)

    @settings(max_examples=25, deadline=None)
    @given(strategy)
    def check(value: Any) -> None:
        back = codec.decode(codec.verify(value))
        assert back == value
        assert type(back) is type(value)

    check()


def test_not_a_number_comes_back() -> None:
    """NaN is a legal float; JSON would have made it null."""
    assert math.isnan(values.codec(float).decode(values.encode(math.nan)))
    assert values.codec(list[Decimal]).decode(values.encode([Decimal("NaN")]))[0].is_nan()


def test_an_aware_datetime_comes_back_as_the_same_instant_in_utc() -> None:
    """The instant is what counts; the zone's name does not travel, and the docs say so."""
    zone = dt.timezone(dt.timedelta(hours=5, minutes=30))
    there = dt.datetime(2024, 5, 1, 12, tzinfo=zone)
    back = values.codec(dt.datetime).decode(values.encode(there))
    assert (back, back.tzinfo) == (there, dt.UTC)


@pytest.mark.parametrize(
    "edge",
    [
        dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=1))),
        dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-1))),
    ],
    ids=str,
)
def test_an_instant_without_a_utc_form_comes_back_too(edge: dt.datetime) -> None:
    """Python cannot convert such a moment to UTC; it must not come back as another one."""
    codec = values.codec(dt.datetime)
    assert codec.decode(codec.encode(edge)) == edge


def test_integers_beyond_64_bits_travel_anywhere_in_a_value() -> None:
    """msgpack has no form for them, and Python programs do not care how wide a number is."""
    codec = values.codec(dict[str, list[Item]])
    value = {"a": [Item("x", 2**64), Item("y", -(2**63) - 1), Item("z", 2**4000)]}
    assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize("count", [0, 15, 16, 65_535, 65_536])
def test_containers_of_any_size_hold_integers_beyond_64_bits(count: int) -> None:
    """msgpack writes the count in three ways, and for these values the writing is our own."""
    value = {"list": [2**64] * count, "map": list(range(count))}
    assert values.decode_plain(values.encode(value)) == value
    table = {2**64 + index: index for index in range(count)}
    assert values.codec(dict[int, int]).decode(values.encode(table)) == table


@pytest.mark.parametrize("bound", [2**63, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1, 2**200])
def test_the_edges_of_64_bits_are_exact(bound: int) -> None:
    """One off at an edge would change a number without a word."""
    for value in (bound - 1, bound, bound + 1):
        assert values.codec(int).decode(values.encode(value)) == value


def test_a_pydantic_model_travels_by_alias_and_without_computed_fields() -> None:
    """Validation refuses what it did not ask for, so only what it asks for is written."""
    model = Renamed.model_validate({"from": "ann"})
    codec = values.codec(list[Renamed])
    assert codec.decode(codec.verify([model])) == [model]


def test_a_pydantic_model_that_does_not_validate_is_refused_with_its_place() -> None:
    """The model's own rules hold on arrival too."""
    data = values.encode([{"street": "x", "since": "not a date"}])
    with pytest.raises(shapes.Misfit, match="since") as caught:
        values.codec(list[Address]).decode(data)
    assert caught.value.path == "[0]"


@pytest.mark.parametrize(
    ("annotation", "value", "path", "reason"),
    [
        (int, "5", "", "expected `int`, got `str`"),
        (int, True, "", "expected `int`, got `bool`"),
        (Item, {"name": "x", "count": "1"}, ".count", "expected `int`, got `str`"),
        (Item, {"count": 1}, "", "missing required field `name`"),
        (list[Item], [{"name": 3}], "[0].name", "expected `str`"),
        (dict[str, int], {"a": None}, "[...]", "expected `int`"),
        (dict[int, int], {"a": 1}, "a key in ", "expected `int`"),
        (tuple[int, int], [1], "", "length 2, got 1"),
        (Annotated[int, msgspec.Meta(ge=0)], -1, "", ">= 0"),
        (Colour, "green", "", "invalid enum value"),
        (str, 2**80, "", "expected `str`"),
        (list[str], [2**80], "[0]", "expected `str`"),
    ],
    ids=repr,
)
def test_bytes_that_do_not_fit_are_refused_with_place_and_reason(
    annotation: Any, value: Any, path: str, reason: str
) -> None:
    """The reader of the message has to find the wrong value in a large argument."""
    with pytest.raises(shapes.Misfit) as caught:
        values.codec(annotation).decode(values.encode(value))
    assert (caught.value.path, reason in caught.value.reason) == (path, True), caught.value


@pytest.mark.parametrize("data", [b"", b"\x92\x01", b"\x01\x01", b"\xc1", b"\xd4\x63\x00"])
def test_malformed_bytes_are_a_misfit_and_nothing_else(data: bytes) -> None:
    """They come from the network: no other exception may reach the silo's loop."""
    for annotation in (int, list[int], Any):
        with pytest.raises(shapes.Misfit):
            values.codec(annotation).decode(data)


@given(st.binary(max_size=40))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_a_value_or_a_misfit(data: bytes) -> None:
    """Whatever a stranger sends, a decoder answers in one of two ways."""
    for annotation in (Order, dict[str, Any], tuple[int, Item]):
        try:
            values.codec(annotation).decode(data)
        except shapes.Misfit:
            continue


def test_deep_nesting_is_refused_both_ways() -> None:
    """A few kilobytes of brackets must not exhaust anybody's stack."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for act in (
        lambda: values.encode(deep),
        lambda: values.codec(Any).encode(deep),
        lambda: values.codec(Any).decode(b"\x91" * 100_000 + b"\x90"),
        lambda: values.decode_plain(b"\x91" * 100_000 + b"\x90"),
    ):
        with pytest.raises(shapes.Misfit, match="nested"):
            act()
    while deep:  # freed level by level: the interpreter's own recursion has a limit too
        deep = deep[0]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ((1, 2), ""),
        ({"a": [1, {2}]}, "['a'][1]"),
        ([{"x": Decimal(1)}], "[0]['x']"),
        ({"when": dt.datetime(2024, 1, 1)}, "['when']"),
        ({(1, 2): 3}, "a key of "),
        ([Item("x")], "[0]"),
        (Colour.RED, ""),
    ],
    ids=repr,
)
def test_a_position_typed_any_refuses_what_would_come_back_as_something_else(
    value: Any, path: str
) -> None:
    """A tuple that is a list after the next failover is a bug found months later."""
    with pytest.raises(shapes.Misfit, match="declare") as caught:
        values.codec(Any).encode(value)
    assert caught.value.path == path


def test_any_is_checked_wherever_a_type_holds_it() -> None:
    """Within dataclasses, unions, tuples and types that contain themselves."""
    cases: list[tuple[Any, Any]] = [
        (Loose, Loose("a", kids=[Loose("b", extra={"x": (1,)})])),
        (dict[str, Any] | None, {"a": {1}}),
        (tuple[int, Any], (1, (2,))),
        (list, [(1,)]),
        (dict[str, list[Any]], {"a": [1, b"", {"x": ()}]}),
    ]
    for annotation, value in cases:
        with pytest.raises(shapes.Misfit, match=r"tuple|set"):
            values.codec(annotation).encode(value)


class Opaque:
    pass


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (object, "object is no type"),
        (Opaque, "Opaque is no type"),
        (list[Opaque], "Opaque is no type"),
        (dict[str, Opaque | None], "Opaque is no type"),
        (Callable[[], int], "Callable"),
        (complex, "complex"),
        (type, "type is no type"),
        (Item | Address, "custom type"),
        (str | bytes, "str-like"),
        (Item | Order | dict[str, int], "dict-like"),
        (set[list[int]], "hashable"),
        (dict[Item, int], "hashable"),
        (memoryview, "declare bytes"),
        (msgspec.Raw, "declare bytes"),
        ("Item", "not supported"),
    ],
    ids=str,
)
def test_a_type_whose_values_cannot_travel_is_refused(annotation: Any, reason: str) -> None:
    """At registration, and not when the first value of it is sent."""
    with pytest.raises(shapes.Unsupported, match=reason):
        values.codec(annotation)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        [Opaque()],
        {"a": lambda: 1},
        "\ud800",
        1j,
    ],
)
def test_a_value_that_cannot_be_written_is_a_misfit(value: Any) -> None:
    """Callers do not compare arguments with types, so anything at all can reach the encoder."""
    with pytest.raises(shapes.Misfit):
        values.encode(value)


def test_one_codec_is_built_for_each_type() -> None:
    """Building one takes longer than thousands of values."""
    assert values.codec(dict[str, Item]) is values.codec(dict[str, Item])


def test_a_type_with_unhashable_metadata_has_a_codec_too() -> None:
    """Annotated may carry anything, such as a list of examples."""
    annotation = Annotated[int, msgspec.Meta(ge=0, examples=[1])]
    assert values.codec(annotation).decode(values.encode(3)) == 3


def test_a_pydantic_models_paths_and_urls_travel_as_text() -> None:
    """Validation builds them again."""

    class Page(pydantic.BaseModel):
        url: pydantic.HttpUrl
        file: pathlib.PurePosixPath

    page = Page.model_validate({"url": "https://example.org/a", "file": "a/b"})
    codec = values.codec(Page)
    assert codec.decode(codec.verify(page)) == page


def test_parts_of_arrays_and_maps_are_read_and_written_verbatim() -> None:
    """What an older class does not know is carried without being understood."""
    parts = {"a": values.encode(2**80), "b": values.encode([1])}
    assert values.decode_map(values.encode_map(parts)) == parts
    assert values.decode_array(values.encode_array(list(parts.values()))) == list(parts.values())
    for read in (values.decode_map, values.decode_array):
        with pytest.raises(shapes.Misfit):
            read(values.encode("text"))


def test_verify_refuses_what_could_not_be_read_again() -> None:
    """Encoding alone lets a wrong type through: msgspec writes any value it knows."""
    codec = values.codec(list[int])
    assert codec.encode(["x"]) == values.encode(["x"])
    with pytest.raises(shapes.Misfit, match="expected `int`"):
        codec.verify(["x"])


def test_json_arguments_are_read_by_the_declared_types() -> None:
    """10.10 typed into a shell has to be exactly that, not the nearest double."""
    document = values.json_document(values.json_arguments(["10.10", '"2024-05-01"', "[1, 2]"]))
    assert document is not None
    parts = values.json_parts(document)
    assert isinstance(parts, list)
    assert values.codec(Decimal).decode_json(parts[0]) == Decimal("10.10")
    assert values.codec(dt.date).decode_json(parts[1]) == dt.date(2024, 5, 1)
    assert values.codec(set[int]).decode_json(parts[2]) == {1, 2}
    assert values.json_document(values.encode([1])) is None


def test_text_that_is_not_json_is_refused_with_its_position() -> None:
    """A shell eats quotes; the message has to show what is left."""
    with pytest.raises(shapes.Misfit, match="not JSON") as caught:
        values.json_arguments(["1", "alice"])
    assert caught.value.path == "[1]"


def test_any_encoded_value_can_be_shown_as_json() -> None:
    """The command line shows results without the class at hand."""
    assert values.as_json(values.encode({"a": (1, 2**80, None)})) == (
        b'{"a":[1,1208925819614629174706176,null]}'
    )
    assert values.as_json(values.encode({(1, 2): 3})) == b'"{(1, 2): 3}"'
