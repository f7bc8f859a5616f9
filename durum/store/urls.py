"""Opens the store that a URL names. Knows the forms of URLs; the stores know the rest."""

from __future__ import annotations

import importlib
from typing import Final

from durum import errors
from durum.clock import Clock
from durum.ids import Entropy
from durum.store import sqlite
from durum.store.protocol import Store

DEFAULT: Final = "sqlite:///./.durum/dev.db"
"""Where a project's data lies if nobody says otherwise."""

_REDIS: Final = ("redis", "rediss", "unix")
FORMS: Final = (
    "sqlite:///PATH, memory:, memory:NAME, redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://... "
    "(TLS), unix:///SOCKET[?db=DB], redis+sentinel://HOST[:PORT],.../NAME[/DB], or "
    "redis+cluster://HOST[:PORT],..."
)


async def open_store(
    url: str,
    *,
    cluster: str,
    clock: Clock,
    entropy: Entropy,
    store_timeout_s: float = 1.5,
    threads: bool = True,
    replicas: int = 0,
    confirm: bool = True,
) -> Store:
    """Open a store.

    Args:
        url: `sqlite:///relative`, `sqlite:////absolute`, `memory:`, `memory:NAME`, or a Redis URL
            (see redis_url).
        cluster: the service's name.
        clock: the process's clock.
        entropy: for jitter.
        store_timeout_s: an operation that takes longer ends in StoreUnavailable.
        threads: False makes the embedded store do everything at once on the caller's thread; for
            virtual time.
        replicas: how many must have a write before it counts; a Redis URL may say otherwise.
        confirm: False waits for no replica, whatever the URL says: for tools that only look.

    Raises:
        ConfigError: the URL is none of these, or the store belongs to something else.
        StoreUnavailable: it cannot be reached.
        DataLoss: it is damaged.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "memory" and not rest.startswith("/"):
        return await sqlite.open_memory(
            rest,
            cluster=cluster,
            clock=clock,
            entropy=entropy,
            store_timeout_s=store_timeout_s,
            threads=threads,
        )
    if scheme == "sqlite":
        path = rest.removeprefix("///")
        if not rest.startswith("///") or not path or "?" in path:
            raise errors.ConfigError(
                f"{url!r}: write sqlite:///shop.db for a file beside the working directory, "
                "sqlite:////var/lib/shop.db for an absolute path."
            )
        return await sqlite.open_file(
            path,
            cluster=cluster,
            clock=clock,
            entropy=entropy,
            store_timeout_s=store_timeout_s,
            threads=threads,
        )
    if scheme.partition("+")[0] in _REDIS:
        # Loaded here: whoever stays on SQLite does not wait for it.
        redis = importlib.import_module("durum.store.redis_open")
        store: Store = await redis.open_redis(
            url,
            cluster=cluster,
            clock=clock,
            entropy=entropy,
            store_timeout_s=store_timeout_s,
            replicas=replicas,
            confirm=confirm,
        )
        return store
    raise errors.ConfigError(f"{shown(url)!r} names no store. Write {FORMS}.")


def shown(url: str) -> str:
    """A URL without what may be a secret: neither user and password, nor options."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    main, _, options = rest.partition("?")
    # Where one of the two has the other's sign in it, nobody knows where the password ends.
    where = "..." if "@" in options else main.rpartition("@")[2]
    return f"{scheme}{mark}{where}"
