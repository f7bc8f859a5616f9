"""Pickled values: what becomes of them, and that nothing is opened which nobody asked for."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import msgspec
import pytest

from durum.wire import opaque, untyped, values
from durum.wire.opaque import OpaqueCodec
from durum.wire.shapes import Misfit, Sealed, Unsupported
from tests.support import bombs

Opaque: Any = opaque.Opaque
"""As an expression; what type checkers make of it in annotations, tests/typing shows."""


BOMB = bombs.encoded()


@pytest.mark.parametrize(
    "value",
    [None, 1, 2**70, {"a": {1, 2}}, Fraction(1, 3), (1, [2]), complex(1, 2), b"x", os.path.join],
)
def test_opaque_value_comes_back(value: object) -> None:
    """Whatever Python can pickle."""
    codec = opaque.codec(Opaque[object])
    assert codec.decode(codec.encode(value)) == value
    assert codec.decode(codec.verify(value)) == value
    assert opaque.decode_stored(codec.encode(value)) == value


def test_closures_and_local_classes_travel_by_value() -> None:
    """That is what cloudpickle is for: a worker's function need not be importable at the silo."""
    factor = 3

    @dataclass
    class Local:
        n: int

    def scale(local: Local) -> int:
        return local.n * factor

    msgspec.msgpack.decode(b"\x81\xa1n\x01", type=Local)  # msgspec leaves its mark on the class
    assert "__msgspec_cache__" in vars(Local)
    codec = opaque.codec(Opaque[object])
    again, local = codec.decode(codec.encode((scale, Local(5))))
    assert again(local) == 15
    assert "__msgspec_cache__" in vars(Local), "msgspec has its mark back"


def test_class_of_a_script_is_taken_for_its_twin(tmp_path: Path) -> None:
    """A client runs shop.py as a script, the silo imports it: both mean the same class."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom durum.wire import opaque\n"
        "class Thing:\n    def __init__(self): self.n = 7\n"
        "data = opaque.codec(opaque.Opaque[Thing]).encode(Thing())\n"
        "sys.stdout.buffer.write(data)\n"
    )
    root = Path(__file__).parents[3]
    data = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
    ).stdout

    class Thing:
        n: int

    Thing.__qualname__ = "Thing"
    assert opaque.codec(Opaque[Thing]).decode(data).n == 7
    Thing.__qualname__ = "Other"
    with pytest.raises(Misfit, match="expected Other, got Thing"):
        opaque.codec(Opaque[Thing]).decode(data)


class Able(Protocol):
    def run(self) -> None: ...


@pytest.mark.parametrize(
    ("annotation", "fits", "misfits"),
    [
        (Opaque[int], 1, "x"),
        (Opaque[int | None], None, "x"),
        (Opaque[list[int]], [1], {1}),
        (Opaque[Callable[[], int]], len, 3),
        (Opaque[Literal["a", "b"]], "a", "c"),
        (Opaque[None], None, 0),
        (Opaque[Annotated[int, "positive"]], 1, "x"),
        (Opaque[Fraction], Fraction(1), 1.0),
    ],
)
def test_opaque_value_of_another_class_is_refused(
    annotation: Any, fits: object, misfits: object
) -> None:
    """The outermost class is compared on both sides, so that a mistake shows where it is made."""
    codec = opaque.codec(annotation)
    assert codec.decode(codec.verify(fits)) == fits
    with pytest.raises(Misfit, match="expected"):
        codec.verify(misfits)
    with pytest.raises(Misfit, match="expected"):
        codec.decode(codec.encode(misfits))


@pytest.mark.parametrize("annotation", [Opaque[Any], Opaque[object], Opaque[Able]])
def test_opaque_value_of_an_open_type_is_taken_as_it_is(annotation: Any) -> None:
    """Nothing is known of it that could be compared."""
    codec = opaque.codec(annotation)
    assert codec.decode(codec.verify({1, 2})) == {1, 2}


def test_what_cannot_be_pickled_or_unpickled_is_a_misfit() -> None:
    """Never an exception of the object's own code, and never a half-made value."""
    codec = opaque.codec(Opaque[object])
    with pytest.raises(Misfit, match="cannot be pickled: TypeError"):
        codec.encode(sys._getframe())
    for data in (b"", b"garbage", pickle.dumps(1)[:-1], b"cno_such_module\nthing\n."):
        sealed = values.encode_fast(msgspec.msgpack.Ext(values.PICKLED, data))
        with pytest.raises(Misfit, match="cannot be unpickled here"):
            codec.decode(sealed)
    for plain in (b"\xc0", b"\xa1x", b"\x80", values.encode(2**70)):
        with pytest.raises(Misfit, match="xpected a pickled value"):
            codec.decode(plain)
    with pytest.raises(Misfit, match="no JSON form"):
        codec.decode_json(b"1")
    assert repr(codec) == "<OpaqueCodec <class 'object'>>"
    assert repr(Sealed(b"123")) == "<Sealed 3 bytes>"


@pytest.mark.parametrize(
    "read",
    [
        values.decode_plain,
        values.as_json,
        values.json_document,
        untyped.decode,
        opaque.is_sealed,
        values.codec(Any).decode,
        values.codec(dict[str, Any]).decode,
        values.codec(int).decode,
        values.codec(Sealed).decode,
        lambda data: values.decode_map(b"\x81\xa1a" + data),
        lambda data: values.codec(list[Any]).decode(b"\x91" + data),
        lambda data: values.codec(tuple[Any, int]).decode(b"\x92" + data + values.encode(2**70)),
        opaque.codec(Opaque[object]).read,
    ],
)
def test_no_decoder_opens_a_pickle(read: Callable[[bytes], object]) -> None:
    """Only opaque.py does, where it is told to; a pickle that slips in anywhere else stays bytes."""
    bombs.disarm()
    try:
        found = read(BOMB)
    except Misfit:
        found = None
    assert bombs.opened() == 0
    assert not isinstance(found, bombs.Bomb)


def test_a_bomb_goes_off_where_it_is_opened() -> None:
    """Or all the tests above would show nothing."""
    bombs.disarm()
    opaque.codec(Opaque[object]).decode(BOMB)
    opaque.decode_stored(BOMB)
    assert bombs.opened() == 2


def test_pickled_value_is_shown_by_its_size() -> None:
    """Tools that show states must not run them."""
    bombs.disarm()
    assert values.as_json(BOMB).startswith(b'"<pickled, ')
    assert bombs.opened() == 0


def test_opaque_stands_around_the_whole_type() -> None:
    """msgspec would look through an inner one and ignore it, silently."""

    @dataclass
    class Holder:
        thing: opaque.Opaque[int]

    for annotation in (list[Opaque[int]], dict[str, Opaque[int]], Opaque[int] | None, Holder):
        with pytest.raises(Unsupported, match="put it around the whole"):
            opaque.codec(annotation)
    assert not isinstance(opaque.codec(list[int]), OpaqueCodec)


def test_pickled_kinds_pickle_what_has_no_form_only() -> None:
    """What has a form keeps it: it can be read by JSON callers and by other versions of a class."""
    assert not isinstance(opaque.codec(dict[str, int], pickled=True), OpaqueCodec)
    for annotation in (Fraction, list[Fraction], Callable[[int], int], Any, dict[str, Any]):
        assert isinstance(opaque.codec(annotation, pickled=True), OpaqueCodec)
    with pytest.raises(Unsupported, match=r"durum\.Opaque"):
        opaque.codec(Fraction)


def test_cloudpickle_is_loaded_when_it_is_needed() -> None:
    """Who never pickles does not pay for it, neither in time nor in what could be attacked."""
    program = (
        "import sys, durum\nfrom durum import Actor\n"
        "class Plain(Actor):\n    n: int = 0\n    async def get(self) -> int: return self.n\n"
        "print('cloudpickle' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.split() == ["False"]
