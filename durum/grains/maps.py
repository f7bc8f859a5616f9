"""A durable map of any size. Owns its API; see collection.py for what it stands on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar, cast, overload

from durum.grains.collection import Collection, Shelf
from durum.grains.entries import PER_PAGE, UNKNOWN
from durum.grains.keys import KeyCodec
from durum.wire.shapes import Misfit

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


class _Missing:
    """Stands for a default that was not given."""

    def __repr__(self) -> str:
        return "..."


_MISSING: Final = _Missing()


class Map(Collection, Generic[K, V]):
    """A field like a dict whose entries are stored one by one and loaded when they are asked for.

        class Cart(Actor):
            items: durum.Map[str, Item] = durum.Map()

            async def put(self, name: str, item: Item) -> None:
                self.items[name] = item                 # committed with this turn, or not at all

            async def find(self, name: str) -> Item | None:
                return await self.items.get(name)

    Keys are str, int, bytes, or tuples of those, and come in their order. Values are copies: to change one,
    set it again. Changes are seen by the turn that made them, and go with it if it fails.
    """

    __slots__ = ()

    @overload
    async def get(self, key: K) -> V | None: ...
    @overload
    async def get(self, key: K, default: D) -> V | D: ...
    async def get(self, key: K, default: object = None) -> object:
        """The value under a key, or the default.

        Raises:
            TypeError: the key is not of the declared type. So do all that take keys.
        """
        shelf = self._shelf
        name = self._name(shelf, key)
        found = shelf.find(name)
        if found is UNKNOWN:
            found = (await shelf.load([name])).get(name)
        return default if found is None else shelf.spec.read(found)

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The values under several keys, of those that are there."""
        shelf = self._shelf
        named = {key: self._name(shelf, key) for key in keys}
        found = await shelf.load(list(named.values()))
        return {key: shelf.spec.read(found[name]) for key, name in named.items() if name in found}

    async def contains(self, key: K) -> bool:
        """Whether there is an entry under a key."""
        shelf = self._shelf
        name = self._name(shelf, key)
        found = shelf.find(name)
        return name in await shelf.load([name]) if found is UNKNOWN else found is not None

    def set(self, key: K, value: V) -> None:
        """Set the entry under a key; nothing is loaded.

        Raises:
            TypeError: key or value is not of the declared type.
            ValueError: it is too large, or the turn changes too much.
        """
        shelf = self._writable()
        name = self._name(shelf, key)
        shelf.change(name, shelf.spec.write(shelf, value))

    def __setitem__(self, key: K, value: V) -> None:
        self.set(key, value)

    def update(self, values: Mapping[K, V]) -> None:
        """Set several entries. Raises what `set` raises; those before it are set."""
        for key, value in values.items():
            self.set(key, value)

    def discard(self, key: K) -> None:
        """Take away the entry under a key, if there is one; nothing is loaded."""
        shelf = self._writable()
        shelf.change(self._name(shelf, key), None)

    def __delitem__(self, key: K) -> None:
        """As discard(): whether the entry is there is not looked up, so this is no KeyError."""
        self.discard(key)

    @overload
    async def pop(self, key: K) -> V: ...
    @overload
    async def pop(self, key: K, default: D) -> V | D: ...
    async def pop(self, key: K, default: object = _MISSING) -> object:
        """Take away the entry under a key, and return its value or the default.

        Raises:
            KeyError: there is none, and no default.
        """
        shelf = self._writable()
        name = self._name(shelf, key)
        found = (await shelf.load([name])).get(name)
        if found is None:
            if isinstance(default, _Missing):
                raise KeyError(key)
            return default
        shelf.change(name, None)
        return shelf.spec.read(found)

    def clear(self) -> None:
        """Take away all entries at once, however many.

        Those that are stored go with this turn's commit and the next ones', up to a thousand with each.
        """
        shelf = self._writable()
        shelf.unresolved.clear()
        shelf.move(shelf.start + 1, dropped=shelf.length, stored=shelf.stored)

    async def items(
        self,
        *,
        prefix: K | str | bytes | tuple[Any, ...] | None = None,
        after: K | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[tuple[K, V]]:
        """Entries by the order of their keys, loaded page by page.

        What is changed meanwhile is seen where its page is still to come.

        Args:
            prefix: only keys that begin with this text or these bytes; of tuples, with these elements.
            after: only keys behind this one: the last one of the page before.
            limit: at most so many.

        Raises:
            TypeError: such keys have no such prefix.
        """
        shelf = self._shelf
        keys = _keys(shelf)
        start = shelf.start
        whole = shelf.name(start)
        within = whole if prefix is None else whole + _checked(shelf, keys.prefix, prefix)
        cursor = b"" if after is None else self._name(shelf, after)
        left = limit
        while left is None or left > 0:
            most = PER_PAGE if left is None else min(PER_PAGE, left)
            page, cursor = await shelf.entries.page(within, cursor, most, stored=shelf.stored > 0)
            for name, content in page:
                if shelf.start != start:
                    return  # it was cleared
                yield keys.decode(name[len(whole) :]), shelf.spec.read(content)
                if left is not None:
                    left -= 1
                    if not left:
                        return
            if not cursor:
                return

    def _name(self, shelf: Shelf, key: K) -> bytes:
        return shelf.name(shelf.start) + _checked(shelf, _keys(shelf).encode, key)

    def _fill(self, values: object) -> None:
        self.update(dict(cast("Mapping[K, V]", values)))


def _keys(shelf: Shelf) -> KeyCodec:
    return cast("KeyCodec", shelf.spec.keys)  # a map's always has them


def _checked(shelf: Shelf, write: Any, key: object) -> bytes:
    try:
        return cast("bytes", write(key))
    except Misfit as exc:
        raise TypeError(f"{shelf.spec.title}: key: {exc.reason}.") from exc
