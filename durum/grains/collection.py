"""What a grain's large collections have in common. Owns how a field of such a type is declared, named,
counted and taken back; which entries there are, Map and List know, and where they are, entries.py.

Of a collection, the grain's state holds three numbers: where its entries begin, how many there are, and
how many stored ones before the beginning still have to go. Names of entries are the field's name, a zero
byte, eight bytes of a number, and what the collection adds. So a whole collection is cleared by moving its
beginning.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from durum import errors
from durum.grains.entries import UNKNOWN, Entries, Known
from durum.grains.keys import KeyCodec
from durum.store.parts import PURGED_PER_COMMIT
from durum.wire import opaque
from durum.wire.shapes import Misfit, Unsupported
from durum.wire.values import Codec

Header = tuple[int, int, int]
"""Beginning, length, how many before the beginning still have to go."""
EMPTY: Final[Header] = (0, 0, 0)
_BEYOND: Final = b"\xff" * 8


class Shelf:
    """One collection of one activation: its counts, and its place among the grain's entries.

    Args:
        entries: all of the activation's.
        spec: its declaration.

    Attributes:
        start: the number in the names of its entries, or of the first of them.
        length: how many there are, but for those that are unresolved.
        stored: how many there will be in the store once all commits under way have succeeded.
    """

    __slots__ = ("_garbage", "entries", "length", "spec", "start", "stored", "unresolved")

    def __init__(self, entries: Entries, spec: Spec) -> None:
        self.entries: Final = entries
        self.spec: Final = spec
        self.unresolved: dict[bytes, None] = {}
        self.restore(EMPTY)

    def restore(self, header: Header) -> None:
        """Be as a state says."""
        self.start, self.length, self._garbage = header
        self.stored = self.length
        self.unresolved.clear()

    def header(self) -> Header:
        """What the state shall say."""
        if self.unresolved:
            raise errors.DurumBug(f"{self!r}: it is written before its length is known")
        return self.start, self.length, self._garbage

    def name(self, number: int, key: bytes = b"") -> bytes:
        """The name of an entry."""
        return self.spec.prefix + number.to_bytes(8, "big") + key

    def find(self, name: bytes) -> Known:
        """What is known of an entry without asking the store."""
        found = self.entries.find(name)
        return None if found is UNKNOWN and not self.stored else found

    async def load(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """Entries by name, those that are there."""
        if self.stored:
            return await self.entries.load(names)
        found = {name: self.find(name) for name in names}
        return {name: each for name, each in found.items() if isinstance(each, bytes)}

    def change(self, name: bytes, content: bytes | None) -> None:
        """Change an entry, or with None take it away, whether it is there or not."""
        before = self.find(name)
        self.entries.stage(name, content)
        if before is UNKNOWN:
            self.unresolved[name] = None
        elif name not in self.unresolved:
            self.length += (content is not None) - (before is not None)

    def move(self, start: int, *, dropped: int, stored: int) -> None:
        """Begin elsewhere; what is before the beginning is gone.

        Args:
            start: the new beginning.
            dropped: how many entries that takes away, but for unresolved ones.
            stored: how many of those in the store.
        """
        self.entries.unstage(self.spec.prefix, self.name(start))
        self.start = start
        self.length -= dropped
        self.stored -= stored
        self._garbage += stored

    # As the owner of entries -------------------------------------------------------------------------

    def resolve(self, name: bytes, content: bytes | None, *, there: bool) -> None:
        del self.unresolved[name]
        self.length += (content is not None) - there

    def settle(self) -> None:
        self.stored = self.length

    def sweep(self) -> tuple[bytes, bytes] | None:
        if not self._garbage:
            return None
        self._garbage -= min(self._garbage, PURGED_PER_COMMIT)
        return self.spec.prefix, self.name(self.start)

    def __repr__(self) -> str:
        return f"<Shelf {self.spec.title} start={self.start} length={self.length}>"


class Collection:
    """A face of one collection: what the author's code holds. Map and List are its kinds.

    In a class body it is the default that declares a field; in a grain it has entries.
    """

    __slots__ = ("_frozen", "_known")

    __durum_refusal__: ClassVar[str] = (
        "a collection stays with its grain. Declare it as a field of its own, "
        "`items: durum.Map[str, int] = durum.Map()`, and pass lists, dicts or pages of it"
    )

    def __init__(self) -> None:
        self._known: Shelf | None = None
        self._frozen = False

    @property
    def _shelf(self) -> Shelf:
        if self._known is None:
            raise TypeError(
                f"this {type(self).__name__} belongs to no grain. Declare it in an actor's class body, "
                "annotated and public, and use it as self.<name> in a method."
            )
        return self._known

    def _writable(self) -> Shelf:
        shelf = self._shelf
        if self._frozen:
            raise AttributeError(
                f"{shelf.spec.title} was changed in a @read_only turn, which never commits. Remove "
                "@read_only from the method."
            )
        return shelf

    def _fill(self, values: object) -> None:
        """Take in what a unit test gives the field: a dict, or a list."""
        raise NotImplementedError

    def __len__(self) -> int:
        shelf = self._shelf
        if shelf.unresolved:
            raise LookupError(
                f"{shelf.spec.title}: its length is not known, since {len(shelf.unresolved)} entries were"
                " set or discarded without a look at them. Write `await ....count()`, or get them first."
            )
        return shelf.length

    async def count(self) -> int:
        """How many entries there are. As len(), but looks at the store where that is needed."""
        shelf = self._shelf
        await shelf.entries.resolve()
        return shelf.length

    def __repr__(self) -> str:
        if self._known is None:
            return f"durum.{type(self).__name__}()"
        shelf = self._known
        return f"<{type(self).__name__} {shelf.spec.title} length={shelf.length}>"


class Spec:
    """The declaration of a field that is a collection.

    Args:
        owner: the actor class's name, for messages.
        field: the field's.
        annotation: its resolved type.
        default: what the class body assigns to it.
        pickled: see opaque.codec.

    Attributes:
        keys: the codec of a map's keys, or None.
        values: of its values.
        prefix: what the names of all its entries begin with.

    Raises:
        ConfigError: the declaration is incomplete, or keys or values cannot be stored.
    """

    __slots__ = ("cls", "field", "keys", "prefix", "title", "values")

    def __init__(
        self, owner: str, field: str, annotation: Any, default: object, *, pickled: bool
    ) -> None:
        self.title: Final = f"{owner}.{field}"
        self.field: Final = field
        self.prefix: Final = field.encode() + b"\0"
        self.cls: Final[type[Collection]] = typing.get_origin(annotation) or annotation
        args = typing.get_args(annotation)
        name = self.cls.__name__
        given = default if isinstance(default, Collection) else None
        if given is None or type(given) is not self.cls or given._known:  # noqa: SLF001 - ours
            raise errors.ConfigError(
                f"{self.title}: write {field}: durum.{name}[...] = durum.{name}()."
            )
        if not args:
            raise errors.ConfigError(
                f"{self.title}: say what is in it: durum.Map[str, int], durum.List[int]."
            )
        try:
            self.keys: KeyCodec | None = KeyCodec(args[0]) if len(args) > 1 else None
            self.values: Codec[Any] = opaque.codec(args[-1], pickled=pickled)
        except Unsupported as exc:
            raise errors.ConfigError(f"{self.title}: {exc}.") from exc

    def face(self, shelf: Shelf, *, frozen: bool = False) -> Collection:
        """What the author's code holds."""
        made = self.cls()
        made._known, made._frozen = shelf, frozen  # noqa: SLF001 - ours
        return made

    def write(self, shelf: Shelf, value: object) -> bytes:
        """An entry's bytes.

        Raises:
            TypeError: the value is not of the declared type.
            ValueError: it is too large.
        """
        try:
            data = self.values.verify(value)
        except Misfit as exc:
            raise TypeError(
                f"{self.title}: value{exc.path}: {exc.reason}; nothing was set."
            ) from exc
        limit = shelf.entries.store.limits.entry_bytes
        if len(data) > limit:
            raise ValueError(
                f"{self.title}: the value takes {len(data)} bytes (limit {limit}); nothing was set. Keep "
                "less in one entry, or raise entry_bytes."
            )
        return data

    def read(self, data: bytes) -> Any:
        """An entry's value.

        Raises:
            StoreError: what is stored does not fit the declared type.
        """
        try:
            return self.values.decode(data)
        except Misfit as exc:
            raise errors.StoreError(
                f"{self.title}: a stored value does not fit its type: {exc}. The stored bytes are "
                "untouched; widen the annotation."
            ) from exc

    def read_only(self) -> property:
        """What stands in for the field where a turn may change nothing."""

        def face(view: Any) -> Collection:
            """The collection, for reading."""
            return self.face(view._durum_entries.owners[self.field], frozen=True)  # noqa: SLF001 - ours

        return property(face)

    # Where a class's fields are written and read -------------------------------------------------------

    def header(self, entries: Entries, value: object) -> Header:
        """What the state says of the collection that stands in the field.

        Raises:
            TypeError: something else stands there.
        """
        shelf = entries.owners[self.field]
        if not isinstance(value, Collection) or value._known is not shelf:  # noqa: SLF001 - ours
            raise TypeError(
                f"{self.title} was assigned; a collection is changed in place: clear() it, then set or "
                "extend."
            )
        return value._known.header()  # noqa: SLF001

    def restore(self, entries: Entries, header: Header) -> Collection:
        """The collection that a state speaks of."""
        shelf = entries.owners.get(self.field)
        if not isinstance(shelf, Shelf):
            shelf = entries.owners[self.field] = Shelf(entries, self)
        shelf.restore(header)
        return self.face(shelf)


def is_collection(annotation: Any) -> bool:
    """Whether a field's type is one of the collections."""
    cls = typing.get_origin(annotation) or annotation
    return isinstance(cls, type) and issubclass(cls, Collection)
