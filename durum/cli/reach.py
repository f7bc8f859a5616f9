"""How commands reach a cluster's silos. Owns their options, and how an answer or an error is shown."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from durum import errors
from durum.cli import exits, loops, settings
from durum.client.admin import Admin
from durum.client.client import Cluster, connect
from durum.config import Limits

T = TypeVar("T")
CONNECT_WITHIN_S: Final = 10.0

_to = click.option(
    "--to",
    metavar="HOST:PORT|URL",
    envvar="DURUM_TO",
    help="A silo's address, or the store's URL.  [env var: DURUM_TO; default: --store]",
)
_as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, also for errors."
)
_timeout = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds to wait.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What the command line said of the way.

    Args:
        to: a silo's address, or a store's URL, or None.
        store: the store's URL.
        cluster: the service's name.
        secret_file: see settings.secret.
        tls: certificate, key, CA and name; see settings.tls.
        timeout: seconds.
        as_json: print one JSON object.
    """

    to: str | None
    store: str
    cluster: str
    secret_file: Path | None
    tls: tuple[Path | None, Path | None, Path | None, str | None]
    timeout: float
    as_json: bool

    def client(self, connect_timeout_s: float = CONNECT_WITHIN_S) -> Cluster:
        """A client, not connected yet."""
        if self.to is None:
            settings.refuse_missing_file(self.store)
        return connect(
            self.to or self.store,
            cluster=self.cluster,
            secret=settings.read_secret(self.secret_file),
            tls=settings.read_tls(*self.tls),
            connect_timeout_s=min(connect_timeout_s, self.timeout),
            limits=Limits(call_timeout_s=self.timeout),
        )

    def ask(self, question: Callable[[Admin], Awaitable[T]]) -> T:
        """Ask the silos something, and return the answer.

        Raises:
            click.exceptions.Exit: it failed, and that has been said as JSON.
            DurumError: it failed otherwise.
        """
        try:
            return loops.run(self._ask(question))
        except errors.DurumError as exc:
            if not self.as_json or isinstance(exc, errors.DurumBug):
                raise
            failure = {"type": type(exc).__name__, "message": str(exc)}
            if isinstance(exc, errors.CallError):
                failure["did_run"] = exc.did_run
            click.echo(json.dumps({"error": failure}))
            raise click.exceptions.Exit(exits.of(exc)) from exc

    async def _ask(self, question: Callable[[Admin], Awaitable[T]]) -> T:
        async with self.client() as cluster:
            return await question(cluster.admin)


def paged(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a listing that may be long: `limit` and `after`."""
    add_after = click.option(
        "--after", default="", metavar="TEXT", help="Where the listing before this one ended."
    )
    add_limit = click.option(
        "--limit",
        type=click.IntRange(min=1),
        default=100,
        show_default=True,
        help="At most so many.",
    )
    return add_limit(add_after(command))


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options, and hand them to the command as one argument, `reach`."""

    @functools.wraps(command)
    def packed(
        *,
        to: str | None,
        store: str,
        cluster: str,
        secret_file: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        tls_ca: Path | None,
        tls_server_name: str | None,
        timeout: float,
        as_json: bool,
        **others: Any,
    ) -> Any:
        reach = Reach(
            to=to,
            store=store,
            cluster=cluster,
            secret_file=secret_file,
            tls=(tls_cert, tls_key, tls_ca, tls_server_name),
            timeout=timeout,
            as_json=as_json,
        )
        return command(reach=reach, **others)

    for add in (
        _as_json,
        _timeout,
        settings.tls,
        settings.secret,
        settings.cluster,
        settings.store,
        _to,
    ):
        packed = add(packed)
    return packed
