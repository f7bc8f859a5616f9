"""What the scripts' answers mean. Turns replies into values and typed errors; asks nothing."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from durum import errors
from durum.ids import TOKEN_BYTES, GrainId, SiloId, Token, hosted_token
from durum.store import damage, rows
from durum.store.host_table import Host, Hosted
from durum.store.protocol import Beat, Committed, Genesis, Owner, Record, TableRead
from durum.views import View

_NO_OWNER: Final = -1
_OTHER_TOKEN: Final = -2


def finish_commit(version: int, future: asyncio.Future[Any], reply: Any) -> None:
    """Settle a commit.

    Args:
        version: the grain's version, if it was applied just now.
        future: who waits.
        reply: what the script returned.
    """
    if type(reply) is list:
        future.set_result(Committed(*reply))
    elif reply > 0:
        future.set_result(Committed(version, reply))
    else:
        future.set_exception(refusal(reply))


def finish_load(grain: GrainId, future: asyncio.Future[Any], reply: Any) -> None:
    """Settle a load."""
    if type(reply) is list:
        version, state = reply
        future.set_result(Record(version=damage.version_of(version, state), state=state))
    elif type(reply) is bytes:
        future.set_exception(Hosted(grain, _host(grain, reply)))
    else:
        future.set_exception(refusal(reply))


def finish_host(grain: GrainId, future: asyncio.Future[Any], reply: Any) -> None:
    """Settle what finds or sets a host record."""
    if type(reply) is int:
        future.set_exception(refusal(reply))
    else:
        future.set_result(_host(grain, reply) if reply else None)


def _host(grain: GrainId, record: bytes) -> Host:
    token = hosted_token(Token(record[:TOKEN_BYTES]), grain)
    return Host(SiloId(record[TOKEN_BYTES:].decode()), token)


def finish_replies(future: asyncio.Future[Any], reply: Any) -> None:
    """Settle a read of remembered replies."""
    if type(reply) is list:
        future.set_result(dict(zip(reply[::2], reply[1::2], strict=True)))
    else:
        future.set_exception(refusal(reply))


def finish_scan(future: asyncio.Future[Any], reply: Any) -> None:
    """Settle a listing of ids."""
    future.set_result([GrainId(grain.decode()) for grain in reply])


def finish_verify(future: asyncio.Future[Any], reply: Any) -> None:
    """Settle a verification."""
    if reply == 1:
        future.set_result(None)
    else:
        future.set_exception(refusal(reply))


def refusal(code: Any) -> errors.DurumError:
    """What a script's negative answer means."""
    if code == _NO_OWNER:
        return errors.DataLoss(
            "the partition has no owner record, though its service was created with one. Nothing "
            "was changed. Restore the store from a backup."
        )
    if code == _OTHER_TOKEN:
        return errors.Superseded(
            "the partition or the grain has been taken over; the operation changed nothing."
        )
    return errors.Superseded("the grain is at another version; the operation changed nothing.")


def other_genesis(mark: str) -> errors.DataLoss:
    """The store is empty, or another service's."""
    return errors.DataLoss(
        f"the store does not hold service {mark} (any more). Nothing is built upon it. Restore the "
        "store, or point the silos at the right one."
    )


def orphans(count: int) -> errors.DataLoss:
    """Owner records without the membership table that they were made with."""
    return errors.DataLoss(
        f"the store has {count} owner records of an earlier service of this name, and its membership "
        "table is gone. Nothing of it was changed. Restore the store from a backup, or delete what is "
        "left of it if it may go."
    )


def _time(reply: list[bytes]) -> float:
    return int(reply[0]) + int(reply[1]) / 1_000_000


def table(reply: Any, mark: str, who: str) -> TableRead:
    """Read the whole membership table."""
    if type(reply) is not list:
        raise other_genesis(mark)
    fields, time = reply
    by_name: dict[bytes, bytes] = dict(zip(fields[::2], fields[1::2], strict=True))
    silos = sorted(name[2:] for name in by_name if name.startswith(b"s:"))
    with damage.reading("the membership table"):
        return TableRead(
            view=View(
                version=int(by_name[b"v"]),
                rows=tuple(rows.decode(by_name[b"s:" + silo]) for silo in silos),
            ),
            heartbeats=_numbers(b"h:", silos, by_name),
            loads=_numbers(b"l:", silos, by_name),
            time=_time(time),
            identity=who,
        )


def _numbers(prefix: bytes, silos: list[bytes], by_name: dict[bytes, bytes]) -> dict[SiloId, int]:
    return {SiloId(silo.decode()): int(by_name.get(prefix + silo, b"0")) for silo in silos}


def beat(reply: Any, mark: str, silo: SiloId, who: str) -> Beat:
    """Read the answer to a renewal."""
    if reply == _OTHER_TOKEN:
        raise errors.DataLoss(
            f"{silo} has no row in the membership table. It was removed long after its death, or "
            "the store has lost it."
        )
    if type(reply) is not list:
        raise other_genesis(mark)
    with damage.reading("the membership table"):
        letter, heartbeat, version, time = reply
        return Beat(
            status=rows.status_of(letter),
            heartbeat=int(heartbeat),
            version=int(version),
            time=_time(time),
            identity=who,
        )


def owner(partition: int, reply: Any) -> Owner:
    """Read an owner record."""
    if type(reply) is not list:
        raise errors.DataLoss(
            f"partition {partition} has no owner record of this service. Nothing was changed. "
            "Restore the store from a backup."
        )
    with damage.reading(f"the owner record of partition {partition}"):
        silo, epoch, token, commits = reply[:4]
        posted, first_epoch, earliest = reply[4:] or (0, 0, None)
        return Owner(
            partition=partition,
            silo=SiloId(silo.decode()) if silo else None,
            epoch=int(epoch),
            token=Token(bytes(token)),
            commits=int(commits),
            posted=posted,
            first_posted_epoch=first_epoch,
            earliest_due_ms=None if earliest is None else int(earliest),
        )


def genesis(cluster: str, mark: bytes, partitions: bytes, ring: bytes) -> Genesis:
    """Read how the service was created."""
    with damage.reading(f"what service {cluster!r} was created with"):
        return Genesis(
            mark=mark.decode(), cluster=cluster, partitions=int(partitions), ring=int(ring)
        )
