"""Writers that commit to many grains through faults, and remember what they were told. Tests compare."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

from durum import errors
from durum.ids import GrainId, Token
from durum.store.protocol import Commit, Committed
from tests.support.services import Service, commit

PATIENCE_S: Final = 20.0
PAUSE_S: Final = 0.02


class Writers:
    """Some grains, each with one commit under way at a time, as activations do it.

    Args:
        service: where they live.
        tokens: the holding of each partition that they use.
        grains: how many in each.
    """

    def __init__(self, service: Service, tokens: dict[int, Token], grains: int = 4) -> None:
        self._service = service
        self._tokens = tokens
        self._names = [
            (partition, GrainId(f"K/{partition}.{n}"))
            for partition in tokens
            for n in range(grains)
        ]
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self.confirmed: dict[GrainId, int] = {}
        """The newest version that was confirmed."""
        self.counters: dict[int, int] = {}
        """The highest commit counter that was returned, by partition."""
        self.trouble: Counter[str] = Counter()
        self.gap_s = 0.0
        """The longest time in which nothing at all was confirmed."""
        self.regressed: list[int] = []
        """Partitions whose commit counter went back: what an owner would call DataLoss."""
        self._last = asyncio.get_running_loop().time()

    @property
    def count(self) -> int:
        """How many commits were confirmed."""
        return sum(self.confirmed.values())

    def start(self) -> None:
        """Begin to write."""
        self._last = asyncio.get_running_loop().time()
        self._tasks = [
            asyncio.create_task(self._write(partition, grain)) for partition, grain in self._names
        ]

    async def more(self, commits: int) -> None:
        """Wait until so many more were confirmed."""
        aim = self.count + commits
        async with asyncio.timeout(PATIENCE_S):
            while self.count < aim and not all(task.done() for task in self._tasks):
                await asyncio.sleep(0.005)
        for task in self._tasks:
            if task.done():
                task.result()

    async def stop(self) -> None:
        """Write no more; what is under way is finished."""
        self._stopping = True
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*self._tasks)

    async def lost(self) -> Sequence[str]:
        """Grains whose confirmed commits are not all in the store, in words."""
        found = []
        for partition, grain in self._names:
            record = await self._service.store.load(partition, self._tokens[partition], grain)
            confirmed = self.confirmed.get(grain, 0)
            state = b"" if record.state is None else record.state
            if record.version != confirmed or (confirmed and state != b"%d" % confirmed):
                found.append(f"{grain}: {confirmed} confirmed, {record.version} ({state!r}) there")
        return found

    async def _write(self, partition: int, grain: GrainId) -> None:
        version = 0
        while not self._stopping:
            turn = commit(
                self._tokens[partition],
                partition=partition,
                grain=grain,
                version=version,
                state=b"%d" % (version + 1),
            )
            try:
                done = await self._insist(turn)
            except (errors.Superseded, errors.DataLoss) as exc:
                self.trouble[type(exc).__name__] += 1
                return
            assert done.version == version + 1
            version = self.confirmed[grain] = done.version
            if done.commits < self.counters.get(partition, 0):
                self.regressed.append(partition)
            self.counters[partition] = max(self.counters.get(partition, 0), done.commits)
            now = asyncio.get_running_loop().time()
            self.gap_s = max(self.gap_s, now - self._last)
            self._last = now

    async def _insist(self, turn: Commit) -> Committed:
        """Send the very same commit until the answer is clear."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    return await self._service.store.commit(turn)
                except errors.StoreUnavailable as exc:
                    self.trouble[f"applied={exc.applied}"] += 1
                    await asyncio.sleep(PAUSE_S)
