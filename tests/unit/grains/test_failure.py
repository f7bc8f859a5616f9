"""Exceptions across processes: their own type where it is known, a RemoteError where not."""

from __future__ import annotations

import asyncio
import sys
import types
from decimal import Decimal
from typing import Any

import pytest

from durum import errors, ids
from durum.errors import DidRun
from durum.grains import failure
from durum.grains.actor import Actor
from durum.grains.kind import kind_of
from durum.wire import untyped, values
from durum.wire.messages import Failure


class OutOfFunds(Exception):
    """With parameters other than its args, as authors write them."""

    def __init__(self, who: str, lacking: Decimal) -> None:
        super().__init__(f"{who} lacks {lacking}")
        self.who = who
        self.lacking = lacking
        self.handle = object()


class Loud(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Account(Actor):
    class Closed(LookupError):
        pass

    async def pay(self) -> None: ...


KIND = kind_of(Account)


def thrown(exc: BaseException) -> BaseException:
    try:
        raise exc
    except BaseException as caught:
        return caught


def across(exc: BaseException, did_run: DidRun = DidRun.ROLLED_BACK) -> Any:
    """From the silo to the caller."""
    return failure.rebuild(failure.encode(thrown(exc), 7, did_run), KIND)


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("amount must be positive"),
        ValueError(),
        KeyError("k"),
        TimeoutError("late"),
        OSError(2, "no such file"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ZeroDivisionError(1, (2, {3}), Decimal("1.1"), None),
        Account.Closed("gone"),
        RecursionError("deep"),
    ],
    ids=repr,
)
def test_a_known_exception_arrives_as_itself(exc: Exception) -> None:
    """So that `except ValueError` works across the network as within a process."""
    arrived = across(exc)
    assert type(arrived) is type(exc)
    assert (arrived.args, str(arrived)) == (exc.args, str(exc))


def test_attributes_arrive_and_the_authors_init_does_not_run() -> None:
    """Its parameters are not its args: calling it again would fail or lie."""
    arrived = across(OutOfFunds("ann", Decimal("1.50")))
    assert isinstance(arrived, OutOfFunds)
    assert (str(arrived), arrived.who, arrived.lacking) == (
        "ann lacks 1.50",
        "ann",
        Decimal("1.50"),
    )
    assert not hasattr(arrived, "handle"), "what cannot travel stays behind"


def test_the_silos_traceback_comes_as_a_note() -> None:
    """It begins with the author's own code: what led there is Durum's."""
    [note] = across(ValueError("x")).__notes__
    assert note.startswith("On the silo:\nTraceback (most recent call last):\n")
    assert "in thrown\n    raise exc\nValueError: x" in note
    assert "durum/grains" not in note


def test_the_authors_own_notes_arrive_too() -> None:
    """They were added for whoever reads the exception."""
    exc = ValueError("x")
    exc.add_note("look at order 7")
    assert across(exc).__notes__[0] == "look at order 7"


@pytest.mark.parametrize(
    ("exc", "type_name"),
    [
        (asyncio.QueueFull("full"), "QueueFull"),
        (SystemExit(3), "SystemExit"),
        (StopAsyncIteration("x"), "StopAsyncIteration"),
        (ValueError(object()), "ValueError"),
        (type("Local", (Exception,), {})("x"), "Local"),
    ],
)
def test_what_the_caller_cannot_name_is_a_remote_error(exc: BaseException, type_name: str) -> None:
    """Importing a module because data names it would let a peer run code."""
    arrived = across(exc)
    assert type(arrived) is errors.RemoteError
    assert (arrived.type_name, arrived.did_run) == (type_name, DidRun.ROLLED_BACK)
    assert "Traceback" in arrived.traceback


def test_nothing_is_imported_by_a_name_from_data() -> None:
    """Not even what would be harmless."""
    forged = Failure(
        id=1,
        error="",
        did_run=DidRun.ROLLED_BACK,
        text="x",
        type_name="antigravity:Exception",
        args=untyped.encode([[], {}, []]),
    )
    assert type(failure.rebuild(forged, KIND)) is errors.RemoteError
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        values.encode(5),
        values.encode([[1], {}, [["builtins:ValueError"]]]),
        values.encode([[1], {"__class__": "x", "__dict__": 1}, []]),
        values.encode([["x"], {1: 2}, []]),
    ],
)
@pytest.mark.parametrize("name", ["builtins:ValueError", "builtins:ExceptionGroup", "builtins:int"])
def test_forged_arguments_do_no_harm(name: str, payload: bytes) -> None:
    """A caller survives whatever a broken silo answers."""
    forged = Failure(1, "", DidRun.ROLLED_BACK, "text", name, payload)
    arrived = failure.rebuild(forged, KIND)
    assert isinstance(arrived, ValueError | errors.RemoteError)


def test_an_error_of_durums_own_arrives_with_whether_it_ran() -> None:
    """What the router decides by."""
    arrived: Any = failure.rebuild(Failure(1, "Overloaded", DidRun.NO, "slow down"), KIND)
    assert (type(arrived), arrived.did_run, str(arrived)) == (
        errors.Overloaded,
        DidRun.NO,
        "slow down",
    )
    other = failure.rebuild(Failure(1, "DidRun", DidRun.MAYBE, "text"), KIND)
    assert (type(other), str(other)) == (errors.CallError, "DidRun: text")


def test_an_error_of_a_call_further_on_does_not_say_that_this_one_did_not_run() -> None:
    """Its did_run is "no"; passed on unchanged, the router would send this call again."""
    arrived = across(errors.Overloaded("the other grain is busy"))
    assert (type(arrived), arrived.did_run) == (errors.Overloaded, DidRun.ROLLED_BACK)


def test_a_remote_error_of_a_call_further_on_keeps_its_parts() -> None:
    """Three grains down is where the cause lies."""
    arrived = across(errors.RemoteError("text", "shop.Full", "Traceback ..."), DidRun.YES)
    assert (str(arrived), arrived.type_name, arrived.traceback, arrived.did_run) == (
        "shop.Full: text",
        "shop.Full",
        "Traceback ...",
        DidRun.YES,
    )


def test_a_group_arrives_with_its_members() -> None:
    """A TaskGroup in a method raises one, and `except*` should work."""
    group = ExceptionGroup(
        "two", [ValueError(1), OutOfFunds("x", Decimal(1)), asyncio.QueueEmpty("e")]
    )
    arrived = across(ExceptionGroup("outer", [group, KeyError("k")]))
    assert (arrived.message, len(arrived.exceptions)) == ("outer", 2)
    assert [type(each) for each in arrived.exceptions[0].exceptions] == [
        ValueError,
        OutOfFunds,
        errors.RemoteError,
    ]


def test_a_cause_is_shown_in_the_note() -> None:
    """What happened before is half of the explanation."""
    try:
        try:
            raise KeyError("inner")
        except KeyError as exc:
            raise ValueError("outer") from exc
    except ValueError as exc:
        arrived = failure.rebuild(failure.encode(exc, 1, DidRun.ROLLED_BACK), KIND)
    assert "KeyError: 'inner'" in arrived.__notes__[0]
    assert "direct cause" in arrived.__notes__[0]


def test_an_exception_whose_text_fails_arrives_all_the_same() -> None:
    """A broken __str__ must not leave the caller without an answer."""
    sent = failure.encode(thrown(Loud("x")), 1, DidRun.ROLLED_BACK)
    assert "RuntimeError" in sent.text
    assert isinstance(failure.rebuild(sent, KIND), Loud)


def test_long_texts_and_deep_tracebacks_are_cut() -> None:
    """An answer has to fit into a frame, whatever was raised."""

    def deep(levels: int) -> None:
        if levels == 0:
            raise ValueError("x" * 1_000_000)
        deep(levels - 1)

    with pytest.raises(ValueError, match="x") as caught:
        deep(200)
    sent = failure.encode(caught.value, 1, DidRun.ROLLED_BACK)
    assert len(values.encode_fast(sent)) < 200_000
    surrogate = failure.encode(thrown(ValueError("\ud800")), 1, DidRun.ROLLED_BACK)
    values.encode_fast(surrogate)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        ("RemoteError", (errors.RemoteError, "text", "shop:Full", "tb")),
        ("StoreUnavailable", (errors.StoreUnavailable, "text", None, None)),
    ],
)
def test_errors_with_parts_of_their_own_arrive_with_them(
    error: str, kept: tuple[object, ...]
) -> None:
    """A remembered reply may be one of them."""
    arrived = failure.rebuild(
        Failure(1, error, DidRun.ROLLED_BACK, "text", "shop:Full", b"", "tb"), KIND
    )
    parts = (getattr(arrived, "type_name", None), getattr(arrived, "traceback", None))
    assert (type(arrived), str(arrived), *parts) == kept


def test_a_group_that_is_too_large_or_too_deep_is_a_remote_error() -> None:
    """An answer stays small, whatever was raised."""
    wide = ExceptionGroup("wide", [ValueError(n) for n in range(100)])
    deep: Exception = ValueError(1)
    for _ in range(10):
        deep = ExceptionGroup("deep", [deep])
    assert type(across(wide)) is errors.RemoteError
    inner: Any = across(deep)
    while isinstance(inner, ExceptionGroup):
        inner = inner.exceptions[0]
    assert type(inner) is errors.RemoteError


def test_a_script_and_its_import_are_one_module() -> None:
    """A client that defines its kinds in `__main__` meets silos that imported the same file."""
    sent = failure.encode(thrown(OutOfFunds("x", Decimal(1))), 1, DidRun.ROLLED_BACK)
    sent.type_name = "__main__:OutOfFunds"
    assert isinstance(failure.rebuild(sent, KIND), OutOfFunds)


def test_known_types_are_those_of_the_kinds_modules() -> None:
    """Defined there or imported by name: what the author can see in the file."""
    module = types.ModuleType("shop_of_test")
    sys.modules[module.__name__] = module
    try:
        exec(
            "from durum.grains.actor import Actor\nfrom asyncio import QueueFull\n"
            "class Full(Exception): ...\nclass Shop(Actor): ...\n",
            module.__dict__,
        )
        known = failure.known_types(kind_of(module.Shop))
        assert {"shop_of_test:Full", "asyncio.queues:QueueFull", "builtins:KeyError"} <= set(known)
        assert not {"asyncio.queues:QueueEmpty", "builtins:StopIteration"} & set(known)
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize(
    ("exc", "expected", "did_run"),
    [
        (errors.StoreError("bad bytes"), errors.Rejected, DidRun.NO),
        (errors.NotServing("Account/a: a newer version"), errors.NotServing, DidRun.NO),
        (ValueError("x"), errors.RemoteError, DidRun.ROLLED_BACK),
        (errors.Overloaded("Account/a called Bank/b"), errors.Overloaded, DidRun.ROLLED_BACK),
    ],
)
def test_a_grain_that_cannot_be_activated_refuses_its_calls(
    exc: Exception, expected: type[Exception], did_run: DidRun
) -> None:
    """Only where no code of the author's has run may the router send the call again."""
    with pytest.raises(type(exc)) as caught:
        raise exc
    refused = failure.refused_activation(caught.value, ids.GrainId("Account/a"))
    assert (type(refused), refused.did_run) == (expected, did_run)
    assert "Account/a" in str(refused)
