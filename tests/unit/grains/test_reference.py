"""Typed references: what a user holds in place of an actor."""

from __future__ import annotations

import copy
import inspect
import pickle
import zlib
from collections.abc import Awaitable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from durum import errors
from durum.grains.actor import Actor, read_only
from durum.grains.kind import kind_of
from durum.grains.method import Method
from durum.grains.reference import CallOptions, Target, options, reference
from durum.grains.streams import Source
from durum.wire import shapes, values


class Account(Actor):
    """A bank account."""

    balance: Decimal = Decimal(0)
    LIMIT = 3

    async def deposit(self, amount: Decimal, *, note: str = "") -> Decimal:
        """Put money in."""
        self.balance += amount
        return self.balance

    @read_only
    async def get_balance(self) -> Decimal:
        return self.balance

    async def timeout(self, target: str) -> str:
        return target

    def _secret(self) -> None: ...


class Other(Actor, kind="other"):
    async def ping(self) -> None: ...


class Recorder:
    """A caller that runs the method on the spot, and remembers what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Target, str, bytes, CallOptions]] = []

    async def call(
        self, target: Target, method: Method, args: bytes, options: CallOptions
    ) -> bytes:
        self.calls.append((target, method.name, args, options))
        instance = target.kind.create(target.key, None)
        return method.encode_result(await method.invoke(instance, args))

    def stream(self, target: Target, method: Method, args: bytes, options: CallOptions) -> Source:
        raise NotImplementedError


@pytest.fixture
def caller() -> Recorder:
    return Recorder()


@pytest.fixture
def alice(caller: Recorder) -> Account:
    return reference(caller, Account, "alice")


async def test_a_call_carries_target_method_and_arguments(caller: Recorder, alice: Account) -> None:
    """Everything a router needs, and nothing that it would have to look up."""
    assert await alice.deposit(Decimal(10), note="x") == 10
    [(target, method, args, how)] = caller.calls
    assert (target.grain, target.key, target.kind) == ("Account/alice", "alice", kind_of(Account))
    assert target.hash == zlib.crc32(b"Account/alice")
    assert (method, values.decode_plain(args)) == ("deposit", ["10", "x"])
    assert how == CallOptions(timeout_s=None, idempotency_key="")


async def test_nothing_is_sent_before_it_is_awaited(caller: Recorder, alice: Account) -> None:
    """A call is an ordinary coroutine: gather, wait_for and TaskGroup work with it."""
    coroutine = alice.deposit(Decimal(1))
    assert inspect.iscoroutine(coroutine)
    assert caller.calls == []
    coroutine.close()


async def test_arguments_are_written_when_it_is_awaited(caller: Recorder, alice: Account) -> None:
    """As with any coroutine; and what cannot be written is told there, with nothing sent."""
    coroutine = alice.deposit(object())  # type: ignore[arg-type]
    with pytest.raises(errors.ArgumentError, match=r"Account\.deposit: argument amount"):
        await coroutine
    assert caller.calls == []


def test_arguments_that_do_not_bind_fail_at_the_call_itself(alice: Account) -> None:
    """Not at the await, which may stand far away."""
    with pytest.raises(TypeError, match=r"Account\.deposit\(\) missing 1 required"):
        _ = alice.deposit()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'tip'"):
        _ = alice.deposit(Decimal(1), tip=2)  # type: ignore[call-arg]


async def test_wide_integers_and_named_arguments_pass(caller: Recorder) -> None:
    """The fast way does not know them; the call must not notice."""

    class Wide(Actor):
        async def same(self, number: int, *, other: int = 0) -> int:
            return number + other

    wide = reference(caller, Wide, "w")
    assert await wide.same(other=1, number=2**70) == 2**70 + 1


def test_too_large_arguments_are_refused(caller: Recorder, alice: Account) -> None:
    """They would not fit into a frame."""
    coroutine = alice.timeout("x" * 5_000_000)
    with pytest.raises(errors.ArgumentError, match="the limit is"):
        coroutine.send(None)


def test_a_field_is_refused_with_the_getter_to_write(alice: Account) -> None:
    """The type checker lets it through, so the message has to teach."""
    with pytest.raises(AttributeError, match="async def get_balance") as caught:
        _ = alice.balance
    assert caught.value.name == "balance"


@pytest.mark.parametrize("name", ["_secret", "LIMIT", "on_activate", "save", "key", "actor"])
def test_what_is_not_a_public_method_cannot_be_reached(alice: Account, name: str) -> None:
    """A reference is the public methods and nothing else."""
    with pytest.raises(AttributeError, match="is not a public method"):
        getattr(alice, name)


def test_an_unknown_method_is_answered_with_the_known_ones(alice: Account) -> None:
    """Most often it is a slip of the pen."""
    with pytest.raises(AttributeError, match="It has: deposit, get_balance, timeout"):
        alice.depositt()  # type: ignore[attr-defined]


def test_nothing_can_be_assigned_to_a_reference(alice: Account) -> None:
    """It would look like changing the actor, and change nothing."""
    for name in ("balance", "anything", "_x"):
        with pytest.raises(AttributeError, match="cannot be assigned from outside"):
            setattr(alice, name, 1)


def test_references_are_equal_by_kind_and_key(caller: Recorder, alice: Account) -> None:
    """They can be keys of a dict and members of a set."""
    again = reference(Recorder(), Account, "alice")
    assert {alice, again, options(alice, timeout=1)} == {alice}
    assert alice != reference(caller, Account, "bob")
    others: list[object] = [reference(caller, Other, "alice"), "Account/alice", Account]
    assert alice not in others
    assert repr(alice) == "<reference to Account 'alice'>"


def test_a_reference_of_a_kind_with_a_name_uses_it(caller: Recorder) -> None:
    """Data lies under the kind's name, not the class's."""
    assert repr(reference(caller, Other, "x")) == "<reference to other 'x'>"


def test_one_class_of_references_is_written_for_each_kind(caller: Recorder) -> None:
    """Writing one takes milliseconds; and a derived kind must not get its base's."""

    class Derived(Account):
        async def more(self) -> None: ...

    assert type(reference(caller, Account, "a")) is type(reference(caller, Account, "b"))
    assert "more" in dir(reference(caller, Derived, "d"))


async def test_an_unpickled_reference_says_what_to_do(alice: Account) -> None:
    """It travels by kind and key; which cluster it belongs to cannot."""
    again = pickle.loads(pickle.dumps(alice))
    assert again == alice
    with pytest.raises(errors.ArgumentError, match=r"cluster\.actor\(Account, 'alice'\)"):
        await again.get_balance()


def test_copies_of_a_reference_are_itself(alice: Account) -> None:
    """Copying an object that holds one must not unbind it."""
    assert copy.copy(alice) is alice
    assert copy.deepcopy([alice])[0] is alice


def test_a_reference_is_no_argument(alice: Account) -> None:
    """The key is what travels; the message says so."""
    with pytest.raises(shapes.Misfit, match=r"pass the grain's key"):
        values.encode([alice])


def test_methods_keep_their_names_and_docs(alice: Account) -> None:
    """help() and notebooks show them."""
    assert alice.deposit.__doc__ == "Put money in."
    assert alice.deposit.__qualname__ == "Account.deposit"
    assert str(inspect.signature(alice.deposit)) == "(amount, *, note='')"
    assert type(alice).__doc__ == "A bank account."


@pytest.mark.parametrize("key", ["", "x" * 1025, 7, None, "\ud800"])
def test_a_key_that_is_none_is_refused(caller: Recorder, key: Any) -> None:
    """Before any call is made."""
    with pytest.raises(errors.ArgumentError, match="key"):
        reference(caller, Account, key)


async def test_options_make_another_reference(caller: Recorder, alice: Account) -> None:
    """The one given stays as it is, and options add up."""
    slow = options(alice, timeout=timedelta(seconds=90))
    once = options(slow, idempotency_key="k")
    await once.get_balance()
    await slow.get_balance()
    await alice.get_balance()
    assert [how for *_, how in caller.calls] == [
        CallOptions(90.0, "k"),
        CallOptions(90.0, ""),
        CallOptions(None, ""),
    ]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"timeout": 0}, "timeout: 0 is no positive number"),
        ({"timeout": -1.5}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": "2"}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": timedelta(0)}, "timeout"),
        ({"idempotency_key": ""}, "1 to 256 characters"),
        ({"idempotency_key": "x" * 257}, "1 to 256 characters"),
        ({"idempotency_key": 7}, "1 to 256 characters"),
    ],
)
def test_an_option_out_of_its_range_is_refused(
    alice: Account, given: dict[str, Any], reason: str
) -> None:
    """At once, and not by a silo later."""
    with pytest.raises(errors.ArgumentError, match=reason):
        options(alice, **given)


def test_options_are_for_references(alice: Account) -> None:
    """A bound method or a class is an easy slip."""
    for thing in (Account, alice.deposit, "alice"):
        with pytest.raises(errors.ArgumentError, match="expected a reference"):
            options(thing, timeout=1)


async def test_a_result_that_does_not_fit_is_an_error_of_the_call(alice: Account) -> None:
    """It ran, and who repeats it should know that."""

    class Liar:
        def call(self, *call: Any) -> Awaitable[bytes]:
            async def answer() -> bytes:
                return values.encode([1])

            return answer()

        def stream(self, *call: Any) -> Source:
            raise NotImplementedError

    with pytest.raises(errors.CallError, match="it ran") as caught:
        await reference(Liar(), Account, "a").get_balance()
    assert caught.value.did_run is errors.DidRun.YES
