"""A connection to a cluster, from outside. Owns the user's view of it; calls are the router's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Self, TypeAlias, TypeVar, get_args

from durum import errors
from durum.client import lookup
from durum.client.admin import Admin
from durum.client.links import Links
from durum.client.router import Router
from durum.client.routes import Routes
from durum.client.telling import tell
from durum.clock import Clock, SystemClock
from durum.config import Limits, Tls, secrets_of, tls_of
from durum.grains.actor import Actor
from durum.grains.filters import Filter, FilteredCaller
from durum.grains.messages import message
from durum.grains.publishing import E, Publishes
from durum.grains.reference import Caller, Reference, References, caller_of
from durum.grains.watching import Watch, watch
from durum.ids import Address, Entropy, SystemEntropy, split_address
from durum.store import urls
from durum.tasks import TaskOwner
from durum.telemetry import Log
from durum.wire.connection import Connection
from durum.wire.handshake import Introduction
from durum.wire.messages import AnyMessage
from durum.wire.network import Network, TcpNetwork
from durum.wire.tls import certificates

A = TypeVar("A", bound=Actor)
P = ParamSpec("P")
Routing: TypeAlias = Literal["direct", "gateway"]
"""How a client's calls reach actors; see `connect`."""

_log = Log("durum.client")
_KEEP: Final = 3
"""Connections kept open: one to a silo that has stopped must not be the only source of news."""
_RETRY_S: Final = 0.25
_LOOK_S: Final = 10.0
_SHUN_S: Final = 10.0
"""How long a client that needs a gateway leaves an address alone that it could not reach."""


def connect(
    target: str | Sequence[str],
    *,
    cluster: str = "default",
    secret: str | bytes | Sequence[str | bytes] | None = None,
    tls: Tls | None = None,
    routing: Routing = "direct",
    connect_timeout_s: float = 10.0,
    limits: Limits | None = None,
    filters: Sequence[Filter] = (),
    network: Network | None = None,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
) -> Cluster:
    """Name a cluster to call. Nothing happens before `async with` or `await`.

        async with durum.connect("127.0.0.1:7600") as cluster:
            alice = cluster.actor(Account, "alice")
            await alice.deposit(Decimal(10))

    Args:
        target: a silo's `host:port`, several of them, or the store's URL, where silos are listed.
        cluster: the cluster's name.
        secret: the cluster secret, or two during a rotation; None takes DURUM_SECRET, if set.
        tls: certificates, where the silos speak TLS; see Tls. None takes DURUM_TLS_CERT and the like, if
            set.
        routing: "direct" goes straight to each actor's silo. "gateway" is for clients that can reach
            only some silos, or none but through a load balancer: calls go to any silo that is reached,
            which passes them on.
        connect_timeout_s: how long to try before NoSilo.
        limits: see Limits; `call_timeout_s` is the deadline of calls that name none.
        filters: functions around each call, the first outermost; see durum.Invocation.
        network, clock, entropy: ports, for tests.

    Raises:
        ConfigError: the target is neither an address nor a URL, or the routing is neither of the two.
    """
    if routing not in get_args(Routing):
        raise errors.ConfigError(f'routing: {routing!r} is neither "direct" nor "gateway".')
    tls = tls_of(tls)
    if tls is not None:
        certificates(tls).dialing()  # what is wrong with them shows here
    return Cluster(
        (target,) if isinstance(target, str) else tuple(target),
        introduction=Introduction(
            role="client",
            cluster=cluster,
            secrets=secrets_of(secret),
            tls=tls,
            through=routing == "gateway",
        ),
        connect_timeout_s=connect_timeout_s,
        limits=limits or Limits(),
        filters=tuple(filters),
        network=network or TcpNetwork(),
        clock=clock or SystemClock(),
        entropy=entropy or SystemEntropy(),
    )


class Cluster:
    """A cluster, as its callers see it. Made by `connect`."""

    def __init__(
        self,
        targets: tuple[str, ...],
        *,
        introduction: Introduction,
        connect_timeout_s: float,
        limits: Limits,
        filters: tuple[Filter, ...] = (),
        network: Network,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        if not targets:
            raise errors.ConfigError(
                "no address was given. Pass host:port of a silo, or a store URL."
            )
        self._urls = tuple(target for target in targets if lookup.is_url(target))
        self._seeds = tuple(Address(target) for target in targets if not lookup.is_url(target))
        for seed in self._seeds:
            split_address(seed)
        self._introduction = introduction
        self._connect_timeout_s = connect_timeout_s
        self._call_timeout_s = limits.call_timeout_s
        self._clock = clock
        self._entropy = entropy
        self._tasks = TaskOwner("client")
        self._routes = Routes()
        self._links = Links(
            network=network,
            introduction=introduction,
            limits=limits,
            tasks=self._tasks,
            on_message=self._received,
            on_close=self._lost,
        )
        self._router = Router(
            links=self._links,
            routes=self._routes,
            clock=clock,
            entropy=entropy,
            limits=limits,
            through=introduction.through,
        )
        self._caller: Caller = FilteredCaller(self._router, filters) if filters else self._router
        self._references = References(self._caller)
        self._failures: dict[str, str] = {}
        self._failed: dict[Address, float] = {}
        self._strangers: dict[Address, errors.IncompatibleSilo] = {}
        self._decided = asyncio.Event()
        self._wake = asyncio.Event()
        self._keeping: asyncio.Task[object] | None = None

    def actor(self, kind: type[A], key: str) -> A:
        """Refer to an actor. No I/O: it need not exist, and is never created by hand.

        Args:
            kind: its class.
            key: any text of 1 to 1024 bytes.

        Returns:
            A proxy with the actor's public methods, typed as the actor.

        Raises:
            ArgumentError: the key is empty, too long, or not text.
        """
        return self._references.get(kind, key)

    def watch(self, ref: Publishes[E]) -> Watch[E]:
        """Follow what an actor publishes, as durum.watch does.

            async with cluster.watch(cluster.actor(Board, "main")) as events:
                async for event in events:
                    ...

        Args:
            ref: a reference of this connection to an actor whose class derives from Publishes.

        Raises:
            ArgumentError: ref is no such reference.
        """
        made = watch(ref)
        if isinstance(ref, Reference) and caller_of(ref) is not self._caller:
            raise errors.ArgumentError(
                f"watch(): {ref!r} belongs to another connection; nothing was sent. Take it from this one:"
                " cluster.actor(Kind, key)."
            )
        return made

    async def tell(
        self, method: Callable[P, Coroutine[Any, Any, object]], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Send an actor a durable message, and return once it is accepted: from then on one of the actor's
        methods will run with it, exactly once, whatever crashes.

            await cluster.tell(ledger.book, order.id, order.total)
            await cluster.tell(durum.options(cart, idempotency_key=request_id).checkout)

        Its result goes nowhere. Where the method raises, it runs again a little later, and after some
        attempts the message is put aside as a dead letter.

        Args:
            method: of a reference; options go onto the reference: `delay`, `at`, `timeout` for the
                acceptance, and `idempotency_key`, with which a repeat is not accepted twice.
            args, kwargs: the method's.

        Raises:
            ArgumentError: it is no method that a message can run, or an argument cannot travel.
            CallError: it was not accepted, or nobody knows; `did_run` says which. Repeat it with an
                idempotency key.
        """
        sent = message(method, args, kwargs)
        await tell(self._router, self._caller, sent)

    @property
    def silos(self) -> Sequence[Address]:
        """Addresses of the active silos, as told last."""
        return self._routes.silos

    @property
    def admin(self) -> Admin:
        """The cluster as its operators see it: silos, grains by kind, inspecting, deleting."""
        name = self._introduction.cluster
        return Admin(self._router, self._links, self._clock, self._call_timeout_s, name)

    @property
    def router(self) -> Router:
        """Where calls go in; for tools that call by name."""
        return self._router

    async def open(self) -> Self:
        """Connect. `async with` and `await` do it too.

        Raises:
            NoSilo: no silo answered in time; the message lists what was tried.
            IncompatibleSilo: all that answered are of another cluster, version or secret. Raised as
                soon as that is so of every address at hand.
        """
        await self._tasks.open()
        self._tasks.start(self._router.deadlines.sweep(), "sweep")
        self._keeping = self._tasks.start(self._keep_connected(), "keep connected")
        try:
            await self._wait_table()
        except BaseException:
            await self.close()
            raise
        if not self._routes.version:
            await self.close()
            raise self._nobody()
        return self

    async def _wait_table(self) -> None:
        """Return with the first partition table, at the time limit, or once nobody will have us."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self._decided.wait()
        except TimeoutError:
            pass

    async def close(self, within_s: float = 1.0) -> None:
        """Close all connections. Calls under way end in SiloLost or ShuttingDown.

        Args:
            within_s: how long what was sent may take to leave.
        """
        self._router.close()
        if self._keeping is not None:
            self._keeping.cancel()  # else it would replace the links that are closed now
        await self._links.close(within_s)
        await self._tasks.close()
        await self._links.close(0.0)

    async def _keep_connected(self) -> None:
        """Stay connected to a few silos, so that news of the others arrives whatever happens."""
        while True:
            self._wake.clear()
            known = self._known()
            wanted = min(_KEEP, len(known))
            if self._introduction.through and not self._links.open:
                wanted = len(known)  # most of them may be out of reach: try all at once
            if len(self._links.open) < max(1, wanted):
                await self._connect_some(known, max(1, wanted))
            if not self._links.open:
                found = await self._look_up()
                await self._connect_some(found, 1)
                if found and all(address in self._strangers for address in found):
                    self._decided.set()
            pause_s = _RETRY_S if len(self._links.open) < max(1, wanted) else _LOOK_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _known(self) -> list[Address]:
        """Where to connect. Who cannot reach all silos is left with the addresses it was given."""
        if not self._introduction.through:
            return list(self._routes.silos) or list(self._seeds)
        known = list(dict.fromkeys([*self._seeds, *self._routes.silos]))
        since = self._clock.boottime() - _SHUN_S
        reached = [address for address in known if self._failed.get(address, since) <= since]
        return reached if self._links.open else known

    async def _connect_some(self, addresses: Sequence[Address], wanted: int) -> None:
        rest = [address for address in addresses if address not in self._links.open]
        rest.sort(key=lambda _: self._entropy.fraction())
        missing = max(0, wanted - len(self._links.open))
        async with asyncio.TaskGroup() as group:
            for address in rest[:missing]:
                group.create_task(self._connect_one(address), name=f"connect {address}")

    async def _connect_one(self, address: Address) -> None:
        try:
            await self._links.get(address)
        except (OSError, errors.ClusterError) as exc:
            self._failures[address] = str(exc) or type(exc).__name__
            self._failed[address] = self._clock.boottime()
            if isinstance(exc, errors.IncompatibleSilo):
                self._strangers[address] = exc
            else:
                self._strangers.pop(address, None)
            _log.debug("silo not reached", address=address, error=str(exc))
        else:
            self._failures.pop(address, None)
            self._failed.pop(address, None)
            self._strangers.pop(address, None)

    async def _look_up(self) -> Sequence[Address]:
        """Where silos may be: the seeds, and what the stores list."""
        found = list(self._seeds)
        for url in self._urls:
            try:
                found += await self._listed(url)
            except (errors.DurumError, OSError) as exc:
                self._failures[urls.shown(url)] = str(exc)
        return found

    async def _listed(self, url: str) -> Sequence[Address]:
        cluster, clock, entropy = self._introduction.cluster, self._clock, self._entropy
        name, found, why = await lookup.listed(url, cluster=cluster, clock=clock, entropy=entropy)
        if why:
            self._failures[name] = why
        return found

    def _nobody(self) -> errors.ClusterError:
        tried = "; ".join(f"{what}: {why}" for what, why in sorted(self._failures.items()))
        cluster = self._introduction.cluster
        if self._strangers:
            return errors.IncompatibleSilo(
                f"no silo of cluster {cluster!r} let this client in ({tried}). Nothing was called. Give"
                " it the cluster's name and secret, and a release that the silos' can talk to."
            )
        return errors.NoSilo(
            f"no silo of cluster {cluster!r} answered within {self._connect_timeout_s:g} s"
            f" ({tried or 'nothing was tried in that time'}). Check that one runs, its address, the"
            " cluster's name and its secret."
        )

    def _received(self, connection: Connection, message: AnyMessage) -> None:
        self._router.received(connection, message)
        if self._routes.version:
            self._decided.set()

    def _lost(self, connection: Connection) -> None:
        self._router.lost(connection)
        self._wake.set()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __await__(self) -> Generator[Any, None, Self]:
        return self.open().__await__()

    def __repr__(self) -> str:
        return (
            f"<Cluster {self._introduction.cluster!r} silos={len(self.silos)}"
            f" links={len(self._links.open)}>"
        )
