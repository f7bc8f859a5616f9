"""An actor with a map and a list that does what it is told, and the same done to a dict and a list."""

from __future__ import annotations

import copy
from typing import Any, Final

import durum
from durum import Actor, read_only

Step = tuple[Any, ...]
Dump = tuple[dict[int, str], list[str], int]
UNKNOWN_LENGTH: Final = "?"
CHECKS: Final = frozenset(
    ("get", "many", "contains", "len", "items", "pop", "lget", "slice", "llen", "all")
)


class Broken(Exception):
    """A turn that was told to fail."""


class Shelves(Actor):
    """Two collections and a plain field, which must never disagree on which turns have happened."""

    items: durum.Map[int, str] = durum.Map()
    log: durum.List[str] = durum.List()
    turns: int = 0

    async def run(self, steps: list[list[Any]]) -> list[Any]:
        self.turns += 1
        return [await self._step(*step) for step in steps]

    async def blind(self, steps: list[list[Any]]) -> None:
        """As `run`, in a method that cannot wait."""
        self.turns += 1
        for name, *args in steps:
            self._change(name, *args)

    @read_only
    async def look(self, steps: list[list[Any]]) -> list[Any]:
        return [await self._step(*step) for step in steps]

    @read_only
    async def dump(self) -> Dump:
        items = {key: value async for key, value in self.items.items()}
        log = [value async for value in self.log]
        assert len(self.items) == len(items), (len(self.items), items)
        assert len(self.log) == len(log)
        return items, log, self.turns

    def _change(self, name: str, *args: Any) -> None:
        match name:
            case "set":
                self.items[args[0]] = args[1]
            case "discard":
                self.items.discard(args[0])
            case "clear":
                self.items.clear()
            case "append":
                self.log.append(args[0])
            case "lset":
                if len(self.log):
                    self.log.set(args[0] % len(self.log), args[1])
            case "cut":
                self.log.truncate_front(args[0])
            case "fail":
                raise Broken(*args)
            case _:
                raise AssertionError(name)

    async def _step(self, name: str, *args: Any) -> Any:
        match name:
            case "get":
                return await self.items.get(args[0])
            case "many":
                return await self.items.get_many(args)
            case "contains":
                return await self.items.contains(args[0])
            case "pop":
                return await self.items.pop(args[0], "none")
            case "len":
                try:
                    return len(self.items)
                except LookupError:
                    return UNKNOWN_LENGTH
            case "count":
                return await self.items.count()
            case "items":
                page = self.items.items(after=args[0], limit=args[1])
                return [list(entry) async for entry in page]
            case "lget":
                return await self.log.get(args[0] % len(self.log)) if len(self.log) else None
            case "slice":
                return await self.log.slice(*args)
            case "llen":
                return len(self.log)
            case "all":
                return [value async for value in self.log]
            case "save":
                return await self.save()
            case _:
                return self._change(name, *args)


class Model:
    """What it must be."""

    def __init__(self) -> None:
        self.items: dict[int, str] = {}
        self.log: list[str] = []
        self.turns = 0

    def dump(self) -> Dump:
        return dict(sorted(self.items.items())), list(self.log), self.turns

    def fork(self) -> Model:
        return copy.deepcopy(self)

    def step(self, name: str, *args: Any) -> Any:
        match name:
            case "set":
                self.items[args[0]] = args[1]
            case "discard":
                self.items.pop(args[0], None)
            case "clear":
                self.items.clear()
            case "append":
                self.log.append(args[0])
            case "lset":
                if self.log:
                    self.log[args[0] % len(self.log)] = args[1]
            case "cut":
                del self.log[: args[0]]
            case "get":
                return self.items.get(args[0])
            case "many":
                return {key: self.items[key] for key in args if key in self.items}
            case "contains":
                return args[0] in self.items
            case "pop":
                return self.items.pop(args[0], "none")
            case "len" | "count":
                return len(self.items)
            case "items":
                after, limit = args
                keys = [key for key in sorted(self.items) if after is None or key > after]
                return [[key, self.items[key]] for key in keys[:limit]]
            case "lget":
                return self.log[args[0] % len(self.log)] if self.log else None
            case "slice":
                return self.log[args[0] : args[1]]
            case "llen":
                return len(self.log)
            case "all":
                return list(self.log)
            case "save":
                return None
            case _:
                raise AssertionError(name)
        return None
