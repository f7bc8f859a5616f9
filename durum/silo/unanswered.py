"""Where the answer to a one-way call goes: nowhere. Owns what becomes of the call instead; runs nothing."""

from __future__ import annotations

from typing import Final

from durum import errors
from durum.client.delivery import Delivery
from durum.errors import DidRun
from durum.silo.services import Services
from durum.silo.turn import Sink
from durum.telemetry import Log
from durum.wire.messages import AnyMessage, Call, Failure, Moved, Notice

_log: Final = Log("durum.calls")


class Unanswered:
    """One one-way call at a silo; the sink of its turn.

    Args:
        notice: the message.
        services: the silo's.
        sender: where it came from.

    Attributes:
        call: the same as a call.
    """

    __slots__ = ("_notice", "_services", "call", "silo", "trusted")

    def __init__(self, notice: Notice, services: Services, sender: Sink) -> None:
        self._notice = notice
        self._services = services
        self.trusted = sender.trusted
        self.silo = sender.silo
        self.call = Call(
            0,
            notice.grain,
            notice.method,
            notice.args,
            notice.timeout_ms,
            "",
            notice.chain,
            notice.hops,
            notice.request,
            notice.carried,
        )

    def send(self, message: AnyMessage) -> None:
        """What would be the answer to a call."""
        if isinstance(message, Moved):
            self._services.router.moved(self.call.grain, message)
            self._go_on()
        elif isinstance(message, Failure):
            if message.did_run is DidRun.NO:
                self._drop(message.text)
            else:
                _log.warning(
                    "a one-way call failed",
                    grain=self.call.grain,
                    method=self.call.method,
                    error=message.text,
                    type=message.type_name or message.error,
                    traceback=message.traceback,
                )

    def _go_on(self) -> None:
        """Its grain is another silo's. Only a few times, and only where there is room for it."""
        services, notice = self._services, self._notice
        limits = services.config.limits
        if notice.hops >= limits.forward_hops or services.load.calls >= limits.silo_calls:
            self._drop("its actor moves too often, or too many calls are on their way")
            return
        services.load.calls += 1
        services.tasks.start(self._pass_on(), f"pass on {notice.grain}", services.base.copy())

    async def _pass_on(self) -> None:
        services = self._services
        delivery = Delivery.of_notice(self._notice, services.clock.boottime())
        try:
            await services.router.pass_on(delivery)
        except errors.CallError as exc:
            self._drop(str(exc))
        finally:
            services.load.calls -= 1

    def _drop(self, why: str) -> None:
        self._services.load.dropped += 1
        _log.debug(
            "a one-way call was dropped", grain=self.call.grain, method=self.call.method, error=why
        )

    def __repr__(self) -> str:
        return f"<Unanswered {self.call.grain}.{self.call.method}>"
