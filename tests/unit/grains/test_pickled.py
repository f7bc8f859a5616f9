"""Kinds with pickled fields, arguments and results."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from durum import errors
from durum.grains.actor import Actor
from durum.grains.kind import GrainKind, kind_of
from durum.grains.state import field
from durum.wire import values
from durum.wire.opaque import Opaque


class Ratios(Actor):
    """Says which values are pickled, one by one."""

    total: Opaque[Fraction] = Fraction(0)
    seen: Opaque[list[Fraction]] = field(default_factory=list)
    name: str = "r"

    async def add(self, times: int, what: Opaque[Fraction], *, why: Opaque[Any] = None) -> int:
        return 0

    async def get(self) -> Opaque[Fraction]:
        return self.total

    async def label(self, name: str) -> str:
        return name


class Wild(Actor, pickle=True):
    """Leaves it to Durum which."""

    last: Fraction | None = None
    note: str = ""

    async def apply(self, function: Callable[[Any], Any], value: Any) -> Any:
        return function(value)

    async def plain(self, n: int) -> int:
        return n


def invoked(kind: GrainKind, method: str, args: bytes) -> None:
    """Begin a call, and leave it at that."""
    kind.methods[method].invoke(made(kind), args).close()


def made(kind: GrainKind) -> Any:
    return kind.create("one", object())


def arguments(kind: GrainKind, method: str, *args: Any, **kwargs: Any) -> Any:
    """What the method's code would be called with."""
    instance = made(kind)
    coro: Any = kind.methods[method].invoke(instance, kind.methods[method].bind(args, kwargs))
    frame = coro.cr_frame
    found = {name: value for name, value in frame.f_locals.items() if name != "self"}
    coro.close()
    return found


def test_pickled_arguments_arrive() -> None:
    """Beside others, which are checked by their types as ever."""
    kind = kind_of(Ratios)
    found = arguments(kind, "add", 3, Fraction(1, 3), why={1, 2})
    assert found == {"times": 3, "what": Fraction(1, 3), "why": {1, 2}}
    assert arguments(kind, "add", 2**70, Fraction(1)) == {
        "times": 2**70,
        "what": Fraction(1),
        "why": None,
    }
    assert [name for name, each in kind.methods.items() if each.opaque] == ["add", "get"]


def test_pickled_arguments_of_another_class_are_refused() -> None:
    """At the silo, and naming the parameter, like all others."""
    method = kind_of(Ratios).methods["add"]
    with pytest.raises(errors.ArgumentError, match="argument what: expected Fraction, got str"):
        invoked(kind_of(Ratios), "add", method.bind((1, "no"), {}))
    plain = values.encode([1, "no pickle at all", None])
    with pytest.raises(errors.ArgumentError, match="argument what: expected a pickled value"):
        invoked(kind_of(Ratios), "add", plain)
    with pytest.raises(errors.ArgumentError, match="argument what: cannot be pickled"):
        method.bind((1, (n for n in range(3))), {})


def test_pickled_results_come_back() -> None:
    """And a wrong one is the method's mistake, before anything is committed."""
    method = kind_of(Ratios).methods["get"]
    assert method.decode_result(method.encode_result(Fraction(2, 3))) == Fraction(2, 3)
    with pytest.raises(TypeError, match=r"Ratios\.get returned what its annotation does not allow"):
        method.encode_result(0.5)
    with pytest.raises(errors.CallError, match="its result does not fit"):
        method.decode_result(values.encode(1))


def test_pickled_methods_have_no_json_form() -> None:
    """The command line and the HTTP gateway call with JSON; no pickle goes in or out there."""
    kind = kind_of(Ratios)
    for name, texts in (("add", ["1", '"gASVBAAAAAAAAABLAS4="']), ("get", [])):
        with pytest.raises(errors.ArgumentError, match="no JSON form; the call did not run"):
            invoked(kind, name, values.json_arguments(texts))
    invoked(kind, "label", values.json_arguments(['"x"']))


def test_pickled_fields_are_stored_and_restored() -> None:
    """All of them or none, as with others."""
    kind = kind_of(Ratios)
    instance = made(kind)
    assert (instance.total, instance.seen) == (Fraction(0), [])
    instance.total, instance.name = Fraction(5, 7), "x"
    instance.seen.append(Fraction(1))
    blob = kind.encode_state(instance)
    again = made(kind)
    kind.restore(again, blob)
    assert (again.total, again.seen, again.name) == (Fraction(5, 7), [Fraction(1)], "x")
    assert kind.encode_state(again) == blob
    instance.total = 0.5
    with pytest.raises(TypeError, match=r"Ratios\.total: expected Fraction, got float"):
        kind.encode_state(instance)
    broken = blob.replace(b"fractions", b"fractionz")
    with pytest.raises(errors.StoreError, match=r"field (total|seen): cannot be unpickled here"):
        kind.restore(again, broken)
    assert (again.total, again.name) == (Fraction(5, 7), "x")


def test_pickled_fields_pass_through_a_migration() -> None:
    """migrate_state sees objects, and what it leaves alone is stored as it was."""

    class Old(Actor, kind="Evolving"):
        ratio: Opaque[Fraction] = Fraction(1, 2)
        spare: Opaque[Any] = None

    class New(Actor, kind="Evolving", version=2):
        half: Opaque[Fraction] = Fraction(0)

        def migrate_state(self, old: dict[str, Any], version: int) -> dict[str, Any]:
            assert old["ratio"] == Fraction(3, 4)
            return {"half": old.pop("ratio") / 2, **old}

    instance = made(kind_of(Old))
    instance.ratio, instance.spare = Fraction(3, 4), {1, 2}
    new = made(kind_of(New))
    kind_of(New).restore(new, kind_of(Old).encode_state(instance))
    assert new.half == Fraction(3, 8)
    parts = values.decode_map(kind_of(New).encode_state(new))
    assert set(parts) == {"", "half", "spare"}


def test_pickled_kind_decides_by_type() -> None:
    """What has a form keeps it; a subclass may say otherwise."""
    kind = kind_of(Wild)
    assert {name: each.opaque for name, each in kind.methods.items()} == {
        "apply": True,
        "plain": False,
    }
    assert arguments(kind, "apply", len, [1, 2])["function"] is len
    instance = made(kind)
    instance.last = Fraction(1, 3)
    again = made(kind)
    kind.restore(again, kind.encode_state(instance))
    assert again.last == Fraction(1, 3)


def test_subclass_of_a_pickled_kind_is_pickled() -> None:
    """As with all options; a subclass that takes it back is told what then cannot travel."""

    class Same(Wild):
        pass

    assert kind_of(Same).methods["apply"].opaque
    with pytest.raises(errors.ConfigError, match=r"Tame\.last: Fraction is no type"):

        class Tame(Wild, pickle=False):
            pass


def test_types_without_a_form_name_the_way_out() -> None:
    """Whoever meets the limit of typed values is told of the pickle."""
    with pytest.raises(errors.ConfigError, match=r"durum\.Opaque\[\.\.\.\] to have it pickled"):

        class Refused(Actor):
            ratio: Fraction = Fraction(0)

    with pytest.raises(errors.ConfigError, match="put it around the whole"):

        class Inner(Actor):
            async def f(self, x: list[Opaque[Fraction]]) -> None: ...

    with pytest.raises(errors.ConfigError, match=r"its default .* does not fit its type"):

        class Default(Actor):
            ratio: Opaque[Fraction] = None  # type: ignore[assignment]


def test_actors_and_references_are_never_pickled() -> None:
    """An instance out of its silo would be a second activation."""
    with pytest.raises(errors.ConfigError, match="an actor cannot travel"):

        class Keeps(Actor, pickle=True):
            async def take(self, other: Ratios) -> None: ...


def test_options_show_the_pickle() -> None:
    """It is a decision of the class, and tools show it."""
    assert kind_of(Wild).options.pickle
    assert not kind_of(Ratios).options.pickle
