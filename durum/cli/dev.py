"""`durum dev`: one silo on a store in ./.durum, for whoever writes actors. Owns its defaults."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import Final

import click

from durum.cli import app as apps
from durum.cli import hosting, logs, loops, settings
from durum.cli import reload as reloading
from durum.config import SiloConfig
from durum.ids import Address, split_address
from durum.silo.silo import Silo
from durum.store import urls

PREFERRED: Final = Address("127.0.0.1:7600")


@click.command("dev")
@click.argument("app")
@click.option("--store", default=urls.DEFAULT, show_default=True, metavar="URL")
@settings.cluster
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help=f"Where to accept connections.  [default: {PREFERRED}, or a free port if it is taken]",
)
@click.option(
    "--reload/--no-reload", default=False, help="Start anew when a Python file beside APP changes."
)
@settings.pages
@settings.logs
@click.option("--stop-with-parent", is_flag=True, hidden=True)
def command(
    *,
    app: str,
    store: str,
    cluster: str,
    listen: str | None,
    reload: bool,
    metrics_port: int | None,
    metrics_host: str,
    log_format: str,
    log_level: str,
    stop_with_parent: bool,
) -> int | None:
    """Run one silo for development, on a store in ./.durum.

    APP is a file (hello.py), a module, or module:name. The store is created when it is missing,
    and stays: what your actors remember is there at the next start. Methods marked @read_only are
    checked to change nothing. Run it twice, and the two silos share the work.

    \b
    Examples:
      durum dev hello.py
      durum dev hello.py --reload
      durum call Greeter bob hello Ann        (in another terminal)
    """
    if reload:
        return loops.run(reloading.run(app, sys.argv[1:]))
    logs.configure(log_format, log_level)
    silo = Silo(
        kinds=apps.load_kinds(app),
        store=store,
        cluster=cluster,
        listen=listen or _free_address(),
        accept_volatile_store=True,
        create=True,
        config=SiloConfig(check_read_only=True),
    )
    pages = hosting.pages(silo, metrics_port, metrics_host, listen)
    loops.run(hosting.host(silo, hint=_hint(silo), with_parent=stop_with_parent, pages=pages))
    return None


def _hint(silo: Silo) -> str:
    """What to type in the other terminal, for a kind that is really there."""
    kind = next((kind for kind in silo.kinds.values() if kind.methods), None)
    if kind is None:
        return f"{next(iter(silo.kinds))} has no public methods yet."
    method = next(iter(kind.methods.values()))
    needed = "".join(f" {each.name.upper()}" for each in method.parameters if each.required)
    return f"Ready. Call it from another terminal: durum call {kind.name} some-key {method.name}{needed}"


def _free_address() -> str:
    host, port = split_address(PREFERRED)
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return f"{host}:0"
    return PREFERRED
