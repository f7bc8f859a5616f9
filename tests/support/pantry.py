"""An actor whose map can be told from its list, and what its callers know of it. Owns what must add up."""

from __future__ import annotations

from dataclasses import dataclass

import durum
from durum import Actor, read_only
from durum.errors import DidRun


class Pantry(Actor):
    """Jars by name, and a log of what was done to them."""

    jars: durum.Map[str, int] = durum.Map()
    log: durum.List[str] = durum.List()

    async def put(self, name: str) -> int:
        """Set a jar without a look at it. Returns where that stands in the log."""
        at = len(self.log)
        self.jars[name] = at
        self.log.append(f"+{name}")
        return at

    async def take(self, name: str) -> int | None:
        """Take a jar, if it is there. Returns where that stands in the log."""
        if await self.jars.pop(name, None) is None:
            return None
        self.log.append(f"-{name}")
        return len(self.log) - 1

    async def swap(self, old: str, new: str) -> int:
        """Save in the middle: the first half may stay without the second."""
        await self.take(old)
        await self.save()
        return await self.put(new)

    async def empty(self) -> int:
        """Take all jars."""
        self.jars.clear()
        self.log.append("*")
        return len(self.log) - 1

    @read_only
    async def close(self) -> tuple[dict[str, int], list[str], tuple[int, int]]:
        jars = {name: at async for name, at in self.jars.items()}
        return jars, [line async for line in self.log], (len(self.jars), len(self.log))


@dataclass(frozen=True, slots=True)
class Known:
    """What a caller knows of one change.

    Args:
        pantry: where.
        line: what it writes into the log; no two callers write the same.
        ran: whether it did.
        at: where it stands in the log, if that is known.
    """

    pantry: str
    line: str
    ran: DidRun
    at: int | None


def check(
    pantry: str,
    closing: tuple[dict[str, int], list[str], tuple[int, int]],
    known: list[Known],
) -> list[str]:
    """What is wrong with a pantry."""
    jars, log, lengths = closing
    wrong = []
    if lengths != (len(jars), len(log)):
        wrong.append(f"{pantry}: lengths {lengths}, there are {len(jars)} and {len(log)}")
    told: dict[str, int] = {}
    for at, line in enumerate(log):
        if line == "*":
            told.clear()
        elif line[0] == "+":
            told[line[1:]] = at
        elif told.pop(line[1:], None) is None:
            wrong.append(f"{pantry}: {line} at {at} took what was not there")
    if told != jars:
        wrong.append(f"{pantry}: the log tells of {told}, there is {jars}")
    for one in known:
        times = log.count(one.line)
        where = one.at is None or (one.at < len(log) and log[one.at] == one.line)
        least, most = {
            DidRun.YES: (1, 1),
            DidRun.MAYBE: (0, 1),
            DidRun.NO: (0, 0),
            DidRun.ROLLED_BACK: (0, 0),
        }[one.ran]
        if not (where and least <= times <= most):
            wrong.append(f"{pantry}: {one} is {times} times in the log {log}")
    return wrong
