"""Machines of their own whose wires delay, lose, double and reorder what they carry.

Owns namespaces on TUN devices and a switch between them in this process, which decides about every packet.
Needs root, Linux and /dev/net/tun. Where cut wires are enough, take the machines of namespaces.Town: they
cost nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import os
import selectors
import struct
import subprocess
import threading
import time
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Final, Self

from tests.support import namespaces
from tests.support.namespaces import GATE, STORE

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x1001
_MTU: Final = 1500
_AT_ONCE: Final = 64  # packets of one machine before the others have their turn
_numbers = itertools.count(os.getpid() % 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """What happens to packets in one direction.

    Args:
        cut: nothing gets through.
        delay_s: how long each takes.
        jitter_s: at most this much longer or shorter, at random.
        lost: which share of them vanishes.
        doubled: which share arrives twice.
        reordered: which share is held back until others have overtaken it.
    """

    cut: bool = False
    delay_s: float = 0.0
    jitter_s: float = 0.0
    lost: float = 0.0
    doubled: float = 0.0
    reordered: float = 0.0


SOUND: Final = Wire()


def why_not() -> str:
    """Why this machine cannot do it; "" where it can."""
    reason = namespaces.why_not()
    if reason:
        return reason
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as exc:
        return f"there is no TUN device here: {exc.strerror}"
    return ""


class SwitchedTown:
    """A few machines and this one, each with one wire to a switch.

    Args:
        names: of the machines.
        seed: of what happens to which packet.
    """

    def __init__(self, *names: str, seed: int) -> None:
        number = next(_numbers) % 250
        self._tag = f"ds{os.getpid() % 10_000}{number}"
        self._net = bytes((10, 214, number))
        self._names = names
        self._hosts = {GATE: 1, STORE: 100, **{n: 2 + i for i, n in enumerate(names)}}
        self._chance = Random(seed)
        self._wires: dict[tuple[int, int], Wire] = {}
        self._ends: dict[
            int, int
        ] = {}  # from the last byte of an address to its machine's descriptor
        self._late: list[tuple[float, int, int, bytes]] = []
        self._sent = itertools.count()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="switch")
        self._stack = contextlib.ExitStack()
        self.carried = 0
        self.harmed = 0
        """Packets that were lost, doubled or reordered."""

    def address(self, name: str) -> str:
        """A machine's IP address."""
        return ".".join(map(str, (*self._net, self._hosts[name])))

    def inside(self, name: str) -> tuple[str, ...]:
        """What to put before a command so that it runs on a machine."""
        return ("ip", "netns", "exec", f"{self._tag}{name}")

    def wire(self, source: str, target: str, wire: Wire) -> None:
        """Say what happens from now on to packets in one direction, from machine to machine."""
        self._wires[self._hosts[source], self._hosts[target]] = wire

    def wire_all(self, wire: Wire) -> None:
        """The same for all directions between all machines."""
        for source, target in itertools.permutations(self._hosts, 2):
            self.wire(source, target, wire)

    # The switch ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for end in set(self._ends.values()):
                selector.register(end, selectors.EVENT_READ)
            while not self._over.is_set():
                wait_s = self._late[0][0] - time.monotonic() if self._late else 0.05
                for key, _ in selector.select(min(max(0.0, wait_s), 0.05)):
                    self._take(key.fd)
                self._give_late()

    def _take(self, end: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                packet = os.read(end, 1 << 16)
            except BlockingIOError:
                return
            if packet[0] >> 4 == 4 and packet[16:19] == self._net:
                self._carry(packet[15], packet[19], packet)

    def _carry(self, source: int, target: int, packet: bytes) -> None:
        end, wire = self._ends.get(target), self._wires.get((source, target), SOUND)
        if end is None or wire.cut:
            return
        self.carried += 1
        chance = self._chance.random
        if chance() < wire.lost:
            self.harmed += 1
            return
        doubled = chance() < wire.doubled
        for _ in range(1 + doubled):
            delay_s = wire.delay_s + wire.jitter_s * (2 * chance() - 1)
            reordered = chance() < wire.reordered
            self.harmed += doubled or reordered
            delay_s += reordered * (wire.delay_s + 0.01)
            if delay_s > 0:
                late = (time.monotonic() + delay_s, next(self._sent), end, packet)
                heapq.heappush(self._late, late)
            else:
                _put(end, packet)

    def _give_late(self) -> None:
        now = time.monotonic()
        while self._late and self._late[0][0] <= now:
            *_, end, packet = heapq.heappop(self._late)
            _put(end, packet)

    # Its life -----------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            here = self._plug(f"{self._tag}g")
            for name in (GATE, STORE):
                _ip("addr", "add", f"{self.address(name)}/24", "dev", f"{self._tag}g")
                self._ends[self._hosts[name]] = here
            _ip("link", "set", f"{self._tag}g", "up", "mtu", str(_MTU))
            for name in self._names:
                space, device = f"{self._tag}{name}", f"{self._tag}w{name}"
                _ip("netns", "add", space)
                self._stack.callback(_ip, "netns", "del", space)
                self._ends[self._hosts[name]] = self._plug(device)
                _ip("link", "set", device, "netns", space)
                _ip("-n", space, "link", "set", device, "name", "eth0")
                _ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
                _ip("-n", space, "link", "set", "eth0", "up", "mtu", str(_MTU))
                _ip("-n", space, "link", "set", "lo", "up")
            self._thread.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _plug(self, device: str) -> int:
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        self._stack.callback(os.close, end)
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TUN_NO_PI))
        return end

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._stack.close()


def _put(end: int, packet: bytes) -> None:
    # A queue that is full loses it, as a real one would; TCP sends it again.
    with contextlib.suppress(BlockingIOError, OSError):
        os.write(end, packet)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
