"""What Durum knows of a grain class: its name, options, methods and fields. Does no I/O.

A kind is built when its class is created, or, where an annotation names something that is defined
only later, when the kind is first asked for.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterator,
    Mapping,
)
from typing import Any, Final, Literal, Protocol, cast

import msgspec

from durum import errors
from durum.grains import luggage
from durum.grains.collection import EMPTY, Header, Spec, is_collection
from durum.grains.entries import Entries, EntryStore
from durum.grains.events import NOTHING, Events, published_by
from durum.grains.method import Method as Method  # noqa: PLC0414 - callers find it beside its kind
from durum.grains.placement import Placement
from durum.grains.publishing import Publishes
from durum.grains.state import Field, Fields, factory_of
from durum.wire import opaque, values
from durum.wire.shapes import Unsupported

KIND_ATTRIBUTE: Final = "_durum_kind"
READ_ONLY_MARK: Final = "_durum_read_only"
ONE_WAY_MARK: Final = "_durum_one_way"
_STREAMS: Final = (AsyncIterator, AsyncGenerator, AsyncIterable)
_NOT_OWN: Final = frozenset({"typing", "abc", Publishes.__module__})
HOOKS: Final = frozenset(
    {"on_activate", "on_deactivate", "on_reminder", "migrate_state", luggage.LEAVE, luggage.ARRIVE}
)
"""Public methods that Durum calls and nobody else can."""


class KindOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a class's keywords say. None: the silo's own setting holds.

    Args:
        kind: the durable name.
        version: the class's, written into every state.
        idle_after_s: an activation unused this long is collected.
        reentrant: turns interleave freely and commit by save() only.
        reentrancy: "chain": a call whose chain of callers holds the activation enters; "never":
            it is a Deadlock at once.
        strict_reads: read-only turns check ownership in the store instead of trusting clocks.
        mailbox_calls: calls waiting before one grain of the kind.
        replies_kept: remembered replies of one grain.
        reply_window_s: how long each is kept.
        message_attempts: how often a message to it may fail before it is parked.
        pickle: values of types that msgspec does not know are pickled; see opaque.py.
        workers: activations of one key that a silo may have; 0: there is one in the cluster.
        placement: how its silo is chosen; None: by the hash of its id.
        aliases: other names under which callers may know it.
    """

    kind: str
    version: int = 1
    idle_after_s: float | None = None
    reentrant: bool = False
    reentrancy: Literal["chain", "never"] = "chain"
    strict_reads: bool = False
    mailbox_calls: int | None = None
    replies_kept: int | None = None
    reply_window_s: float | None = None
    message_attempts: int | None = None
    pickle: bool = False
    workers: int = 0
    placement: Placement | None = None
    aliases: tuple[str, ...] = ()


class Storing(Protocol):
    """What an instance with collections needs of its host; see context.Host."""

    entries: EntryStore


class GrainKind:
    """One grain class as Durum sees it.

    Args:
        cls: the class; its structure was checked by rules.py.
        root: the base class that every grain class has, whose own attributes are Durum's.
        options: see KindOptions.
        localns: names of the scope that the class stands in, where that is a function.

    Attributes:
        name: the durable kind name.
        version: the class's version.
        methods: the public methods by name.
        fields: the durable fields; see state.Fields.
        durable: whether there are any. Without, a turn needs no store.
        stateless: its activations may be on any silo, several of one key.
        placed: its silo is chosen when it is first called, and noted; the hash of its id does not tell.
        events: what its grains publish, or None where they publish nothing.
        encode_state: writes an instance's fields; see Fields.encode.
        restore: gives an instance stored fields or, for None, the defaults; see Fields.restore.
        hooks: which of HOOKS the class defines; has_on_activate, has_on_deactivate: the two asked
            for often.
        luggage: the codec of what on_dehydrate returns and on_rehydrate takes, or None without these.

    Raises:
        ConfigError: an annotation or a default is not usable; the message names it.
        NameError: an annotation names what is not defined yet.
    """

    def __init__(
        self,
        cls: type[Any],
        root: type[Any],
        options: KindOptions,
        localns: Mapping[str, Any] | None = None,
    ) -> None:
        self.cls: Final = cls
        self.root: Final = root
        self.name: Final = options.kind
        self.version: Final = options.version
        self.options: Final = options
        self._localns = dict(localns) if localns else None
        self._title: Final = cls.__qualname__.rpartition("<locals>.")[2]
        self.hooks: Final = frozenset(hook for hook in HOOKS if hook in _names_of(cls, root))
        self.has_on_activate: Final = "on_activate" in self.hooks
        self.has_on_deactivate: Final = "on_deactivate" in self.hooks
        self._made, declared = self._fields()
        self.fields: Final = Fields(self._title, self.version, declared, self._migration())
        self.durable: Final = bool(declared)
        self._collections: Final = [each.spec for each in declared if each.spec is not None]
        self.stateless: Final = options.workers > 0
        self.placed: Final = not self.stateless and options.placement is not None
        if self.stateless and self.durable:
            raise errors.ConfigError(
                f"{self._title} is a StatelessWorker and has durable fields"
                f" ({', '.join(self.fields.names)}): each silo would have its own. Begin their names with"
                " an underscore, or leave the placement out."
            )
        self.events: Final = self._published()
        self.encode_state: Final[Callable[[Any], bytes]] = self.fields.encode
        self.restore: Final[Callable[[Any, bytes | None], None]] = self.fields.restore
        self.luggage: Final = luggage.codec_of(
            self._title,
            self.hooks,
            self._hook_hints,
            handed_over=not (self.stateless or self.placed),
            pickled=options.pickle,
        )
        self._view_class = self._read_only_class()
        self.methods: Final[Mapping[str, Method]] = dict(self._methods())
        self._localns = None

    def __repr__(self) -> str:
        return f"<GrainKind {self.name} version={self.version} methods={list(self.methods)}>"

    def create(self, key: str, host: object) -> Any:
        """Make an instance with the defaults in its fields. Calls no code of the author's but
        default factories.

        Args:
            key: the grain's.
            host: what it runs in; see context.Host.
        """
        instance = object.__new__(self.cls)
        instance._durum_key = key
        instance._durum_host = host
        instance._durum_view = None
        stored = cast("Storing", host).entries if self._collections else None
        instance._durum_entries = None if stored is None else Entries(stored)
        for name, make in self._made:
            setattr(instance, name, make())
        self.fields.restore(instance, None)
        return instance

    def view(self, instance: Any) -> Any:
        """The instance as a read-only turn sees it: the same attributes, but fields refuse assignment.

        It shares the instance's `__dict__`, so that other turns keep plain attribute speed.
        """
        view = instance._durum_view  # noqa: SLF001
        if view is None:
            view = object.__new__(self._view_class)
            object.__setattr__(view, "__dict__", instance.__dict__)
            for name in ("_durum_key", "_durum_host", "_durum_entries"):
                object.__setattr__(view, name, getattr(instance, name))
            object.__setattr__(view, "_durum_view", view)
            instance._durum_view = view  # noqa: SLF001
        return view

    def _fields(self) -> tuple[list[tuple[str, Callable[[], object]]], list[Field]]:
        """Volatile attributes with a default to be made anew, and the durable fields."""
        made: dict[str, Callable[[], object]] = {}
        fields: dict[str, Field] = {}
        for cls in classes_of(self.cls, self.root):
            defaults = {**vars(cls), **vars(cls).get("_durum_defaults", {})}
            for name in inspect.get_annotations(cls):
                if is_class_level(cls, name):
                    continue
                default = defaults.get(name, inspect.Parameter.empty)
                factory = factory_of(default)
                if name.startswith("_"):
                    if factory is not None:
                        made[name] = factory
                    continue
                fields[name] = self._field(cls, name, default)
        return list(made.items()), list(fields.values())

    def _published(self) -> Events | None:
        published = published_by(self.cls, self._localns)
        if published is NOTHING:
            return None
        if self.stateless:
            raise errors.ConfigError(
                f"{self._title} is a StatelessWorker and Publishes: a watch would see one silo's only. Leave"
                " the placement out, or have an actor that is one in the cluster publish."
            )
        return Events(self._title, published)

    def _field(self, cls: type[Any], name: str, default: object) -> Field:
        title = self._title
        if default is inspect.Parameter.empty:
            raise errors.ConfigError(
                f"{title}.{name} has no default: a grain exists before anything was stored for it. "
                f"Write {name}: ... = ..., or {name}: ... = durum.field(default_factory=...)."
            )
        hint = self._hint(cls, name)
        if is_collection(hint):
            spec = Spec(title, name, hint, default, pickled=self.options.pickle)
            return Field(title, name, values.codec(Header), EMPTY, spec)
        try:
            codec = opaque.codec(hint, pickled=self.options.pickle)
            return Field(title, name, codec, default)
        except Unsupported as exc:
            raise errors.ConfigError(f"{title}.{name}: {exc}.") from exc

    def _hint(self, cls: type[Any], name: str) -> Any:
        """One resolved annotation. Alone, so that an unresolvable neighbour does not hide it."""
        alone = type(name, (), {"__annotations__": {name: inspect.get_annotations(cls)[name]}})
        alone.__module__ = cls.__module__
        hints = typing.get_type_hints(alone, localns=self._localns, include_extras=True)
        return hints[name]

    def _methods(self) -> Iterator[tuple[str, Method]]:
        for name in _names_of(self.cls, self.root):
            function = inspect.getattr_static(self.cls, name)
            if name.startswith("_") or name in HOOKS or isinstance(function, type):
                continue
            if not callable(function):
                continue
            hints = typing.get_type_hints(function, localns=self._localns, include_extras=True)
            streams = inspect.isasyncgenfunction(function)
            if streams:
                hints["return"] = self._item(name, hints.get("return"))
            view = self.view if streams or getattr(function, READ_ONLY_MARK, False) else None
            yield (
                name,
                Method(
                    self._title,
                    name,
                    function,
                    hints,
                    view,
                    pickled=self.options.pickle,
                    one_way=getattr(function, ONE_WAY_MARK, False),
                    by_hash=not (self.stateless or self.placed),
                    streams=streams,
                ),
            )

    def _item(self, name: str, returned: Any) -> Any:
        """What a streaming method yields."""
        args = typing.get_args(returned)
        if typing.get_origin(returned) not in _STREAMS or not args:
            raise errors.ConfigError(
                f"{self._title}.{name} yields, so annotate what: -> AsyncIterator[...], of collections.abc."
            )
        return args[0]

    def _hook_hints(self, hook: str) -> tuple[list[str], dict[str, Any]]:
        """The names of a hook's parameters, and its resolved annotations."""
        function = inspect.getattr_static(self.cls, hook)
        hints = typing.get_type_hints(function, localns=self._localns, include_extras=True)
        return list(inspect.signature(function).parameters), hints

    def _migration(self) -> Callable[[Any, dict[str, object], int], object] | None:
        if "migrate_state" not in self.hooks:
            return None
        return lambda instance, old, version: instance.migrate_state(old, version)

    def _read_only_class(self) -> type[Any]:
        names = frozenset(self.fields.names)
        title = self._title

        def refuse(view: Any, name: str) -> None:
            where = inspect.currentframe()
            caller = where and where.f_back and where.f_back.f_back
            method = caller.f_code.co_name if caller else "?"
            raise AttributeError(
                f"{title}.{name} was assigned in {method}() during a @read_only turn, which never "
                f"commits. Remove @read_only, or use an underscore attribute for what is volatile.",
                name=name,
                obj=view,
            )

        def set_attribute(view: Any, name: str, value: object) -> None:
            if name in names:
                refuse(view, name)
            object.__setattr__(view, name, value)

        def delete_attribute(view: Any, name: str) -> None:
            if name in names:
                refuse(view, name)
            object.__delattr__(view, name)

        body = {
            "__setattr__": set_attribute,
            "__delattr__": delete_attribute,
            "__module__": self.cls.__module__,
            "__qualname__": self.cls.__qualname__,
            "_durum_view_of": self.cls,
            **{spec.field: spec.read_only() for spec in self._collections},
        }
        return type(self.cls.__name__, (self.cls,), body)


def kind_of(cls: type[Any]) -> GrainKind:
    """The kind of a grain class.

    Raises:
        ConfigError: it is no grain class, or an annotation cannot be resolved or cannot travel.
    """
    found = getattr(cls, "__dict__", {}).get(KIND_ATTRIBUTE)
    if isinstance(found, GrainKind):
        return found
    if not callable(found):
        raise errors.ConfigError(
            f"{cls!r} is no grain class. Give a subclass of durum.Actor itself, not an instance "
            "and not its name."
        )
    try:
        kind = cast("GrainKind", found())  # what Actor.__init_subclass__ left for later
    except NameError as exc:
        raise errors.ConfigError(
            f"{cls.__qualname__}: an annotation names {exc.name!r}, which is not defined in module "
            f"{cls.__module__}. Import it there at run time, outside of TYPE_CHECKING."
        ) from exc
    setattr(cls, KIND_ATTRIBUTE, kind)
    return kind


def classes_of(cls: type[Any], root: type[Any]) -> list[type[Any]]:
    """The author's own classes that make up cls, the most general first."""
    own = [each for each in cls.__mro__ if not issubclass(root, each)]
    return [each for each in reversed(own) if each.__module__ not in _NOT_OWN]


def _names_of(cls: type[Any], root: type[Any]) -> list[str]:
    """The names of all attributes of the author's own classes, in the order of their definition."""
    return list(dict.fromkeys(name for each in classes_of(cls, root) for name in vars(each)))


def is_class_level(cls: type[Any], name: str) -> bool:
    """Whether an annotation says that the attribute belongs to the class: ClassVar or Final."""
    annotation = inspect.get_annotations(cls)[name]
    if isinstance(annotation, str):
        head = annotation.partition("[")[0].strip().rpartition(".")[2]
        return head in ("ClassVar", "Final")
    return any(
        marker is typing.ClassVar or marker is Final
        for marker in (annotation, typing.get_origin(annotation))
    )
