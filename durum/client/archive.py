"""The file that a service is exported to. Owns its form and whether it is whole; knows no cluster.

A gzip stream of entries, each its length in four bytes, big-endian, and that many bytes of msgpack. The first
says whose service it is, the last how many there were. A digest of all before it makes a file that was cut or
damaged known before anything of it is used.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from durum import errors
from durum.ids import GrainId
from durum.wire.copies import Piece

FORMAT: Final = 1
_LENGTH_BYTES: Final = 4
_ENTRY_LIMIT: Final = 64 * 1024 * 1024


class Opening(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """The first entry.

    Args:
        format: of the file.
        cluster: the service's name.
        created: seconds since 1970, by the writer's clock.
        prefix: what the ids of its grains begin with; "": all of the service.
    """

    format: int
    cluster: str
    created: float
    prefix: str = ""


class Portion(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """A piece of a grain's record. Those of one grain stand in order, not always side by side.

    Args:
        grain: whose.
        piece: it.
        attempt: pieces of one attempt belong together.
    """

    grain: GrainId
    piece: Piece
    attempt: int = 0


class Withdrawn(msgspec.Struct, array_like=True, tag=3, frozen=True):
    """The pieces of an attempt before this are none: the grain changed while it was read."""

    grain: GrainId
    attempt: int


class Closing(msgspec.Struct, array_like=True, tag=4, frozen=True):
    """The last entry.

    Args:
        grains: how many are whole.
        digest: SHA-256 of all entries before, with their lengths.
    """

    grains: int
    digest: bytes


Entry = Opening | Portion | Withdrawn | Closing
_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final[msgspec.msgpack.Decoder[Entry]] = msgspec.msgpack.Decoder(Entry)


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a whole file holds.

    Args:
        opening: its first entry.
        grains: how many.
        withdrawn: attempts that are to be passed over.
    """

    opening: Opening
    grains: int
    withdrawn: frozenset[tuple[GrainId, int]]


class Writer:
    """A file that comes to be. It has its name only once it is whole.

    Args:
        path: where.
        opening: its first entry.

    Raises:
        ConfigError: there is a file of that name, or none can be made.
    """

    def __init__(self, path: Path, opening: Opening) -> None:
        self._path = path
        self._beside = path.with_name(f"{path.name}.partial")
        self._digest = hashlib.sha256()
        if path.exists():
            raise errors.ConfigError(f"{path} exists; nothing was exported. Choose another name.")
        try:
            self._file = gzip.open(self._beside, "wb", compresslevel=6)  # noqa: SIM115 - closed by __exit__
        except OSError as exc:
            raise errors.ConfigError(f"{path}: {exc.strerror}; nothing was exported.") from exc
        self._whole = False
        self.add(opening)

    def add(self, entry: Entry) -> None:
        """Write an entry."""
        data = _encode(entry)
        for part in (len(data).to_bytes(_LENGTH_BYTES, "big"), data):
            self._digest.update(part)
            self._file.write(part)

    def finish(self, grains: int) -> None:
        """Write the last entry, and let the file have its name."""
        self.add(Closing(grains, self._digest.digest()))
        self._file.close()
        with self._beside.open("rb") as written:
            os.fsync(written.fileno())
        self._beside.replace(self._path)
        self._whole = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if not self._whole:
            self._file.close()
            self._beside.unlink(missing_ok=True)


def entries(path: Path) -> Iterator[Entry]:
    """Walk through a file that `survey` has found whole.

    Raises:
        ConfigError: it is none, or damaged.
    """
    for entry, _ in _read(path):
        yield entry


def survey(path: Path) -> Contents:
    """Read all of a file once, and see that it is whole.

    Raises:
        ConfigError: it is not there, no export of Durum, of a newer format, cut or damaged.
    """
    digest = hashlib.sha256()
    opening: Opening | None = None
    withdrawn: set[tuple[GrainId, int]] = set()
    for entry, data in _read(path):
        if isinstance(entry, Closing):
            if entry.digest != digest.digest() or opening is None:
                raise _damaged(path, "its digest does not fit its content")
            return Contents(opening=opening, grains=entry.grains, withdrawn=frozenset(withdrawn))
        digest.update(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
        if isinstance(entry, Opening):
            opening = entry
        elif isinstance(entry, Withdrawn):
            withdrawn.add((entry.grain, entry.attempt))
    raise _damaged(path, "its end is missing")


def _read(path: Path) -> Iterator[tuple[Entry, bytes]]:
    try:
        with gzip.open(path, "rb") as file:
            first = True
            while head := file.read(_LENGTH_BYTES):
                length = int.from_bytes(head, "big")
                data = file.read(length) if length <= _ENTRY_LIMIT else b""
                if len(head) < _LENGTH_BYTES or len(data) < length or not data:
                    raise _damaged(path, "its end is missing")
                entry = _decoder.decode(data)
                if first:
                    _check_opening(path, entry)
                    first = False
                yield entry, data
    except (OSError, EOFError, zlib.error) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise _damaged(path, reason) from exc
    except msgspec.MsgspecError as exc:
        raise _damaged(path, str(exc)) from exc


def _check_opening(path: Path, entry: Entry) -> None:
    if not isinstance(entry, Opening):
        raise _damaged(path, "its beginning is missing")
    if entry.format > FORMAT:
        raise errors.ConfigError(
            f"{path} was written by a newer Durum (format {entry.format}, this one knows {FORMAT}); nothing"
            " was imported. Upgrade Durum."
        )


def _damaged(path: Path, reason: str) -> errors.ConfigError:
    return errors.ConfigError(
        f"{path} cannot be imported: {reason}. Nothing was imported. Export the service again."
    )
