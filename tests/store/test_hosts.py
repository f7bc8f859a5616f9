"""What every store promises of grains that have a host of their own: one host, and a fence around it."""

from __future__ import annotations

import pytest

from durum import errors
from durum.ids import GrainId, SiloId, Token, hosted_grain, hosted_token
from durum.store.host_table import Host, Hosted
from durum.store.protocol import Committed, Record
from tests.support.services import ALICE, BOB, ENTROPY, OTHER, SILO, Service, commit


def fresh(grain: GrainId = ALICE, silo: SiloId = SILO) -> Host:
    """A host record that nobody ever had."""
    return Host(silo, hosted_token(ENTROPY.token(), grain))


async def placed(
    service: Service, grain: GrainId = ALICE, partition: int = 0
) -> tuple[Token, Host]:
    """Hold a partition and place a grain of it."""
    token, host = await service.hold(partition), fresh(grain)
    assert await service.store.place(partition, token, grain, seen=None, host=host) == host
    return token, host


def test_hosted_token_names_its_grain() -> None:
    """By its length a store tells which record to compare, by its end which grain's."""
    token = hosted_token(Token(b"x" * 16), GrainId("Caf\u00e9/\0"))
    assert hosted_grain(token) == "Caf\u00e9/\0"
    assert hosted_grain(Token(b"x" * 16)) is None


async def test_grain_has_no_host_until_it_is_placed(service: Service) -> None:
    """The plain path: placed, found, let go."""
    store, token = service.store, await service.hold()
    assert await store.find_host(0, ALICE) is None
    host = fresh()
    assert await store.place(0, token, ALICE, seen=None, host=host) == host
    assert await store.find_host(0, ALICE) == host
    assert await store.find_host(0, BOB) is None
    assert await store.find_host(1, ALICE) is None
    assert await store.place(0, token, ALICE, seen=host.token, host=None) is None
    assert await store.find_host(0, ALICE) is None


async def test_placing_needs_the_record_seen(service: Service) -> None:
    """Two calls may be placed at once: the second must learn of the first one's host."""
    store, (token, host) = service.store, await placed(service)
    other = fresh(silo=OTHER)
    assert await store.place(0, token, ALICE, seen=None, host=other) == host
    assert await store.place(0, token, ALICE, seen=fresh().token, host=other) == host
    assert await store.place(0, token, ALICE, seen=fresh().token, host=None) == host
    assert await store.place(0, token, ALICE, seen=host.token, host=other) == other
    assert await store.find_host(0, ALICE) == other


async def test_placing_sent_again_finds_itself_done(service: Service) -> None:
    """Its answer was lost: also after the owner changed, it must not place once more, or say no."""
    store, (token, host) = service.store, await placed(service)
    await service.hold()
    assert await store.place(0, token, ALICE, seen=None, host=host) == host
    assert await store.place(0, host.token, ALICE, seen=host.token, host=None) is None
    assert await store.place(0, host.token, ALICE, seen=host.token, host=None) is None


async def test_placing_under_an_earlier_token_is_superseded(service: Service) -> None:
    """A silo that was paused while another took over must not move grains."""
    store, (token, host) = service.store, await placed(service)
    await service.hold()
    for wanted in (fresh(), None):
        with pytest.raises(errors.Superseded):
            await store.place(0, token, ALICE, seen=host.token, host=wanted)
    with pytest.raises(errors.Superseded):
        await store.place(0, token, BOB, seen=None, host=fresh(BOB))
    assert await store.find_host(0, ALICE) == host
    assert await store.find_host(0, BOB) is None


async def test_host_lets_go_of_its_own_grain_only(service: Service) -> None:
    """And of no other's, nor of what it hosts no longer."""
    store, (token, host) = service.store, await placed(service)
    bobs = fresh(BOB)
    await store.place(0, token, BOB, seen=None, host=bobs)
    with pytest.raises(errors.Superseded):
        await store.place(0, host.token, BOB, seen=bobs.token, host=None)
    after = fresh(silo=OTHER)
    await store.place(0, token, ALICE, seen=host.token, host=after)
    with pytest.raises(errors.Superseded):
        await store.place(0, host.token, ALICE, seen=after.token, host=None)
    assert await store.place(0, after.token, ALICE, seen=after.token, host=None) is None


async def test_placing_without_an_owner_record_is_data_loss(service: Service) -> None:
    """Missing must never read as free, for whichever token, and however little is to do."""
    token, host = await service.hold(), fresh()
    for asked, under in ((host, token), (None, token), (None, host.token)):
        with pytest.raises(errors.DataLoss):
            await service.store.place(99, under, ALICE, seen=None, host=asked)
    for operation in (
        service.store.load(99, host.token, ALICE),
        service.store.verify(99, host.token),
        service.store.commit(commit(host.token, partition=99)),
    ):
        with pytest.raises(errors.DataLoss):
            await operation


async def test_placing_takes_only_tokens_of_the_grain(service: Service) -> None:
    """Another one could never be compared."""
    token = await service.hold()
    for seen, host in ((token, None), (None, Host(SILO, token)), (None, fresh(BOB))):
        with pytest.raises(errors.DurumBug):
            await service.store.place(0, token, ALICE, seen=seen, host=host)


async def test_host_does_everything_under_its_token(service: Service) -> None:
    """Where a grain has a host, the host is to it what the owner is to the others."""
    store, (owners, host) = service.store, await placed(service)
    token, key = host.token, b"k" * 16
    assert await store.load(0, token, ALICE) == Record(version=0, state=None)
    once = commit(token, state=b"one")
    assert await store.commit(once) == Committed(1, 1)
    assert await store.commit(once) == Committed(1, 1)
    await store.commit(commit(owners, grain=BOB))
    again = commit(token, version=1, replies={key: b"r"}, state=None)
    assert await store.commit(again) == Committed(2, 3)
    with_parts = commit(token, version=2, parts={b"p": b"1"}, state=None)
    assert await store.commit(with_parts) == Committed(3, 4)
    assert await store.load(0, token, ALICE) == Record(version=3, state=b"one")
    assert await store.replies(0, token, ALICE) == {key: b"r"}
    assert await store.load_parts(0, token, ALICE, [b"p"]) == {b"p": b"1"}
    assert await store.scan_parts(0, token, ALICE, b"", b"", 9) == [(b"p", b"1")]
    await store.verify(0, token)
    assert await store.load(0, token, ALICE, raise_version=True) == Record(version=4, state=b"one")
    with pytest.raises(errors.Superseded):
        await store.commit(commit(token, version=3))
    assert await store.erase(0, token, ALICE, 4, keep_s=9) == Committed(5, 5)
    assert await store.scan(0, "", "", 9) == [BOB]


async def test_host_keeps_its_grain_when_the_partition_changes_hands(service: Service) -> None:
    """Its activation does not follow the partition: the host goes on."""
    store, (_, host) = service.store, await placed(service)
    await store.commit(commit(host.token, state=b"one"))
    await service.hold(silo=OTHER)
    assert await store.commit(commit(host.token, version=1, state=b"two")) == Committed(2, 2)


async def every_operation_is_refused(service: Service, token: Token, grain: GrainId) -> None:
    """Whatever comes under this token changes and learns nothing."""
    store = service.store
    for operation in (
        lambda: store.load(0, token, grain),
        lambda: store.load(0, token, grain, raise_version=True),
        lambda: store.replies(0, token, grain),
        lambda: store.load_parts(0, token, grain, [b"p"]),
        lambda: store.scan_parts(0, token, grain, b"", b"", 9),
        lambda: store.commit(commit(token, grain=grain)),
        lambda: store.commit(commit(token, grain=grain, replies={b"k" * 16: b"r"}, state=None)),
        lambda: store.commit(commit(token, grain=grain, parts={b"p": b"1"})),
        lambda: store.erase(0, token, grain, 0, keep_s=9),
    ):
        with pytest.raises(errors.Superseded):
            await operation()


async def test_host_that_was_replaced_is_fenced(service: Service) -> None:
    """However late it wakes up: the promise that two activations never both commit."""
    store, (token, host) = service.store, await placed(service)
    await store.place(0, token, ALICE, seen=host.token, host=fresh(silo=OTHER))
    await every_operation_is_refused(service, host.token, ALICE)
    with pytest.raises(errors.Superseded):
        await store.verify(0, host.token)


async def test_host_that_let_go_is_fenced(service: Service) -> None:
    """Also where nobody hosts the grain after it."""
    store, (_, host) = service.store, await placed(service)
    await store.place(0, host.token, ALICE, seen=host.token, host=None)
    await every_operation_is_refused(service, host.token, ALICE)
    with pytest.raises(errors.Superseded):
        await store.verify(0, host.token)


async def test_hosted_token_is_good_for_its_grain_only(service: Service) -> None:
    """A host serves one grain, not the partition; and not what somebody else hosts."""
    store, (token, host) = service.store, await placed(service)
    await every_operation_is_refused(service, host.token, BOB)
    await store.place(0, token, BOB, seen=None, host=fresh(BOB))
    await every_operation_is_refused(service, host.token, BOB)


async def test_owner_cannot_load_what_somebody_hosts(service: Service) -> None:
    """Nothing is served twice: the owner learns who has it."""
    store, (token, host) = service.store, await placed(service)
    for raises in (False, True):
        with pytest.raises(Hosted) as caught:
            await store.load(0, token, ALICE, raise_version=raises)
        assert (caught.value.grain, caught.value.host) == (ALICE, host)
    assert (await store.load(0, token, BOB)).version == 0
    assert (await store.load(0, host.token, ALICE)).version == 0
    await store.place(0, token, ALICE, seen=host.token, host=None)
    assert (await store.load(0, token, ALICE)).version == 0


async def test_stale_owner_learns_nothing_of_hosts(service: Service) -> None:
    """Its token comes first: it has to go, not to send calls on."""
    old, _ = await placed(service)
    await service.hold()
    with pytest.raises(errors.Superseded) as caught:
        await service.store.load(0, old, ALICE)
    assert not isinstance(caught.value, Hosted)


async def test_hosts_of_hostile_grains_never_alias(service: Service) -> None:
    """Tokens and keys hold the grain's bytes as they are."""
    store, token = service.store, await service.hold()
    keys = ("{0}", "}{", "a:b", "nul\0", "nul", "caf\u00e9", "cafe\u0301", "own", "\U0001f40a")
    hosts = {grain: fresh(grain) for grain in (GrainId(f"K/{key}") for key in keys)}
    for grain, host in hosts.items():
        await store.place(0, token, grain, seen=None, host=host)
    for grain, host in hosts.items():
        assert await store.find_host(0, grain) == host
        assert (await store.commit(commit(host.token, grain=grain))).version == 1
