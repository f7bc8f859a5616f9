"""Finds silos by the store's URL: its membership table lists them. Keeps no connection and makes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from durum import errors
from durum.clock import Clock
from durum.ids import Address, Entropy
from durum.store import urls


def is_url(target: str) -> bool:
    """Whether it names a store, and not a silo."""
    return "://" in target or target.startswith("memory:")


async def listed(
    url: str, *, cluster: str, clock: Clock, entropy: Entropy
) -> tuple[str, Sequence[Address], str]:
    """Where a store says that active silos are.

    Returns:
        The store without secrets, the addresses, and where there are none, why.

    Raises:
        StoreUnavailable: it does not answer, or does not exist.
    """
    if _is_missing(url):
        # Opening it would make it, and whoever only asks must leave nothing behind.
        raise errors.StoreUnavailable("there is no such file: start a silo on it first")
    store = await urls.open_store(url, cluster=cluster, clock=clock, entropy=entropy)
    try:
        genesis = await store.genesis()
        if genesis is None:
            why = "no service was created in it: start a silo with `durum dev`, or `durum init` it"
            return store.url, (), why
        view = (await store.read_table(genesis.mark)).view
        why = "" if view.active else "it lists no active silo"
        return store.url, [row.address for row in view.active], why
    finally:
        await store.close()


def _is_missing(url: str) -> bool:
    scheme, _, path = url.partition(":///")
    return scheme == "sqlite" and not Path(path).exists()
