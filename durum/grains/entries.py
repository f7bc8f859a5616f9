"""The entries of one activation's collections, as its turns see them. Owns the layers; a port has the rest.

From the top: what the running turn has changed; what commits under way have; what was read lately; the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Final, Literal, Protocol

from durum.config import Limits
from durum.store.parts import Part, is_last

CACHED_ENTRIES: Final = 256
CACHED_BYTES: Final = 64 * 1024
"""Of each activation, whatever its collections hold."""
_PER_LOAD: Final = 128
PER_PAGE: Final = 256


class Unknown(Enum):
    """What is known of an entry that nobody has looked at."""

    UNKNOWN = auto()


UNKNOWN: Final = Unknown.UNKNOWN
Known = bytes | None | Literal[Unknown.UNKNOWN]
"""Its bytes, or None where it surely is not there."""


class EntryStore(Protocol):
    """Where one grain's entries are kept. Reads are under the holding that the activation lives under."""

    limits: Limits

    async def load(self, names: Sequence[bytes], *, contents: bool = True) -> Mapping[bytes, bytes]:
        """Entries by name, those that are there; without contents, each is b""."""
        ...

    async def scan(self, prefix: bytes, after: bytes, limit: int) -> Sequence[Part]:
        """A page of entries by the order of names; see store.parts."""
        ...


class Owner(Protocol):
    """A collection that counts its entries."""

    unresolved: dict[bytes, None]
    """Names of changed entries of which nobody knows yet whether they were there."""

    def resolve(self, name: bytes, content: bytes | None, *, there: bool) -> None:
        """Count a change, now that it is known whether the entry was there before."""
        ...

    def settle(self) -> None:
        """What was changed so far is on its way to the store."""
        ...

    def sweep(self) -> tuple[bytes, bytes] | None:
        """A range of names to purge some entries of, which from here on count as gone; or None."""
        ...


class Entries:
    """All layers of one activation.

    Args:
        store: where the rest is.

    Attributes:
        owners: its collections, by field.
        epoch: grows whenever something read before may not be what is stored now.
    """

    __slots__ = (
        "_cache",
        "_cached_bytes",
        "_flying",
        "_staged",
        "_staged_bytes",
        "epoch",
        "owners",
        "store",
    )

    def __init__(self, store: EntryStore) -> None:
        self.store: Final = store
        self.owners: dict[str, Owner] = {}
        self.epoch = 0
        self._staged: dict[bytes, bytes | None] = {}
        self._staged_bytes = 0
        self._flying: list[dict[bytes, bytes | None]] = []
        self._cache: dict[bytes, bytes | None] = {}  # the least lately used first
        self._cached_bytes = 0

    # Reading ---------------------------------------------------------------------------------------

    def find(self, name: bytes) -> Known:
        """What is known of an entry without asking."""
        found = self._changed(name)
        if found is UNKNOWN and name in self._cache:
            found = self._cache[name] = self._cache.pop(name)
        return found

    def _changed(self, name: bytes) -> Known:
        if name in self._staged:
            return self._staged[name]
        for layer in reversed(self._flying):
            if name in layer:
                return layer[name]
        return UNKNOWN

    async def load(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """Entries by name, those that are there."""
        while True:
            epoch = self.epoch
            known = {name: self.find(name) for name in names}
            asked = [name for name, found in known.items() if found is UNKNOWN]
            loaded: dict[bytes, bytes] = {}
            for start in range(0, len(asked), _PER_LOAD):
                loaded.update(await self.store.load(asked[start : start + _PER_LOAD]))
            if self.epoch == epoch:
                break
        for name in asked:
            known[name] = loaded.get(name)
            self._keep(name, loaded.get(name))
        for name in asked:
            if (changed := self._changed(name)) is not UNKNOWN:
                known[name] = changed  # since it was asked for
        return {name: content for name, content in known.items() if isinstance(content, bytes)}

    async def page(
        self, prefix: bytes, after: bytes, limit: int, *, stored: bool
    ) -> tuple[list[Part], bytes]:
        """The next entries by the order of their names.

        Args:
            prefix: what names begin with.
            after: only names behind this one.
            limit: how many of the store's to look at.
            stored: whether the store can have any.

        Returns:
            The entries, and where to go on; b"" at the end.
        """
        page: Sequence[Part] = ()
        while stored:
            epoch = self.epoch
            page = await self.store.scan(prefix, after, limit)
            if self.epoch == epoch:
                break
        last = b"" if not stored or is_last(page, limit) else page[-1][0]
        merged: dict[bytes, bytes | None] = dict(page)
        for layer in (*self._flying, self._staged):
            merged.update(
                (name, content)
                for name, content in layer.items()
                if name.startswith(prefix) and name > after and (not last or name <= last)
            )
        found = [(name, merged[name]) for name in sorted(merged)]
        return [(name, content) for name, content in found if content is not None], last

    def _keep(self, name: bytes, content: bytes | None) -> None:
        cache = self._cache
        self._drop(name)
        cache[name] = content
        self._cached_bytes += _size(name, content)
        while len(cache) > CACHED_ENTRIES or self._cached_bytes > CACHED_BYTES:
            self._drop(next(iter(cache)))

    def _drop(self, name: bytes) -> None:
        if name in self._cache:
            self._cached_bytes -= _size(name, self._cache.pop(name))

    # Changing --------------------------------------------------------------------------------------

    @property
    def changed(self) -> bool:
        """Whether the running turn has changed any."""
        return bool(self._staged)

    def stage(self, name: bytes, content: bytes | None) -> None:
        """Change an entry, or with None take it away.

        Raises:
            ValueError: the turn would change too many, or too much; nothing was changed.
        """
        limits = self.store.limits
        size = self._staged_bytes + _size(name, content)
        if name in self._staged:
            size -= _size(name, self._staged[name])
        elif len(self._staged) >= limits.turn_entries:
            raise ValueError(
                f"the turn changes more than {limits.turn_entries} entries of collections. Spread them"
                " over several turns or calls of save(), or raise turn_entries."
            )
        if size > limits.turn_entry_bytes:
            raise ValueError(
                f"the turn changes more than {limits.turn_entry_bytes} bytes of entries. Spread them over"
                " several turns or calls of save(), or raise turn_entry_bytes."
            )
        self._staged[name] = content
        self._staged_bytes = size

    def unstage(self, least: bytes, beyond: bytes) -> None:
        """Forget what the running turn has changed in a range of names."""
        for name in [each for each in self._staged if least <= each < beyond]:
            self._staged_bytes -= _size(name, self._staged.pop(name))

    # Committing ------------------------------------------------------------------------------------

    @property
    def unresolved(self) -> bool:
        """Whether a length cannot be told before the store was asked."""
        return any(owner.unresolved for owner in self.owners.values())

    async def resolve(self) -> None:
        """Find out what changed entries were there before, so that every length is known."""
        while names := list(self._unresolved()):
            epoch = self.epoch
            there: set[bytes] = set()
            for start in range(0, len(names), 8 * _PER_LOAD):
                some = names[start : start + 8 * _PER_LOAD]
                there.update(await self.store.load(some, contents=False))
            if self.epoch != epoch:
                continue
            for owner in self.owners.values():
                for name in [each for each in names if each in owner.unresolved]:
                    owner.resolve(name, self._staged[name], there=name in there)

    def _unresolved(self) -> Iterator[bytes]:
        for owner in self.owners.values():
            yield from owner.unresolved

    def take(self) -> Mapping[bytes, bytes | None] | None:
        """What a commit that begins now has to carry. It is under way from here on."""
        for owner in self.owners.values():
            owner.settle()
        if not self._staged:
            return None
        taken = self._staged
        self._flying.append(taken)
        self._staged, self._staged_bytes = {}, 0
        return taken

    def sweep(self) -> Sequence[tuple[bytes, bytes]]:
        """What a commit that begins now has to purge."""
        ranges: Iterable[tuple[bytes, bytes] | None] = (
            owner.sweep() for owner in self.owners.values()
        )
        return [each for each in ranges if each is not None]

    def landed(self) -> None:
        """The first of the commits under way has succeeded."""
        self.epoch += 1
        for name, content in self._flying.pop(0).items():
            self._keep(name, content)

    def roll_back(self) -> None:
        """Forget what the running turn has changed."""
        self._staged, self._staged_bytes = {}, 0

    def forget(self) -> None:
        """Forget all that is not stored for sure."""
        self.roll_back()
        self.epoch += 1
        self._flying = []
        self._cache, self._cached_bytes = {}, 0

    def __repr__(self) -> str:
        return (
            f"<Entries {list(self.owners)} changed={len(self._staged)} flying={len(self._flying)}"
            f" cached={len(self._cache)}>"
        )


def _size(name: bytes, content: bytes | None) -> int:
    return len(name) + len(content or b"")
