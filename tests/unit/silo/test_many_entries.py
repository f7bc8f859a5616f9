"""An actor of a million entries beside one of ten: what its activation and its turns ask of the store."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from durum.clock import SystemClock
from durum.config import SiloConfig
from durum.grains.keys import KeyCodec
from durum.ids import SystemEntropy, grain_id
from durum.placement.partitions import partition_of
from durum.silo.silo import Silo
from durum.store.urls import open_store
from tests.support.shelves import Shelves

MANY = 1_000_000
FEW = 10
PARTITIONS = 8


class Counting:
    """A store that writes down what grains ask of it, and how much it answers."""

    def __init__(self, inside: Any) -> None:
        self.inside = inside
        self.asked: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inside, name)
        if name not in ("load", "load_parts", "scan_parts", "commit"):
            return found

        def ask(*args: Any, **options: Any) -> Any:
            future = found(*args, **options)
            future.add_done_callback(lambda done: self.asked.append((name, size(done.result()))))
            return future

        return ask

    def told(self) -> list[tuple[str, int]]:
        asked, self.asked = self.asked, []
        return asked


def size(answer: Any) -> int:
    """Bytes of an answer."""
    if isinstance(answer, dict):
        return sum(len(name) + len(content) for name, content in answer.items())
    if isinstance(answer, list):
        return sum(len(name) + len(content) for name, content in answer)
    return len(getattr(answer, "state", None) or b"")


def rows(holder: int, count: int) -> Iterator[tuple[int, bytes, bytes]]:
    """The parts of a map of that many entries, as a silo would have written them."""
    # Integers of two bytes and of three are longer: begin where all have three.
    encode = KeyCodec(int).encode
    value = msgspec.msgpack.encode("value")
    for key in range(MANY, MANY + count):
        yield holder, b"items\0" + bytes(8) + encode(key), value


def fill(path: Path, key: str, count: int) -> None:
    """Write an actor's record straight into the file."""
    grain = grain_id("Shelves", key)
    partition = partition_of(grain, PARTITIONS)
    # A length of one size in the state, so that only the number of entries differs.
    header = b"\x93\x00\xce" + count.to_bytes(4, "big") + b"\x00"
    fields = {"": 1, "items": msgspec.Raw(header), "log": (0, 0, 0), "turns": 0}
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA synchronous = OFF")
        state, data = msgspec.msgpack.encode(fields), grain.encode()
        db.execute(
            "INSERT INTO grains VALUES (?, ?, 1, ?, ?, 1, 1)", (partition, data, state, b"i" * 16)
        )
        cursor = db.execute(
            "INSERT INTO holders (partition, grain) VALUES (?, ?)", (partition, data)
        )
        assert cursor.lastrowid is not None
        db.executemany("INSERT INTO parts VALUES (?, ?, ?)", rows(cursor.lastrowid, count))
        db.commit()


@pytest.mark.timeout(120)
async def test_a_million_entries_cost_what_ten_do(tmp_path: Path) -> None:
    """Activation and every turn ask the same few things, and load the same few bytes, whatever the size."""
    path = tmp_path / "many.db"
    url = f"sqlite:///{path}"
    config = SiloConfig(partitions=PARTITIONS)
    clock, entropy = SystemClock(), SystemEntropy()
    async with Silo([Shelves], url, create=True, config=config):
        pass
    fill(path, "few-", FEW)
    fill(path, "many", MANY)
    inside = await open_store(url, cluster="default", clock=clock, entropy=entropy)
    store: Any = Counting(inside)
    turns: list[list[Any]] = [
        [["len"], ["llen"]],
        [["get", MANY + 5]],
        [["many", MANY, MANY + 1, MANY + 2]],
        [["items", None, 5]],
        [["items", MANY + 2, 3]],
        [["set", MANY + 3, "other"], ["append", "log"], ["get", 7]],
        [["discard", MANY + 4], ["set", 5, "new"], ["count"]],
        [["clear"], ["len"], ["set", 1, "one"], ["count"]],
    ]
    costs: dict[str, list[list[tuple[str, int]]]] = {"few-": [], "many": []}
    async with Silo([Shelves], store, config=config) as silo, silo.connect() as cluster:
        for key, cost in costs.items():
            actor = cluster.actor(Shelves, key)
            store.told()
            for steps in turns:
                found = await actor.run(steps)
                cost.append(store.told())
                if steps[0] == ["len"]:
                    assert found == [{"few-": FEW, "many": MANY}[key], 0]
            assert found == [None, 0, None, 1]
        held = [each._durable.entries for each in silo.life.catalog.activations.values()]
        assert all(sys.getsizeof(each._cache) < 64_000 for each in held if each is not None)
    await inside.close()
    assert costs["few-"] == costs["many"]
    assert [name for name, _ in costs["many"][0]] == ["load", "commit"]
    assert sum(size for cost in costs["many"] for _, size in cost) < 3_000
