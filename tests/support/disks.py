"""A small disk of a test's own, which it can fill and mend. Owns the mount; needs root and Linux."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_BLOCK: Final = 4096


class Disk:
    """A file system in memory.

    Args:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Take all room that is left, to the last block."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (1 << 20, _BLOCK):
                with contextlib.suppress(OSError):
                    while True:
                        if filler.write(bytes(size)) < size:
                            break
        assert self.left() == 0

    def free(self) -> None:
        """Give it back."""
        self._filler.unlink()

    def left(self) -> int:
        """Bytes that may still be written."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def forbid_writing(self) -> None:
        """As after an error of the hardware, or by a wrong line in fstab. Nobody may have a file open."""
        _run("mount", "-o", "remount,ro", str(self.path))


def why_not(path: Path) -> str:
    """Why this machine cannot do it; "" where it can.

    Args:
        path: a folder to try it on.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        return "mounting a small disk needs Linux and root"
    try:
        with mounted(path):
            return ""
    except (OSError, subprocess.CalledProcessError):
        return "this container may not mount anything"


@contextlib.contextmanager
def mounted(path: Path, size_bytes: int = 24 << 20) -> Iterator[Disk]:
    """A disk while the block runs."""
    path.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "durum-test", str(path))
    try:
        yield Disk(path)
    finally:
        # Lazily: a silo that a failed test left behind must not keep it for ever.
        _run("umount", "-l", str(path))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
