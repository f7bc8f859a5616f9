"""A cluster for code without async: scripts, notebooks, threads. Owns how such code calls and waits; what a
call is, the asynchronous client knows.

    with durum.sync.connect("127.0.0.1:7600") as cluster:
        alice = cluster.actor(Account, "alice")
        print(cluster.call(alice.deposit, Decimal(10)))

It works where an event loop is running already, as in a notebook: the calls run on a loop of their own. There
`await alice.deposit(Decimal(10))` works too.
"""

from __future__ import annotations

import concurrent.futures
import inspect
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Self, TypeVar, overload

from durum import errors
from durum.client import client, gathering
from durum.client.blocking import BlockingStream, BlockingWatch
from durum.client.bridge import Bridge
from durum.client.telling import tell
from durum.client.thread import OWN_THREAD, LoopThread
from durum.config import Limits, Tls
from durum.grains.actor import Actor
from durum.grains.messages import message
from durum.grains.publishing import E, Publishes
from durum.grains.reference import Reference, caller_of, reference
from durum.grains.streams import Results
from durum.grains.watching import watch
from durum.ids import Address

__all__ = ["Cluster", "connect"]

A = TypeVar("A", bound=Actor)
I = TypeVar("I")  # noqa: E741 - an item
P = ParamSpec("P")
T = TypeVar("T")

IN_FLIGHT: Final = 256
"""How many calls of one `gather` or `map` are under way at once."""


def connect(
    target: str | Sequence[str],
    *,
    cluster: str = "default",
    secret: str | bytes | Sequence[str | bytes] | None = None,
    tls: Tls | None = None,
    routing: client.Routing = "direct",
    connect_timeout_s: float = 10.0,
    limits: Limits | None = None,
) -> Cluster:
    """Connect to a cluster, and wait until that is done.

    The connection ends with its `with` block, by `close`, when nobody refers to it any more, or with the
    process. Any number of threads may share it.

    Args:
        target: a silo's `host:port`, several of them, or the store's URL, where silos are listed.
        cluster: the cluster's name.
        secret: the cluster secret, or two during a rotation; None takes DURUM_SECRET, if set.
        tls: certificates, where the silos demand TLS.
        routing: see `durum.connect`.
        connect_timeout_s: how long to try before NoSilo.
        limits: see Limits; `call_timeout_s` is the deadline of calls that name none.

    Raises:
        ConfigError: the target is neither an address nor a URL.
        NoSilo: no silo answered in time; the message lists what was tried.
        IncompatibleSilo: all that answered are of another cluster, version or secret.
    """
    made = client.connect(
        target,
        cluster=cluster,
        secret=secret,
        tls=tls,
        routing=routing,
        connect_timeout_s=connect_timeout_s,
        limits=limits,
    )
    return Cluster(LoopThread(made))


class Cluster:
    """A cluster, as code without async sees it. Made by `connect`.

    Args:
        thread: where its calls run.
    """

    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread
        self._bridge = Bridge(thread, self)
        # Also at the process's end: silos should hear a goodbye, not a broken connection.
        self._end = weakref.finalize(self, thread.close)

    def actor(self, kind: type[A], key: str) -> A:
        """Refer to an actor. No I/O: it need not exist, and is never created by hand.

        Args:
            kind: its class.
            key: any text of 1 to 1024 bytes.

        Returns:
            A proxy with the actor's public methods, typed as the actor. Give them to `call`.

        Raises:
            ArgumentError: the key is empty, too long, or not text.
        """
        return reference(self._bridge, kind, key)

    @property
    def silos(self) -> Sequence[Address]:
        """Addresses of the active silos, as told last."""
        return self._thread.cluster.silos

    def call(
        self, method: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call an actor's method, and wait for its result.

        Ctrl-C while it waits cancels the call: it is dropped where it waits, and rolled back where it runs.

        Args:
            method: of a reference, as in `cluster.call(alice.deposit, Decimal(10))`; options go onto the
                reference: `cluster.call(durum.options(alice, timeout=5).deposit, Decimal(10))`. Any other
                `async def` is run too, on the connection's own loop; it may call many actors.
            args, kwargs: the method's.

        Raises:
            CallError: it ended without a value; `did_run` says whether it ran.
            Exception: what the method itself raised.
        """
        self._check_method(method)
        return self._run(method(*args, **kwargs))

    def tell(
        self, method: Callable[P, Coroutine[Any, Any, object]], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Send an actor a durable message, and wait until it is accepted: from then on the method will run
        with it, exactly once, whatever crashes.

            cluster.tell(durum.options(cart, idempotency_key=request_id).checkout)

        Args:
            method: of a reference; options go onto the reference: `delay`, `at`, `timeout` for the
                acceptance, and `idempotency_key`, with which a repeat is not accepted twice.
            args, kwargs: the method's.

        Raises:
            ArgumentError: it is no method that a message can run, or an argument cannot travel.
            CallError: it was not accepted, or nobody knows; `did_run` says which.
        """
        self._thread.check()
        sent = message(method, args, kwargs)
        self._run(tell(self._thread.cluster.router, self._bridge, sent))

    @overload
    def gather(
        self,
        calls: Iterable[Coroutine[Any, Any, T]],
        *,
        in_flight: int = IN_FLIGHT,
        return_exceptions: Literal[False] = False,
    ) -> list[T]: ...

    @overload
    def gather(
        self,
        calls: Iterable[Coroutine[Any, Any, T]],
        *,
        in_flight: int = IN_FLIGHT,
        return_exceptions: Literal[True],
    ) -> list[T | Exception]: ...

    def gather(
        self,
        calls: Iterable[Coroutine[Any, Any, T]],
        *,
        in_flight: int = IN_FLIGHT,
        return_exceptions: bool = False,
    ) -> list[T] | list[T | Exception]:
        """Make many calls at once, and wait for all results.

            cluster.gather([cluster.actor(Account, name).deposit(Decimal(1)) for name in names])

        Args:
            calls: of references, not awaited.
            in_flight: how many may be under way at once.
            return_exceptions: put exceptions where results would be. Otherwise the first one cancels
                what is under way, keeps the rest from starting, and is raised.

        Returns:
            The results, in the order of the calls.

        Raises:
            CallError: a call ended without a value.
            Exception: what a method itself raised.
        """
        waiting = list(calls)
        try:
            self._thread.check()
            for each in waiting:
                gathering.check_call(each)
        except errors.Rejected:
            gathering.put_away(waiting)
            raise
        if not return_exceptions:
            return self._run(gathering.gather(waiting, in_flight))
        return self._run(
            gathering.gather([gathering.outcome(each) for each in waiting], in_flight, waiting)
        )

    def map(
        self,
        call: Callable[[I], Coroutine[Any, Any, T]],
        items: Iterable[I],
        *,
        in_flight: int = IN_FLIGHT,
    ) -> Iterator[T]:
        """Make a call for each item, and yield the results in the items' order, as they come.

            for balance in cluster.map(lambda name: cluster.actor(Account, name).get_balance(), names):
                ...

        Items are drawn as they are needed, so there may be any number of them. Leaving the loop early
        cancels what is under way.

        Args:
            call: makes the call for an item.
            items: whatever it takes.
            in_flight: how many may be under way at once, and how far the results may be ahead.

        Raises:
            CallError: a call ended without a value.
            Exception: what a method itself raised.
        """
        self._thread.check()
        under_way: deque[concurrent.futures.Future[T]] = deque()
        try:
            for item in items:
                made = call(item)
                gathering.check_call(made)
                under_way.append(self._thread.start(made))
                if len(under_way) >= max(1, in_flight):
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()

    def stream(
        self, method: Callable[P, AsyncIterator[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> BlockingStream[T]:
        """Call a streaming method, and go through its results as they come.

            for line in cluster.stream(log.read, 100):
                ...

        Nothing is sent before the first item is asked for. Leaving the loop early ends the method.

        Args:
            method: of a reference, as for `call`.
            args, kwargs: the method's.

        Raises:
            ArgumentError: it is no streaming method of a reference of this connection.
            StreamMoved: while iterating: the actor has moved in the middle; call again for the rest.
            CallError: while iterating: it ended without its last item.
            Exception: while iterating: what the method itself raised.
        """
        self._thread.check()
        owner = getattr(method, "__self__", None)
        results = method(*args, **kwargs) if isinstance(owner, Reference) else None
        if not isinstance(results, Results):
            gathering.put_away([results])
            raise errors.ArgumentError(
                f"stream(): expected an actor's streaming method such as log.read, got {method!r:.200};"
                " nothing was sent. For other methods there is call()."
            )
        self._check_own("stream", owner)
        return BlockingStream(self._thread, results)

    def watch(self, ref: Publishes[E]) -> BlockingWatch[E]:
        """Follow what an actor publishes.

            with cluster.watch(cluster.actor(Board, "main")) as events:
                for event in events:
                    ...

        Args:
            ref: a reference of this connection to an actor whose class derives from Publishes.

        Raises:
            ArgumentError: ref is no such reference.
        """
        made = watch(ref)
        self._check_own("watch", ref)
        return BlockingWatch(self._thread, made)

    def close(self) -> None:
        """Close the connection. Calls under way in other threads end in ShuttingDown or SiloLost."""
        if self._thread.is_current:
            raise errors.Rejected(OWN_THREAD)
        self._end()

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        future = self._thread.start(call)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C ends the waiting only; whoever pressed it means the call.
            future.cancel()
            raise

    def _check_method(self, method: object) -> None:
        self._thread.check()
        if inspect.iscoroutine(method):
            method.close()
            raise errors.ArgumentError(
                "call(): the method was called already; nothing was sent. Give the method and its"
                " arguments apart: cluster.call(alice.deposit, Decimal(10))."
            )
        if not inspect.iscoroutinefunction(method):
            raise errors.ArgumentError(
                f"call(): expected an actor's method such as alice.deposit, got {method!r:.200}; nothing"
                " was sent."
            )
        self._check_own("call", getattr(method, "__self__", None))

    def _check_own(self, what: str, ref: object) -> None:
        if isinstance(ref, Reference) and caller_of(ref) is not self._bridge:
            raise errors.ArgumentError(
                f"{what}(): {ref!r} belongs to another connection; nothing was sent. Take it from this"
                " one: cluster.actor(Kind, key)."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<sync {self._thread!r}>"
