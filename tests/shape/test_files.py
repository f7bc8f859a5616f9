"""What ruff cannot hold: how long files are, and from where names are imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMITS = {"durum": 400, "bench": 400, "tests": 700}
"""Lines; in tests a matrix of cases may run on."""
AS_USERS_WRITE = ("durum/demo/", "durum/__init__.py")


def sources(part: str) -> list[Path]:
    """Python files below a directory, in a fixed order."""
    return sorted((ROOT / part).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_file_is_longer_than_its_limit() -> None:
    """A file that grows beyond it has come to hold two nouns."""
    long = [
        f"{name_of(path)}: {lines} lines"
        for part, limit in LIMITS.items()
        for path in sources(part)
        if (lines := len(path.read_text().splitlines())) > limit
    ]
    assert not long, "part these by their nouns"


def test_every_file_begins_with_what_it_owns() -> None:
    """Line 1 tells a reader whether to read on."""
    mute = [
        name_of(path)
        for path in sources("durum")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not mute


def test_names_are_imported_from_modules_not_from_packages() -> None:
    """A package's __init__ that re-exports makes circles, and hides on which floor a name lives."""
    taken = [
        found
        for path in sources("durum")
        if not name_of(path).startswith(AS_USERS_WRITE)
        for found in _imports_from_packages(path)
    ]
    assert not taken


def _imports_from_packages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("durum"):
            continue
        module = node.module or ""
        package = ROOT / module.replace(".", "/")
        if not (package / "__init__.py").is_file():
            continue
        for alias in node.names:
            inside = package / alias.name
            if not inside.with_suffix(".py").is_file() and not (inside / "__init__.py").is_file():
                yield f"{name_of(path)}:{node.lineno}: {module} has no {alias.name}.py"
