"""A primary, its replicas and three sentinels, all real; promoted, cut off, and killed by tests.

Owns these processes; knows nothing of Durum but the form of its URL.
"""

from __future__ import annotations

import itertools
import time
from typing import Final

from tests.support.servers import Server, binary_of, free_port
from tests.support.tls_servers import TlsWords

NAME: Final = "main"
DOWN_AFTER_MS: Final = 600
LASTING_MS: Final = 10_000
"""For servers that nobody kills: a busy machine is no reason to promote."""
PATIENCE_S: Final = 20.0
ORDER_AGAIN_S: Final = 3.0
_numbers = itertools.count()


def eventually(holds: object, what: str, server: Server | None = None) -> None:
    """Wait for what other processes bring about; fail where it does not come."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise AssertionError(
                f"{what} did not come about: {server.log()[-2000:] if server else ''}"
            )
        time.sleep(0.02)


def replication(server: Server) -> dict[str, str]:
    """A server's INFO replication."""
    lines = server.ask("INFO", "replication").decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


class Sentinel(Server):
    """One sentinel. It rewrites its file, so that it has one.

    Args:
        product: "valkey" or "redis".
        port: the primary's.
        down_after_ms: how long it may be silent.
        tls: for TLS with everybody.
    """

    def __init__(
        self, product: str, port: int, down_after_ms: int, tls: TlsWords | None = None
    ) -> None:
        super().__init__(product, tcp=True)
        self.tls_port = free_port()
        binary = binary_of(product)
        assert binary is not None
        file = self.folder / "sentinel.conf"
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\nlogfile {self.folder}/log\n"
            f"sentinel monitor {NAME} 127.0.0.1 {port} 1\n"
            f"sentinel down-after-milliseconds {NAME} {down_after_ms}\n"
            f"sentinel failover-timeout {NAME} 4000\n"
        )
        secret = () if tls is None else (*tls.of(self.tls_port), "--tls-replication", "yes")
        self._command = [binary, str(file), "--sentinel", *secret]


class Sentineled:
    """A primary with replicas under sentinels.

    Args:
        product: "valkey" or "redis".
        settings: of primary and replicas.
        replicas: how many.
        down_after_ms: how long the primary may be silent before a replica is promoted.
        tls: for TLS among all, and towards clients.
    """

    def __init__(
        self,
        product: str,
        settings: tuple[str, ...] = (),
        *,
        replicas: int = 1,
        down_after_ms: int = DOWN_AFTER_MS,
        tls: TlsWords | None = None,
    ) -> None:
        self._product = product
        settings = ("--repl-diskless-sync-delay", "0", *settings)

        def server(*more: str) -> Server:
            self.seen_at.append(free_port())
            secret = () if tls is None else tls.of(self.seen_at[-1])
            secret = (*secret, *(("--tls-replication", "yes") if secret else ()))
            one = Server(product, (*settings, *secret, *more), tcp=True).start()
            if tls is None:
                self.seen_at[-1] = one.port
            return one

        self.seen_at: list[int] = []
        """The ports at which the others, and clients, see the servers."""
        self.servers = [server()]
        primary = ("--replicaof", "127.0.0.1", str(self.seen_at[0]))
        self.servers += [server(*primary) for _ in range(replicas)]
        # The first one alone gets impatient, and the others vote for it: two that want to lead at the
        # same instant would keep each other from it for seconds.
        self.sentinels = [
            Sentinel(product, self.seen_at[0], down_after_ms * patience, tls)
            for patience in (1, 5, 5)
        ]
        for sentinel in self.sentinels:
            sentinel.start()
        for sentinel in self.sentinels:
            # Its usual pace is for networks; all of ours is on one machine.
            for what in ("info-period", "publish-period", "ping-period", "ask-period"):
                sentinel.ask("SENTINEL", "DEBUG", what, "100")
        eventually(self._ready, "sentinels and replicas", self.sentinels[0])
        for sentinel in self.sentinels:
            # Those who have not led a promotion undo it if they do not hear of it in four of these; and
            # a replica is no candidate if it was not asked in five.
            for what, pace in (("publish-period", "2000"), ("ping-period", "1000")):
                sentinel.ask("SENTINEL", "DEBUG", what, pace)

    @property
    def primary(self) -> Server:
        """The first one."""
        return self.servers[0]

    @property
    def url(self) -> str:
        """What open_store takes."""
        return (
            f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/{NAME}"
        )

    @property
    def tls_url(self) -> str:
        """The same with TLS, but for `ca`."""
        where = ",".join(f"127.0.0.1:{one.tls_port}" for one in self.sentinels)
        return f"rediss+sentinel://{where}/{NAME}"

    def now(self) -> Server:
        """Who the sentinels name."""
        answer = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        ports = zip(self.servers, self.seen_at, strict=True)
        return next(one for one, port in ports if f"\r\n{port}\r\n".encode() in answer)

    def promote(self) -> None:
        """Have the sentinels make a replica the primary, while the primary lives."""
        before = self.now()
        ordered_at = -ORDER_AGAIN_S

        def ordered() -> bool:
            nonlocal ordered_at
            if self.now() is not before:
                return True
            if (
                time.monotonic() - ordered_at > ORDER_AGAIN_S
            ):  # it may find no replica good enough yet
                ordered_at = time.monotonic()
                self.sentinels[0].ask("SENTINEL", "FAILOVER", NAME)
            return False

        eventually(ordered, "the order to promote", self.sentinels[0])
        self.wait_promoted(before)

    def wait_promoted(self, before: Server) -> Server:
        """Wait until another server is the primary; return it."""
        eventually(lambda: self.now() is not before, "a promotion", self.sentinels[0])
        after = self.now()
        eventually(lambda: replication(after)["role"] == "master", "the new primary's role", after)
        return after

    def wait_replicated(self) -> None:
        """Wait until all replicas have what the primary has now."""
        aim = int(replication(self.primary)["master_repl_offset"])
        for server in self.servers[1:]:
            eventually(
                lambda server=server: int(replication(server)["slave_repl_offset"]) >= aim,
                "replication",
                server,
            )

    def cut_replication(self) -> None:
        """Keep replicas from the primary's writes from now on; promotion then loses them."""
        for server in self.servers[1:]:
            server.ask("CONFIG", "SET", "masterauth", "wrong")
        self.primary.ask("CLIENT", "KILL", "TYPE", "replica")

    def remove(self) -> None:
        """End them all."""
        for server in (*self.sentinels, *self.servers):
            server.remove()

    def _ready(self) -> bool:
        answers = [one.ask("SENTINEL", "MASTER", NAME) for one in self.sentinels]
        linked = all(replication(one)["master_link_status"] == "up" for one in self.servers[1:])
        count = len(self.servers) - 1
        linked = linked and self.primary.ask("INFO", "replication").count(b"state=online") == count
        return linked and all(
            f"num-slaves\r\n${len(str(count))}\r\n{count}\r\n".encode() in one
            and b"num-other-sentinels\r\n$1\r\n2\r\n" in one
            for one in answers
        )
