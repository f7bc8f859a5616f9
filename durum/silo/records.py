"""What a silo knows of owner records. Owns reading and comparing them; takes none and decides nothing.

What is known may be old: a take compares tokens, so that an old record costs a look and never safety.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from durum import errors
from durum.ids import SiloId, Token
from durum.silo import takeover
from durum.silo.holdings import Holding, Holdings
from durum.silo.patience import answered
from durum.silo.ports import Ports
from durum.store.protocol import Owner


class Records:
    """The newest owner record known of each partition.

    Args:
        ports: see Ports.
        holdings: what the records have to agree with.
    """

    def __init__(self, ports: Ports, holdings: Holdings) -> None:
        self._ports = ports
        self._holdings = holdings
        self._known: list[Owner | None] = [None] * ports.partitions
        self._commits: dict[int, int] = {}

    @property
    def known(self) -> Sequence[Owner | None]:
        """By partition; None where the record has to be read first."""
        return self._known

    def learn(self, record: Owner) -> None:
        """The store has answered with this record."""
        self._known[record.partition] = record

    def counted(self, partition: int, commits: int) -> None:
        """A commit of a grain that is hosted here by itself returned this commit counter."""
        if commits > self._commits.get(partition, 0):
            self._commits[partition] = commits

    def doubt(self, partitions: Iterable[int], holder: SiloId | None = None) -> None:
        """Read these before the next decision.

        Args:
            partitions: which.
            holder: only those that are known as this silo's.
        """
        for partition in partitions:
            record = self._known[partition]
            if holder is None or (record is not None and record.silo == holder):
                self._known[partition] = None

    def heard(self, partition: int, token: Token) -> None:
        """Another silo says that a partition is free under this token."""
        old = self._known[partition]
        self._known[partition] = Owner(
            partition=partition,
            silo=None,
            epoch=0 if old is None else old.epoch,
            token=token,
            commits=0 if old is None else old.commits,
        )

    async def read(self) -> tuple[Holding, ...]:
        """Read all records and compare them with what is held.

        Returns:
            Holdings that others have superseded.

        Raises:
            DataLoss: a record is missing, or older than what this silo has seen.
            StoreUnavailable: the store does not answer; nothing is known.
        """
        seen = [(holding, holding.commits) for holding in self._holdings.all()]
        counted = dict(self._commits)
        records = takeover.checked(
            await answered(
                self._ports.store.owners(self._ports.mark),
                self._ports.config.lease.store_timeout_s,
                "read the owner records",
            ),
            self._ports.partitions,
        )
        superseded: list[Holding] = []
        for holding, commits in seen:
            if self._holdings.get(holding.partition) is holding:
                record = records[holding.partition]
                _refuse_loss(holding, record, commits)
                if record.token != holding.token and not holding.draining:
                    superseded.append(holding)
        for partition, commits in counted.items():
            if records[partition].commits < commits:
                raise _loss(
                    partition,
                    f"its commit counter is {records[partition].commits}, {commits} was seen",
                )
        self._known = list(records)
        return tuple(superseded)


def _refuse_loss(holding: Holding, record: Owner, commits: int) -> None:
    loss = takeover.regressed(record, holding.epoch, holding.token, commits)
    if loss:
        raise _loss(holding.partition, loss)


def _loss(partition: int, loss: str) -> errors.DataLoss:
    return errors.DataLoss(
        f"partition {partition} has lost data: {loss}. Nothing was built upon it. "
        "Restore the store, or accept the loss and start all silos again."
    )
