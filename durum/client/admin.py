"""What operators ask of a cluster, from Python. Owns the questions; silos answer them.

async with durum.connect(...) as cluster:
    print(await cluster.admin.count("Account"))
    async for key in cluster.admin.every("Account", prefix="eu-"):
        ...
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec

from durum import errors, ids
from durum.client import transfer
from durum.client.letters import MessageAdmin
from durum.client.links import Links
from durum.client.reminders import ReminderAdmin
from durum.client.router import Router
from durum.client.sights import Grain, Page, Silo
from durum.client.transfer import OnExisting, Progress, Told
from durum.clock import Clock
from durum.grains import failure
from durum.grains.actor import Actor
from durum.grains.kind import GrainKind, kind_of
from durum.grains.reference import Target
from durum.ids import GrainId, SiloId
from durum.wire import administration as wire
from durum.wire import values
from durum.wire.messages import Call, Reply

_ASK_S: Final = 2.0
"""How long one silo may take to tell its counters, before it is shown without them."""


class Admin:
    """A cluster, as its operators see it. `cluster.admin` is one.

    Kinds are named, or given as classes; the silos need not host them. All of it asks silos, as calls do:
    with the client's credentials, time limits and errors.

    Attributes:
        reminders: those of all actors; see ReminderAdmin.
        messages: that wait, and dead letters; see MessageAdmin.
    """

    def __init__(
        self, router: Router, links: Links, clock: Clock, timeout_s: float, cluster: str
    ) -> None:
        self._clock = clock
        self._cluster = cluster
        self._router = router
        self._links = links
        self._timeout_ms = int(timeout_s * 1000)
        self.reminders = ReminderAdmin(self._ask_grain, self._ask_all)
        self.messages = MessageAdmin(self._ask_grain, self._ask_all)

    async def silos(self) -> list[Silo]:
        """All silos in the membership table, in the order of their ids, each with its counters."""
        found = msgspec.msgpack.decode(await self._ask(wire.SILOS), type=wire.Members)
        living = [row for row in found.silos if row.status != "dead"]
        now = dict(
            zip(
                (row.silo for row in living),
                await asyncio.gather(*(self._now(row.silo) for row in living)),
                strict=True,
            )
        )
        return [
            Silo(
                silo=row.silo,
                address=ids.address_of(row.silo),
                status=row.status,
                since_s=row.since_s,
                wanted=row.wanted,
                kinds=row.kinds,
                roles=row.roles,
                weight=row.weight,
                web=row.web,
                pid=row.pid,
                suspected_by=row.suspected_by,
                reason=row.reason,
                now=now.get(row.silo),
            )
            for row in found.silos
        ]

    async def grains(
        self, kind: str | type[Actor], *, prefix: str = "", after: str = "", limit: int = 100
    ) -> Page:
        """Keys of grains that have kept something: committed at least once, and not deleted since.

        Args:
            kind: which.
            prefix: what the keys begin with.
            after: the page's before this one; "" for the first.
            limit: at most so many, up to 1000.

        Raises:
            ArgumentError: `after` is none that a page gave.
        """
        try:
            cursor = wire.cursor_of(after)
        except ValueError:
            raise errors.ArgumentError(f"after: {after!r} is not what a page gave.") from None
        name = _name(kind)
        behind = f"{name}/{cursor.after}" if cursor.after else ""
        asked = wire.Scan(f"{name}/{prefix}", cursor.partition, behind, limit)
        page = msgspec.msgpack.decode(await self._ask(wire.SCAN, asked), type=wire.Page)
        keys = tuple(ids.split_grain_id(grain)[1] for grain in page.grains)
        more = page.partition < page.partitions
        last = keys[-1] if more and keys else ""
        return Page(
            keys=keys, after=wire.cursor_text(wire.Cursor(page.partition, last)) if more else ""
        )

    async def every(self, kind: str | type[Actor], *, prefix: str = "") -> AsyncIterator[str]:
        """Walk through all keys, page by page. Those that come and go meanwhile may be left out.

        Args:
            kind: which.
            prefix: only keys that begin so.
        """
        after = ""
        while True:
            page = await self.grains(kind, prefix=prefix, after=after, limit=wire.PAGE_LIMIT)
            for key in page.keys:
                yield key
            after = page.after
            if not after:
                return

    async def count(self, kind: str | type[Actor], *, prefix: str = "") -> int:
        """How many grains of a kind have kept something.

        Args:
            kind: which.
            prefix: only those whose keys begin so.
        """
        asked = wire.Count(f"{_name(kind)}/{prefix}")
        return msgspec.msgpack.decode(await self._ask(wire.COUNT, asked), type=int)

    async def inspect(self, kind: str | type[Actor], key: str) -> Grain:
        """Look at a grain, as its owner and the store have it. It is not activated by that.

        Args:
            kind: which.
            key: which one. One that has kept nothing has version 0 and no state.
        """
        target = Target(_stand_in(_name(kind)), key)
        answer = await self._ask(wire.INSPECT, target=target)
        found = msgspec.msgpack.decode(answer, type=wire.Inspected)
        version, state, undecoded = _decoded(found.state)
        return Grain(
            kind=target.kind.name,
            key=key,
            partition=found.partition,
            silo=found.silo,
            epoch=found.epoch,
            version=found.version,
            class_version=version,
            state=state,
            undecoded=undecoded,
            replies=found.replies,
            active=found.active,
            running=found.running,
            waiting=found.waiting,
        )

    async def deactivate(self, kind: str | type[Actor], key: str) -> bool:
        """Let a grain finish its turns and leave memory; the next call activates it again.

        Returns:
            Whether it was active.
        """
        target = Target(_stand_in(_name(kind)), key)
        return msgspec.msgpack.decode(await self._ask(wire.DEACTIVATE, target=target), type=bool)

    async def delete(self, kind: str | type[Actor], key: str) -> bool:
        """Take a grain's state away, after its turns; the next call finds it with its defaults.

        Its keyed calls stay remembered for their window, so that a repeat does not run again.

        Returns:
            Whether it had a state.
        """
        target = Target(_stand_in(_name(kind)), key)
        return msgspec.msgpack.decode(await self._ask(wire.DELETE, target=target), type=bool)

    async def export_to(
        self, path: str | Path, *, prefix: str = "", told: Told | None = None
    ) -> Progress:
        """Copy a service into a file, while it runs.

        Each grain is copied as it was at one instant: its state, collections and remembered replies.
        Different grains are copied at different instants; where that matters, let the service rest.

        Args:
            path: a file that does not exist yet. It appears only once it is whole.
            prefix: what the ids of grains begin with, such as `Account/` or `Account/eu-`; "" for all.
            told: called after each grain.

        Raises:
            ConfigError: the file cannot be made.
            CallError: a silo did not answer; no file is left.
        """
        return await transfer.export_to(
            Path(path),
            self._ask_grain,
            self._clock,
            cluster=self._cluster,
            prefix=prefix,
            told=told,
        )

    async def import_from(
        self,
        path: str | Path,
        *,
        on_existing: OnExisting = "error",
        told: Told | None = None,
    ) -> Progress:
        """Copy the grains of a file into this service, which may have another number of partitions.

        The file is read once before anything is written. Each grain is written by its owner, after its
        turns and before the next. An import that was interrupted can be run again: grains that are there
        already, equal to the last byte, are passed over.

        Args:
            path: what export_to has written.
            on_existing: for grains that the service has with other content: "error" ends the import there,
                "skip" leaves them, "replace" takes the file's.
            told: called after each grain.

        Raises:
            ConfigError: the file is none, or damaged; nothing was written.
            Rejected: a grain is there with other content.
            CallError: a silo did not answer.
        """
        return await transfer.import_from(
            Path(path), self._ask_grain, self._clock, on_existing=on_existing, told=told
        )

    async def _ask_grain(self, grain: GrainId, request: str, asked: msgspec.Struct | None) -> bytes:
        kind, key = ids.split_grain_id(grain)
        args = b"" if asked is None else wire.encode(asked)
        answer = await self._router.relay(Call(0, grain, request, args, self._timeout_ms))
        if isinstance(answer, Reply):
            return answer.result
        raise failure.rebuild(answer, Target(_stand_in(kind), key).kind)

    async def _ask(
        self, request: str, asked: msgspec.Struct | None = None, *, target: Target | None = None
    ) -> bytes:
        if target is None:
            target = Target(_stand_in("Durum"), "anywhere")
        args = b"" if asked is None else wire.encode(asked)
        answer = await self._router.relay(Call(0, target.grain, request, args, self._timeout_ms))
        if isinstance(answer, Reply):
            return answer.result
        raise failure.rebuild(answer, target.kind)

    async def _ask_all(self, request: str) -> dict[SiloId, bytes]:
        """Ask each silo by itself; those that do not answer are left out."""
        found = msgspec.msgpack.decode(await self._ask(wire.SILOS), type=wire.Members)
        living = [row.silo for row in found.silos if row.status != "dead"]
        answers = await asyncio.gather(*(self._ask_silo(silo, request) for silo in living))
        pairs = zip(living, answers, strict=True)
        return {silo: answer for silo, answer in pairs if answer is not None}

    async def _now(self, silo: SiloId) -> wire.Now | None:
        answer = await self._ask_silo(silo, wire.NOW)
        return None if answer is None else msgspec.msgpack.decode(answer, type=wire.Now)

    async def _ask_silo(self, silo: SiloId, request: str) -> bytes | None:
        """Ask one silo, and no other."""
        try:
            async with asyncio.timeout(_ASK_S):
                link = await self._links.get(ids.address_of(silo))
                grain = GrainId("Durum/anywhere")
                answer = await link.request(
                    Call(link.next_id(), grain, request, b"", int(_ASK_S * 1000))
                )
        except (OSError, errors.DurumError, TimeoutError):
            return None
        return answer.result if isinstance(answer, Reply) else None


_kinds: Final[dict[str, GrainKind]] = {}


def _name(kind: str | type[Actor]) -> str:
    if not isinstance(kind, str):
        return kind_of(kind).name
    if not ids.KIND.fullmatch(kind):
        raise errors.ArgumentError(f"{kind[:100]!r} is not the name of a kind; nothing was asked.")
    return kind


def _stand_in(name: str) -> GrainKind:
    """A kind of that name, whose class is not at hand."""
    if name not in _kinds:
        _kinds[name] = kind_of(type("StandIn", (Actor,), {}, kind=name))
    return _kinds[name]


def _decoded(
    state: bytes | None,
) -> tuple[int | None, dict[str, object] | None, bytes | None]:
    """Class version and fields of a stored state; its bytes, where it is none that Durum wrote."""
    if state is None:
        return None, None, None
    try:
        fields = json.loads(values.as_json(state))
        version = fields.pop("")
    except Exception:  # noqa: BLE001 - whatever is wrong with it, its bytes are shown
        return None, None, state
    return version, fields, None
