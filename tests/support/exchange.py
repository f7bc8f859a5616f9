"""Actors that tell each other at random, and write down what they say and hear. Owns what must add up: each
has heard from each just what that one has said, once, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random

import durum
from durum import Actor, PreferLocal, errors, read_only
from durum.client.client import Cluster
from durum.errors import DidRun

Notes = dict[str, list[int]]
"""Numbers by whom they are from, or for."""


class Broker(Actor, message_attempts=1000):
    """Says numbers to others, and notes what it hears."""

    said: Notes = {}
    heard: Notes = {}
    later: Notes = {}
    _moody: int

    async def on_activate(self) -> None:
        self._moody = 0

    async def say(self, to: list[str], *, fails: bool = False, saves: bool = False) -> None:
        """Tell some others the next numbers; perhaps save in between, perhaps think better of it."""
        for each in to:
            said = self.said.setdefault(each, [])
            said.append(len(said))
            self.tell(self.actor(type(self), each).hear, self.key, said[-1])
            if saves:
                await self.save()
        if fails:
            raise ValueError("never mind")

    async def say_later(self, to: str, seconds: float) -> None:
        """Tell another something that comes in no order."""
        said = self.later.setdefault(to, [])
        said.append(1_000_000 + len(said))
        ref = durum.options(self.actor(type(self), to), delay=timedelta(seconds=seconds))
        self.tell(ref.hear, f"later {self.key}", said[-1])

    async def hear(self, who: str, number: int) -> None:
        """Note it, though not always at the first try; and sometimes pass something on."""
        self._moody += 1
        self.heard.setdefault(who, []).append(number)
        if self._moody % 7 == 0:
            await asyncio.sleep(0.05)
        if self._moody % 11 == 0:
            raise ValueError("not in the mood")
        if number % 5 == 4 and not who.startswith(("client", "later")) and who != self.key:
            await self.say([who])

    @read_only
    async def close(self) -> tuple[Notes, Notes, Notes]:
        return self.said, self.heard, self.later


class Nomad(Broker, placement=PreferLocal()):
    """The same, placed by itself."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What a client knows of one message of its own.

    Args:
        to: whom.
        who: by which name it spoke, which is one for each message.
        ran: whether it was accepted.
    """

    to: str
    who: str
    ran: DidRun


class Exchange:
    """What clients do, and what they know.

    Args:
        broker: the kind.
        keys: which of them there are.
    """

    def __init__(self, broker: type[Broker], keys: Sequence[str]) -> None:
        self.broker = broker
        self.keys = keys
        self.sent: list[Sent] = []
        self.acknowledged = 0

    async def clamour(
        self, cluster: Cluster, name: str, chance: Random, until: float, pause_s: float
    ) -> None:
        """Have brokers speak at random, and speak to them."""
        loop = asyncio.get_running_loop()
        number = 0
        while loop.time() < until:
            await asyncio.sleep(chance.expovariate(1 / pause_s))
            number += 1
            key, to = chance.choice(self.keys), chance.sample(self.keys, 2)
            ref = durum.options(cluster.actor(self.broker, key), timeout=chance.choice([1, 5, 20]))
            match chance.choice(["say", "say", "say", "keyed", "save", "fail", "later", "tell"]):
                case "say":
                    await self._call(ref.say(to))
                case "keyed":
                    ref = durum.options(ref, idempotency_key=f"{name}-{number}")
                    for _ in range(3):
                        await self._call(ref.say(to))
                case "save":
                    await self._call(ref.say(to, saves=True, fails=chance.random() < 0.5))
                case "fail":
                    await self._call(ref.say(to, fails=True))
                case "later":
                    await self._call(ref.say_later(to[0], chance.uniform(0.0, 8.0)))
                case _:
                    await self._tell(cluster, f"client {name} {number}", to[0], chance)

    async def _call(self, call: object) -> None:
        try:
            await call  # type: ignore[misc]
        except (errors.CallError, ValueError):
            pass  # what it has said, it has written down; or not
        else:
            self.acknowledged += 1

    async def _tell(self, cluster: Cluster, who: str, to: str, chance: Random) -> None:
        ran = DidRun.NO
        ref = durum.options(
            cluster.actor(self.broker, to), idempotency_key=who, timeout=chance.choice([1, 10])
        )
        for _ in range(chance.choice([1, 20])):
            try:
                await cluster.tell(ref.hear, who, 0)
            except errors.CallError as exc:
                ran = exc.did_run if ran in {DidRun.NO, DidRun.ROLLED_BACK} else ran
                await asyncio.sleep(chance.uniform(0.1, 1.0))
            else:
                ran = DidRun.YES
                self.acknowledged += 1
                if chance.random() < 0.7:
                    break
        self.sent.append(Sent(to, who, ran))

    async def closing(self, cluster: Cluster) -> Mapping[str, tuple[Notes, Notes, Notes]]:
        """What all of them have noted."""
        return {
            key: await durum.options(cluster.actor(self.broker, key), timeout=60).close()
            for key in self.keys
        }

    def check(self, closing: Mapping[str, tuple[Notes, Notes, Notes]]) -> list[str]:
        """What does not add up, once all is delivered."""
        wrong = []
        for key, (said, _, later) in closing.items():
            for to, numbers in said.items():
                heard = closing[to][1].get(key, [])
                if heard != numbers:
                    wrong.append(f"{key} said {numbers} to {to}, who heard {heard}")
            for to, numbers in later.items():
                heard = sorted(closing[to][1].get(f"later {key}", []))
                if heard != numbers:
                    wrong.append(f"{key} said later {numbers} to {to}, who heard {heard}")
        for key, (_, notes, _) in closing.items():
            for who in notes:
                other = who.removeprefix("later ")
                speaks = closing.get(other)
                if not who.startswith("client") and (
                    speaks is None or key not in {**speaks[0], **speaks[2]}
                ):
                    wrong.append(f"{key} heard of {who}, who said nothing")
        for one in self.sent:
            heard = closing[one.to][1].get(one.who, [])
            may = [[0]] if one.ran is DidRun.YES else [[], [0]]
            if one.ran in {DidRun.NO, DidRun.ROLLED_BACK}:
                may = [[]]
            if heard not in may:
                wrong.append(f"{one} was heard {len(heard)} times")
        return wrong
