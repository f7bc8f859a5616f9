"""A durable list of any size. Owns its API; see collection.py for what it stands on."""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator, Iterable
from typing import Final, Generic, SupportsIndex, TypeVar, cast

from durum import errors
from durum.grains.collection import Collection, Shelf

T = TypeVar("T")

_PAGE: Final = 128


class List(Collection, Generic[T]):
    """A field like a list whose entries are stored one by one and loaded when they are asked for.

        class Meter(Actor):
            log: durum.List[Reading] = durum.List()

            async def note(self, reading: Reading) -> None:
                self.log.append(reading)                # committed with this turn, or not at all
                if len(self.log) > 10_000:
                    self.log.truncate_front(1_000)

    It grows at its end and shrinks at its front. Values are copies: to change one, set it again. Changes are
    seen by the turn that made them, and go with it if it fails.
    """

    __slots__ = ()

    def append(self, value: T) -> None:
        """Add a value at the end.

        Raises:
            TypeError: the value is not of the declared type.
            ValueError: it is too large, or the turn changes too much.
        """
        shelf = self._writable()
        data = shelf.spec.write(shelf, value)
        shelf.entries.stage(shelf.name(shelf.start + shelf.length), data)
        shelf.length += 1

    def extend(self, values: Iterable[T]) -> None:
        """Add several values at the end. Raises what `append` raises; those before it are added."""
        for value in values:
            self.append(value)

    async def get(self, index: SupportsIndex) -> T:
        """The value at an index; a negative one counts from the end.

        Args:
            index: from 0, or from -1 backwards.

        Raises:
            IndexError: there is none.
        """
        shelf = self._shelf
        at = _index(shelf, index)
        (value,) = await self._load(shelf, range(at, at + 1))
        return value

    async def slice(self, start: int = 0, stop: int | None = None) -> list[T]:
        """The values from one index up to but not including another, as in `values[start:stop]`.

        Args:
            start: the first one's index; negative ones count from the end.
            stop: the index behind the last one; None: to the end.
        """
        shelf = self._shelf
        return await self._load(shelf, range(*slice(start, stop).indices(shelf.length)))

    async def __aiter__(self) -> AsyncIterator[T]:
        """All values, loaded page by page. What is appended meanwhile is seen."""
        shelf = self._shelf
        number = shelf.start  # stays a value's own when others before it go
        while (at := max(number - shelf.start, 0)) < shelf.length:
            number = shelf.start + at
            for value in await self._load(shelf, range(at, min(at + _PAGE, shelf.length))):
                yield value
                number += 1

    def set(self, index: SupportsIndex, value: T) -> None:
        """Replace the value at an index; nothing is loaded.

        Raises:
            IndexError: there is none.
            TypeError, ValueError: as `append`.
        """
        shelf = self._writable()
        data = shelf.spec.write(shelf, value)
        shelf.entries.stage(shelf.name(shelf.start + _index(shelf, index)), data)

    def __setitem__(self, index: SupportsIndex, value: T) -> None:
        self.set(index, value)

    def truncate_front(self, count: int) -> None:
        """Take away that many values from the front, or all if there are fewer.

        Those that are stored go with this turn's commit and the next ones', up to a thousand with each.

        Args:
            count: how many.

        Raises:
            ValueError: count is negative.
        """
        shelf = self._writable()
        if count < 0:
            raise ValueError(f"{shelf.spec.title}: truncate_front({count}); give 0 or more.")
        dropped = min(count, shelf.length)
        # What the store has is at the front; what this turn has appended is behind it.
        shelf.move(shelf.start + dropped, dropped=dropped, stored=min(dropped, shelf.stored))

    def clear(self) -> None:
        """Take away all values; see truncate_front."""
        self.truncate_front(self._shelf.length)

    async def _load(self, shelf: Shelf, places: range) -> list[T]:
        first = shelf.start
        names = [shelf.name(first + place) for place in places]
        found = await shelf.load(names)
        missing = len(names) - len(found)
        if missing:
            if shelf.start != first:
                raise RuntimeError(
                    f"{shelf.spec.title} was cut at its front while {missing} of the values there were"
                    " being loaded."
                )
            raise errors.DataLoss(
                f"{shelf.spec.title}: {missing} of its values are not in the store, though its state "
                "counts them. Nothing was changed. Restore the store from a backup."
            )
        return [shelf.spec.read(found[name]) for name in names]

    def _fill(self, values: object) -> None:
        self.extend(cast("Iterable[T]", values))


def _index(shelf: Shelf, index: SupportsIndex) -> int:
    at = operator.index(index)
    at += shelf.length if at < 0 else 0
    if not 0 <= at < shelf.length:
        raise IndexError(
            f"{shelf.spec.title}: index {operator.index(index)} in a list of {shelf.length}."
        )
    return at
