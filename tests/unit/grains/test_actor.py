"""The Actor base class, collecting kinds, and actors without a silo."""

from __future__ import annotations

import abc
import types
from decimal import Decimal
from typing import Any

import pytest

from durum import errors
from durum.grains.actor import Actor
from durum.grains.context import TurnContext
from durum.grains.kind import kind_of
from durum.grains.registry import kinds_in, register
from durum.grains.timers import Timer, TimerSpec
from durum.testing.actors import unhosted


class Account(Actor):
    balance: Decimal = Decimal(0)

    async def deposit(self, amount: Decimal) -> Decimal:
        self.balance += amount
        return self.balance

    async def pay(self, other: str) -> Decimal:
        await self.save()
        self.deactivate()
        return await self.actor(Account, other).deposit(Decimal(1))


class Host:
    """Records what an instance asks of its silo."""

    context = TurnContext(method="pay", request="r", caller=None, key="")

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def call(self, target: Any, method: Any, args: bytes, options: Any) -> bytes:
        self.asked.append(f"{target.grain}.{method.name}")
        return method.encode_result(Decimal(5))  # type: ignore[no-any-return]

    async def save(self) -> None:
        self.asked.append("save")

    def deactivate(self) -> None:
        self.asked.append("deactivate")

    def set_timer(self, spec: TimerSpec) -> Timer:
        self.asked.append(f"timer {spec.name} {spec.due_s:g}")
        return Timer(spec.name, None)


async def test_an_actor_reaches_its_silo_through_its_host() -> None:
    """Whatever an actor can do goes by this one port, which tests can stand in for."""
    host = Host()
    account: Account = kind_of(Account).create("ann", host)
    assert (account.key, account.context.request) == ("ann", "r")
    assert await account.pay("bob") == 5
    assert host.asked == ["save", "deactivate", "Account/bob.deposit"]


def test_an_actor_is_not_constructed() -> None:
    """Newcomers try; the message has the line to write instead."""
    with pytest.raises(TypeError, match=r"cluster\.actor\(Account, key\).*unhosted\(Account"):
        Account()


def test_the_key_cannot_be_assigned() -> None:
    """It is the grain's name, not its state."""
    with pytest.raises(AttributeError):
        unhosted(Account).key = "x"  # type: ignore[misc]


async def test_an_unhosted_actor_is_a_plain_object() -> None:
    """Methods are tested by calling them, without a silo and without a loop of ours."""
    account = unhosted(Account, "ann", balance=Decimal(5))
    assert await account.deposit(Decimal(10)) == 15
    assert (account.key, account.balance) == ("ann", Decimal(15))


async def test_an_unhosted_actor_refuses_calls_and_takes_a_stand_in() -> None:
    """A unit test says itself what the other actor answers."""
    account = unhosted(Account)
    with pytest.raises(errors.NoSuchKind, match="stand-in"):
        await account.pay("bob")
    other = unhosted(Account, "bob")
    account.actor = lambda *_: other  # type: ignore[method-assign, assignment]
    assert await account.pay("bob") == 1


def test_an_unhosted_actor_takes_fields_only() -> None:
    """A misspelt field would make the test meaningless."""
    with pytest.raises(TypeError, match="Account has no field balanse; it has: balance"):
        unhosted(Account, balanse=1)


def test_kinds_are_registered_by_name() -> None:
    """What a silo hosts is a plain mapping, made from what it was given."""

    class Other(Actor, kind="other"):
        pass

    assert {name: kind.cls for name, kind in register([Account, Other, Account]).items()} == {
        "Account": Account,
        "other": Other,
    }


def test_two_classes_of_one_name_are_refused() -> None:
    """Their data would lie under the same keys."""

    class Twin(Actor, kind="Account"):
        pass

    with pytest.raises(errors.ConfigError, match="both named 'Account'"):
        register([Account, Twin])


@pytest.mark.parametrize("thing", [int, "Account", Actor, unhosted(Account), None])
def test_only_actor_classes_can_be_registered(thing: Any) -> None:
    """Each is a slip that somebody makes."""
    with pytest.raises(errors.ConfigError, match="no Actor class"):
        register([thing])


def test_a_modules_kinds_are_what_it_defines_or_imports_by_name() -> None:
    """Abstract classes are there to derive from; Actor itself is none."""

    class Abstract(Actor, abc.ABC):
        @abc.abstractmethod
        async def run(self) -> None: ...

    class Concrete(Abstract):
        async def run(self) -> None: ...

    module = types.ModuleType("app")
    module.__dict__.update(
        Actor=Actor, Account=Account, again=Account, Abstract=Abstract, Concrete=Concrete, x=3
    )
    assert kinds_in(module) == [Account, Concrete]


def test_an_actors_own_attributes_are_not_among_the_authors() -> None:
    """vars(actor) is what the author wrote."""
    assert vars(unhosted(Account)) == {"balance": Decimal(0)}
