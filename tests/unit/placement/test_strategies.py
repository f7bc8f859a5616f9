"""Which silo is chosen for a grain: who may be, and who of those."""

from __future__ import annotations

from collections import Counter

from durum.grains.placement import (
    WORKER,
    LeastLoaded,
    OnSilos,
    Placement,
    PreferLocal,
    Random,
    written,
)
from durum.ids import Address, SeededEntropy, SiloId, silo_id
from durum.placement.strategies import Asked, Loads, choose, offer, roles_of
from durum.views import SiloRow, Status, View


def row(
    name: str,
    version: int = 1,
    *,
    placement: Placement | str | None = None,
    generation: int = 1,
    status: Status = Status.ACTIVE,
    weight: float = 1.0,
    roles: tuple[str, ...] = (),
) -> SiloRow:
    text = placement if isinstance(placement, str) else placement and written(placement)
    return SiloRow(
        silo=silo_id(Address(f"{name}:7600"), generation),
        status=status,
        weight=weight,
        roles=roles,
        kinds={"Cart": version} if version else {},
        placements={"Cart": text} if text else {},
    )


def names(rows: tuple[SiloRow, ...]) -> list[str]:
    return sorted(row.silo.partition(":")[0] for row in rows)


def view(*rows: SiloRow) -> View:
    return View(version=3, rows=rows)


def candidates(*rows: SiloRow) -> list[str]:
    return names(offer(view(*rows), "Cart").candidates)


def counted(
    given: View, *, caller: SiloId | None = None, loads: Loads | None = None, times: int = 300
) -> Counter[str]:
    chance = SeededEntropy(3)
    found = offer(given, "Cart")
    asked = Asked(caller=caller, owner=given.rows[0].silo)
    chosen = (choose(found, asked, loads or Loads(), chance.fraction) for _ in range(times))
    return Counter("nobody" if silo is None else silo.partition(":")[0] for silo in chosen)


def test_only_active_silos_that_host_the_kind_are_candidates() -> None:
    """One that comes or goes would have to send it on at once."""
    rows = (
        row("a"),
        row("b", 0),
        row("c", status=Status.LEAVING),
        row("d", status=Status.JOINING),
        row("e", status=Status.DEAD),
    )
    assert candidates(*rows) == ["a"]
    assert counted(view(row("b", 0))) == {"nobody": 300}


def test_the_newest_class_is_preferred() -> None:
    """What it writes an older one cannot read; a newer one reads both."""
    assert candidates(row("a", 1), row("b", 3), row("c", 3), row("d", 2)) == ["b", "c"]


def test_the_newest_among_those_with_the_role_is_enough() -> None:
    """Grains of a role never were elsewhere, so nobody else's class has written them."""
    way = OnSilos("gpu")
    rows = (
        row("a", 2, placement=way),
        row("b", 1, placement=way, roles=("gpu", "eu")),
        row("c", 1, roles=("eu",)),
    )
    found = offer(view(*rows), "Cart")
    assert names(found.candidates) == ["b"]
    assert names(found.hosting) == ["a", "b", "c"]
    assert roles_of(view(*rows)) == ("eu", "gpu")


def test_a_role_nobody_has_leaves_no_candidate() -> None:
    """It is worth while to wait for one: the kind itself is hosted."""
    found = offer(view(row("a", placement=OnSilos("gpu"))), "Cart")
    assert found.candidates == ()
    assert len(found.hosting) == 1
    assert found.version == 0


def test_an_emptied_silo_is_no_candidate_unless_it_is_the_only_one_or_named() -> None:
    """Weight 0 is how an operator empties a silo; and how one with a role keeps out of all else."""
    assert candidates(row("a"), row("b", weight=0.0)) == ["a"]
    assert candidates(row("b", weight=0.0)) == ["b"]
    gpu = row("b", placement=OnSilos("gpu"), roles=("gpu",), weight=0.0)
    assert candidates(row("a", placement=OnSilos("gpu")), gpu) == ["b"]


def test_an_earlier_life_is_no_candidate() -> None:
    """It is dead, only not everybody has noticed."""
    found = offer(view(row("a", generation=1), row("a", generation=2)), "Cart")
    assert [each.silo for each in found.candidates] == ["a:7600@2"]


def test_the_newest_silo_says_how_its_kind_is_placed() -> None:
    """During an upgrade that changes it, old and new owners have to do the same."""
    assert offer(view(row("a")), "Cart").placement is None
    found = offer(view(row("a", generation=1), row("b", generation=2, placement=Random())), "Cart")
    assert found.placement == Random()
    found = offer(view(row("a", 2), row("b", 1, generation=2, placement=Random())), "Cart")
    assert found.placement is None
    assert offer(view(row("a", placement=WORKER)), "Cart").works
    assert not offer(view(row("a")), "Cart").works
    assert offer(view(row("a")), "Order").hosting == ()


def test_prefer_local_takes_the_caller_then_the_owner_then_any() -> None:
    """In that order a call crosses as little network as it can."""
    way = PreferLocal()
    a, b, c = (row(name, placement=way) for name in "abc")
    assert counted(view(a, b, c), caller=b.silo) == {"b": 300}
    assert counted(view(a, b, c)) == {"a": 300}
    other = row("x", 0)
    assert counted(view(a, b, c, other), caller=other.silo) == {"a": 300}
    assert set(counted(view(other, b, c), caller=other.silo)) == {"b", "c"}


def test_random_is_even() -> None:
    """No silo is the first one more often than others."""
    found = counted(view(*(row(name, placement=Random()) for name in "abcd")), times=4000)
    assert set(found) == set("abcd")
    assert min(found.values()) > 900


def test_of_two_the_less_loaded_is_taken_and_what_it_was_given_counts() -> None:
    """Loads are told every few seconds only: without counting, all would go to one silo in between."""
    rows = [row(name, placement=LeastLoaded()) for name in "abc"]
    loads = Loads()
    loads.learn({rows[0].silo: 50, rows[1].silo: 10}, {rows[0].silo: 1, rows[1].silo: 1})
    assert counted(view(*rows), loads=loads).keys() == {"b", "c"}
    chance = SeededEntropy(9)
    found = offer(view(*rows), "Cart")
    asked = Asked(caller=None, owner=rows[0].silo)
    for _ in range(90):
        silo = choose(found, asked, loads, chance.fraction)
        assert silo is not None
        loads.give(silo)
    after = {each.silo.partition(":")[0]: loads.of(each) for each in rows}
    assert max(after.values()) - min(after.values()) <= 3, after


def test_a_new_report_contains_what_was_given_before_it() -> None:
    """Counted twice, a silo that has just been given a thousand would get nothing for a while."""
    a, b = row("a"), row("b")
    loads = Loads()
    loads.learn({a.silo: 5, b.silo: 5}, {a.silo: 1, b.silo: 1})
    loads.give(a.silo)
    loads.give(b.silo)
    assert (loads.of(a), loads.of(b)) == (6, 6)
    loads.learn({a.silo: 6, b.silo: 5}, {a.silo: 2, b.silo: 1})
    assert (loads.of(a), loads.of(b)) == (6, 6)


def test_loads_are_seen_in_proportion_to_weight() -> None:
    """Twice the machine is half as loaded by the same."""
    heavy, none = row("a", weight=2.0), row("b", weight=0.0)
    loads = Loads()
    loads.learn({heavy.silo: 10, none.silo: 10}, {})
    assert (loads.of(heavy), loads.of(none)) == (5, 10)
