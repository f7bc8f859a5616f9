"""What export and import show while they run. Owns the line on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from durum.cli.reach import Reach
from durum.client.transfer import Progress, Told

SHOWN: Final = 20
"""How many names are listed, of many."""
_EVERY: Final = 100


@contextmanager
def shown(reach: Reach, what: str) -> Iterator[Told | None]:
    """Tell a person at a terminal how far it has come; nobody else.

    Args:
        reach: what the command line said.
        what: the past participle, as in `12 of 40 grains exported`.
    """
    if reach.as_json or not sys.stderr.isatty():
        yield None
        return

    def told(progress: Progress) -> None:
        if progress.grains % _EVERY == 0 or progress.grains == progress.total:
            line = f"\r{progress.grains:,} of {progress.total:,} grains {what}"
            click.echo(line, nl=False, err=True)

    try:
        yield told
    finally:
        click.echo("\r\033[K", nl=False, err=True)
