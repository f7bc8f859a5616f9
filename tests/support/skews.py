"""Wall clocks of single processes, which a test sets while they run.

Owns how: a small library is loaded before the program. Needs Linux and a C compiler.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SOURCE: Final = Path(__file__).with_name("skew.c")


def why_not() -> str:
    """Why this machine cannot do it; "" where it can."""
    if sys.platform != "linux":
        return "setting the clock of one process is done by LD_PRELOAD, for Linux"
    if shutil.which("cc") is None:
        return "there is no C compiler here to build the library that sets clocks"
    return ""


class WallClock:
    """The wall clock of all processes that are started with its environment.

    Args:
        home: where its files may lie.
        name: of its own in there.
    """

    def __init__(self, home: Path, name: str) -> None:
        self._file = home / f"{name}.skew"
        self._library = home / "skew.so"
        self.set(0)
        if not self._library.exists():
            command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(_SOURCE)]
            subprocess.run(command, check=True, capture_output=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs to see this clock."""
        return {"LD_PRELOAD": str(self._library), "DURUM_SKEW_FILE": str(self._file)}

    def set(self, seconds: int) -> None:
        """Say how far it is off from now on."""
        # In place: the processes have mapped it.
        with self._file.open("r+b" if self._file.exists() else "w+b") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))
