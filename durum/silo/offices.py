"""Who in a silo sees to effects of commits: the post, and who wakes grains. Owns how they come together."""

from __future__ import annotations

from collections.abc import Callable

from durum.client.router import Router
from durum.ids import SiloId
from durum.silo.hints import Hints
from durum.silo.ownership import Ownership
from durum.silo.post import PostOffice
from durum.silo.services import Services
from durum.silo.turn import Sink
from durum.silo.wakeups import Alive, WakeUps
from durum.views import Status, View
from durum.wire.messages import Call


class Offices:
    """All of one silo, told of its partitions and of what their grains commit.

    Args:
        services: the silo's.
        router: to grains that live elsewhere.
        call: brings a call to a grain that lives here.
        ownership: which partitions it serves.
        alive: which grains are in memory.
        superseded: told of a partition whose store record no longer fits what we hold.
    """

    def __init__(
        self,
        services: Services,
        router: Router,
        call: Callable[[Sink, Call], None],
        ownership: Ownership,
        alive: Alive,
        superseded: Callable[[int], None],
    ) -> None:
        self.wake_ups = WakeUps(
            services=services,
            router=router,
            call=call,
            holdings=ownership,
            alive=alive,
            superseded=superseded,
        )
        self.post = PostOffice(services, superseded)
        self.hints = Hints(services, router, ownership, self.wake_ups, self.post)
        ownership.tenants.extend((self.wake_ups, self.post))
        services.offices.extend((self.wake_ups, self.post, self.hints))
        self._dead: frozenset[SiloId] = frozenset()

    def on_view(self, view: View) -> None:
        """The cluster has changed."""
        dead = frozenset(row.silo for row in view.rows if row.status is Status.DEAD)
        if dead - self._dead and _has_hosts(view):
            # One of them may have committed for grains of ours that it hosted, and had no time to tell.
            self.wake_ups.look()
            self.post.look_everywhere()
        self._dead = dead
        self.post.hurry()


def _has_hosts(view: View) -> bool:
    """Whether grains may be elsewhere than at their partitions' owners."""
    return any(row.placements or row.kinds != view.rows[0].kinds for row in view.rows)
