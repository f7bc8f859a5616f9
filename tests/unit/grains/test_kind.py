"""Kinds and their methods: arguments and results as bytes, read-only views, late annotations."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import inspect
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, NoReturn
from uuid import UUID

import pytest

from durum import errors
from durum.grains.actor import Actor, read_only
from durum.grains.kind import kind_of
from durum.wire import values

Uid = UUID("12345678-1234-5678-1234-567812345678")


def logged(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def wrapper(self: object, *args: Any, **kwargs: Any) -> Any:
        return await function(self, *args, **kwargs)

    return wrapper


class Desk(Actor):
    total: Decimal = Decimal(0)
    names: list[str] = []

    async def add(self, amount: Decimal, note: str = "none", /, *, times: int = 1) -> Decimal:
        self.total += amount * times
        return self.total

    async def mixed(self, a: int, b: list[int] = [], *, c: bool, d: Any = None) -> list[Any]:  # noqa: B006
        return [a, b, c, d]

    async def typed(self, when: dt.datetime, who: UUID, raw: bytes, ids: set[int]) -> str:
        return f"{when} {who} {raw!r} {sorted(ids)}"

    async def len(self, sized: str, len: int = 3) -> int:  # noqa: A002 - a name of ours in its text
        return len

    @logged
    async def wrapped(self, a: int, b: int = 2) -> int:
        return a + b

    async def pause(self) -> None:
        await asyncio.sleep(0)

    async def each(self) -> None:
        async for _ in self._stream():
            pass

    async def gathers(self) -> list[int]:
        return [x async for x in self._stream()]

    async def enters(self) -> None:
        async with asyncio.Lock():
            pass

    async def inner(self) -> None:
        async def later() -> None:
            await asyncio.sleep(0)

        later().close()

    async def _stream(self) -> Any:
        yield 1

    async def wrong(self, kind: str) -> list[int]:
        return {"str": "x", "inner": ["x"], "tuple": (1,), "big": [2**70]}[kind]  # type: ignore[return-value]

    async def number(self, value: Any) -> int:
        return value  # type: ignore[no-any-return]

    async def nothing(self, value: Any = None) -> None:
        return value  # type: ignore[no-any-return]

    async def anything(self, value: Any):  # type: ignore[no-untyped-def]
        return value

    async def fails(self) -> NoReturn:
        raise KeyError("x")

    @read_only
    async def get_total(self) -> Decimal:
        return self.total

    @read_only
    async def cheat(self, how: str) -> None:
        if how == "assign":
            self.total = Decimal(1)
        elif how == "helper":
            self._helper()
        elif how == "delete":
            del self.names
        elif how == "save":
            await self.save()
        else:
            self._seen = how

    def _helper(self) -> None:
        self.total += 1


KIND = kind_of(Desk)


def desk() -> Any:
    return KIND.create("k", None)


def finish(coroutine: Any) -> Any:
    """Run a coroutine that does not wait."""
    with pytest.raises(StopIteration) as caught:
        coroutine.send(None)
    return caught.value.value


def call(name: str, *args: Any, instance: Any = None, **kwargs: Any) -> Any:
    """The whole way of a call, without a network."""
    method = KIND.methods[name]
    value = finish(method.invoke(instance or desk(), method.bind(args, kwargs)))
    return method.decode_result(method.encode_result(value))


def test_methods_are_the_public_ones() -> None:
    """Whatever is listed here can be called by anybody who reaches the port."""
    assert {"add", "wrapped", "get_total"} <= set(KIND.methods)
    assert not {"_helper", "_stream", "on_activate", "save", "actor", "key"} & set(KIND.methods)


def test_arguments_follow_the_signature() -> None:
    """Positional-only, defaults and keyword-only parameters mean what they mean in Python."""
    assert call("add", Decimal(2)) == 2
    assert call("add", Decimal(2), "x", times=3) == 6
    assert call("mixed", 1, c=True) == [1, [], True, None]
    assert call("mixed", b=[2], a=1, c=False, d={"x": 1}) == [1, [2], False, {"x": 1}]
    assert call("wrapped", 1) == 3
    assert call("len", "x") == 3


def test_arguments_come_by_value() -> None:
    """No two grains may share a mutable object, on one silo either."""
    shared = [1]
    assert call("mixed", 1, shared, c=True)[1] is not shared


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "reason"),
    [
        ("add", (), {}, r"Desk\.add\(\) missing 1 required positional argument: 'amount'"),
        ("add", (1, 2, 3), {}, r"Desk\.add\(\) takes from 1 to 2 positional arguments"),
        ("add", (1,), {"note": "x"}, "positional-only"),
        ("add", (1,), {"tip": 1}, "unexpected keyword argument 'tip'"),
        ("mixed", (1,), {}, "missing 1 required keyword-only argument: 'c'"),
    ],
)
def test_arguments_that_do_not_bind_are_a_type_error_at_the_caller(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], reason: str
) -> None:
    """As for any Python function, and before anything is sent."""
    with pytest.raises(TypeError, match=reason):
        KIND.methods[name].bind(args, kwargs)


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ((1, [object()]), r"Desk\.mixed: argument b: object is no value .* the call did not run"),
        ((1, []), r"argument d\['x'\]: a tuple would not come back"),
        (("\ud800",), r"argument a: text with a lone surrogate"),
    ],
)
def test_an_argument_that_cannot_travel_is_named_at_the_caller(
    args: tuple[Any, ...], reason: str
) -> None:
    """The caller does not compare types, but it must say what it cannot even write."""
    with pytest.raises(errors.ArgumentError, match=reason) as caught:
        KIND.methods["mixed"].bind(args, {"c": True, "d": {"x": (1,)}})
    assert caught.value.did_run is errors.DidRun.NO


@pytest.mark.parametrize(
    ("name", "args", "reason"),
    [
        ("add", ["x"], r"Desk\.add: argument amount: invalid decimal string; the call did not run"),
        ("add", [], "argument amount is missing"),
        ("add", ["1", "n", 1, 2], "it takes 3 arguments, 4 came"),
        ("add", ["1", None], "argument note: expected `str`, got `None`"),
        ("mixed", [1, [1, "x"], True], r"argument b\[1\]: expected `int`, got `str`"),
        ("mixed", {"a": 1, "e": 2}, "it has no parameter e"),
        ("mixed", 5, "malformed"),
        ("get_total", [1], "it takes 0 arguments, 1 came"),
    ],
)
def test_arguments_that_do_not_fit_are_named_at_the_silo(name: str, args: Any, reason: str) -> None:
    """Callers of another version, and the command line, are checked where the class is."""
    with pytest.raises(errors.ArgumentError, match=reason):
        _ = KIND.methods[name].invoke(desk(), values.encode(args))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91", b"\xdc\xff\xff", b"\xc7\x01\x02["])
def test_malformed_arguments_are_an_argument_error(data: bytes) -> None:
    """They come from the network; nothing else may reach the silo's loop."""
    with pytest.raises(errors.ArgumentError, match="did not run"):
        _ = KIND.methods["mixed"].invoke(desk(), data)


def test_arguments_may_be_named_on_the_wire() -> None:
    """For callers that know names and no order, such as a form."""
    method = KIND.methods["mixed"]
    assert finish(method.invoke(desk(), values.encode({"c": True, "a": 1}))) == [1, [], True, None]


def test_a_caller_of_an_older_version_may_leave_out_what_has_a_default() -> None:
    """A method may grow a parameter while the fleet is upgraded."""
    for given in (["2"], ["2", "x"]):
        assert finish(KIND.methods["add"].invoke(desk(), values.encode(given))) == 2


def test_json_arguments_are_read_by_the_methods_types() -> None:
    """`durum call` has no class at hand; Decimals must be exact all the same."""
    texts = ['"2024-05-01T10:00:00Z"', f'"{Uid}"', '"AAE="', "[2, 1]"]
    method = KIND.methods["typed"]
    assert finish(method.invoke(desk(), values.json_arguments(texts))) == (
        f"2024-05-01 10:00:00+00:00 {Uid} {bytes([0, 1])!r} [1, 2]"
    )
    add = KIND.methods["add"]
    assert finish(add.invoke(desk(), values.json_arguments(["10.10"]))) == Decimal("10.10")
    assert finish(add.invoke(desk(), values.json_arguments(['"10.10"']))) == Decimal("10.10")
    named = values.json_arguments({"a": "1", "c": "true"})
    assert finish(KIND.methods["mixed"].invoke(desk(), named)) == [1, [], True, None]
    with pytest.raises(errors.ArgumentError, match="argument amount"):
        _ = add.invoke(desk(), values.json_arguments(["true"]))


def test_plain_strings_are_read_as_decimals_dates_and_uuids() -> None:
    """Callers in other languages have no such types."""
    args = values.encode(["2024-05-01T10:00:00Z", str(Uid), b"", [1]])
    assert finish(KIND.methods["typed"].invoke(desk(), args)).startswith("2024-05-01")
    assert finish(KIND.methods["add"].invoke(desk(), values.encode([2]))) == 2


def test_arguments_beyond_the_limit_are_refused_at_the_caller() -> None:
    """They would not fit into a frame."""
    method = KIND.methods["len"]
    with pytest.raises(errors.ArgumentError, match=r"5000\d\d\d bytes, the limit is"):
        method.bind(("x" * 5_000_000,), {})


def test_results_travel_by_their_declared_type() -> None:
    """Tuples, sets and Decimals arrive as what they are."""
    assert call("wrong", "big") == [2**70]
    assert call("nothing") is None
    assert call("anything", {"a": [1]}) == {"a": [1]}


@pytest.mark.parametrize(
    ("name", "args", "reason"),
    [
        ("wrong", ("str",), r"Desk\.wrong returned .*: expected `array`, got `str`"),
        ("number", ("5",), r"Desk\.number returned .*: expected `int`, got `str`"),
        ("number", (None,), "got `None`"),
        ("number", (True,), "got `bool`"),
        ("nothing", (5,), "expected `null`"),
    ],
)
def test_a_result_of_another_type_fails_the_turn(
    name: str, args: tuple[Any, ...], reason: str
) -> None:
    """Before the commit, at the author's desk, and not at the caller afterwards."""
    method = KIND.methods[name]
    value = finish(method.invoke(desk(), method.bind(args, {})))
    with pytest.raises(TypeError, match=reason):
        method.encode_result(value)


def test_a_result_typed_any_refuses_what_would_change_on_the_way() -> None:
    """A missing annotation must not turn tuples into lists without a word."""
    with pytest.raises(TypeError, match="a tuple would not come back"):
        KIND.methods["anything"].encode_result((1,))


def test_a_result_beyond_the_limit_fails_the_turn() -> None:
    """It could not be sent after the commit."""
    with pytest.raises(ValueError, match="the limit is"):
        KIND.methods["typed"].encode_result("x" * 5_000_000)


def test_a_result_that_does_not_fit_here_says_that_the_call_ran() -> None:
    """Caller and silo have different versions of the class; repeating would do it twice."""
    with pytest.raises(errors.CallError, match="it ran") as caught:
        KIND.methods["number"].decode_result(values.encode("x"))
    assert caught.value.did_run is errors.DidRun.YES


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("add", False), ("get_total", False), ("inner", False), ("fails", False)),
        *(("pause", True), ("each", True), ("gathers", True), ("enters", True), ("wrapped", True)),
    ],
)
def test_a_method_without_await_never_waits(name: str, expected: bool) -> None:
    """The silo then needs no task; a wrong no would break the turn, a wrong yes only costs time."""
    assert KIND.methods[name].waits is expected


def test_a_read_only_turn_may_read_and_keep_volatile_notes() -> None:
    """Caching is what read methods do; it never commits."""
    instance = desk()
    instance.total = Decimal(5)
    assert call("get_total", instance=instance) == 5
    call("cheat", "note", instance=instance)
    assert instance._seen == "note"
    instance.total = Decimal(6)
    assert call("get_total", instance=instance) == 6


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("assign", r"Desk\.total was assigned in cheat\(\) during a @read_only turn"),
        ("helper", r"Desk\.total was assigned in _helper\(\)"),
        ("delete", r"Desk\.names"),
    ],
)
def test_a_read_only_turn_may_not_assign_fields(how: str, reason: str) -> None:
    """It never commits, so the change would vanish; other readers would see it until then."""
    instance = desk()
    method = KIND.methods["cheat"]
    with pytest.raises(AttributeError, match=reason):
        method.invoke(instance, method.bind((how,), {})).send(None)
    assert (instance.total, instance.names) == (0, [])


def test_a_read_only_turn_may_not_save() -> None:
    """Nothing it does is to be committed."""
    method = KIND.methods["cheat"]
    with pytest.raises(AttributeError, match=r"save\(\) in a @read_only turn"):
        method.invoke(desk(), method.bind(("save",), {})).send(None)


def test_a_view_is_an_instance_of_the_class_with_the_same_attributes() -> None:
    """isinstance, super() and type names in messages work as in other turns."""
    instance = desk()
    view = KIND.view(instance)
    assert isinstance(view, Desk)
    assert (type(view).__name__, view.key, vars(view) is vars(instance)) == ("Desk", "k", True)
    assert KIND.view(instance) is view is KIND.view(view)


def test_rollback_reaches_the_view() -> None:
    """Both stand for one grain."""
    instance = desk()
    view, before = KIND.view(instance), KIND.encode_state(instance)
    instance.total = Decimal(9)
    KIND.restore(instance, before)
    assert view.total == 0


def test_an_annotation_may_name_what_is_defined_later() -> None:
    """With postponed annotations that is ordinary Python."""
    module: dict[str, Any] = {"Actor": Actor, "__name__": "later"}
    exec(
        inspect.cleandoc(
            """
            from __future__ import annotations
            import sys, types
            sys.modules["later"] = types.ModuleType("later")
            class Late(Actor):
                one: Item | None = None
                async def add(self, item: Item) -> Item: return item
            from dataclasses import dataclass
            @dataclass
            class Item:
                name: str
            sys.modules["later"].__dict__.update(Item=Item)
            """
        ),
        module,
    )
    assert "add" in kind_of(module["Late"]).methods


def test_an_annotation_that_is_never_defined_is_a_config_error() -> None:
    """The usual cause is an import under TYPE_CHECKING."""

    class Lost(Actor):
        async def add(self, item: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(errors.ConfigError, match="Lost: an annotation names 'Missing'"):
        kind_of(Lost)


@pytest.mark.parametrize("thing", [int, "Desk", desk(), Actor, None])
def test_only_actor_classes_have_a_kind(thing: Any) -> None:
    """A wrong argument to actor() or Silo() has to be told apart at once."""
    with pytest.raises(errors.ConfigError, match="no grain class"):
        kind_of(thing)


def test_hooks_are_known_to_the_silo() -> None:
    """A kind without them must not pay for them."""

    class Hooked(Actor):
        async def on_activate(self) -> None: ...

    kind = kind_of(Hooked)
    assert (kind.has_on_activate, kind.has_on_deactivate, list(kind.methods)) == (True, False, [])


def test_names_of_locals_resolve_inside_a_function() -> None:
    """Tests and notebooks define classes there."""

    class Amount(int):
        pass

    Money = dict[str, int]

    class Local(Actor):
        async def add(self, money: Money) -> Money:
            return money

    assert list(kind_of(Local).methods) == ["add"]
