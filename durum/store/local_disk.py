"""Whether a path lies on a disk that an embedded database can trust. Knows no database."""

from __future__ import annotations

import os
import pathlib
from typing import Final

_MOUNTS: Final = pathlib.Path("/proc/self/mounts")
_REMOTE: Final = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "fuse.sshfs", "fuse.s3fs", "glusterfs")
)
_VOLATILE: Final = frozenset(("tmpfs", "ramfs"))


def _kind(path: str) -> str:
    try:
        lines = _MOUNTS.read_text(errors="replace").splitlines()
    except OSError:
        return ""  # not Linux: nothing is known, nothing is claimed
    folder = os.path.realpath(path)
    best, kind = "", ""
    for line in lines:
        fields = line.split(" ")  # device, folder, kind, options
        mount = fields[1].replace("\\040", " ")
        inside = folder == mount or folder.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, fields[2]
    return kind


def unsafe(path: str) -> str:
    """Why silos must not run on this path, or an empty text."""
    kind = _kind(path)
    if kind not in _REMOTE:
        return ""
    return f"{path} is on {kind}: SQLite needs a local disk. Move the file, or use Redis."


def warning(path: str) -> str:
    """What a person should know of this path, or an empty text."""
    if _kind(path) not in _VOLATILE:
        return ""
    return f"{path} is in memory (tmpfs): all is lost when the host restarts."
