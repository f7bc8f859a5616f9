"""What a grain class may look like: each refusal comes at the class statement, with its reason."""

from __future__ import annotations

import textwrap
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, ClassVar, Final

import pytest

from durum import errors
from durum.grains import rules
from durum.grains.actor import Actor, read_only
from durum.grains.kind import kind_of
from durum.grains.state import field


def define(body: str, head: str = "class Thing(Actor):") -> type[Actor]:
    """Run a class statement."""
    scope: dict[str, Any] = {
        each.__name__: each
        for each in (Actor, field, read_only, cached_property, partial, timedelta)
    } | {
        "Any": Any,
        "Final": Final,
        "ClassVar": ClassVar,
        "__name__": __name__,
    }
    exec(f"{head}\n{textwrap.indent(textwrap.dedent(body), '    ')}", scope)
    return scope[head.split()[1].partition("(")[0].rstrip(":")]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("def deposit(self, x: int) -> int: ...", r"Thing\.deposit: .*must be `async def`"),
        ("@property\ndef size(self): ...", "a property cannot be called"),
        ("@staticmethod\nasync def make(x: int): ...", "a staticmethod cannot be called"),
        ("@classmethod\nasync def make(cls): ...", "a classmethod cannot be called"),
        ("@cached_property\ndef size(self): ...", "a cached_property cannot be called"),
        ("double = lambda self, x: 2 * x", "must be `async def`"),
        ("twice = partial(print, 2)", "must be `async def`|cannot be called"),
        ("async def items(self):\n    yield 1", "yields, so annotate what"),
        ("async def add(self, *amounts: int) -> None: ...", r"\*amounts cannot be checked"),
        ("async def add(self, **amounts: int) -> None: ...", r"\*\*amounts cannot be checked"),
        ("async def add(self, amount) -> None: ...", "parameter amount has no annotation"),
        ("async def add() -> None: ...", "takes self"),
        ("async def add(*, self) -> None: ...", "takes self"),
        ("async def add(self, x: object) -> None: ...", "parameter x: object is no type"),
        ("async def add(self, x: complex) -> None: ...", "parameter x: complex is no type"),
        ("async def add(self, x: Actor) -> None: ...", "pass its key"),
        ("async def add(self) -> range: ...", "result: range is no type"),
        ("async def add(self, _durum_x: int) -> None: ...", "Durum's own"),
        ("balance: int", r"Thing\.balance has no default"),
        ("balance: int = 'none'", r"Thing\.balance: its default 'none' does not fit"),
        ("balance: int = None", r"\| None"),
        ("balance: complex = 1j", r"Thing\.balance: complex is no type"),
        ("items: list[int] = [1]", r"default_factory"),
        ("items: dict[str, int] = {'a': 1}", r"default_factory"),
        ("items: list[int] = field(default_factory=lambda: ['x'])", "does not fit"),
        ("items = []", "all grains would share it"),
        ("items = field(default_factory=list)", "all grains would share it"),
        ("__slots__ = ()", "leave the slots out"),
        ("def __init__(self): ...", "on_activate"),
        ("def __new__(cls): ...", "on_activate"),
        ("_durum_x: int = 0", "Durum's own"),
        ("def on_activate(self): ...", "async def"),
        ("async def migrate_state(self, old: dict, version: int) -> dict: ...", "plain `def"),
        ("async def add(self) -> None:\n    self.total = 1", "assigns self.total"),
        ("async def _add(self) -> None:\n    self.total: int = 1", "assigns self.total"),
        (
            "async def add(self) -> None:\n    def inner():\n        self.total = 1\n    inner()",
            "assigns self.total",
        ),
    ],
    ids=lambda value: value.splitlines()[0][:50],
)
def test_a_class_that_could_not_work_is_refused_where_it_stands(body: str, reason: str) -> None:
    """A mistake has to show on import, and not in the first turn in production."""
    with pytest.raises(errors.ConfigError, match=reason):
        define(body)


@pytest.mark.parametrize("name", sorted(rules.RESERVED))
def test_a_reserved_name_is_refused_as_a_method_and_as_a_field(name: str) -> None:
    """A later release gives them a meaning; a class that uses one would break silently then."""
    for body in (f"async def {name}(self) -> None: ...", f"{name}: int = 0", f"{name} = 1"):
        with pytest.raises(errors.ConfigError, match=rf"Thing\.{name}: the name is reserved"):
            define(body)


def test_the_reserved_names_are_few_and_frozen() -> None:
    """Every new one would break somebody's class: whatever comes later goes under context."""
    assert sorted(rules.RESERVED) == [
        *("actor", "call", "context", "deactivate", "key"),
        *("remind", "save", "set_timer", "start", "tell"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        "async def add(self, x: int, /, y: str = '', *, z: Any = None) -> None: ...",
        "async def add(self): ...",
        "def _helper(self, x): ...",
        "@property\ndef _size(self): ...",
        "LIMIT = 5\nNAMES: ClassVar[list[str]] = ['a']\nBOUND: Final = 3",
        "class Full(Exception): ...",
        "_cache: dict[str, object] = {}\n_other = None",
        "async def add(self) -> None:\n    self._x = 1\n    self.known = 2\nknown: int = 0",
        "async def add(self) -> None:\n    def inner(other):\n        other.total = 1",
        "async def on_activate(self) -> None: ...\nasync def on_deactivate(self, reason): ...",
        "def migrate_state(self, old, version): return old",
        "@staticmethod\ndef migrate_state(old, version): return old",
        "@read_only\nasync def get(self) -> int: return 1",
    ],
)
def test_a_class_within_the_rules_is_accepted(body: str) -> None:
    """Refusing what would have worked costs users as much as a missed mistake."""
    kind_of(define(body))


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("class Thing(Actor, kind='a/b'):", "'a/b' is no kind name"),
        ("class Thing(Actor, kind=''):", "'' is no kind name"),
        ("class Thing(Actor, kind=3):", "3 is no kind name"),
        ("class Überweisung(Actor):", "no kind name"),
        ("class Thing(Actor, version=0):", "version=0"),
        ("class Thing(Actor, version=True):", "version=True"),
        ("class Thing(Actor, idle_after=5):", "idle_after=5; write a positive timedelta"),
        ("class Thing(Actor, idle_after=timedelta(0)):", "positive timedelta"),
        ("class Thing(Actor, mailbox_limit=0):", "mailbox_limit=0"),
        ("class Thing(Actor, reentrancy='always'):", "reentrancy='always'"),
    ],
)
def test_a_class_keyword_out_of_its_range_is_refused(head: str, reason: str) -> None:
    """The message names the keyword and what to write."""
    with pytest.raises(errors.ConfigError, match=reason):
        define("pass", head)


def test_an_unknown_class_keyword_is_a_type_error() -> None:
    """Python says it by itself, as for any other class."""
    with pytest.raises(TypeError, match="knid"):
        define("pass", "class Thing(Actor, knid='x'):")


def test_read_only_is_for_coroutine_functions() -> None:
    """Anything else could not be a public method at all."""
    with pytest.raises(errors.ConfigError, match="no `async def`"):
        read_only(lambda self: 1)


def test_rules_hold_for_what_a_mixin_brings_along() -> None:
    """A public method of a plain base class is as public as any other."""

    class Mixin:
        def helper(self) -> int:
            return 1

    with pytest.raises(errors.ConfigError, match=r"Thing\.helper"):

        class Thing(Mixin, Actor):
            pass


def test_options_are_inherited_but_not_name_and_version() -> None:
    """Two kinds under one name would share their data."""

    class Base(Actor, kind="base", version=3, idle_after=timedelta(minutes=1), reentrancy="never"):
        pass

    class Derived(Base, mailbox_limit=5):
        pass

    options = kind_of(Derived).options
    assert (options.kind, options.version) == ("Derived", 1)
    assert (options.idle_after_s, options.reentrancy, options.mailbox_calls) == (60.0, "never", 5)
