"""Other processes of the same host, as a port. Owns what it takes to see one end; knows no silos."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Processes(Protocol):
    """What this host can tell of its processes.

    Attributes:
        host: a mark equal for processes that can see each other, or "" where that cannot be told.
        pid: this process.
        started: its start, in the kernel's ticks, so that a pid used again is not mistaken for it.
    """

    host: str
    pid: int
    started: int

    def ended(self, pid: int, started: int) -> bool:
        """Whether that process has surely ended. False where it lives or nobody can tell."""
        ...

    def watch(self, pid: int, started: int, on_end: Callable[[], None]) -> Callable[[], None]:
        """Have a function called from the loop once that process has ended, also if it has already.

        Returns:
            A function that stops the watch.
        """
        ...


class SystemProcesses:
    """This host's processes, by /proc and pidfd. Where there are none, nothing is known of anybody."""

    def __init__(self) -> None:
        self.host = _host_mark()
        self.pid = os.getpid()
        self.started = _started(self.pid) or 0

    def ended(self, pid: int, started: int) -> bool:
        return bool(self.host) and pid > 0 and _ended(pid, started)

    def watch(self, pid: int, started: int, on_end: Callable[[], None]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        if not self.host or pid <= 0:
            return _nothing
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            # None of that number, or no more descriptors: the reading below tells which.
            descriptor = -1
        # After pidfd_open, since the number may have been used again in between.
        if _ended(pid, started):
            if descriptor >= 0:
                os.close(descriptor)
            return loop.call_soon(on_end).cancel
        if descriptor < 0:
            return _nothing

        def stop() -> None:
            nonlocal descriptor
            if descriptor >= 0:
                loop.remove_reader(descriptor)
                os.close(descriptor)
                descriptor = -1

        def ended() -> None:
            stop()
            on_end()

        try:
            loop.add_reader(descriptor, ended)
        except (NotImplementedError, OSError):
            os.close(descriptor)
            return _nothing
        return stop


class NoProcesses:
    """A host that tells nothing: other silos are judged by what the network shows."""

    host = ""
    pid = 0
    started = 0

    def ended(self, pid: int, started: int) -> bool:
        del pid, started
        return False

    def watch(self, pid: int, started: int, on_end: Callable[[], None]) -> Callable[[], None]:
        del pid, started, on_end
        return _nothing


def _nothing() -> None:
    """The end of a watch that never began."""


def _host_mark() -> str:
    """Boot id and pid namespace: processes that share both see each other under the same numbers."""
    if not hasattr(os, "pidfd_open"):
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").readlink()
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return ""
    return f"{boot}/{namespace}"


def _ended(pid: int, started: int) -> bool:
    since = _started(pid)
    if since is not None:
        return started not in (0, since)
    with contextlib.suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
    # Signals reach it, but /proc hides it or says that it has ended and waits for its parent.
    return _is_zombie(pid)


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    # The command's name stands in parentheses and may hold spaces and parentheses itself.
    return text.rpartition(")")[2].split()


def _started(pid: int) -> int | None:
    """Start of a living process in ticks since boot; None for one that has ended or cannot be read."""
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 and fields[0] not in ("Z", "X") else None


def _is_zombie(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] in ("Z", "X")
