"""An actor that follows another: each event is a turn. Owns what is asked for; turns are the silo's."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

from durum import errors
from durum.grains.actor import Actor
from durum.grains.events import Gap
from durum.grains.publishing import E, Publishes
from durum.grains.timers import Timer, TimerSpec, method_of
from durum.grains.watching import Watch, watch_as


def follow(
    ref: Publishes[E],
    callback: Callable[[E | Gap], Coroutine[object, object, object]],
    *,
    keep_alive: bool = False,
) -> Timer:
    """Have one of an actor's methods run for each event that another actor publishes.

        class Score(Actor):
            async def on_activate(self) -> None:
                durum.follow(self.actor(Board, self.key), self._on_event)

            async def _on_event(self, event: Move | Reset | durum.Gap) -> None:
                ...

    Volatile, as a timer is: it ends with the activation, and `on_activate` is the place to begin anew. Each
    event is a turn like that of a timer's tick, one after another; what it changes is committed, and if it
    raises, that is taken back and logged. The first event is a Gap (reason "begun"), once following has
    begun, however long that takes: the place to look at the other's state.

    Args:
        ref: a reference to an actor whose class derives from Publishes, from self.actor.
        callback: an `async def` method of the actor that follows, public or not.
        keep_alive: an activation that nobody calls stays while it follows.

    Returns:
        What ends it: `cancel()`.

    Raises:
        ArgumentError: ref or callback is not what it has to be; nothing was begun.
    """
    actor = getattr(callback, "__self__", None)
    function = method_of(actor, callback) if isinstance(actor, Actor) else None
    if function is None or not isinstance(actor, Actor):
        raise errors.ArgumentError(
            f"follow({callback!r}): it takes an `async def` method of the actor that follows, such as"
            " self._on_event; nothing was begun."
        )
    feed: Watch[E] = watch_as("follow", ref, patient=True)
    spec = TimerSpec(
        name=function.__name__,
        replaces=False,
        function=function,
        args=(),
        due_s=0.0,
        every_s=None,
        keep_alive=keep_alive,
        feed=feed,
    )
    return actor._durum_host.set_timer(spec)  # noqa: SLF001 - ours
