"""Durable fields: defaults, bytes and back, what other versions wrote."""

from __future__ import annotations

import datetime as dt
import enum
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durum import errors
from durum.grains.actor import Actor
from durum.grains.kind import kind_of
from durum.grains.state import field
from durum.wire import values

T = TypeVar("T")


class Colour(enum.Enum):
    RED = 1


@dataclass
class Line:
    name: str
    count: int = 1
    tags: list[str] = dataclass_field(default_factory=list)


class Account(Actor):
    balance: Decimal = Decimal(0)
    owner: str | None = None
    _cache: dict[str, int] = {}
    _hits = 0


class Cart(Actor, version=2):
    lines: list[Line] = []
    by_name: dict[str, Line] = {}
    seen: set[int] = set()
    colour: Colour = Colour.RED
    extra: dict[str, Any] = field(default_factory=lambda: {"new": True})
    size: int = field(default=7)


class Mixin:
    touched: int = 0


class Savings(Mixin, Account):
    rate: float = 0


def new(cls: type[Actor]) -> Any:
    return kind_of(cls).create("k", None)


def stored(**parts: Any) -> bytes:
    """A state as some version of a class wrote it."""
    version = parts.pop("version", 1)
    return values.encode({"": version, **parts})


def test_fields_are_annotated_public_attributes_of_all_bases_in_order() -> None:
    """What is durable has to be plain from reading the class."""
    assert kind_of(Savings).fields.names == ("balance", "owner", "touched", "rate")


def test_a_default_is_what_the_store_would_give_back() -> None:
    """An int in a float field would otherwise turn into a float at the first rollback."""
    assert type(new(Savings).rate) is float


def test_mutable_defaults_are_made_anew_for_each_grain() -> None:
    """A shared list would leak one customer's cart into another's."""
    one, other = new(Cart), new(Cart)
    one.lines.append(Line("x"))
    one.extra["a"] = 1
    one.seen.add(1)
    assert (other.lines, other.extra, other.seen) == ([], {"new": True}, set())


def test_underscore_defaults_are_made_anew_too_and_are_not_durable() -> None:
    """They are declared like fields, so they behave like fields, until the process ends."""
    one, other = new(Account), new(Account)
    one._cache["a"] = 1
    assert other._cache == {}
    assert b"cache" not in kind_of(Account).encode_state(one)


def test_a_mutable_default_leaves_nothing_on_the_class() -> None:
    """Changing Cart.lines by mistake would change all carts."""
    assert not hasattr(Cart, "lines")
    assert Account.balance == 0


def test_state_is_a_map_by_name_with_the_version() -> None:
    """Whoever looks into the store, and every later release, has to be able to read it."""
    assert values.decode_plain(kind_of(Account).encode_state(new(Account))) == {
        "": 1,
        "balance": "0",
        "owner": None,
    }


def test_restore_gives_back_what_was_encoded() -> None:
    """The whole point."""
    kind, cart, again = kind_of(Cart), new(Cart), new(Cart)
    cart.lines = [Line("a", 2, ["x"])]
    cart.by_name = {"a": Line("a", 2**70)}
    cart.seen = {1, 2**64}
    cart.extra = {"list": [1, {"deep": None}]}
    kind.restore(again, kind.encode_state(cart))
    assert {name: getattr(again, name) for name in kind.fields.names} == {
        name: getattr(cart, name) for name in kind.fields.names
    }


@given(st.decimals(allow_nan=False), st.none() | st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=100, deadline=None)
def test_any_state_survives(balance: Decimal, owner: str | None) -> None:
    """For all values, not for the ones that a test's author thinks of."""
    kind, one, other = kind_of(Account), new(Account), new(Account)
    one.balance, one.owner = balance, owner
    kind.restore(other, kind.encode_state(one))
    assert (other.balance, other.owner) == (balance, owner)


def test_restore_none_sets_defaults_and_leaves_underscore_attributes_alone() -> None:
    """So that a failed first turn leaves nothing behind, and the author's own stays the author's."""
    kind, account = kind_of(Account), new(Account)
    account.balance, account._hits = Decimal(5), 3
    kind.restore(account, None)
    assert (account.balance, account._hits) == (0, 3)


def test_restore_shares_no_object_with_what_was_encoded() -> None:
    """A rolled-back list that is the changed one would be no rollback."""
    kind, cart = kind_of(Cart), new(Cart)
    before = kind.encode_state(cart)
    cart.lines.append(Line("x"))
    kind.restore(cart, before)
    assert cart.lines == []


def test_unknown_fields_are_carried_verbatim_through_a_rewrite() -> None:
    """A newer silo's field must outlive a turn on an older one."""
    kind, account = kind_of(Account), new(Account)
    kind.restore(account, stored(balance="3", owner=None, limit=[1, {"x": b"\x00"}], big=2**80))
    account.balance += 1
    again = new(Account)
    kind.restore(again, kind.encode_state(account))
    written = values.decode_map(kind.encode_state(again))
    assert written["limit"] == values.encode([1, {"x": b"\x00"}])
    assert values.decode_plain(written["big"]) == 2**80
    assert written["balance"] == values.encode("4")


def test_carried_fields_do_not_outlive_the_state_they_came_with() -> None:
    """After a rollback to the defaults there is nothing to carry."""
    kind, account = kind_of(Account), new(Account)
    kind.restore(account, stored(balance="3", owner=None, limit=1))
    kind.restore(account, None)
    assert "limit" not in values.decode_map(kind.encode_state(account))


def test_missing_fields_take_their_defaults() -> None:
    """A class may grow a field without a migration."""
    kind, account = kind_of(Account), new(Account)
    account.owner = "old"
    kind.restore(account, stored(balance="3"))
    assert (account.balance, account.owner) == (3, None)


def test_a_newer_state_is_refused_and_changes_nothing() -> None:
    """Old code that writes over what it cannot read destroys it."""
    kind, account = kind_of(Account), new(Account)
    account.balance = Decimal(1)
    with pytest.raises(errors.NotServing, match="version 9 of the class, this silo has version 1"):
        kind.restore(account, stored(version=9, balance="3", owner=None))
    assert account.balance == 1


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\xc1garbage",
        values.encode([1, 2]),
        values.encode({"balance": "1"}),
        stored(balance="many", owner=None),
        stored(balance=None),
        stored(version="x"),
        kind_of(Account).encode_state(new(Account))[:-1],
    ],
)
def test_an_unreadable_state_is_a_store_error_and_changes_nothing(blob: bytes) -> None:
    """A corrupt record quarantines one grain; starting it afresh would hide the loss."""
    kind, account = kind_of(Account), new(Account)
    account.balance = Decimal(1)
    with pytest.raises(errors.StoreError, match="Account/k: its stored state cannot be read"):
        kind.restore(account, blob)
    assert account.balance == 1


@pytest.mark.parametrize(
    ("cls", "name", "value", "reason"),
    [
        (Account, "balance", "5", r"Account\.balance: invalid|Account\.balance"),
        (Account, "balance", 1.5j, r"Account\.balance: complex"),
        (Account, "owner", 5, r"Account\.owner: expected `str \| null`, got `int`"),
        (Account, "owner", "\ud800", r"Account\.owner: text with a lone surrogate"),
        (Cart, "lines", ["x"], r"Cart\.lines\[0\]: expected `object`, got `str`"),
        (Cart, "lines", [Line("x", "1")], r"Cart\.lines\[0\]\.count: expected `int`"),  # type: ignore[arg-type]
        (Cart, "seen", {"a"}, r"Cart\.seen\[0\]: expected `int`"),
        (Cart, "extra", {"a": (1,)}, r"Cart\.extra\['a'\]: a tuple would not come back"),
        (Cart, "size", True, r"Cart\.size: expected `int`, got `bool`"),
    ],
)
def test_a_field_that_could_not_be_read_again_fails_the_turn(
    cls: type[Actor], name: str, value: object, reason: str
) -> None:
    """Committed, it would be a grain that never activates again."""
    instance = new(cls)
    setattr(instance, name, value)
    if (name, value) == ("balance", "5"):
        assert b"5" in kind_of(cls).encode_state(instance)  # text that reads as a Decimal is one
        return
    with pytest.raises(TypeError, match=reason):
        kind_of(cls).encode_state(instance)


def test_a_deleted_field_fails_the_turn() -> None:
    """Leaving it out would read as its default later, which nobody asked for."""
    cart = new(Cart)
    del cart.lines
    with pytest.raises(TypeError, match=r"Cart\.lines was deleted"):
        kind_of(Cart).encode_state(cart)


def test_a_class_without_fields_is_not_durable() -> None:
    """It must cost no store access."""

    class Plain(Actor):
        LIMIT = 3

    assert (kind_of(Plain).durable, kind_of(Account).durable) == (False, True)


class Migrating(Actor, version=3):
    cents: int = 0
    since: dt.date | None = None

    def migrate_state(self, old: dict[str, Any], version: int) -> dict[str, Any]:
        if version < 2:
            old["cents"] = int(Decimal(old.pop("euros")) * 100)
        return old


def test_an_older_state_goes_through_migrate_state() -> None:
    """What defaults and carrying cannot do is the author's to write."""
    kind, instance = kind_of(Migrating), new(Migrating)
    kind.restore(instance, stored(euros="1.50", since="2024-05-01", other=1))
    assert (instance.cents, instance.since) == (150, dt.date(2024, 5, 1))
    written = values.decode_plain(kind.encode_state(instance))
    assert written == {"": 3, "cents": 150, "since": "2024-05-01", "other": 1}


def test_a_state_of_this_version_does_not_go_through_migrate_state() -> None:
    """It would be migrated twice."""
    kind, instance = kind_of(Migrating), new(Migrating)
    kind.restore(instance, kind.encode_state(instance))
    kind.restore(instance, stored(version=3, cents=1))
    assert instance.cents == 1


def test_migrate_state_that_returns_no_dict_or_wrong_values_is_an_error() -> None:
    """Better than a grain with half a state."""

    class Broken(Actor, version=2):
        size: int = 0

        def migrate_state(self, old: dict[str, Any], version: int) -> Any:
            return None if old["size"] == 0 else {"size": "x"}

    for size, reason in ((0, "return a dict"), (1, "field size: expected `int`")):
        with pytest.raises(errors.StoreError, match=reason):
            kind_of(Broken).restore(new(Broken), stored(size=size))


def test_fields_may_be_constrained_by_annotations() -> None:
    """msgspec's Meta is how its users say what a number may be."""

    class Stock(Actor):
        count: Annotated[int, msgspec.Meta(ge=0)] = 0

    stock = new(Stock)
    stock.count = -1
    with pytest.raises(TypeError, match=r"Stock\.count: expected `int` >= 0"):
        kind_of(Stock).encode_state(stock)


def test_a_generic_base_class_may_declare_fields() -> None:
    """Bases are how fields are shared between kinds."""

    class Box(Actor, Generic[T]):
        label: str = ""

    class IntBox(Box[int]):
        value: int = 0

    assert kind_of(IntBox).fields.names == ("label", "value")


@pytest.mark.parametrize(
    "given_", [{}, {"default": 1, "default_factory": list}, {"default_factory": 3}]
)
def test_field_takes_exactly_one_kind_of_default(given_: dict[str, Any]) -> None:
    """Anything else is a slip that would otherwise show much later."""
    with pytest.raises(errors.ConfigError):
        field(**given_)
