"""What every store promises of a service's life, the membership table and owner records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from durum import errors
from durum.ids import SiloId
from durum.store.protocol import NEVER_OWNED, Genesis, Level, Store, Take
from durum.views import Status, Suspicion
from tests.support.services import ENTROPY, OTHER, SILO, Service, commit, row

NOT_OURS = "0" * 32


# -- genesis


async def test_new_store_has_no_genesis(store: Store) -> None:
    """None is for a store that never had one, and only `init` and `dev` may act on it."""
    assert await store.genesis() is None


async def test_create_writes_genesis_and_all_owner_records(store: Store) -> None:
    """All P records exist from the start, so that a missing one always means loss."""
    service = await Service.create(store, partitions=100)
    assert await store.genesis() == service.genesis
    owners = await store.owners(service.mark)
    assert [owner.partition for owner in owners] == list(range(100))
    for owner in owners:
        assert (owner.silo, owner.epoch, owner.token, owner.commits) == (None, 0, NEVER_OWNED, 0)
    table = await store.read_table(service.mark)
    assert (table.view.version, table.view.rows, table.heartbeats) == (0, (), {})


async def test_create_again_returns_the_genesis_in_effect_and_touches_nothing(
    service: Service,
) -> None:
    """Two silos may start at once on an empty store: one genesis wins, and nothing is reset."""
    token = await service.hold(2)
    later = Genesis(
        mark=ENTROPY.token().hex(), cluster=service.genesis.cluster, partitions=99, ring=7
    )
    assert await service.store.create(later) == service.genesis
    assert await service.store.genesis() == service.genesis
    owners = await service.store.owners(service.mark)
    assert [owner.token for owner in owners] == [NEVER_OWNED] * 2 + [token] + [NEVER_OWNED] * 5


async def test_creates_at_once_agree(store: Store) -> None:
    """Whoever comes second gets what the first wrote."""
    cluster = store._cluster  # type: ignore[attr-defined]
    wanted = [
        Genesis(mark=ENTROPY.token().hex(), cluster=cluster, partitions=16, ring=1)
        for _ in range(4)
    ]
    got = await asyncio.gather(*(store.create(one) for one in wanted))
    assert len({one.mark for one in got}) == 1
    assert len(await store.owners(got[0].mark)) == 16


async def test_every_operation_refuses_another_genesis(service: Service) -> None:
    """A store that was swapped under a running cluster is an outage, not a fresh start."""
    store = service.store
    await store.write_row(service.mark, row(), seen=None, version=0)
    for operation in (
        lambda: store.read_table(NOT_OURS),
        lambda: store.beat(NOT_OURS, SILO),
        lambda: store.owners(NOT_OURS),
        lambda: store.write_row(NOT_OURS, row(OTHER), seen=None, version=1),
        lambda: store.take(
            NOT_OURS, [Take(partition=0, seen=NEVER_OWNED, token=ENTROPY.token(), silo=SILO)]
        ),
    ):
        with pytest.raises(errors.DataLoss):
            await operation()
    assert (await store.owners(service.mark))[0].token == NEVER_OWNED


async def test_empty_store_is_data_loss_for_a_silo_that_knows_a_mark(store: Store) -> None:
    """Missing data must never read as version 0."""
    for operation in (
        lambda: store.read_table(NOT_OURS),
        lambda: store.beat(NOT_OURS, SILO),
        lambda: store.owners(NOT_OURS),
        lambda: store.write_row(NOT_OURS, row(), seen=None, version=0),
        lambda: store.take(
            NOT_OURS, [Take(partition=0, seen=NEVER_OWNED, token=ENTROPY.token(), silo=SILO)]
        ),
    ):
        with pytest.raises(errors.DataLoss):
            await operation()


async def test_durability_says_what_can_be_lost(store: Store) -> None:
    """A person decides on these words."""
    durability = await store.durability()
    assert durability.summary
    assert durability.unsafe == ()
    expected = Level.D2 if store.url.startswith("sqlite") else Level.D0
    assert durability.level == expected


async def test_url_and_repr_name_the_store(store: Store) -> None:
    """Every message names the store it is about."""
    assert store.url in repr(store)
    assert store.shared == (not store.url.startswith("memory"))


# -- membership


async def test_write_row_raises_the_version_with_the_row(service: Service) -> None:
    """Row and version change together, so views are totally ordered."""
    store = service.store
    full = row(
        weight=2.5,
        roles=("gpu", "eu"),
        kinds={"Account": 3, "Order": 1},
        web="127.0.0.1:80",
        host="mark",
        pid=7,
        suspicions=(Suspicion(by=OTHER, at=12.25, refused=True),),
        reason="why \u00e9",
    )
    assert await store.write_row(service.mark, full, seen=None, version=0) == 1
    table = await store.read_table(service.mark)
    assert table.view.version == 1
    assert table.view.rows == (full,)
    assert table.heartbeats == {SILO: 0}


async def test_loads_are_what_silos_told_last(service: Service) -> None:
    """Who places a grain looks at them; they go with the row."""
    store, mark = service.store, service.mark
    await store.write_row(mark, row(), seen=None, version=0)
    await store.write_row(mark, row(OTHER), seen=None, version=1)
    assert (await store.read_table(mark)).loads == {SILO: 0, OTHER: 0}
    for load in (7, 3):
        await store.beat(mark, SILO, load)
    await store.beat(mark, OTHER, load=2**40)
    table = await store.read_table(mark)
    assert table.loads == {SILO: 3, OTHER: 2**40}
    assert table.heartbeats == {SILO: 2, OTHER: 1}
    dead = row(status=Status.DEAD)
    await store.write_row(mark, dead, seen=row(), version=2)
    await store.beat(mark, SILO, 9)
    assert (await store.read_table(mark)).loads == {SILO: 3, OTHER: 2**40}
    await store.write_row(mark, dead, seen=dead, version=3)
    await store.write_row(mark, row(), seen=None, version=4)
    assert (await store.read_table(mark)).loads == {SILO: 0, OTHER: 2**40}


async def test_write_row_needs_the_seen_row_and_version(service: Service) -> None:
    """A vote on what has changed since would be a vote on something else."""
    store, mark = service.store, service.mark
    joining, active = row(), row(status=Status.ACTIVE)
    assert (
        await store.write_row(
            mark, joining, seen=joining.__class__(silo=SILO, status=Status.ACTIVE), version=0
        )
        is None
    )
    assert await store.write_row(mark, joining, seen=None, version=1) is None
    assert await store.write_row(mark, joining, seen=None, version=0) == 1
    assert await store.write_row(mark, joining, seen=None, version=1) is None
    assert await store.write_row(mark, active, seen=row(weight=9), version=1) is None
    assert await store.write_row(mark, active, seen=joining, version=0) is None
    assert await store.write_row(mark, active, seen=joining, version=1) == 2
    table = await store.read_table(mark)
    assert (table.view.version, table.view.rows) == (2, (active,))


async def test_lost_reply_of_write_row_reads_as_none_the_second_time(service: Service) -> None:
    """The row that is then read tells that the first one landed."""
    store, mark = service.store, service.mark
    assert await store.write_row(mark, row(), seen=None, version=0) == 1
    assert await store.write_row(mark, row(), seen=None, version=0) is None
    assert (await store.read_table(mark)).view.rows == (row(),)


async def test_one_of_many_writers_at_one_version_wins(service: Service) -> None:
    """Compare-and-set under contention."""
    silos = [SiloId(f"127.0.0.1:{7600 + n}@1") for n in range(20)]
    results = await asyncio.gather(
        *(service.store.write_row(service.mark, row(silo), seen=None, version=0) for silo in silos)
    )
    assert sorted(results, key=str) == [1] + [None] * 19
    assert len((await service.store.read_table(service.mark)).view.rows) == 1


async def test_dead_row_is_never_changed_and_only_removed(service: Service) -> None:
    """Dead is final: what others concluded from it must stay true."""
    store, mark = service.store, service.mark
    dead = row(status=Status.DEAD)
    await store.write_row(mark, dead, seen=None, version=0)
    for other in (row(status=Status.ACTIVE), row(status=Status.DEAD, gone=True)):
        assert await store.write_row(mark, other, seen=dead, version=1) is None
    assert await store.write_row(mark, dead, seen=dead, version=0) is None
    assert (await store.read_table(mark)).view.rows == (dead,)
    assert await store.write_row(mark, dead, seen=dead, version=1) == 2
    table = await store.read_table(mark)
    assert (table.view.version, table.view.rows, table.heartbeats) == (2, (), {})


async def test_live_row_is_not_removed(service: Service) -> None:
    """To write what is there already would remove it, which is for the dead only."""
    await service.store.write_row(service.mark, row(), seen=None, version=0)
    with pytest.raises(errors.DurumBug):
        await service.store.write_row(service.mark, row(), seen=row(), version=1)


async def test_beat_counts_and_does_not_raise_the_version(service: Service) -> None:
    """Heartbeats must not make every vote fail."""
    store, mark = service.store, service.mark
    active = row(status=Status.ACTIVE)
    await store.write_row(mark, active, seen=None, version=0)
    beats = [await store.beat(mark, SILO) for _ in range(3)]
    assert [beat.heartbeat for beat in beats] == [1, 2, 3]
    assert {(beat.status, beat.version) for beat in beats} == {(Status.ACTIVE, 1)}
    assert abs(beats[0].time - time.time()) < 5
    table = await store.read_table(mark)
    assert table.heartbeats == {SILO: 3}
    assert table.identity == beats[0].identity == beats[2].identity
    leaving = row(status=Status.LEAVING)
    await store.write_row(mark, leaving, seen=active, version=1)
    assert (await store.beat(mark, SILO)).heartbeat == 4


async def test_beat_of_the_dead_renews_nothing(service: Service) -> None:
    """A silo that was declared dead must learn it from its next renewal."""
    store, mark = service.store, service.mark
    active = row(status=Status.ACTIVE)
    await store.write_row(mark, active, seen=None, version=0)
    await store.beat(mark, SILO)
    await store.write_row(mark, row(status=Status.DEAD), seen=active, version=1)
    for _ in range(2):
        beat = await store.beat(mark, SILO)
        assert (beat.status, beat.heartbeat, beat.version) == (Status.DEAD, 1, 2)


async def test_beat_without_a_row_is_data_loss(service: Service) -> None:
    """A silo's row does not vanish while it lives."""
    with pytest.raises(errors.DataLoss):
        await service.store.beat(service.mark, SILO)


async def test_hints_come_after_a_change(service: Service) -> None:
    """They make a change known faster than polling; the kit asks for one within two seconds."""
    hints: AsyncIterator[None] = service.store.hints()
    first = asyncio.ensure_future(anext(hints))
    async with asyncio.timeout(5):
        # Some stores hint once at the start; write until a hint follows a write.
        for version in range(100):
            silo = SiloId(f"127.0.0.1:{7600 + version}@1")
            await service.store.write_row(service.mark, row(silo), seen=None, version=version)
            done, _ = await asyncio.wait([first], timeout=0.3)
            if done and version >= 1:
                break
            if done:
                first = asyncio.ensure_future(anext(hints))
    assert first.done()
    await hints.aclose()  # type: ignore[attr-defined]


# -- owner records


async def test_take_from_nobody(service: Service) -> None:
    """The first holding of a partition."""
    token = ENTROPY.token()
    take = Take(partition=3, seen=NEVER_OWNED, token=token, silo=SILO)
    (owner,) = await service.store.take(service.mark, [take])
    assert (owner.partition, owner.silo, owner.epoch, owner.token) == (3, SILO, 1, token)
    assert (await service.store.owners(service.mark))[3] == owner


async def test_take_needs_the_token_seen(service: Service) -> None:
    """Of two silos that both saw the same holder, one gets the partition."""
    token = await service.hold(0)
    for seen in (NEVER_OWNED, ENTROPY.token()):
        take = Take(partition=0, seen=seen, token=ENTROPY.token(), silo=OTHER)
        (owner,) = await service.store.take(service.mark, [take])
        assert (owner.silo, owner.token, owner.epoch) == (SILO, token, 1)


async def test_take_sent_again_succeeds_again(service: Service) -> None:
    """Its reply may have been lost; it must not count as another holding."""
    take = Take(partition=0, seen=NEVER_OWNED, token=ENTROPY.token(), silo=SILO)
    first = await service.store.take(service.mark, [take])
    assert await service.store.take(service.mark, [take]) == first


async def test_take_sent_again_after_it_was_overtaken_fails(service: Service) -> None:
    """A ghost of a take must not take the partition back."""
    take = Take(partition=0, seen=NEVER_OWNED, token=ENTROPY.token(), silo=SILO)
    await service.store.take(service.mark, [take])
    token = await service.hold(0, OTHER)
    (owner,) = await service.store.take(service.mark, [take])
    assert (owner.silo, owner.token, owner.epoch) == (OTHER, token, 2)


async def test_release_names_no_silo_and_fences_the_releaser(service: Service) -> None:
    """What the old holder still has on its way must not land after it let go."""
    old, released = await service.hold(0), ENTROPY.token()
    take = Take(partition=0, seen=old, token=released, silo=None)
    (owner,) = await service.store.take(service.mark, [take])
    assert (owner.silo, owner.token, owner.epoch) == (None, released, 2)
    with pytest.raises(errors.Superseded):
        await service.store.verify(0, old)
    take = Take(partition=0, seen=released, token=ENTROPY.token(), silo=OTHER)
    (owner,) = await service.store.take(service.mark, [take])
    assert (owner.silo, owner.epoch) == (OTHER, 3)


async def test_takes_succeed_or_fail_alone(service: Service) -> None:
    """Each is its own compare-and-set, and the answers are in order."""
    held = await service.hold(1)
    tokens = [ENTROPY.token() for _ in range(4)]
    takes = [
        Take(partition=partition, seen=NEVER_OWNED, token=token, silo=OTHER)
        for partition, token in zip((2, 1, 0, 7), tokens, strict=True)
    ]
    owners = await service.store.take(service.mark, takes)
    assert [owner.token for owner in owners] == [tokens[0], held, tokens[2], tokens[3]]
    assert [owner.partition for owner in owners] == [2, 1, 0, 7]


async def test_take_of_a_missing_record_is_data_loss(service: Service) -> None:
    """It must not be made up."""
    take = Take(partition=8, seen=NEVER_OWNED, token=ENTROPY.token(), silo=SILO)
    with pytest.raises(errors.DataLoss):
        await service.store.take(service.mark, [take])


async def test_take_with_an_empty_token_is_refused(service: Service) -> None:
    """It would be a holding that every silo has."""
    with pytest.raises(errors.DurumBug):
        await service.store.take(
            service.mark, [Take(partition=0, seen=NEVER_OWNED, token=NEVER_OWNED, silo=SILO)]
        )


async def test_taking_nothing_is_nothing(service: Service) -> None:
    """No partitions wanted, none taken."""
    assert list(await service.store.take(service.mark, [])) == []


async def test_take_keeps_the_commit_counter(service: Service) -> None:
    """It belongs to the partition, not to a holding."""
    token = await service.hold(0)
    await service.store.commit(commit(token))
    await service.hold(0, OTHER)
    assert (await service.store.owners(service.mark))[0].commits == 1
