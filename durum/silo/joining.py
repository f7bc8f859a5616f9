"""How a silo gets its identity and its row. Owns what happens before it is a member: its generation, and what
to do about other silos at its address. Knows no loops.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Final

import msgspec

from durum import errors
from durum.config import SiloConfig
from durum.ids import Address, SiloId, generation_of, silo_id, split_address
from durum.silo import votes
from durum.silo.membership import Membership
from durum.silo.patience import answered, cause
from durum.silo.peers import Peers
from durum.silo.ports import Ports
from durum.silo.table import Table
from durum.store.protocol import MembershipTable
from durum.telemetry import Log
from durum.views import SiloRow, Status, View

_LOOK_FRACTION: Final = 0.1
_log = Log("durum.joining")


async def identify(
    store: MembershipTable, mark: str, address: Address, config: SiloConfig
) -> SiloId:
    """Choose this life's identity: later than every life of the address that the table lists.

    Args:
        store: where the table is.
        mark: the service's genesis.
        address: where the others will reach this silo.
        config: see SiloConfig.

    Raises:
        StoreUnavailable: the store does not answer.
        DataLoss: the table is missing or another service's.
    """
    read = await answered(
        store.read_table(mark), config.lease.store_timeout_s, "read the membership table"
    )
    lives = [generation_of(row.silo) for row in read.view.rows if row.address == address]
    # The store's clock may have been set back since the last life.
    return silo_id(address, max([int(read.time * 1000), *(life + 1 for life in lives)]))


class Joining:
    """A silo on its way in.

    Args:
        ports: see Ports.
        row: this silo's row as it wants to be listed; its status is set here.
        table: this silo's copy of the table.
        membership: writes rows, renews.
        peers: to see who answers at our address.
    """

    def __init__(
        self, ports: Ports, row: SiloRow, table: Table, membership: Membership, peers: Peers
    ) -> None:
        self._row = row
        self._table = table
        self._membership = membership
        self._peers = peers
        self._processes = ports.processes
        self._clock = ports.clock
        self._config = ports.config

    async def join(self) -> None:
        """Become a joining member with a lease. `Membership.move(Status.ACTIVE)` does the rest.

        The silo has to listen already: the others, and this silo itself, try its address.

        Raises:
            ConfigError: another living silo has the same address.
            IncompatibleSilo: a living silo has another secret or release.
            NoSilo: silos live, and none of them can be reached.
            StoreUnavailable: the store does not answer.
            DataLoss: the table is missing or another service's.
        """
        await self._table.read()
        await self._call_on_others()
        while True:
            for row in self._rivals(self._table.view):
                await self._replace(row)
            if await self._membership.change(self._enter):
                break
            if self._row.silo in self._table.view.by_id:
                break  # the answer to our own write was lost
        if not await self._membership.renew():
            raise errors.StoreUnavailable(
                f"{self._row.silo} could not renew its lease; it does not serve. Start it again."
            )

    def _enter(self, view: View) -> tuple[SiloRow, None] | None:
        if self._row.silo in view.by_id or self._rivals(view):
            return None
        entered = msgspec.structs.replace(
            self._row, status=Status.JOINING, since=self._table.store_time()
        )
        return entered, None

    def _rivals(self, view: View) -> list[SiloRow]:
        mine = self._row
        return [row for row in view.live if row.address == mine.address and row.silo != mine.silo]

    async def _call_on_others(self) -> None:
        """Have some of the others open their door first. Who joins where nobody understands him would
        take the silence for their death, and vote so; and who joins where nobody reaches him would be given
        partitions, and be evicted again with them.
        """
        others = [row for row in self._table.view.active if row.address != self._row.address]
        asked = others[: self._config.probing.targets]
        silent: list[SiloRow] = []
        for row in asked:
            obstacle = await self._peers.obstacle(row.address, self._config.probing.probe_s)
            # Where it does not renew, somebody else has its address by now.
            if isinstance(obstacle, errors.IncompatibleSilo) and await self._beats(row):
                raise errors.IncompatibleSilo(
                    f"{row.silo}, which is active, does not accept this silo: {obstacle} Give all silos of"
                    " the cluster the same secret, and releases that are neighbours."
                ) from obstacle
            # Where nobody listens at its address, it is gone, and we are not cut off.
            if isinstance(obstacle, OSError) and not isinstance(obstacle, ConnectionRefusedError):
                silent.append(row)
        if asked and len(silent) == len(asked):
            await self._refuse_if_any_beats(silent)

    async def _refuse_if_any_beats(self, silent: Sequence[SiloRow]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                looks = [group.create_task(self._beats(row), name="beat?") for row in silent]
        except ExceptionGroup as exc:
            raise cause(exc) from exc
        names = [row.silo for row, look in zip(silent, looks, strict=True) if look.result()]
        if names:
            raise errors.NoSilo(
                f"{', '.join(names)} live and renew their leases, and none of them answers this silo: it is"
                " cut off from them, and would be evicted as soon as it had joined. Look at the network"
                " between them, and at the addresses that silos advertise."
            )

    async def _replace(self, row: SiloRow) -> None:
        """Declare another life of our address dead, unless it lives."""
        same_host = bool(row.host) and row.host == self._processes.host
        if same_host and self._processes.ended(row.pid, row.pid_started):
            await self._declare_dead(row, gone=True)
            return
        answers = await self._peers.who(row.address, self._config.probing.probe_s)
        lives = answers == row.silo and row.status is not Status.LEAVING
        if lives or await self._beats(row):
            raise errors.ConfigError(
                f"{row.silo} lives and has the address {row.address} as well. Stop it first, or give "
                "this silo another --advertise address."
            )
        # Where we ourselves answer at its address, nobody reaches it there any more; except that every
        # host has a loopback of its own.
        gone = answers == self._row.silo and not _is_loopback(row.address)
        await self._declare_dead(row, gone=gone)

    async def _beats(self, row: SiloRow) -> bool:
        """Whether a silo renews its lease. One that is leaving gets the time to do so."""
        lease = self._config.lease
        watch_s = lease.renew_s + lease.store_timeout_s
        patience_s = self._config.limits.drain_timeout_s + lease.lease_s
        began = self._clock.boottime()
        quiet_since = began
        heartbeat = self._table.heartbeat(row.silo)
        while (now := self._clock.boottime()) - quiet_since < watch_s:
            await self._clock.sleep(lease.renew_s * _LOOK_FRACTION)
            view = await self._table.read()
            if view.status_of(row.silo) is Status.DEAD:
                return False
            newer = self._table.heartbeat(row.silo)
            if newer != heartbeat:
                if view.status_of(row.silo) is not Status.LEAVING or now - began > patience_s:
                    return True
                heartbeat, quiet_since = newer, now
        return False

    async def _declare_dead(self, row: SiloRow, *, gone: bool) -> None:
        def decide(view: View) -> tuple[SiloRow, SiloRow] | None:
            now = view.by_id.get(row.silo)
            if now is None or now.status is Status.DEAD:
                return None
            reason = f"{self._row.silo} has replaced it"
            return votes.condemned(now, self._table.store_time(), reason, gone=gone), now

        if await self._membership.change(decide):
            _log.info("earlier life declared dead", silo=row.silo, by=self._row.silo, gone=gone)


def _is_loopback(address: Address) -> bool:
    host, _ = split_address(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
