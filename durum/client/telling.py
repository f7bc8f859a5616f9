"""How a client sends a durable message: as a request to the receiver, answered once it is durable there.
Knows nothing of how it is delivered.
"""

from __future__ import annotations

import math

from durum import errors
from durum.client.router import Router
from durum.grains import failure
from durum.grains.carried import CARRIED
from durum.grains.messages import Message
from durum.grains.reference import Caller
from durum.wire import post as wire
from durum.wire.messages import Call, Failure


async def tell(router: Router, caller: Caller, message: Message) -> None:
    """Send a message, and return once it is durable.

    Args:
        router: the client's.
        caller: whose references the client gives out.
        message: what to send.

    Raises:
        ArgumentError: the reference belongs to another connection.
        CallError: it was not taken in, or nobody knows; `did_run` says which.
    """
    target, options = message.target, message.options
    if message.caller is not caller:
        raise errors.ArgumentError(
            f"tell(): {target!r} belongs to another connection; nothing was sent. Take it from this one:"
            " cluster.actor(Kind, key)."
        )
    delay_ms = None if options.delay_s is None else math.ceil(options.delay_s * 1000)
    at_ms = None if options.at_s is None else math.ceil(options.at_s * 1000)
    args = wire.encode(wire.Tell(message.method.name, message.args, delay_ms, at_ms))
    timeout_s = router.timeout_s if options.timeout_s is None else options.timeout_s
    call = Call(
        0, target.grain, wire.TELL, args, max(1, int(timeout_s * 1000)), options.idempotency_key
    )
    call.carried = CARRIED.get()
    answer = await router.relay(call)
    if isinstance(answer, Failure):
        raise failure.rebuild(answer, target.kind)
