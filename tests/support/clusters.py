"""A real Redis cluster of three masters, with replicas if asked for; slots are moved, masters killed.

Owns these processes and how slots are spread; knows nothing of Durum but the form of its URL.
"""

from __future__ import annotations

import binascii
import re
from collections import Counter
from typing import Final

from tests.support.sentinels import eventually, replication
from tests.support.servers import Server, free_port
from tests.support.tls_servers import TlsWords

SLOTS: Final = 16384
_MOVE: Final = 100
NODE_TIMEOUT_MS: Final = 500
_TLS_REPLICATION: Final = ("--tls-replication", "yes")


def slot_of(tag: str) -> int:
    """The slot of a hash tag."""
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS


class Clustered:
    """Three masters.

    Args:
        product: "valkey" or "redis".
        settings: of every node.
        replicas: whether each has one.
        tls: for TLS among the nodes, and towards clients.
    """

    def __init__(
        self,
        product: str,
        settings: tuple[str, ...] = (),
        *,
        replicas: bool = False,
        tls: TlsWords | None = None,
    ) -> None:
        self._seen_at: dict[Server, int] = {}  # by the others, and by clients
        common = (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
            *("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"),
            *("--cluster-replica-validity-factor", "0"),
        )

        def node() -> Server:
            port = free_port()
            secret = (
                () if tls is None else (*tls.of(port), "--tls-cluster", "yes", *_TLS_REPLICATION)
            )
            server = Server(product, (*common, *secret, *settings), tcp=True)
            self._seen_at[server] = port if tls else server.port
            # Its usual place is the port and 10,000, which may be beyond all ports.
            server._command += ["--cluster-port", str(free_port())]
            return server.start()

        self.masters = [node() for _ in range(3)]
        self.replicas = [node() for _ in range(3 if replicas else 0)]
        self.nodes = [*self.masters, *self.replicas]
        bounds = [0, 5461, 10923, SLOTS]
        for n, master in enumerate(self.masters):
            master.ask("CLUSTER", "ADDSLOTSRANGE", bounds[n], bounds[n + 1] - 1)
            master.ask("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        first = self.nodes[0]
        for other in self.nodes[1:]:
            first.ask("CLUSTER", "MEET", "127.0.0.1", other.port, self._bus(other))
        eventually(self._all_know_all, "the nodes' acquaintance", first)
        for master, replica in zip(self.masters, self.replicas, strict=False):
            replica.ask("CLUSTER", "REPLICATE", self.id_of(master))
        eventually(self._ready, "the cluster", first)

    @property
    def url(self) -> str:
        """What open_store takes."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{one.port}' for one in self.masters)}"

    @property
    def tls_ports(self) -> list[int]:
        """Of the masters."""
        return [self._seen_at[one] for one in self.masters]

    @property
    def tls_url(self) -> str:
        """The same with TLS, but for `ca`."""
        return f"rediss+cluster://{','.join(f'127.0.0.1:{port}' for port in self.tls_ports)}"

    @staticmethod
    def id_of(node: Server) -> str:
        """A node's name among its like."""
        return node.ask("CLUSTER", "MYID").decode().split("\r\n")[1]

    @staticmethod
    def _bus(node: Server) -> str:
        return str(node._command[-1])

    def owner(self, slot: int, asked: Server | None = None) -> Server:
        """Who has a slot, as a node says."""
        answer = (asked or self._living()[0]).ask("CLUSTER", "NODES").decode()
        for line in answer.splitlines():
            fields = line.split(" ")
            if len(fields) > 8 and "master" in fields[2] and "fail" not in fields[2].split(","):
                for part in fields[8:]:
                    match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
                    if match and int(match[1]) <= slot <= int(match[2] or match[1]):
                        port = int(fields[1].partition("@")[0].rpartition(":")[2])
                        return next(one for one in self.nodes if one.port == port)
        raise AssertionError(f"nobody has slot {slot}: {answer}")

    def begin_move(self, slot: int, target: Server) -> None:
        """Open a slot towards another master; keys go one by one then."""
        source = self.owner(slot)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))

    def move_keys(self, slot: int, target: Server, count: int = 1 << 30) -> int:
        """Move up to so many keys of an open slot; return how many went."""
        source, moved = self.owner(slot), 0
        while moved < count:
            answer = source.ask("CLUSTER", "GETKEYSINSLOT", slot, min(_MOVE, count - moved))
            keys = answer.split(b"\r\n")[2::2]
            if not keys:
                break
            to: list[str | bytes | int] = [
                "127.0.0.1",
                self._seen_at[target],
                "",
                0,
                5000,
                "KEYS",
                *keys,
            ]
            done = source.ask("MIGRATE", *to)
            assert done.startswith((b"+OK", b"+NOKEY")), done
            moved += len(keys)
        return moved

    def move_one(self, slot: int, target: Server, ending: bytes) -> None:
        """Move the key of an open slot that ends so."""
        answer = self.owner(slot).ask("CLUSTER", "GETKEYSINSLOT", slot, _MOVE)
        (key,) = [key for key in answer.split(b"\r\n")[2::2] if key.endswith(ending)]
        to: list[str | bytes | int] = ["127.0.0.1", self._seen_at[target], "", 0, 5000, "KEYS", key]
        done = self.owner(slot).ask("MIGRATE", *to)
        assert done.startswith(b"+OK"), done

    def end_move(self, slot: int, target: Server) -> None:
        """The slot is the other master's."""
        source, name = self.owner(slot), self.id_of(target)
        for node in (target, source, *(one for one in self.masters if one not in (target, source))):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)

    def errors(self) -> Counter[str]:
        """How often the nodes have answered with each error."""
        found: Counter[str] = Counter()
        for node in self._living():
            answer = node.ask("INFO", "errorstats").decode()
            for name, count in re.findall(r"errorstat_(\w+):count=(\d+)", answer):
                found[name] += int(count)
        return found

    def wait_replicated(self) -> None:
        """Wait until each replica has what its master has now."""
        for master, replica in zip(self.masters, self.replicas, strict=True):
            aim = int(replication(master)["master_repl_offset"])
            eventually(
                lambda one=replica, aim=aim: int(replication(one)["slave_repl_offset"]) >= aim,
                "replication",
                replica,
            )

    def wait_taken_over(self, slot: int, dead: Server) -> Server:
        """Wait until every living node knows a master of the slot that lives; return it."""

        def known() -> bool:
            try:
                return all(self.owner(slot, one) is not dead for one in self._living())
            except AssertionError:
                return False

        eventually(known, "a failover", self._living()[0])
        return self.owner(slot)

    def remove(self) -> None:
        """End them all."""
        for node in self.nodes:
            node.remove()

    def _living(self) -> list[Server]:
        return [one for one in self.nodes if one.process is not None]

    def _all_know_all(self) -> bool:
        return all(
            one.ask("CLUSTER", "NODES").count(b" connected") >= len(self.nodes)
            for one in self.nodes
        )

    def _ready(self) -> bool:
        fine = all(b"cluster_state:ok" in one.ask("CLUSTER", "INFO") for one in self.nodes)
        return fine and all(
            replication(one).get("master_link_status") == "up" for one in self.replicas
        )
