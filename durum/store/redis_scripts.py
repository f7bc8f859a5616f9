"""The Lua scripts, as text and as the hash that the server knows them by. Knows no connection."""

from __future__ import annotations

import hashlib
import importlib.resources
import re
from typing import Final

_FENCED: Final = (
    "commit",
    "commit_parts",
    "commit_effects",
    "load",
    "load_parts",
    "scan_parts",
    "raise",
    "replies",
    "verify",
    "erase",
)
_OTHERS: Final = (
    "posted",
    "acknowledge",
    "due",
    "letters",
    "place",
    "take",
    "own",
    "create",
    "ready",
    "table",
    "row",
    "beat",
)
_READS: Final = frozenset(
    ("load", "load_parts", "scan_parts", "replies", "verify", "posted", "due", "letters")
)
HOSTED: Final = "hosted "
"""What stands before the name of a script for hosted tokens."""
_INCLUDE: Final = re.compile("^--#include (.+)\n", re.MULTILINE)


class Script:
    """One script.

    Args:
        name: its file's name, without the ending.
        text: what the server runs.
    """

    __slots__ = ("name", "sha", "text", "writes")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.writes = name.removeprefix(HOSTED) not in _READS
        # Redis names scripts by SHA-1; nothing depends on its strength.
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def read_script(name: str) -> str:
    """The text of a script, with what it includes put in."""
    folder = importlib.resources.files("durum.store") / "scripts"
    text = (folder / f"{name}.lua").read_text(encoding="utf-8")
    return _INCLUDE.sub(lambda found: read_script(found[1]), text)


def read_scripts() -> dict[str, Script]:
    """All scripts by name."""
    scripts = {name: Script(name, read_script(name)) for name in (*_FENCED, *_OTHERS)}
    fence, unhosted, hosted = map(read_script, ("fence", "unhosted", "fence_hosted"))
    for name in _FENCED:
        text = scripts[name].text.replace(fence, hosted).replace(unhosted, "")
        scripts[HOSTED + name] = Script(name, text)
    return scripts
