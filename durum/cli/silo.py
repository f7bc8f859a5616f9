"""`durum silo`: one silo of a cluster, for production. Owns its options."""

from __future__ import annotations

from pathlib import Path

import click

from durum.cli import app as apps
from durum.cli import hosting, logs, loops, settings
from durum.cli import workers as several
from durum.config import SiloConfig, secrets_of
from durum.silo.silo import Silo


@click.command("silo")
@click.argument("app")
@settings.store
@settings.cluster
@click.option(
    "--listen",
    default="127.0.0.1:0",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to accept connections; port 0 takes a free one.",
)
@click.option(
    "--advertise",
    metavar="HOST:PORT",
    help="Where others reach this silo, if that is not the address it listens on.",
)
@settings.secret
@settings.tls
@click.option(
    "--insecure",
    is_flag=True,
    help="Accept anybody who can connect: no secret although the address is not loopback.",
)
@click.option(
    "--accept-volatile-store",
    is_flag=True,
    help="Serve on a store that keeps nothing when it stops.",
)
@click.option(
    "--require-durability",
    type=click.Choice(["D1", "D2", "D3"], case_sensitive=False),
    help="Refuse a store that can lose more than this level allows. D3 waits for a replica's copy.",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    envvar="DURUM_ROLES",
    show_envvar=True,
    metavar="NAME",
    help="A role that actors with OnSilos(role=NAME) ask for. May be given several times.",
)
@click.option(
    "--weight",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    envvar="DURUM_WEIGHT",
    show_envvar=True,
    help="Its share of all keys, relative to the others; with 0 only actors that are placed one by one.",
)
@settings.pages
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Run so many silos, each a process of its own, and start anew those that die.",
)
@settings.logs
@click.option("--stop-with-parent", is_flag=True, hidden=True)
def command(
    *,
    app: str,
    store: str,
    cluster: str,
    listen: str,
    advertise: str | None,
    secret_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    tls_server_name: str | None,
    insecure: bool,
    accept_volatile_store: bool,
    require_durability: str | None,
    roles: tuple[str, ...],
    weight: float,
    metrics_port: int | None,
    metrics_host: str,
    workers: int,
    log_format: str,
    log_level: str,
    stop_with_parent: bool,
) -> int | None:
    """Run one silo of a cluster.

    APP is what it serves: a file (shop.py), a module (shop.grains), or one name in a module
    (shop.grains:KINDS). Every Actor class that it defines or imports by name is hosted.

    The first line on standard output is one JSON object: pid, silo id, address, durability level,
    and every unsafe setting. Logs go to standard error.

    SIGTERM drains and hands over, a second one stops at once. Exit codes: 0 clean; 70 declared
    dead by the others, start it again; 75 the store does not answer or has lost data; 78 wrong or
    unsafe configuration.

    Python runs on one core: with --workers there is a silo for each, and a first line for each.
    Their ports follow on that of --listen, unless it is 0; so do those of --metrics-port.

    \b
    Examples:
      durum silo shop.py
      durum silo shop.grains --store redis://redis.internal:6379/0 --cluster shop \\
          --listen 0.0.0.0:7600 --advertise 10.0.0.7:7600 --secret-file /run/secrets/durum
      durum silo shop.py --workers 4 --metrics-port 9464
    """
    logs.configure(log_format, log_level)
    if workers > 1:
        return loops.run(several.run(workers, listen, advertise, metrics_port))
    kinds = apps.load_kinds(app)
    settings.refuse_missing_file(store)
    secret = settings.read_secret(secret_file)
    tls = settings.read_tls(tls_cert, tls_key, tls_ca, tls_server_name)
    silo = Silo(
        kinds=kinds,
        store=store,
        cluster=cluster,
        listen=listen,
        advertise=advertise,
        secret=secret,
        tls=tls,
        insecure=insecure,
        # None: a store that is volatile by its very name needs no second word.
        accept_volatile_store=accept_volatile_store or None,
        require_durability=require_durability,
        # What is in memory is always new. Elsewhere missing data must be an alarm.
        create=store.startswith("memory:"),
        # A supervisor starts us again, and sees that it happened.
        rejoin=False,
        config=SiloConfig(roles=roles, weight=weight),
    )
    unsafe = []
    if insecure and not secrets_of(secret) and not (tls and tls.mutual):
        unsafe.append("no cluster secret: whoever can connect may call, and may join as a silo")
    pages = hosting.pages(silo, metrics_port, metrics_host, advertise or listen)
    loops.run(hosting.host(silo, unsafe=unsafe, with_parent=stop_with_parent, pages=pages))
    return None
