"""One public method of a kind: its arguments and result as bytes. Knows no caller and no silo.

What runs for each call is written once, from the method's own signature: Python itself then binds
the arguments, with its own messages, and nothing is looked up by name.
"""

from __future__ import annotations

import copy
import dis
import inspect
import types
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Never, NoReturn

from durum import config, errors
from durum.grains.source import compile_function
from durum.wire import opaque, values
from durum.wire.opaque import OpaqueCodec
from durum.wire.shapes import Misfit, Unsupported
from durum.wire.values import Codec

LIMIT_BYTES: Final = config.Limits().frame_bytes - 4096
"""The largest arguments or result: a frame, less room for what stands around them."""

_NONE: Final = b"\xc0"
_SMALL_MAPS: Final = frozenset(bytes([0x80 | count]) for count in range(16))
_WAITING: Final = frozenset({"GET_AWAITABLE", "GET_AITER", "GET_ANEXT"})


def waits(function: object) -> bool:
    """Whether a coroutine function can ever suspend: without an await in its code it cannot."""
    if not isinstance(function, types.FunctionType):
        return True
    if not function.__code__.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        return True
    return any(step.opname in _WAITING for step in dis.get_instructions(function))


class Parameter:
    """One parameter, after self.

    Args:
        declared: as in the signature.
        codec: its type's codec.
    """

    __slots__ = ("codec", "default", "kind", "name", "required")

    def __init__(self, declared: inspect.Parameter, codec: Codec[Any]) -> None:
        self.name = declared.name
        self.kind = declared.kind
        self.codec = codec
        self.required = declared.default is inspect.Parameter.empty
        self.default = declared.default

    @property
    def written(self) -> str:
        """The expression that a generated function writes for it."""
        is_opaque = isinstance(self.codec, OpaqueCodec)
        return f"_durum_seal({self.name})" if is_opaque else self.name


class Method:
    """One public method.

    Args:
        owner: the class's name, for messages.
        name: the method's, as callers write it.
        function: the coroutine function itself.
        hints: its resolved annotations, by parameter; "return" for the result.
        view: makes the instance that a read-only turn runs on, or None for other methods.
        pickled: whether values of types that msgspec does not know are pickled.
        one_way: its callers do not wait for it.
        by_hash: the hash of its grain's id says which silo to call.
        streams: it is an async generator; its result is each item.

    Attributes:
        opaque: it takes or returns pickled values, so it may be called over trusted links only.
        plain: it can take the shortest way to its grain.
        waits: whether a turn of it can suspend. One that cannot needs no Task.
        invoke: takes an instance and encoded arguments, checks them, returns the coroutine.
            Raises ArgumentError where they do not fit.
        encode_result: writes what the method returned. Raises TypeError where it is not what the
            method declares: a turn that fails here has changed nothing.
        decode_result: reads it at the caller. Raises CallError (did run: yes) where it does not fit.
        signature, names: what a proxy needs to declare the same parameters; see reference.py.
        limit_bytes: of arguments and of the result.

    Raises:
        ConfigError: a parameter's or the result's type cannot travel.
    """

    invoke: Callable[[Any, bytes], Coroutine[Any, Any, Any]]
    encode_result: Callable[[Any], bytes]
    decode_result: Callable[[bytes], Any]

    def __init__(
        self,
        owner: str,
        name: str,
        function: Callable[..., Any],
        hints: Mapping[str, Any],
        view: Callable[[Any], Any] | None,
        *,
        pickled: bool = False,
        one_way: bool = False,
        by_hash: bool = True,
        streams: bool = False,
    ) -> None:
        self._pickled: Final = pickled
        self.one_way: Final = one_way
        self.streams: Final = streams
        self.owner: Final = owner
        self.name: Final = name
        self.function: Final = function
        self.read_only: Final = view is not None
        self.waits = waits(function)
        self.limit_bytes = LIMIT_BYTES
        declared = list(inspect.signature(function).parameters.values())[1:]
        self.parameters: Final = [
            Parameter(each, self._codec(f"parameter {each.name}", hints[each.name]))
            for each in declared
        ]
        returned = hints.get("return", Any)
        if returned in (NoReturn, Never):
            returned = type(None)
        self._result: Final[Codec[Any]] = self._codec("result", returned)
        if one_way and self._result.annotation not in (None, type(None)):
            raise errors.ConfigError(
                f"{owner}.{name} is @one_way, and nobody will see what it returns: annotate it -> None."
            )
        codecs = [each.codec.annotation for each in self.parameters]
        self._opaque_places: Final = [
            (place, each)
            for place, each in enumerate(self.parameters)
            if isinstance(each.codec, OpaqueCodec)
        ]
        self.opaque: Final = bool(self._opaque_places) or isinstance(self._result, OpaqueCodec)
        self.plain: Final = not (self.opaque or one_way or streams)
        self.by_hash: Final = by_hash
        self._arguments: Final[Codec[Any]] = Codec(tuple[tuple(codecs)])  # type: ignore[misc]
        self.signature: Final = _signature(self.parameters)
        self.names: Final[dict[str, object]] = {
            "_durum_write": values.encode_fast,
            "_durum_seal": opaque.seal,
            "_durum_check": self._arguments.check,
            "_durum_method": self,
            "_durum_len": len,
            **{f"_durum_{each.name}": each.default for each in self.parameters},
        }
        self._pack: Final = self._compile("pack")
        self._bound: Final = self._compile("bound")
        self._write_invoke(view)
        self._write_result()

    def __repr__(self) -> str:
        kind = "read_only " if self.read_only else ""
        return f"<Method {kind}{self.owner}.{self.name}{'' if self.waits else ' never waits'}>"

    def wrapped(self, invoke: Callable[[Any, bytes], Any]) -> Method:
        """The same method, run another way, which may suspend."""
        made = copy.copy(self)
        made.invoke = invoke
        made.waits = True
        return made

    def unpack(self, args: bytes) -> dict[str, Any]:
        """Read a call's arguments, by name. Raises ArgumentError where they do not fit."""
        try:
            given: Sequence[Any] = self._open(self._arguments.read(args))
        except Exception as exc:  # noqa: BLE001 - said better by the slow way
            given = self._unpack_slowly(args, exc)
        return {each.name: value for each, value in zip(self.parameters, given, strict=True)}

    def canonical(self, args: bytes) -> bytes:
        """Arguments in the one form that all who mean the same have: sets in order, defaults filled in.

        Two processes write the same set in different orders, and the command line names its arguments.

        Raises:
            ArgumentError: they do not fit.
        """
        if self.opaque:
            return args  # of what is pickled nobody knows another form
        given = self.unpack(args)
        try:
            return values.encode_sorted(list(given.values()))
        except Exception:  # noqa: BLE001 - beyond what the one encoder knows; then as it came
            return args

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """Write a call's arguments: one msgpack array in the signature's order.

        Raises:
            TypeError: one is missing or unexpected, as with any Python function.
            ArgumentError: one cannot travel, or all together are too large.
        """
        try:
            return self._pack(*args, **kwargs)  # type: ignore[return-value]
        except errors.ArgumentError:
            raise
        except Exception:  # noqa: BLE001 - said better by the slow way, which knows each parameter
            bound: Any = self._bound(*args, **kwargs)
            return self.pack_slowly(bound)

    def pack_slowly(self, bound: tuple[Any, ...]) -> bytes:
        """Write arguments one by one, so that what is wrong with one can be said of it.

        Args:
            bound: one value for each parameter.
        """
        parts = []
        for each, value in zip(self.parameters, bound, strict=True):
            try:
                parts.append(each.codec.encode(value))
            except Misfit as exc:
                raise self._refusal(f"argument {each.name}{exc.path}: {exc.reason}") from exc
        return self.sized(values.encode_array(parts))

    def sized(self, data: bytes) -> bytes:
        """Let through arguments within the limit."""
        if len(data) > self.limit_bytes:
            raise self._refusal(
                f"the arguments take {len(data)} bytes, the limit is {self.limit_bytes}",
                "Send less, or in parts.",
            )
        return data

    def _refusal(self, what: str, advice: str = "") -> errors.ArgumentError:
        text = f"{self.owner}.{self.name}: {what}; the call did not run."
        return errors.ArgumentError(f"{text} {advice}" if advice else text)

    def _codec(self, what: str, annotation: Any) -> Codec[Any]:
        try:
            return opaque.codec(annotation, pickled=self._pickled)
        except Unsupported as exc:
            raise errors.ConfigError(f"{self.owner}.{self.name}: {what}: {exc}.") from exc

    def _compile(self, what: str) -> Callable[..., object]:
        everything = "".join(f"{each.name}, " for each in self.parameters)
        body = f"    return ({everything})\n"
        if what == "pack":
            check = f"    _durum_check(({everything}))\n" if self._arguments.check else ""
            written = "".join(f"{each.written}, " for each in self.parameters)
            body = (
                f"{check}    _durum_data = _durum_write(({written}))\n"
                "    if _durum_len(_durum_data) > _durum_method.limit_bytes:\n"
                "        _durum_method.sized(_durum_data)\n    return _durum_data\n"
            )
        text = f"def {self.name}({self.signature}):\n{body}"
        function = compile_function(self.name, text, self.names, self.owner)
        function.__qualname__ = f"{self.owner}.{self.name}"
        return function

    def _write_invoke(self, view: Callable[[Any], Any] | None) -> None:
        function, decode, slowly = self.function, self._arguments.read, self._unpack_slowly
        # Each by itself: passing them on as *arguments would copy them into a list and a tuple first.
        taken = "".join(f"_v{index}, " for index in range(len(self.parameters)))
        passed = ", ".join(
            f"{each.name}=_v{index}"
            if each.kind is inspect.Parameter.KEYWORD_ONLY
            else f"_v{index}"
            for index, each in enumerate(self.parameters)
        )
        instance = "_i" if view is None else "_view(_i)"
        decoded = "_open(_decode(_args))" if self._opaque_places else "_decode(_args)"
        text = (
            f"def invoke(_i, _args):\n    try:\n        ({taken}) = {decoded}\n"
            f"    except Exception as exc:\n        ({taken}) = _slowly(_args, exc)\n"
            f"    return _function({instance}, {passed})\n"
        )
        names = {"_decode": decode, "_slowly": slowly, "_function": function, "_view": view}
        names["_open"] = self._open
        self.invoke = self._written("invoke", text, names)

    def _open(self, decoded: tuple[Any, ...]) -> list[Any]:
        """Unpickle what is opaque. Only calls over trusted links come this far."""
        opened = list(decoded)
        for place, each in self._opaque_places:
            opened[place] = each.codec.convert(opened[place])
        return opened

    def _unpack_slowly(self, args: bytes, error: Exception) -> Sequence[Any]:
        """Read arguments that are no complete array of what the method declares."""
        document = values.json_document(args)
        if document is not None and self.opaque:
            raise self._refusal(
                "it takes or returns pickled values (durum.Opaque), which have no JSON form",
                "Call it from Python.",
            )
        try:
            given = self._given(args) if document is None else values.json_parts(document)
        except Misfit as exc:
            raise self._refusal(f"its arguments are malformed: {exc}") from error
        if isinstance(given, list):
            given = self._placed(given)
        unknown = [name for name in given if name not in {each.name for each in self.parameters}]
        if unknown:
            raise self._refusal(f"it has no parameter {', '.join(unknown)}")
        return [
            self._argument(each, given.get(each.name), is_json=document is not None)
            for each in self.parameters
        ]

    def _given(self, args: bytes) -> list[bytes] | dict[str, bytes]:
        named = args[:1] in (b"\xde", b"\xdf") or args[:1] in _SMALL_MAPS
        return values.decode_map(args) if named else values.decode_array(args)

    def _placed(self, given: list[bytes]) -> dict[str, bytes]:
        if len(given) > len(self.parameters):
            raise self._refusal(f"it takes {len(self.parameters)} arguments, {len(given)} came")
        return {each.name: part for each, part in zip(self.parameters, given, strict=False)}

    def _argument(self, each: Parameter, part: bytes | None, *, is_json: bool) -> Any:
        if part is None:
            if each.required:
                raise self._refusal(f"argument {each.name} is missing")
            return each.default
        try:
            return each.codec.decode_json(part) if is_json else each.codec.decode(part)
        except Misfit as exc:
            raise self._refusal(f"argument {each.name}{exc.path}: {exc.reason}") from exc

    def _write_result(self) -> None:
        """One test of the class catches the usual mistake before anything is committed."""
        result = self._result
        names: dict[str, object] = {
            "_write": values.encode_fast,
            "_slowly": self._result_slowly,
            "_misfit": self._result_misfit,
            "_read": result.read,
            "_check": result.check,
            "_method": self,
            "_none": _NONE,
        }
        names.update({f"_class{which}": cls for which, cls in enumerate(result.classes)})
        tests = " or ".join(f"_r.__class__ is _class{n}" for n in range(len(result.classes)))
        if result.classes == (type(None),):
            encode = "def encode(_r):\n    return _none if _r is None else _slowly(_r)\n"
        elif result.check is not None or not tests:
            encode = "def encode(_r):\n    return _slowly(_r)\n"
        else:
            encode = (
                f"def encode(_r):\n    if {tests}:\n        try:\n            _d = _write(_r)\n"
                "            if len(_d) <= _method.limit_bytes:\n                return _d\n"
                "        except Exception:\n            pass\n    return _slowly(_r)\n"
            )
        decode = (
            "def decode(_d):\n    try:\n        return _read(_d)\n"
            "    except Exception:\n        return _misfit(_d)\n"
        )
        if isinstance(result, OpaqueCodec):
            decode = "def decode(_d):\n    return _misfit(_d)\n"
        self.encode_result = self._written("encode", encode, names)
        self.decode_result = self._written("decode", decode, names)

    def _result_slowly(self, value: Any) -> bytes:
        try:
            data = self._result.verify(value)
        except Misfit as exc:
            raise TypeError(
                f"{self.owner}.{self.name} returned what its annotation does not allow"
                f"{f' (at {exc.path})' if exc.path else ''}: {exc.reason}. "
                "Return a value of the declared type, or change the annotation."
            ) from exc
        if len(data) > self.limit_bytes:
            raise ValueError(
                f"{self.owner}.{self.name} returned {len(data)} bytes, the limit is "
                f"{self.limit_bytes}. Return less, or in parts."
            )
        return data

    def _result_misfit(self, data: bytes) -> Any:
        try:
            return self._result.decode(data)
        except Misfit as exc:
            raise errors.CallError(
                f"{self.owner}.{self.name}: it ran, but its result does not fit the annotation "
                f"here: {exc}. Give caller and silo the same version of the class.",
                errors.DidRun.YES,
            ) from exc

    def _written(self, name: str, text: str, names: Mapping[str, object]) -> Callable[..., Any]:
        return compile_function(name, text, names, f"{self.owner}.{self.name}")


def _signature(parameters: Sequence[Parameter]) -> str:
    """The parameters as Python text; defaults are the names of Method.names."""
    kinds = [each.kind for each in parameters]
    texts = [
        each.name if each.required else f"{each.name}=_durum_{each.name}" for each in parameters
    ]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        texts.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    only_positional = kinds.count(inspect.Parameter.POSITIONAL_ONLY)
    if only_positional:
        texts.insert(only_positional, "/")
    return ", ".join(texts)
