"""A service taken out into a file, and into another service, while both run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import durum
from durum import errors
from durum.client import archive
from durum.client.client import Cluster
from durum.config import SiloConfig
from durum.silo.silo import Silo

_BIG = 1_200_000  # more than two slices


class Shelf(durum.Actor):
    """Something of everything that a record can hold."""

    books: int = 0
    blob: bytes = b""
    names: durum.Map[str, int] = durum.Map()

    async def put(self, count: int) -> int:
        self.books += count
        return self.books

    async def name(self, first: int, beyond: int) -> None:
        for number in range(first, beyond):
            self.names[f"name-{number:06}"] = number

    async def fill(self, size: int) -> None:
        self.blob = bytes(range(256)) * (size // 256)

    @durum.read_only
    async def look(self) -> tuple[int, bytes, int]:
        return self.books, self.blob, await self.names.count()

    @durum.read_only
    async def find(self, name: str) -> int | None:
        return await self.names.get(name)


class Other(durum.Actor):
    """Another kind."""

    books: int = 0

    async def put(self, count: int) -> int:
        self.books += count
        return self.books


class Clock(durum.Actor):
    """Rings once."""

    count: int = 0

    async def set(self, in_s: float) -> None:
        self.remind("ring", at=datetime.now(UTC) + timedelta(seconds=in_s))

    async def tell_later(self, in_s: float) -> None:
        other = self.actor(Other, self.key)
        self.tell(durum.options(other, delay=timedelta(seconds=in_s)).put, 7)

    async def stop(self) -> None:
        self.context.reminders.cancel("ring")

    @durum.read_only
    async def rung(self) -> int:
        return self.count

    async def on_reminder(self, name: str, tick: durum.Tick) -> None:
        self.count += 1


@pytest.fixture
async def source() -> AsyncIterator[Cluster]:
    async with Silo([Shelf, Other, Clock], "memory:") as silo, silo.connect() as cluster:
        yield cluster


@pytest.fixture
async def target() -> AsyncIterator[Cluster]:
    """Another service, with another number of partitions."""
    config = SiloConfig(partitions=7)
    async with (
        Silo([Shelf, Other, Clock], "memory:", config=config) as silo,
        silo.connect() as cluster,
    ):
        yield cluster


async def test_service_moves_to_another_number_of_partitions(
    source: Cluster, target: Cluster, tmp_path: Path
) -> None:
    """P is for ever, except by this way: states, collections and remembered replies come along."""
    for number in range(50):
        await source.actor(Shelf, f"s{number}").put(number + 1)
        await source.actor(Other, f"o{number}").put(number + 1)
    big = source.actor(Shelf, "big")
    await big.fill(_BIG)
    for start in range(0, 3000, 500):
        await big.name(start, start + 500)
    keyed = durum.options(source.actor(Shelf, "s1"), idempotency_key="once")
    assert await keyed.put(10) == 12

    told: list[int] = []
    done = await source.admin.export_to(
        tmp_path / "all.durum", told=lambda progress: told.append(progress.grains)
    )
    assert done.grains == done.total == 101
    assert told == list(range(1, 102))
    found = await target.admin.import_from(tmp_path / "all.durum")
    assert (found.grains, found.same, found.skipped) == (101, 0, [])

    assert await target.admin.count("Shelf") == 51
    for number in range(2, 50):
        assert (await target.actor(Shelf, f"s{number}").look())[0] == number + 1
    assert await target.actor(Shelf, "big").look() == await big.look()
    assert await target.actor(Shelf, "big").find("name-002999") == 2999
    again = durum.options(target.actor(Shelf, "s1"), idempotency_key="once")
    assert await again.put(10) == 12
    assert await target.actor(Shelf, "s1").put(1) == 13


async def test_what_is_due_later_comes_along(
    source: Cluster, target: Cluster, tmp_path: Path
) -> None:
    """What is only set at the old place would never ring again at the new one."""
    await source.actor(Clock, "c").set(1.5)
    await source.actor(Clock, "d").tell_later(1.5)
    await source.admin.export_to(tmp_path / "f")
    await source.actor(Clock, "c").stop()
    await target.admin.import_from(tmp_path / "f")
    assert await target.actor(Clock, "c").rung() == 0
    async with asyncio.timeout(10):
        while await target.actor(Clock, "c").rung() == 0:
            await asyncio.sleep(0.02)
        while await target.actor(Other, "d").put(0) == 0:
            await asyncio.sleep(0.02)
    assert await target.actor(Other, "d").put(0) == 7
    assert await source.actor(Clock, "c").rung() == 0


async def test_import_can_be_run_again(source: Cluster, target: Cluster, tmp_path: Path) -> None:
    """Where it was interrupted, nobody wants to sort out by hand what is there already."""
    for number in range(5):
        await source.actor(Other, f"o{number}").put(number + 1)
    await source.admin.export_to(tmp_path / "f")
    await target.admin.import_from(tmp_path / "f")
    found = await target.admin.import_from(tmp_path / "f")
    assert (found.grains, found.same) == (5, 5)


async def test_what_differs_is_left_or_replaced_as_asked(
    source: Cluster, target: Cluster, tmp_path: Path
) -> None:
    """Nothing that the service has is overwritten unless that is said."""
    await source.actor(Other, "x").put(1)
    await source.actor(Other, "y").put(1)
    await source.admin.export_to(tmp_path / "f")
    await target.actor(Other, "x").put(50)
    with pytest.raises(errors.Rejected, match="Other/x is in the service already"):
        await target.admin.import_from(tmp_path / "f")
    assert (await target.admin.inspect(Other, "x")).active == "valid", (
        "it was disturbed for nothing"
    )
    skipped = await target.admin.import_from(tmp_path / "f", on_existing="skip")
    assert skipped.skipped == ["Other/x"]
    assert await target.actor(Other, "x").put(0) == 50
    await target.admin.import_from(tmp_path / "f", on_existing="replace")
    assert await target.actor(Other, "x").put(0) == 1
    with pytest.raises(errors.ArgumentError, match="write one of"):
        await target.admin.import_from(tmp_path / "f", on_existing="merge")  # type: ignore[arg-type]


async def test_grain_that_changes_all_the_time_is_copied_as_it_was_at_one_instant(
    source: Cluster, target: Cluster, tmp_path: Path
) -> None:
    """Else a long export of a busy service would hold grains that never were."""
    busy = source.actor(Shelf, "busy")
    await busy.fill(_BIG)
    over = False

    async def keep_busy() -> None:
        number = 0
        while not over:
            await busy.name(number, number + 1)  # the count of books follows that of names
            await busy.put(1)
            number += 1

    task = asyncio.create_task(keep_busy())
    try:
        await source.admin.export_to(tmp_path / "f")
    finally:
        over = True
        await task
    await target.admin.import_from(tmp_path / "f")
    books, blob, names = await target.actor(Shelf, "busy").look()
    assert names - books in {0, 1}
    assert blob == (await busy.look())[1]


async def test_only_some_grains(source: Cluster, target: Cluster, tmp_path: Path) -> None:
    """One kind, or a part of it."""
    await source.actor(Other, "eu-1").put(1)
    await source.actor(Other, "us-1").put(1)
    await source.actor(Shelf, "eu-1").put(1)
    await source.admin.export_to(tmp_path / "f", prefix="Other/eu-")
    assert (await target.admin.import_from(tmp_path / "f")).grains == 1
    assert await target.admin.count("Other") == 1


async def test_damaged_file_is_known_before_anything_is_written(
    source: Cluster, target: Cluster, tmp_path: Path
) -> None:
    """Cut, changed, or something else: nothing of it is used."""
    for number in range(20):
        await source.actor(Other, f"o{number}").put(number + 1)
    whole = tmp_path / "f"
    await source.admin.export_to(whole)
    with pytest.raises(errors.ConfigError, match="exists; nothing was exported"):
        await source.admin.export_to(whole)
    data = whole.read_bytes()
    for number, damaged in enumerate((data[:-20], data[: len(data) // 2], b"", b"not gzip" * 9)):
        file = tmp_path / f"damaged-{number}"
        file.write_bytes(damaged)
        with pytest.raises(errors.ConfigError, match="Nothing was imported"):
            await target.admin.import_from(file)
    with pytest.raises(errors.ConfigError, match="No such file"):
        await target.admin.import_from(tmp_path / "none")
    assert await target.admin.count("Other") == 0


async def test_failed_export_leaves_no_file(
    source: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file under the right name would be taken for a backup."""
    await source.actor(Other, "x").put(1)

    def fail(self: archive.Writer, grains: int) -> None:
        raise errors.CallTimeout("planted", errors.DidRun.NO)

    monkeypatch.setattr(archive.Writer, "finish", fail)
    with pytest.raises(errors.CallTimeout, match="planted"):
        await source.admin.export_to(tmp_path / "f")
    assert list(tmp_path.iterdir()) == []
