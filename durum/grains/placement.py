"""Where the activations of a kind may live. Pure values; the default, by the grain's hash, has none."""

from __future__ import annotations

import msgspec

from durum import errors


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
