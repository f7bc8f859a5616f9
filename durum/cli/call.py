"""`durum call`: one call by name, with JSON in and out. Needs no class; the silo checks the arguments."""

from __future__ import annotations

import json
import keyword
from pathlib import Path
from typing import Final

import click
import msgspec

from durum import errors, ids
from durum.cli import exits, loops, settings
from durum.client.client import Cluster, connect
from durum.grains.actor import Actor
from durum.grains.kind import kind_of
from durum.grains.method import Method
from durum.grains.reference import CallOptions, Target
from durum.wire import values

CONNECT_WITHIN_S: Final = 10.0


@click.command("call", context_settings={"ignore_unknown_options": True})
@click.argument("kind")
@click.argument("key")
@click.argument("method")
@click.argument("arguments", nargs=-1, metavar="[JSON]...", type=click.UNPROCESSED)
@click.option(
    "--to",
    metavar="HOST:PORT|URL",
    envvar="DURUM_TO",
    help="A silo's address, or the store's URL.  [env var: DURUM_TO; default: --store]",
)
@settings.store
@settings.cluster
@settings.secret
@settings.tls
@click.option("--idempotency-key", default="", metavar="TEXT", help="Make repeating safe.")
@click.option("--timeout", type=float, default=30.0, show_default=True, help="Seconds to wait.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, also for errors.")
def command(
    *,
    kind: str,
    key: str,
    method: str,
    arguments: tuple[str, ...],
    to: str | None,
    store: str,
    cluster: str,
    secret_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    tls_server_name: str | None,
    idempotency_key: str,
    timeout: float,
    as_json: bool,
) -> int:
    """Call one method of one actor.

    Arguments are JSON, one for each parameter; a word that is not JSON is taken as text. The silo
    checks them against the method's annotations, so that 10.10 is exact for a Decimal, and a date is
    "2024-05-01". The result is printed as JSON.

    Exit codes: 0 it returned; 1 it raised, or the call failed; 69 no silo answers.

    \b
    Examples:
      durum call Account alice deposit 10.50
      durum call Account alice statement --json
      durum call Greeter bob hello Ann --to 10.0.0.7:7600 --secret-file /run/secrets/durum
    """
    target = _target(kind, key, method)
    args = values.json_arguments([_json(text, place) for place, text in enumerate(arguments, 1)])
    if to is None:
        settings.refuse_missing_file(store)
    secret = settings.read_secret(secret_file)
    tls = settings.read_tls(tls_cert, tls_key, tls_ca, tls_server_name)
    options = CallOptions(timeout, idempotency_key)
    try:
        result = loops.run(
            _call(
                connect(
                    to or store,
                    cluster=cluster,
                    secret=secret,
                    tls=tls,
                    connect_timeout_s=min(timeout, CONNECT_WITHIN_S),
                ),
                target,
                _method(kind, method),
                args,
                options,
            )
        )
    except errors.ClusterError:
        raise
    except Exception as exc:
        if not isinstance(exc, errors.DurumError) and not hasattr(exc, "__notes__"):
            raise  # nobody sent it: a mistake in this process, which needs its traceback
        _show_failure(exc, as_json=as_json)
        return exits.FAILED
    shown = values.as_json(result).decode()
    click.echo(f'{{"result": {shown}}}' if as_json else shown)
    return exits.CLEAN


async def _call(
    client: Cluster, target: Target, method: Method, args: bytes, options: CallOptions
) -> bytes:
    async with client:
        return await client.router.call(target, method, args, options)


def _target(kind: str, key: str, method: str) -> Target:
    """Name a grain whose class is not at hand."""
    if not ids.KIND.fullmatch(kind):
        raise errors.ConfigError(f"{kind!r} is not the name of a kind.")
    stand_in = type("StandIn", (Actor,), {}, kind=kind)
    if not method.isidentifier() or keyword.iskeyword(method) or method.startswith("_"):
        raise errors.ConfigError(f"{method!r} is not the name of a public method.")
    return Target(kind_of(stand_in), key)


def _method(kind: str, name: str) -> Method:
    async def unknown(self: object) -> None: ...

    return Method(kind, name, unknown, {}, None)


def _json(text: str, place: int) -> str:
    """The argument as JSON: what is not JSON and does not look like it is text."""
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as exc:
        if text[:1] in ("[", "{", '"'):
            raise errors.ConfigError(f"argument {place} is not JSON: {exc}: {text}") from None
        return json.dumps(text)
    return text


def _show_failure(error: Exception, *, as_json: bool) -> None:
    name = error.type_name if isinstance(error, errors.RemoteError) else type(error).__name__
    if as_json:
        notes = "\n".join(getattr(error, "__notes__", ()))
        failure = {"type": name, "message": str(error), "notes": notes}
        if isinstance(error, errors.CallError):
            failure["did_run"] = error.did_run
        click.echo(json.dumps({"error": failure}))
        return
    # Its notes, the silo's traceback among them, are for whoever wrote the method: see the JSON.
    click.echo(click.style(f"{name}: ", fg="red", bold=True) + str(error), err=True)
