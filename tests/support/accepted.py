"""Text files that hold what was decided. A difference is a decision; DURUM_ACCEPT=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

SHAPE = Path(__file__).parents[1] / "shape"


def check(name: str, lines: list[str]) -> None:
    """Compare with tests/shape/NAME, or write it.

    Args:
        name: the file's.
        lines: what it should hold, one item a line.
    """
    path = SHAPE / name
    if os.environ.get("DURUM_ACCEPT") == "1":
        path.write_text("".join(f"{line}\n" for line in lines))
    before = path.read_text().splitlines() if path.exists() else []
    assert before == lines, (
        f"{name} says otherwise. If the change is meant: DURUM_ACCEPT=1 make test ARGS=tests/shape,"
        " and tell it in CHANGELOG.md."
    )
