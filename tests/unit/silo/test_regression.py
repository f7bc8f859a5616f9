"""Whether a table is older than one read before."""

from __future__ import annotations

import pytest

from durum.ids import SiloId
from durum.silo.regression import lost
from durum.store.protocol import TableRead
from durum.views import SiloRow, Status, View

A, B = SiloId("a:1@1"), SiloId("b:1@1")


def read(version: int, rows: dict[SiloId, Status], beats: dict[SiloId, int]) -> TableRead:
    listed = tuple(SiloRow(silo=silo, status=status) for silo, status in rows.items())
    view = View(version=version, rows=listed)
    return TableRead(view=view, heartbeats=beats, time=0.0, identity="x")


BEFORE = read(5, {A: Status.ACTIVE, B: Status.DEAD}, {A: 10, B: 3})


@pytest.mark.parametrize(
    "after",
    [
        BEFORE,
        read(5, {B: Status.DEAD, A: Status.ACTIVE}, {A: 11, B: 3}),
        read(6, {A: Status.LEAVING, B: Status.DEAD}, {A: 10, B: 3}),
        read(6, {A: Status.ACTIVE}, {A: 10}),
        read(7, {B: Status.DEAD}, {B: 3}),
    ],
)
def test_a_later_table_has_lost_nothing(after: TableRead) -> None:
    """A false alarm halts every silo."""
    assert lost(BEFORE, after) == ""


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (read(4, {A: Status.ACTIVE}, {A: 10}), "its version is 4, 5 was seen"),
        (read(5, {A: Status.ACTIVE}, {A: 10}), "its rows differ at the same version 5"),
        (read(6, {B: Status.DEAD}, {B: 3}), f"the row of {A} is missing"),
        (
            read(6, {A: Status.ACTIVE, B: Status.ACTIVE}, {A: 10, B: 3}),
            f"{B} was dead and is active",
        ),
        (
            read(6, {A: Status.ACTIVE, B: Status.DEAD}, {A: 9, B: 3}),
            f"the heartbeat of {A} is 9, 10 was seen",
        ),
    ],
)
def test_what_an_older_table_has_lost_is_named(after: TableRead, says: str) -> None:
    """Built upon, it would bring dead silos back or forget votes."""
    assert lost(BEFORE, after) == says
