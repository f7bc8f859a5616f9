"""Actors behind FastAPI: a connection that lives as long as the application, a dependency that hands it out,
and status codes for Durum's errors. Knows no routes of its own. Needs the extra `fastapi`.

    durum = Durum("redis://redis.internal:6379/0")
    app = FastAPI(lifespan=durum.lifespan)
    durum.answer_errors(app)

    @app.post("/accounts/{name}/deposit")
    async def deposit(name: str, amount: Decimal, cluster: Cluster) -> Decimal:
        return await cluster.actor(Account, name).deposit(amount)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final, TypeAlias

from durum import errors
from durum.client import client
from durum.config import Limits, Tls
from durum.errors import DidRun
from durum.silo.silo import Silo
from durum.telemetry import Log

try:
    from fastapi import Depends, FastAPI, Header, Request
    from fastapi.responses import JSONResponse
    from starlette.requests import HTTPConnection
except ImportError as exc:
    raise errors.ConfigError(
        "durum.web.fastapi needs FastAPI: install the extra, as in pip install 'durum[fastapi]'."
    ) from exc

__all__ = ["Cluster", "Durum", "IdempotencyKey"]

Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[dict[str, Any] | None]]

_log = Log("durum.web")
_STATE: Final = "durum_cluster"
_RETRY_S: Final = 1


class Durum:
    """One application's cluster.

    Args:
        target: a silo's `host:port`, several of them, or the store's URL, as for durum.connect; or a
            function that makes a Silo, which then lives in the application's own process; or, in tests,
            an open Cluster, which stays the test's to close.
        cluster, secret, tls, routing, connect_timeout_s, limits: as for durum.connect; a Silo has its own.
        lifespan: the application's own, which runs inside: `request.state` has what both yield.

    Raises:
        ConfigError: the target is none of these.
    """

    def __init__(
        self,
        target: str | Sequence[str] | Callable[[], Silo] | client.Cluster,
        *,
        cluster: str = "default",
        secret: str | bytes | Sequence[str | bytes] | None = None,
        tls: Tls | None = None,
        routing: client.Routing = "direct",
        connect_timeout_s: float = 10.0,
        limits: Limits | None = None,
        lifespan: Lifespan | None = None,
    ) -> None:
        self._inner = lifespan
        self._connect: Callable[[], client.Cluster] | None = None
        self._given: Callable[[], Silo] | client.Cluster | None = None
        if isinstance(target, client.Cluster) or callable(target):
            self._given = target
            return
        # Made anew at each start, since an application may be started more than once.
        self._connect = partial(
            client.connect,
            target,
            cluster=cluster,
            secret=secret,
            tls=tls,
            routing=routing,
            connect_timeout_s=connect_timeout_s,
            limits=limits,
        )
        self._connect()  # a wrong target shows now, not when the server starts

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        """Connect when the application starts, close when it ends. For `FastAPI(lifespan=...)`.

        An embedded silo hands everything over and leaves before the process ends.

        Raises:
            NoSilo, IncompatibleSilo: nobody answers, or nobody will have us; the application does not start.
            ConfigError, StoreError: the embedded silo cannot start.
        """
        async with AsyncExitStack() as stack:
            state: dict[str, Any] = {_STATE: await self._open(stack)}
            if self._inner is not None:
                inner = await stack.enter_async_context(self._inner(app))
                state.update(inner or {})
            yield state

    async def _open(self, stack: AsyncExitStack) -> client.Cluster:
        if isinstance(self._given, client.Cluster):
            return self._given
        if self._given is not None:
            silo = await stack.enter_async_context(self._given())
            return await stack.enter_async_context(silo.connect())
        assert self._connect is not None  # noqa: S101 - the constructor saw to it
        return await stack.enter_async_context(self._connect())

    def answer_errors(self, app: FastAPI) -> None:
        """Answer requests that end in Durum's errors with the status code that says what to do next.

        What the server's people need to know is logged; strangers are told no addresses.
        """
        for kind in (errors.CallError, errors.StoreError, errors.ClusterError):
            app.add_exception_handler(kind, _answer)

    def __repr__(self) -> str:
        return f"<Durum for FastAPI {self._given or self._connect!r}>"


def _connected(connection: HTTPConnection) -> client.Cluster:
    found = getattr(connection.state, _STATE, None)
    if not isinstance(found, client.Cluster):
        raise errors.ConfigError(
            "this application has no cluster: make it with FastAPI(lifespan=durum.lifespan), and let its"
            " server run the lifespan (httpx's ASGITransport does not; see the page on FastAPI)."
        )
    return found


Cluster: TypeAlias = Annotated[client.Cluster, Depends(_connected)]
"""The parameter type of routes and dependencies that call actors."""

IdempotencyKey: TypeAlias = Annotated[
    str | None,
    Header(alias="Idempotency-Key", min_length=1, max_length=200),
]
"""The parameter type that takes the header of that name, for durum.options(actor, idempotency_key=...)."""


# Answers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Answer:
    """How one kind of error is answered.

    Args:
        status: the code.
        text: for the client; "" where the error's own text is the client's business.
    """

    status: int
    text: str = ""


_BUSY: Final = _Answer(503, "The service has too much to do at the moment.")
_AWAY: Final = _Answer(503, "The service is not available at the moment.")
_BROKEN: Final = _Answer(500, "The service is not able to do this.")

_ANSWERS: Final[Mapping[type[errors.DurumError], _Answer]] = {
    errors.ArgumentError: _Answer(422),
    errors.NotAuthorized: _Answer(403, "This is not allowed."),
    errors.Overloaded: _BUSY,
    errors.ShuttingDown: _AWAY,
    errors.NotServing: _AWAY,
    errors.CallTimeout: _Answer(504, "The service did not answer in time."),
    errors.SiloLost: _Answer(502, "The service was lost while it worked on this."),
    errors.CommitFailed: _AWAY,
    errors.ReplyForgotten: _Answer(409, "This was done before; its result is not kept any more."),
    errors.StoreUnavailable: _AWAY,
    errors.ClusterError: _AWAY,
    errors.DurumError: _BROKEN,
}
"""By the nearest class of the error's own."""


async def _answer(request: Request, error: Exception) -> JSONResponse:
    nearest = next(kind for kind in type(error).__mro__ if kind in _ANSWERS)
    answer = _ANSWERS[nearest]
    ran = error.did_run if isinstance(error, errors.CallError) else DidRun.NO
    body: dict[str, Any] = {
        "error": type(error).__name__,
        "detail": answer.text or str(error),
        "did_run": ran.value,
    }
    # Only what kept nothing may be sent again by machines that know nothing of it.
    again = answer.status == 503 and ran in {DidRun.NO, DidRun.ROLLED_BACK}
    if answer.status >= 500:
        _log.warning("a request failed", path=request.url.path, error=repr(error))
    return JSONResponse(
        body, answer.status, headers={"Retry-After": str(_RETRY_S)} if again else None
    )
