"""Where the activations of a kind may live. Pure values; the default, by the grain's hash, has none."""

from __future__ import annotations

from typing import Final

import msgspec

from durum import errors
from durum.ids import ROLE


class StatelessWorker(msgspec.Struct, frozen=True):
    """Activations anywhere: each silo has its own, several for one key where there is work for them.

    Calls go to the nearest silo that hosts the kind. For work that needs no state, such as resizing
    pictures: nothing is looked up, and no two calls wait for each other while there is room.

        class Resize(Actor, placement=StatelessWorker(max_local=4)): ...

    Args:
        max_local: activations of one key on one silo; beyond it, calls wait.

    Raises:
        ConfigError: max_local is no whole number above 0.
    """

    max_local: int = 4

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if type(self.max_local) is not int or self.max_local < 1:
            raise errors.ConfigError(
                f"StatelessWorker(max_local={self.max_local!r}); write a whole number above 0."
            )


class PreferLocal(msgspec.Struct, frozen=True, tag="prefer_local"):
    """One activation in the cluster, on the silo that calls it first.

    That is the silo whose actor made the call, or the one that a client's call passed through where
    clients use gateways; where there is none, or it does not host the kind, the silo that holds the
    key's partition, else any. The activation stays there until it is put away. For actors that are
    called by few others: calls that stay in one process need no network.

        class Cart(Actor, placement=PreferLocal()): ...
    """


class Random(msgspec.Struct, frozen=True, tag="random"):
    """One activation in the cluster, on any silo that hosts the kind.

        class Crawler(Actor, placement=Random()): ...

    Other than by the hash of its key, an actor that was put away may come back elsewhere, so that a
    silo that has just joined gets its share at once.
    """


class LeastLoaded(msgspec.Struct, frozen=True, tag="least_loaded"):
    """One activation in the cluster, on the less loaded of two silos that are taken at random.

    The load is the number of activations, as silos report it with each renewal of their lease, in
    proportion to their weights. For actors that take much memory or stay for long.

        class Match(Actor, placement=LeastLoaded()): ...
    """


class OnSilos(msgspec.Struct, frozen=True, tag="on_silos"):
    """One activation in the cluster, on the least loaded silo of those with a role.

    While no silo with the role is active, calls wait for one until their deadline; they did not run.

        class Train(Actor, placement=OnSilos(role="gpu")): ...

    Args:
        role: one of those that silos are started with: `SiloConfig(roles=("gpu",))`, `durum silo --role gpu`.

    Raises:
        ConfigError: the role is no text of letters, digits, `_`, `.` and `-`.
    """

    role: str

    def __post_init__(self) -> None:
        """Refuse what no silo can have."""
        if type(self.role) is not str or not ROLE.fullmatch(self.role):
            raise errors.ConfigError(
                f"OnSilos(role={self.role!r}); write 1 to 64 ASCII letters, digits, `_`, `.` or `-`."
            )


Placement = PreferLocal | Random | LeastLoaded | OnSilos
"""Of grains that are placed one by one; the silo that holds a grain's partition notes where it is."""


WORKER: Final = '{"type":"stateless_worker"}'
"""What stands there for a StatelessWorker."""


def written(placement: Placement) -> str:
    """A placement as it stands in a silo's row, for silos that do not host the kind."""
    return msgspec.json.encode(placement).decode()


def read(text: str) -> Placement:
    """What `written` wrote. A strategy that this release does not know is any silo that hosts the kind."""
    try:
        placement: Placement = msgspec.json.decode(text, type=Placement)
    except (msgspec.MsgspecError, errors.ConfigError):
        return Random()
    return placement
