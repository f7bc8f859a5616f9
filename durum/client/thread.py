"""A thread with an event loop of its own, on which an asynchronous client lives. Owns both of their lives;
knows no calls.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from durum import errors
from durum.client import client

T = TypeVar("T")

_CLOSE_S: Final = 3.0
OWN_THREAD: Final = (
    "this is the connection's own thread: waiting here for a call would stop the loop that has to make"
    " it; the call did not run. Await the method instead: await alice.deposit(Decimal(10))."
)


class LoopThread:
    """A thread with an event loop, on which one asynchronous client lives.

    Args:
        cluster: the client, not opened yet.

    Raises:
        ClusterError, ConfigError: it cannot connect.
    """

    def __init__(self, cluster: client.Cluster) -> None:
        self.cluster: Final = cluster
        self._pid = os.getpid()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._giving_up = threading.Event()
        # A daemon: a script that forgets to close must not hang at its end.
        self._thread = threading.Thread(target=self._main, name="durum.sync", daemon=True)
        self._thread.start()
        try:
            self._opened.result()
        except BaseException:
            self.close()
            raise

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on it."""
        return threading.current_thread() is self._thread

    def check(self) -> None:
        """Refuse what cannot work from here.

        Raises:
            Rejected: waiting on the thread itself, in a forked process, or after the end.
        """
        if os.getpid() != self._pid:
            raise errors.Rejected(
                "this process was forked from the one that connected, and connections do not survive"
                " that; the call did not run. Connect after the fork, in each process."
            )
        if self.is_current:
            raise errors.Rejected(OWN_THREAD)
        if self._closed:
            raise errors.ShuttingDown("the connection was closed; the call did not run.")

    def start(self, call: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the loop. Cancelling the future cancels it."""
        try:
            self.check()
            return asyncio.run_coroutine_threadsafe(call, self._loop)
        except RuntimeError as exc:
            call.close()
            raise errors.ShuttingDown("the connection was closed; the call did not run.") from exc
        except BaseException:
            call.close()
            raise

    def close(self) -> None:
        """Close the client and end the thread; wait for it a little, unless that would be for ever."""
        if os.getpid() != self._pid:
            return
        self._closed = True
        self._giving_up.set()
        with contextlib.suppress(RuntimeError, AttributeError):  # it has ended, or never began
            self._loop.call_soon_threadsafe(self._stop.set)
        if not self.is_current:
            self._thread.join(_CLOSE_S)

    def _main(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as exc:  # noqa: BLE001 - it is the waiting thread's
            if not self._opened.done():
                self._opened.set_exception(exc)

    async def _live(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        opening = self._loop.create_task(self.cluster.open(), name="durum.sync: open")
        stopping = self._loop.create_task(self._stop.wait(), name="durum.sync: stop")
        try:
            if self._giving_up.is_set():
                return
            await asyncio.wait([opening, stopping], return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                await opening
                self._opened.set_result(None)
                await stopping
        finally:
            opening.cancel()
            stopping.cancel()
            await asyncio.wait([opening])
            await self.cluster.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"{self.cluster!r} {state}"
