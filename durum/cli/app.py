"""Finding a user's grain classes. Owns what APP may be, and how its mistakes are shown; runs nothing.

APP is a file (`shop.py`), a module (`shop.grains`), or one name in a module (`shop.grains:KINDS`).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable
from importlib import import_module, util
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Final

from durum import errors
from durum.grains import registry
from durum.grains.actor import Actor

_DURUM: Final = str(Path(__file__).parents[1]) + os.sep
_IMPORTLIB: Final = str(Path(util.__file__).parent) + os.sep


def load_kinds(app: str) -> list[type[Actor]]:
    """Load an app and collect its kinds: every Actor class that it defines or imports by name.

    Args:
        app: a file, a module, or `module:name`, where the name is an Actor class or a list of them.

    Raises:
        ConfigError: it cannot be found or loaded, or has no kinds. The message shows the author's
            own lines, and none of ours.
    """
    path = Path(app)
    if app.endswith(".py") or path.is_file():
        return _kinds_in(_load_file(path), app)
    name, _, attribute = app.partition(":")
    module = _load_module(name, app)
    return _named_kinds(module, attribute, app) if attribute else _kinds_in(module, app)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise errors.ConfigError(
            f"there is no file {path} (looked in {Path.cwd()}). Name a Python file or a module."
        )
    name, root = _module_name(path.resolve())
    sys.path.insert(0, str(root))
    known = sys.modules.get(name)
    if known is not None:
        if Path(known.__file__ or "").resolve() == path.resolve():
            return known
        raise errors.ConfigError(
            f"{path} would hide the module {name!r}, which is loaded already. Rename the file."
        )
    spec = util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise errors.ConfigError(f"{path} is not a Python file. Its name must end in .py.")
    module = util.module_from_spec(spec)
    # Under its own name, so that an exception defined there has the name that callers know it by.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as exc:
        del sys.modules[name]
        raise _unloadable(str(path), exc) from exc
    return module


def _module_name(path: Path) -> tuple[str, Path]:
    """The name a file is imported by, and the directory to import it from."""
    parts, root = [path.stem], path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    return ".".join(part.replace("-", "_") for part in parts), root


def _load_module(name: str, app: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):
            raise _unloadable(name, exc) from exc
        raise errors.ConfigError(
            f"there is no module {exc.name!r} (looked in {Path.cwd()} and the installed packages)."
            f" If {app} is a file, write {app}.py."
        ) from exc
    except (Exception, SystemExit) as exc:
        raise _unloadable(name, exc) from exc


def _kinds_in(module: ModuleType, app: str) -> list[type[Actor]]:
    kinds = registry.kinds_in(module)
    if not kinds:
        raise errors.ConfigError(
            f"{app} defines and imports no Actor class, so there is nothing to serve."
            " Write one: class Greeter(durum.Actor): ..."
        )
    return kinds


def _named_kinds(module: ModuleType, attribute: str, app: str) -> list[type[Actor]]:
    try:
        value = getattr(module, attribute)
    except AttributeError:
        raise errors.ConfigError(
            f"the module {module.__name__!r} has no name {attribute!r}, which {app} asks for."
        ) from None
    if _is_kind(value):
        return [value]
    kinds = list(value) if isinstance(value, Iterable) else []
    if not kinds or not all(map(_is_kind, kinds)):
        raise errors.ConfigError(
            f"{app} is {value!r}; it must be an Actor class, or a list of Actor classes."
        )
    return kinds


def _is_kind(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Actor) and value is not Actor


def _unloadable(app: str, exc: BaseException) -> errors.ConfigError:
    """Say how an app failed to load, as its author would want to see it."""
    if isinstance(exc, SyntaxError):
        shown = "".join(traceback.format_exception_only(exc)).rstrip()
        return errors.ConfigError(f"{app} is not valid Python:\n{shown}")
    where = "".join(traceback.format_list(_own_frames(exc.__traceback__)))
    shown = "".join(traceback.format_exception_only(exc)).rstrip()
    if isinstance(exc, errors.DurumError):
        shown = str(exc)
    return errors.ConfigError(f"{app} failed while it was loaded:\n{where}{shown}")


def _own_frames(tb: TracebackType | None) -> list[traceback.FrameSummary]:
    """The author's lines: neither the import machinery's nor ours."""
    return [
        frame
        for frame in traceback.extract_tb(tb)
        if not frame.filename.startswith(("<frozen importlib", _IMPORTLIB, _DURUM))
    ]
