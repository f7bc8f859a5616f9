"""Options that several commands share: which store, which cluster, which secret. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from durum import errors
from durum.config import Tls
from durum.store import urls

Command = TypeVar("Command", bound=Callable[..., Any])

store = click.option(
    "--store",
    default=urls.DEFAULT,
    show_default=True,
    envvar="DURUM_STORE",
    show_envvar=True,
    metavar="URL",
    help=f"Where data lives: {urls.FORMS}.",
)

cluster = click.option(
    "--cluster",
    default="default",
    show_default=True,
    envvar="DURUM_CLUSTER",
    show_envvar=True,
    metavar="NAME",
    help="The service's name. Several may share a Redis.",
)

_secret_file = click.option(
    "--secret-file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="DURUM_SECRET_FILE",
    show_envvar=True,
    help="A file with the cluster's secret. Without it, the variable DURUM_SECRET is used.",
)


_tls_cert = click.option(
    "--tls-cert",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="DURUM_TLS_CERT",
    show_envvar=True,
    help="This side's certificate, PEM. Read again when it changes.",
)
_tls_key = click.option(
    "--tls-key",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="DURUM_TLS_KEY",
    show_envvar=True,
    help="Its private key, where that is in a file of its own.",
)
_tls_ca = click.option(
    "--tls-ca",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="DURUM_TLS_CA",
    show_envvar=True,
    help="The CA to believe. A silo then asks all who call for a certificate, and needs no secret.",
)
_tls_server_name = click.option(
    "--tls-server-name",
    envvar="DURUM_TLS_SERVER_NAME",
    show_envvar=True,
    metavar="NAME",
    help="The name that all silos' certificates have.  [default: the host each is reached under]",
)


def tls(command: Command) -> Command:
    """Add --tls-cert, --tls-key, --tls-ca and --tls-server-name."""
    return _tls_cert(_tls_key(_tls_ca(_tls_server_name(command))))


def read_tls(
    cert: Path | None, key: Path | None, ca: Path | None, server_name: str | None
) -> Tls | None:
    """The TLS settings, or None where no option says anything.

    Raises:
        ConfigError: a key is given without a certificate.
    """
    if not (cert or key or ca or server_name):
        return None
    return Tls(cert=cert, key=key, ca=ca, server_name=server_name)


def secret(command: Command) -> Command:
    """Add --secret-file. The secret itself is never an argument: those are seen by every user."""
    return _secret_file(command)


def pages(command: Command) -> Command:
    """Add --metrics-port and --metrics-host."""
    port = click.option(
        "--metrics-port",
        type=click.IntRange(0, 65_535),
        envvar="DURUM_METRICS_PORT",
        show_envvar=True,
        help="Serve /metrics, /healthz and /readyz on this port; 0 takes a free one.",
    )
    host = click.option(
        "--metrics-host",
        default="127.0.0.1",
        show_default=True,
        metavar="HOST",
        envvar="DURUM_METRICS_HOST",
        help="Where to serve them. There is no password: keep it inside your network.",
    )
    return port(host(command))


def logs(command: Command) -> Command:
    """Add --log-format and --log-level."""
    form = click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        envvar="DURUM_LOG_FORMAT",
        help="Form of the log on standard error.",
    )
    level = click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        envvar="DURUM_LOG_LEVEL",
    )
    return form(level(command))


def read_secret(path: Path | None) -> list[str] | None:
    """The cluster's secrets from the file, the one to use first; None leaves it to DURUM_SECRET.

    Raises:
        ConfigError: the file cannot be read, or holds no secret.
    """
    if path is None:
        return None
    try:
        lines = path.read_text().split()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not text"
        raise errors.ConfigError(f"--secret-file {path} cannot be read: {reason}.") from exc
    if not 1 <= len(lines) <= 2:
        raise errors.ConfigError(
            f"--secret-file {path} has {len(lines)} lines; it must hold the secret alone, or, while it"
            " is being changed, the new one and the old one. Make one with: openssl rand -hex 32"
        )
    return lines


def refuse_missing_file(url: str) -> None:
    """Refuse an embedded store that is not there: looking must not create it.

    Raises:
        ConfigError: there is no such file.
    """
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).is_file():
        raise errors.ConfigError(
            f"there is no store at {path}. Create it with: durum init (durum dev APP does so too), or"
            " name another with --store."
        )
