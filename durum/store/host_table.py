"""Which silo hosts a grain that has a place of its own, and under which token. Owns the record, and what a
store promises of it; who is to host what is decided elsewhere.

A hosted token names its grain; see ids.hosted_token. Every operation of TurnStore takes one in the place of
the owner's: then the grain's host record is compared instead of the partition's owner record.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from durum import errors
from durum.ids import GrainId, SiloId, Token, hosted_grain


class Host(msgspec.Struct, frozen=True):
    """A host record.

    Args:
        silo: who hosts the grain.
        token: the hosted token under which it does.
    """

    silo: SiloId
    token: Token


class Hosted(errors.Superseded):
    """The grain has a host, so nobody may serve it under the owner's token. The operation changed nothing.

    Args:
        grain: which.
        host: its record.
    """

    def __init__(self, grain: GrainId, host: Host) -> None:
        super().__init__(f"{grain} is hosted by {host.silo}; the operation changed nothing.")
        self.grain = grain
        self.host = host


class HostTable(Protocol):
    """Host records. Plain functions that return futures, as those of TurnStore."""

    def find_host(self, partition: int, grain: GrainId) -> asyncio.Future[Host | None]:
        """A grain's host record, or None. Not fenced: it may be out of date when it arrives."""
        ...

    def place(
        self,
        partition: int,
        token: Token,
        grain: GrainId,
        *,
        seen: Token | None,
        host: Host | None,
    ) -> asyncio.Future[Host | None]:
        """Set a host record if it still has the token seen.

        After it has succeeded, nothing succeeds under the token seen. What was sent under the owner's
        token is not fenced by it: settle that first, or let the host's first load raise the version.

        Args:
            partition: the grain's partition.
            token: the owner's, or the grain's own hosted one, by which its host lets go.
            grain: which grain.
            seen: the hosted token that the record must have; None where there must be none.
            host: the new record, with a hosted token never used before; None removes.

        Returns:
            The record in effect. Setting it succeeded where its token is the one given; sent again
            after a lost reply it finds itself done.

        Raises:
            Superseded: the token is not the partition's, or the grain's.
            DataLoss: the owner record is missing.
        """
        ...


def check_place(grain: GrainId, seen: Token | None, host: Host | None) -> None:
    """Look at what a placing asks for, before any store is asked.

    Raises:
        DurumBug: a token in it is not a hosted one of this grain.
    """
    tokens = [] if seen is None else [seen]
    tokens += [] if host is None else [host.token]
    for one in tokens:
        if hosted_grain(one) != grain:
            raise errors.DurumBug(f"{one!r} is no hosted token of {grain}.")
