"""What users can import, and what they can say to it, changes only on purpose."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import get_origin

import msgspec

import durum
from durum import errors
from tests.support import accepted

CONSTRUCTORS = ("__init__", "__init_subclass__")


def _signature(function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    parameters = [
        p.replace(default=...) if inspect.isclass(p.default) and p.default is not p.empty else p
        for p in signature.parameters.values()
    ]
    text = str(signature.replace(parameters=parameters))
    return f"{text} async" if inspect.iscoroutinefunction(function) else text


def _members(cls: type) -> Iterator[str]:
    defaults = (
        {each.encode_name: each.default for each in msgspec.structs.fields(cls)}
        if issubclass(cls, msgspec.Struct)
        else {}
    )
    for name in sorted(vars(cls)):
        if name.startswith("_") and name not in CONSTRUCTORS:
            continue
        if name in defaults:
            default = defaults[name]
            yield f"  {name} = {default!r}" if isinstance(default, int | float) else f"  {name}"
            continue
        member = inspect.getattr_static(cls, name)
        function = getattr(member, "__func__", member)
        yield f"  {name}{_signature(function)}" if inspect.isroutine(function) else f"  {name}"


def _described() -> Iterator[str]:
    for name in sorted(durum.__all__):
        value = getattr(durum, name)
        if inspect.isclass(value):
            bases = ", ".join(base.__name__ for base in value.__bases__)
            yield f"class {name}({bases})"
            yield from _members(value)
        elif inspect.isroutine(value):
            yield f"{name}{_signature(value)}"
        else:
            yield f"{name}: {value if get_origin(value) else type(value).__name__}"


def test_public_api_is_what_was_decided() -> None:
    """Users build on every name and parameter here; losing one breaks them."""
    accepted.check("public_api.txt", list(_described()))


def test_every_error_is_public() -> None:
    """An error that cannot be imported cannot be caught by name."""
    raised = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert raised <= set(durum.__all__)


def test_dir_lists_public_names() -> None:
    """Completion in a shell works on dir(), before anything was loaded."""
    assert set(durum.__all__) <= set(dir(durum))


def test_unknown_names_are_attribute_errors() -> None:
    """hasattr, pickling and star imports rely on it."""
    assert not hasattr(durum, "Aktor")


def test_importing_durum_loads_nothing_heavy() -> None:
    """The command line's --help, and whoever wants one error class, must not pay for the house."""
    program = (
        "import sys, durum; durum.Overloaded;"
        "print(*sorted({'asyncio', 'click', 'hiredis', 'msgspec', 'redis', 'rich', 'sqlite3',"
        " 'uhashring', 'uvloop'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.split() == []
