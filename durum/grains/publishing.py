"""What an actor that publishes events derives from. Owns the call that does it; who watches, the silo knows.

    class Board(Actor, Publishes[Move | Reset]):
        async def move(self, x: int, y: int) -> None:
            ...
            self.publish(Move(x, y))            # seen by watchers once this turn has committed

Actors that do not derive from it have none of it, and pay nothing for it.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

E = TypeVar("E")


class Publishes(Generic[E]):
    """Beside Actor, what a class derives from whose actors publish events: `Publishes[Move | Reset]`.

    Clients and other actors follow them by durum.watch. Events are volatile: nothing of them is stored, and
    whoever does not watch does not hear of them.
    """

    __slots__ = ()

    def publish(self, event: E) -> None:
        """Tell whoever watches this actor. Inside a turn it is staged: watchers see it once the turn has
        committed, in order, or never, if it fails. Outside of turns, as in a hook, it is sent at once.

        Args:
            event: of one of the types that the class publishes.

        Raises:
            TypeError: the class does not publish such a thing; nothing was published.
            ValueError: it is larger than a frame; nothing was published.
            AttributeError: in a @read_only turn, in which nothing can have happened.
        """
        actor: Any = self  # every class with this one among its bases is an Actor
        if actor._durum_view is self:  # noqa: SLF001 - ours
            raise AttributeError(
                f"{type(self).__qualname__}: publish() in a @read_only turn, in which nothing happens that"
                " others could be told of. Remove @read_only from the method."
            )
        actor._durum_host.publish(event)  # noqa: SLF001 - ours
