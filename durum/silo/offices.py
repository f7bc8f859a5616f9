"""Who in a silo sees to effects of commits: the post, and who wakes grains. Owns how they come together."""

from __future__ import annotations

from collections.abc import Callable

from durum.client.router import Router
from durum.silo.ownership import Ownership
from durum.silo.post import PostOffice
from durum.silo.services import Services
from durum.silo.turn import Sink
from durum.silo.wakeups import Alive, WakeUps
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
        ownership.tenants.extend((self.wake_ups, self.post))
        services.offices.extend((self.wake_ups, self.post))
