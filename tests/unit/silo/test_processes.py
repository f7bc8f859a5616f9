"""Seeing the end of processes on this host."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from durum.silo import processes
from durum.silo.processes import NoProcesses, SystemProcesses

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only where there are pidfds")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


async def test_the_end_of_a_process_is_told_at_once(child: subprocess.Popen[bytes]) -> None:
    """A kill -9 on the same host is the failover that takes milliseconds."""
    here, told = SystemProcesses(), asyncio.Event()
    assert not here.ended(child.pid, started(child.pid))
    here.watch(child.pid, started(child.pid), told.set)
    child.kill()
    await asyncio.wait_for(told.wait(), 5)
    assert here.ended(child.pid, 0)  # it is a zombie now
    child.wait()
    assert here.ended(child.pid, 0)


async def test_the_end_of_a_process_is_told_also_if_it_was_before(
    child: subprocess.Popen[bytes],
) -> None:
    """The row of a silo may be read only after its death."""
    here, told = SystemProcesses(), asyncio.Event()
    child.kill()
    child.wait()
    here.watch(child.pid, 1, told.set)
    await asyncio.wait_for(told.wait(), 5)


async def test_another_process_under_the_same_number_is_not_mistaken(
    child: subprocess.Popen[bytes],
) -> None:
    """Numbers are used again, start times are not."""
    here, told = SystemProcesses(), asyncio.Event()
    assert here.ended(child.pid, started(child.pid) + 1)
    here.watch(child.pid, started(child.pid) + 1, told.set)
    await asyncio.wait_for(told.wait(), 5)


async def test_a_watch_can_be_stopped(child: subprocess.Popen[bytes]) -> None:
    """The silo it was for has left in good order."""
    here, told = SystemProcesses(), asyncio.Event()
    stop = here.watch(child.pid, started(child.pid), told.set)
    stop()
    stop()
    child.kill()
    child.wait()
    await asyncio.sleep(0)
    assert not told.is_set()


async def test_nothing_is_known_of_rows_without_a_process() -> None:
    """Another release may not fill in the number."""
    here = SystemProcesses()
    assert not here.ended(0, 0)
    here.watch(0, 0, pytest.fail)()
    assert here.host
    assert here.pid == os.getpid()
    assert here.started == started(os.getpid())


async def test_a_host_that_tells_nothing_claims_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to know must never look like proof."""
    assert not NoProcesses().ended(1, 1)
    NoProcesses().watch(1, 1, pytest.fail)()
    monkeypatch.delattr(os, "pidfd_open")
    here = SystemProcesses()
    assert here.host == ""
    assert not here.ended(2**22 + 1, 1)
    here.watch(os.getpid(), 0, pytest.fail)()


async def test_a_process_hidden_in_proc_counts_as_living(monkeypatch: pytest.MonkeyPatch) -> None:
    """With hidepid, /proc shows others' processes as missing."""
    here = SystemProcesses()
    monkeypatch.setattr(processes, "_stat", lambda _: [])
    assert not here.ended(os.getpid(), here.started)


async def test_without_descriptors_to_spare_nothing_is_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The probes find out, later."""

    def refuse(_: int) -> int:
        raise OSError(24, "Too many open files")

    here = SystemProcesses()
    monkeypatch.setattr(os, "pidfd_open", refuse)
    here.watch(os.getpid(), here.started, pytest.fail)()
    assert SystemProcesses().host == ""


async def test_a_loop_that_cannot_watch_descriptors_watches_nothing(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some event loops have no readers."""

    def refuse(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
    SystemProcesses().watch(child.pid, started(child.pid), pytest.fail)()
