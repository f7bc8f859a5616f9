"""Maps and lists without a silo: how they are declared, what they refuse, what a unit test can do."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

import durum
from durum import Actor, ConfigError, Opaque, read_only
from durum.grains.kind import kind_of
from durum.testing.actors import unhosted


class Cart(Actor):
    items: durum.Map[str, int] = durum.Map()
    orders: durum.Map[tuple[str, int], list[str]] = durum.Map()
    log: durum.List[str] = durum.List()
    total: int = 0

    async def put(self, name: str, count: int) -> int:
        self.items[name] = count
        self.log.append(name)
        return len(self.items)

    @read_only
    async def has(self, name: str) -> bool:
        return await self.items.contains(name)


async def test_actor_with_collections_is_tested_without_a_silo() -> None:
    """A unit test needs no store to look at a method."""
    cart = unhosted(Cart, items={"pear": 2}, log=["pear"])
    assert await cart.put("apple", 3) == 2
    assert [entry async for entry in cart.items.items()] == [("apple", 3), ("pear", 2)]
    assert [name async for name in cart.log] == ["pear", "apple"]
    assert await cart.has("apple")


async def test_map_is_a_map() -> None:
    """The whole API, in memory."""
    items = unhosted(Cart).items
    items.update({"b": 2, "a": 1, "c": 3})
    assert await items.get("a") == 1
    assert await items.get("z") is None
    assert await items.get("z", 7) == 7
    assert await items.get_many(["a", "z", "c"]) == {"a": 1, "c": 3}
    assert [key async for key, _ in items.items(after="a")] == ["b", "c"]
    assert [key async for key, _ in items.items(limit=2)] == ["a", "b"]
    assert [key async for key, _ in items.items(limit=0)] == []
    del items["a"]
    items.discard("a")
    assert await items.pop("b") == 2
    assert await items.pop("b", None) is None
    with pytest.raises(KeyError):
        await items.pop("b")
    assert (len(items), await items.count(), repr(items)) == (1, 1, "<Map Cart.items length=1>")
    items.clear()
    assert len(items) == 0
    assert await items.get("c") is None
    items["c"] = 9
    assert [entry async for entry in items.items()] == [("c", 9)]


async def test_map_lists_by_the_first_elements_of_its_keys() -> None:
    """The order of keys is what makes pages and groups possible."""
    cart = unhosted(Cart)
    for key in (("ann", 2), ("bob", 1), ("ann", 10), ("an", 3)):
        cart.orders[key] = [f"{key}"]
    assert [key async for key, _ in cart.orders.items(prefix=("ann",))] == [("ann", 2), ("ann", 10)]
    cart.items.update({"apple": 1, "apricot": 2, "pear": 3})
    assert [key async for key, _ in cart.items.items(prefix="ap", after="apple")] == ["apricot"]
    with pytest.raises(TypeError, match="key"):
        [each async for each in cart.orders.items(prefix="ann")]


async def test_list_is_a_list() -> None:
    """The whole API, in memory."""
    log = unhosted(Cart).log
    log.extend("abcdef")
    assert (await log.get(0), await log.get(-1)) == ("a", "f")
    assert await log.slice(1, 3) == ["b", "c"]
    assert await log.slice(-2) == ["e", "f"]
    log.set(1, "B")
    log[-1] = "F"
    log.truncate_front(1)
    assert [each async for each in log] == ["B", "c", "d", "e", "F"]
    for wrong in (5, -6):
        with pytest.raises(IndexError, match="list of 5"):
            await log.get(wrong)
        with pytest.raises(IndexError):
            log.set(wrong, "x")
    with pytest.raises(ValueError, match="truncate_front"):
        log.truncate_front(-1)
    log.truncate_front(99)
    assert len(log) == 0
    log.append("z")
    log.clear()
    assert [each async for each in log] == []


async def test_values_are_copies() -> None:
    """What was set is what is committed, whatever becomes of the object; a change is set again."""
    cart = unhosted(Cart)
    names = ["one"]
    cart.orders["ann", 1] = names
    names.append("two")
    found = await cart.orders.get(("ann", 1))
    assert found == ["one"]
    found.append("three")
    assert await cart.orders.get(("ann", 1)) == ["one"]


async def test_values_without_a_form_of_their_own_are_pickled_where_that_is_declared() -> None:
    """As in any other field."""

    class Measures(Actor):
        shares: durum.Map[str, Opaque[Fraction]] = durum.Map()

    measures = unhosted(Measures)
    measures.shares["half"] = Fraction(1, 2)
    assert await measures.shares.get("half") == Fraction(1, 2)
    with pytest.raises(TypeError, match="expected Fraction"):
        measures.shares["half"] = 0.5  # type: ignore[assignment]


async def test_wrong_keys_and_values_are_refused_where_they_are_set() -> None:
    """A turn that fails at its commit would not tell the line."""
    cart: Any = unhosted(Cart)
    with pytest.raises(TypeError, match=r"Cart\.items: value"):
        cart.items["a"] = "one"
    with pytest.raises(TypeError, match=r"Cart\.items: key"):
        cart.items[1] = 1
    with pytest.raises(TypeError, match=r"Cart\.items: key"):
        await cart.items.get(1)
    with pytest.raises(TypeError, match=r"Cart\.log: value"):
        cart.log.append(1)
    with pytest.raises(ValueError, match="entry_bytes"):
        cart.log.append("x" * 1024 * 1024)
    assert (len(cart.items), len(cart.log)) == (0, 0)


async def test_collection_is_loaded_with_await_only() -> None:
    """Forgetting it must be a mistake at once."""
    cart: Any = unhosted(Cart)
    with pytest.raises(TypeError):
        cart.items["a"]
    with pytest.raises(TypeError):
        assert "a" in cart.items


def test_assigned_collection_is_refused_when_the_state_is_written() -> None:
    """A dict in its place would be lost without a word."""
    cart: Any = unhosted(Cart)
    encode = kind_of(Cart).encode_state
    encode(cart)
    others: list[Any] = [{}, durum.Map(), unhosted(Cart).items]
    for value in others:
        cart.items = value
        with pytest.raises(TypeError, match="changed in place"):
            encode(cart)
    kind_of(Cart).restore(cart, None)
    encode(cart)


def declared(**fields: Any) -> type[Actor]:
    """A class with these annotations and defaults."""
    annotations = {name: annotation for name, (annotation, _) in fields.items()}
    defaults = {name: default for name, (_, default) in fields.items() if default is not ...}
    return type("Odd", (Actor,), {"__annotations__": annotations, **defaults})


@pytest.mark.parametrize(
    ("annotation", "default", "reason"),
    [
        (durum.Map[str, int], ..., "has no default"),
        (durum.Map[str, int], {}, r"durum\.Map\(\)"),
        (durum.Map[str, int], durum.List(), r"durum\.Map\(\)"),
        (durum.Map[str, int], durum.field(default_factory=durum.Map), r"durum\.Map\(\)"),
        (durum.Map, durum.Map(), "say what is in it"),
        (durum.Map[float, int], durum.Map(), "type of keys"),
        (durum.Map[str, Actor], durum.Map(), "actor cannot travel"),
        (list[durum.Map[str, int]], [], "stays with its grain"),
        (durum.Map[str, int] | None, None, "stays with its grain"),
        (durum.Map[str, durum.List[int]], durum.Map(), "stays with its grain"),
        (dict[str, int], durum.Map(), "does not fit|share|stays with"),
    ],
)
def test_wrong_declaration_is_refused_with_the_reason(
    annotation: Any, default: Any, reason: str
) -> None:
    """Found on import, not in production."""
    with pytest.raises(ConfigError, match=reason):
        declared(items=(annotation, default))


def test_collection_without_annotation_is_refused() -> None:
    """It would not be durable."""
    with pytest.raises(ConfigError, match="Annotate it"):

        class Odd(Actor):
            items = durum.Map()  # type: ignore[var-annotated]


def test_collection_is_neither_argument_nor_result() -> None:
    """It stays with its grain."""
    with pytest.raises(ConfigError, match="stays with its grain"):

        class Odd(Actor):
            async def take(self, items: durum.Map[str, int]) -> None: ...


async def test_collection_of_no_grain_says_so() -> None:
    """A default is shared by all and belongs to none."""
    with pytest.raises(TypeError, match="belongs to no grain"):
        Cart.items["a"] = 1
    assert repr(Cart.items) == "durum.Map()"


def test_counts_survive_migration_and_older_classes() -> None:
    """Entries whose counts were lost would never be found again."""

    class Before(Actor, kind="Shop"):
        items: durum.Map[str, int] = durum.Map()
        total: int = 3

    class Without(Actor, kind="Shop"):
        total: int = 0

    class After(Actor, kind="Shop", version=2):
        items: durum.Map[str, int] = durum.Map()
        sum: int = 0

        def migrate_state(self, old: dict[str, Any], version: int) -> dict[str, Any]:
            assert old == {"total": 3}
            return {"sum": old["total"]}

    before = unhosted(Before, items={"a": 1, "b": 2})
    state = kind_of(Before).encode_state(before)
    older = unhosted(Without)
    kind_of(Without).restore(older, state)
    carried = kind_of(Without).encode_state(older)
    for blob in (state, carried):
        after = unhosted(After)
        kind_of(After).restore(after, blob)
        assert (len(after.items), after.sum) == (2, 3)
