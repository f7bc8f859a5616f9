"""Which silos may join, which may not, and which get no partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

import durum
from durum import errors
from durum.cli import exits
from durum.errors import DidRun
from durum.store.protocol import Genesis
from durum.views import Status
from tests.support.fleet import APP, Fleet, keys_at
from tests.support.grains import Counter, Echo
from tests.support.servers import Server
from tests.support.stores import StartServer

SECRET = "correct-horse-battery-staple"
OTHER = "another-horse-another-staple"


# One address, two silos ---------------------------------------------------------------------------


async def test_second_silo_at_an_address_is_refused_while_the_first_lives(
    sqlite_fleet: Fleet,
) -> None:
    """A copied configuration file. Both active would mean calls that go to the wrong one."""
    fleet = sqlite_fleet
    (first,) = await fleet.started(1)
    ended = await fleet.refused("--advertise", first.first_line["address"])
    assert ended.code == exits.CONFIG
    assert "--advertise" in ended.err
    assert ended.out == ""
    assert await fleet.status(first) is Status.ACTIVE
    async with fleet.connect() as cluster:
        assert await cluster.actor(Counter, "one").add(1) == 1


async def test_two_that_start_at_once_at_an_address_do_not_both_serve(sqlite_fleet: Fleet) -> None:
    """The race of the same mistake: at most one is active at any time, whoever comes first."""
    fleet = sqlite_fleet
    await fleet.create()
    started = await asyncio.gather(
        *(fleet.start(1, "--advertise", "127.0.0.1:1") for _ in range(2)), return_exceptions=True
    )
    serving = [one for one in started if isinstance(one, list)]
    assert len(serving) >= 1, started
    active = (await fleet.view()).active
    assert len(active) == 1


async def test_silo_replaces_a_dead_one_at_its_address(sqlite_fleet: Fleet) -> None:
    """A supervisor restarts what was killed; the new life declares the old one dead."""
    fleet = sqlite_fleet
    (old,) = await fleet.started(1)
    async with fleet.connect() as cluster:
        await cluster.actor(Counter, "one").add(1)
    await fleet.kill(old)
    address = old.first_line["address"]
    (new,) = await fleet.start(1, "--listen", address)
    assert new.first_line["address"] == address
    assert new.first_line["silo"] != old.first_line["silo"]
    assert await fleet.status(old) is Status.DEAD
    async with fleet.connect() as cluster:
        assert await cluster.actor(Counter, "one").get() == 1


async def test_taken_port_is_78(sqlite_fleet: Fleet) -> None:
    """Not a traceback, and not a try for ever."""
    fleet = sqlite_fleet
    (first,) = await fleet.started(1)
    ended = await fleet.refused("--listen", first.first_line["address"])
    assert ended.code == exits.CONFIG, ended.err
    assert "Traceback" not in ended.err


# Kinds and versions -------------------------------------------------------------------------------


async def test_silo_without_a_kind_has_its_actors_hosted_by_another(sqlite_fleet: Fleet) -> None:
    """Half a deployment. An actor must never be placed where nobody can run it, whoever owns it."""
    fleet = sqlite_fleet
    (full,) = await fleet.started(1)
    (partial,) = await fleet.start(1, app=f"{APP}:Echo")
    assert partial.first_line["kinds"] == ["Echo"]
    await fleet.shared(2)
    async with fleet.connect(partial.first_line["address"]) as cluster:
        keys = [f"k{n}" for n in range(50)]
        for value in (1, 2):
            answers = await asyncio.gather(*(cluster.actor(Counter, key).add(1) for key in keys))
            assert answers == [value] * 50
        found = await asyncio.gather(*(cluster.admin.inspect(Counter, key) for key in keys))
        assert {one.silo for one in found} == {full.first_line["silo"]}
        assert await cluster.actor(Echo, "k").same("x") == "x"


async def test_state_of_a_newer_class_is_left_to_silos_that_have_it(sqlite_fleet: Fleet) -> None:
    """An older class must not meet a newer state, also where a rolling upgrade goes back and forth."""
    fleet = sqlite_fleet
    for version in (1, 2):
        (fleet.home / f"v{version}.py").write_text(
            f"import durum\n\n\nclass Counter(durum.Actor, version={version}):\n    value: int = 0\n\n"
            "    async def add(self, amount: int) -> int:\n        self.value += amount\n"
            f"        return self.value * {10**version}\n"
        )
    await fleet.create()
    await fleet.start(1, app="v1.py")
    (second,) = await fleet.start(1, app="v2.py")
    await fleet.shared(2)
    keys = [f"k{n}" for n in range(50)]
    async with fleet.connect() as cluster:
        answers = [await cluster.actor(Counter, key).add(1) for key in keys]
        assert set(answers) == {10, 100}, "each serves what it owns"
        await fleet.start(1, app="v2.py")
        await fleet.shared(3)
        fleet.terminate(second)
        await fleet.ended(second)
        await fleet.shared(2)
        again = [await cluster.actor(Counter, key).add(1) for key in keys]
    for before, after in zip(answers, again, strict=True):
        assert after == 200 if before == 100 else after in {20, 200}


async def test_kind_that_nobody_hosts_is_no_such_kind(sqlite_fleet: Fleet) -> None:
    """A typing error in a name is told at once, and not after a deadline."""
    fleet = sqlite_fleet
    await fleet.create()
    await fleet.start(2, app=f"{APP}:Echo")
    await fleet.shared(2)
    async with fleet.connect() as cluster:
        for key in ("a", "b", "c", "d"):
            with pytest.raises(errors.NoSuchKind) as caught:
                await durum.options(cluster.actor(Counter, key), timeout=120).add(1)
            assert caught.value.did_run is DidRun.NO


# Secrets and names --------------------------------------------------------------------------------


async def test_silo_with_the_wrong_secret_does_not_come_in(sqlite_fleet: Fleet) -> None:
    """Whoever can write to the store but lacks the secret must not take partitions and keep them."""
    fleet = sqlite_fleet
    await fleet.create()
    (right,) = await fleet.start(1, env={"DURUM_SECRET": SECRET})
    await fleet.shared(1)
    ended = await fleet.refused(env={"DURUM_SECRET": OTHER})
    assert ended.code == exits.CONFIG, ended.err
    assert "secret" in ended.err
    assert SECRET not in fleet.log() + ended.err
    assert await fleet.status(right) is Status.ACTIVE
    async with fleet.connect(secret=SECRET) as cluster:
        assert await cluster.actor(Counter, "one").add(1) == 1


async def test_secret_from_a_file_lets_silos_and_clients_in(sqlite_fleet: Fleet) -> None:
    """Two of them while a secret is changed, so that no moment is without a common one."""
    fleet = sqlite_fleet
    await fleet.create()
    for name, lines in (("old", [SECRET]), ("both", [OTHER, SECRET]), ("new", [OTHER])):
        (fleet.home / name).write_text("\n".join(lines) + "\n")
    await fleet.start(1, "--secret-file", "old")
    (rotating,) = await fleet.start(1, "--secret-file", "both")
    await fleet.shared(2)
    for secret in (SECRET, [OTHER, SECRET]):
        async with fleet.connect(secret=secret) as cluster:
            for number in range(8):
                await cluster.actor(Counter, f"k{number}").add(1)
    async with fleet.connect(rotating.first_line["address"], secret=OTHER) as cluster:
        key = next(keys_at(cluster, Counter, rotating))
        assert await cluster.actor(Counter, key).get() in (0, 2)


@pytest.mark.parametrize("secret", ["", OTHER], ids=["none", "wrong"])
async def test_client_without_the_secret_is_told_why(sqlite_fleet: Fleet, secret: str) -> None:
    """It fails at once and in words, and the cluster goes on."""
    fleet = sqlite_fleet
    await fleet.create()
    await fleet.start(1, env={"DURUM_SECRET": SECRET})
    with pytest.raises(errors.ClusterError, match="secret"):
        async with fleet.connect(secret=secret, connect_timeout_s=1.0):
            pass
    async with fleet.connect(secret=SECRET) as cluster:
        assert await cluster.actor(Counter, "one").add(1) == 1


async def test_client_of_another_cluster_is_told_why(sqlite_fleet: Fleet) -> None:
    """Staging's client at production's port."""
    (silo,) = await sqlite_fleet.started(1)
    with pytest.raises(errors.ClusterError, match="staging"):
        async with durum.connect(
            silo.first_line["address"], cluster="staging", connect_timeout_s=1.0
        ):
            pass


async def test_silo_of_another_cluster_is_78(sqlite_fleet: Fleet) -> None:
    """Its store holds another service: a file belongs to one."""
    fleet = sqlite_fleet
    await fleet.started(1)
    stranger = Fleet(fleet.home, fleet.store, "staging")
    ended = await stranger.refused()
    assert ended.code == exits.CONFIG, ended.err
    assert "default" in ended.err


async def test_silo_with_another_number_of_partitions_uses_the_services_own(
    sqlite_fleet: Fleet,
) -> None:
    """It was fixed when the service was created. Two silos that reckon with different numbers would look for
    one actor in two places.
    """
    fleet = sqlite_fleet
    (first,) = await fleet.started(1)
    other = durum.Silo([Counter], fleet.store, config=durum.SiloConfig(partitions=32))
    async with other, fleet.connect() as cluster:
        assert other.statistics().partitions == 1024
        assert [await cluster.actor(Counter, f"k{n}").add(1) for n in range(20)] == [1] * 20
    assert await fleet.status(first) is Status.ACTIVE


async def test_service_of_another_way_to_place_is_78(sqlite_fleet: Fleet) -> None:
    """A release that would put actors elsewhere than the others do must not begin."""
    fleet = sqlite_fleet
    async with fleet.opened() as store:
        await store.create(Genesis(mark="7" * 32, cluster="default", partitions=8, ring=99))
    ended = await fleet.refused()
    assert ended.code == exits.CONFIG, ended.err
    assert "ring version 99" in ended.err


# Stores -------------------------------------------------------------------------------------------


async def test_unsafe_store_settings_are_78_with_each_named(
    tmp_path: Path, start_server: StartServer
) -> None:
    """All at once: an operator who mends one and starts again should not meet the next."""
    server = start_server("valkey", "--appendonly", "yes", "--maxmemory-policy", "allkeys-lru")
    fleet = Fleet(tmp_path, server.url)
    await fleet.create()
    server.ask("REPLICAOF", "127.0.0.1", "1")
    ended = await fleet.refused()
    assert ended.code == exits.CONFIG, ended.err
    assert "maxmemory-policy" in ended.err
    assert "replica" in ended.err
    assert "Traceback" not in ended.err


async def test_store_that_cannot_be_reached_is_75(tmp_path: Path) -> None:
    """A supervisor tries again later; it is not a mistake in the configuration."""
    for url in ("redis://127.0.0.1:1/0", f"unix://{tmp_path}/nothing"):
        ended = await Fleet(tmp_path, url).refused()
        assert ended.code == exits.STORE, ended.err
        assert "Traceback" not in ended.err


async def test_service_that_was_never_created_is_78(
    tmp_path: Path, lasting_servers: Callable[[str], Server]
) -> None:
    """On a store that others share, nothing is created by starting a silo with a mistyped name."""
    fleet = Fleet(tmp_path, lasting_servers("valkey").url, "mistyped")
    ended = await fleet.refused()
    assert ended.code == exits.CONFIG, ended.err
    assert "durum init" in ended.err
    async with fleet.opened() as store:
        assert await store.genesis() is None
