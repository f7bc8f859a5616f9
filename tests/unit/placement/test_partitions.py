"""Who should own what: eligibility, and the table that clients get."""

from __future__ import annotations

import zlib

import pytest

from durum.ids import Address, SiloId, grain_id, silo_id
from durum.placement.partitions import NOBODY, Assignment, addresses, assignment, partition_of
from durum.placement.ring import RING_VERSION
from durum.views import SiloRow, Status, View

P = 64
SHOP = {"Cart": 1, "Account": 2}


def row(
    name: str,
    generation: int = 1,
    status: Status = Status.ACTIVE,
    weight: float = 1.0,
    kinds: dict[str, int] | None = None,
) -> SiloRow:
    return SiloRow(
        silo=silo_id(Address(f"{name}:7600"), generation),
        status=status,
        weight=weight,
        kinds=SHOP if kinds is None else kinds,
    )


def decide(*rows: SiloRow, ring: int = RING_VERSION) -> Assignment:
    return assignment(View(version=7, rows=rows), P, ring)


def owners(found: Assignment) -> set[SiloId]:
    return {silo for silo in found.owners if silo is not None}


def test_partition_of_a_grain_is_the_same_for_ever() -> None:
    """Data lies by this number: another formula would find nothing of what is stored."""
    grain = grain_id("Cart", "ann")
    assert partition_of(grain, 1024) == zlib.crc32(b"Cart/ann") % 1024 == 1018


def test_assignment_without_active_silos_has_no_owners() -> None:
    """Joining, leaving and dead silos own nothing; a leaving one gives everything away by this."""
    found = decide(
        row("a", status=Status.JOINING),
        row("b", status=Status.LEAVING),
        row("c", status=Status.DEAD),
    )
    assert found.silos == ()
    assert set(found.owners) == {None}
    assert not found.hosts("Cart")
    assert found.partitions_of(row("b").silo) == ()


def test_assignment_gives_nothing_to_a_silo_of_weight_zero() -> None:
    """Weight 0 is how an operator empties a silo."""
    a, b = row("a"), row("b", weight=0.0)
    found = decide(a, b)
    assert owners(found) == {a.silo}
    assert found.silos == (a.silo, b.silo)
    assert found.partitions_of(b.silo) == ()
    assert found.partitions_of(a.silo) == tuple(range(P))


@pytest.mark.parametrize("kinds", [{"Cart": 1}, {**SHOP, "Order": 1}, {"Cart": 2, "Account": 2}])
def test_assignment_gives_every_silo_its_share_whatever_it_hosts(kinds: dict[str, int]) -> None:
    """An owner finds a silo for what it does not host; so an upgrade moves partitions silo by silo."""
    old = row("b", generation=1)
    new = row("a", generation=2, kinds=kinds)
    assert owners(decide(new, old)) == {old.silo, new.silo}


def test_assignment_gives_nothing_to_a_silo_without_kinds() -> None:
    """A mere gateway could serve nothing of what it owned: every call would take one more step."""
    gateway = row("a", generation=1, kinds={})
    silo = row("b", generation=2)
    assert owners(decide(gateway, silo)) == {silo.silo}
    assert owners(decide(gateway)) == set()


@pytest.mark.parametrize(
    "kinds", [{"Cart": 1}, {**SHOP, "Order": 1}, {"Cart": 2, "Account": 2}, {}]
)
def test_ring_1_gives_nothing_to_a_silo_that_differs_from_the_oldest(
    kinds: dict[str, int],
) -> None:
    """Services that were created by it go on as they did: all silos of one must place alike."""
    old = row("b", generation=1)
    new = row("a", generation=2, kinds=kinds)
    assert owners(decide(new, old, ring=1)) == {old.silo}


def test_ring_1_follows_the_newer_silos_once_the_last_old_one_leaves() -> None:
    """A rolling upgrade ends with the new release owning all, without a word from anyone."""
    new = [row(name, generation=2, kinds={"Cart": 2}) for name in "ab"]
    leaving = row("c", generation=1, status=Status.LEAVING)
    assert owners(decide(*new, leaving, ring=1)) == {one.silo for one in new}


def test_ring_1_lets_no_weightless_silo_be_the_reference() -> None:
    """A gateway without kinds that happens to be the oldest would take everyone's partitions away."""
    gateway = row("a", generation=1, weight=0.0, kinds={})
    silo = row("b", generation=2)
    assert owners(decide(gateway, silo, ring=1)) == {silo.silo}


def test_assignment_prefers_the_newer_life_of_an_address() -> None:
    """A restarted silo may be active before the others have declared its older life dead."""
    old, new = row("a", generation=1), row("a", generation=2)
    for rows in ((old, new), (new, old)):
        assert owners(decide(*rows)) == {new.silo}


def test_assignment_gives_a_restarted_silo_what_it_had() -> None:
    """Otherwise each restart in a rolling upgrade would move two shares instead of one."""
    a, b, c, restarted = row("a"), row("b"), row("c"), row("b", generation=9)
    before, after = decide(a, b, c), decide(a, restarted, c)
    assert before.partitions_of(b.silo) == after.partitions_of(restarted.silo)
    assert before.partitions_of(a.silo) == after.partitions_of(a.silo)


def test_assignment_does_not_depend_on_the_order_of_rows() -> None:
    """Stores return rows in any order."""
    rows = [row(name) for name in "abcd"]
    assert decide(*rows) == decide(*rows[::-1])


def test_assignment_knows_which_kinds_are_hosted_by_owners() -> None:
    """Those of silos that own nothing are found by their records only."""
    odd = row("b", generation=2, kinds={"Order": 1}, weight=0.0)
    found = decide(row("a"), odd)
    assert found.hosts("Cart")
    assert not found.hosts("Order")
    assert found.kinds == (("Account", "Cart"), ("Order",))


def test_table_says_what_the_assignment_says() -> None:
    """Clients route by the table alone."""
    a, b, idle = row("a"), row("b"), row("c", weight=0.0)
    found = decide(a, b, idle)
    table = found.table()
    assert table.version == 7
    assert table.silos == ("a:7600", "b:7600", "c:7600")
    assert len(table.owners) == 2 * P
    assert addresses(table) == [silo.rpartition("@")[0] if silo else None for silo in found.owners]
    assert found.owner(0) in {a.silo, b.silo}
    assert int.from_bytes(table.owners[:2], "little") in {0, 1}


def test_table_of_nobody_has_no_addresses() -> None:
    """0xFFFF must never be taken for the number of a silo."""
    table = decide(row("a", weight=0.0)).table()
    assert table.owners == NOBODY.to_bytes(2, "little") * P
    assert addresses(table) == [None] * P
