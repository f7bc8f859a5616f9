"""Placements as class keywords: what a class may say, and what becomes of it."""

from __future__ import annotations

import pytest

from durum import errors
from durum.config import SiloConfig
from durum.grains import placement
from durum.grains.actor import Actor
from durum.grains.kind import kind_of
from durum.grains.placement import LeastLoaded, OnSilos, PreferLocal, Random, StatelessWorker


class Cart(Actor, placement=PreferLocal()):
    items: list[str] = []

    async def add(self, item: str) -> None:
        self.items.append(item)


class Saved(Cart):
    pass


class Plain(Actor):
    async def ping(self) -> None: ...


class Spread(Cart, placement=Random()):
    pass


class Worker(Plain, placement=StatelessWorker()):
    pass


class Settled(Worker, placement=LeastLoaded()):
    pass


def test_a_placement_is_an_option_that_subclasses_inherit_or_replace() -> None:
    """All other class keywords are inherited; one that silently was not would move data's home."""
    assert kind_of(Cart).options.placement == PreferLocal()
    assert kind_of(Saved).options.placement == PreferLocal()
    assert kind_of(Spread).options.placement == Random()
    assert [kind_of(cls).placed for cls in (Cart, Saved, Plain, Spread, Worker)] == [
        *(True, True, False, True, False)
    ]
    assert kind_of(Settled).placed
    assert not kind_of(Settled).stateless


def test_calls_of_placed_kinds_do_not_go_by_the_hash() -> None:
    """It does not lead there: the way would be one too long each time."""
    assert kind_of(Plain).methods["ping"].by_hash
    assert not kind_of(Cart).methods["add"].by_hash
    assert not kind_of(Worker).methods["ping"].by_hash


@pytest.mark.parametrize("role", ["", "a b", "gpu,cpu", "x" * 65, 7, None])
def test_a_role_that_no_silo_can_have_is_refused(role: object) -> None:
    """Such a class could never be called, and the first to notice would be a caller after 30 s."""
    with pytest.raises(errors.ConfigError, match=r"OnSilos\(role="):
        OnSilos(role)  # type: ignore[arg-type]
    with pytest.raises(errors.ConfigError, match="roles must be"):
        SiloConfig(roles=(role,))  # type: ignore[arg-type]


def test_another_object_is_no_placement() -> None:
    """A class given in place of its instance is the likeliest mistake."""
    with pytest.raises(
        errors.ConfigError, match=r"Odd: placement=.*write PreferLocal\(\), Random\(\)"
    ):

        class Odd(Actor, placement=PreferLocal):  # type: ignore[arg-type]
            pass


@pytest.mark.parametrize("each", [PreferLocal(), Random(), LeastLoaded(), OnSilos("gpu")])
def test_a_placement_comes_back_from_a_silos_row(each: placement.Placement) -> None:
    """Silos that do not host a kind place its grains by what the rows of others say."""
    assert placement.read(placement.written(each)) == each


@pytest.mark.parametrize("text", ['{"type":"nearest_sun"}', "", '{"type":"on_silos","role":""}'])
def test_an_unknown_placement_is_any_silo(text: str) -> None:
    """A newer release's strategy must not make an older owner refuse its grains."""
    assert placement.read(text) == Random()
