"""What to take, whom to ask, and from when it may be served."""

from __future__ import annotations

import pytest

from durum import errors
from durum.ids import SiloId, Token
from durum.silo import takeover
from durum.silo.takeover import AT_ONCE, Plan, Standing
from durum.store.protocol import Owner
from durum.views import SiloRow, Status, View

ME, LIVE, DEAD, GONE, LEFT = (SiloId(f"{n}:1@1") for n in ("me", "live", "dead", "gone", "left"))
FENCED_AT = {DEAD: 50.0, GONE: 70.0, LEFT: 60.0, ME: 40.0}
VIEW = View(
    version=9,
    rows=(
        SiloRow(silo=ME, status=Status.ACTIVE),
        SiloRow(silo=LIVE, status=Status.LEAVING),
        SiloRow(silo=DEAD, status=Status.DEAD),
        SiloRow(silo=GONE, status=Status.DEAD, gone=True),
    ),
)


def owner(partition: int, silo: SiloId | None, token: bytes = b"t", epoch: int = 4) -> Owner:
    return Owner(partition=partition, silo=silo, epoch=epoch, token=Token(token), commits=7)


def plan(record: Owner | None, pruned: tuple[SiloId, ...] = ()) -> Plan:
    def holdoff(silo: SiloId) -> float:
        return takeover.waited_out(VIEW, silo, FENCED_AT.__getitem__, fast_failover=True)

    return takeover.plan([0], [record], Standing(ME, VIEW, pruned), holdoff)


def test_a_free_partition_is_taken_and_served_at_once() -> None:
    """Whoever released it had waited out its own hold-off first."""
    free = owner(0, None)
    assert plan(free) == Plan(takes=((free, AT_ONCE),))


def test_a_dead_silos_partition_is_served_after_its_lease() -> None:
    """It may still be answering reads."""
    taken = owner(0, DEAD)
    assert plan(taken) == Plan(takes=((taken, 50.0),))


def test_all_the_dead_are_waited_out_not_only_the_owner() -> None:
    """The owner may have died while it waited for another's lease itself, and be gone since."""
    taken = owner(0, GONE)
    assert plan(taken) == Plan(takes=((taken, 50.0),))


def test_ones_own_lost_take_counts_as_one_from_the_dead() -> None:
    """Its answer never came, and with it went from whom it was."""
    mine = owner(0, ME)
    assert plan(mine) == Plan(takes=((mine, 50.0),))


def test_a_live_holder_is_asked() -> None:
    """It finishes its turns first; also one that is leaving."""
    assert plan(owner(0, LIVE)) == Plan(asks={LIVE: (0,)})


def test_an_unknown_record_is_read_first() -> None:
    """A take needs the token it replaces."""
    assert plan(None) == Plan(unread=(0,))


def test_a_holder_that_the_view_does_not_list_may_be_newer_than_the_view() -> None:
    """Taken for dead, a silo that has just joined would serve side by side with us."""
    assert plan(owner(0, LEFT)) == Plan(strangers=(LEFT,))


def test_a_holder_known_to_be_pruned_is_dead() -> None:
    """Else its partitions would stay without an owner for ever."""
    left = owner(0, LEFT)
    assert plan(left, pruned=(LEFT,)) == Plan(takes=((left, 60.0),))


def test_partitions_of_one_holder_are_asked_for_together() -> None:
    """A thousand messages would say the same."""
    records = [owner(0, LIVE), owner(1, DEAD), owner(2, LIVE), owner(3, DEAD)]
    found = takeover.plan([0, 1, 2, 3], records, Standing(ME, VIEW), lambda _: 50.0)
    assert found.asks == {LIVE: (0, 2)}
    assert [record.partition for record, _ in found.takes] == [1, 3]


def test_nobody_is_spared_without_fast_failover() -> None:
    """A firewall that rejects can lie about who is gone."""
    at = takeover.waited_out(VIEW, GONE, FENCED_AT.__getitem__, fast_failover=False)
    assert at == 70.0


def test_nothing_is_waited_for_where_all_the_dead_are_gone() -> None:
    """This is what makes a kill -9 cost less than two seconds."""
    rows = tuple(row for row in VIEW.rows if row.silo != DEAD)
    view = View(version=9, rows=rows)
    at = takeover.waited_out(view, GONE, FENCED_AT.__getitem__, fast_failover=True)
    assert at == AT_ONCE


def test_a_missing_owner_record_is_data_loss() -> None:
    """Read as a partition nobody ever held, it would be served empty."""
    assert takeover.checked([owner(0, None), owner(1, ME)], 2)
    with pytest.raises(errors.DataLoss, match="1 owner records of 2"):
        takeover.checked([owner(1, ME)], 2)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (owner(0, ME), ""),
        (owner(0, LIVE, b"other", 5), ""),
        (owner(0, LIVE, b"other", 4), "its epoch is 4 under another token, 4 was held"),
    ],
)
def test_a_record_is_older_where_epochs_repeat_under_another_token(
    record: Owner, says: str
) -> None:
    """After a failover that lost writes, numbers come again, tokens never do."""
    assert takeover.regressed(record, 4, b"t", 7) == says


def test_a_record_is_older_where_commits_are_missing() -> None:
    """They were acknowledged."""
    says = "its commit counter is 7, 8 was seen"
    assert takeover.regressed(owner(0, ME), 4, b"t", 8) == says
