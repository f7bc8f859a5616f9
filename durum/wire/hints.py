"""What a host of single grains tells the owner of their partition. It travels as administration does."""

from __future__ import annotations

from typing import Final

import msgspec

HINT: Final = "durum.hint"


class Hint(msgspec.Struct, array_like=True, frozen=True):
    """The grain has committed what its partition's owner has to see to. Answered by true.

    Args:
        due_ms: the least time of wake-ups that it has set, in the store's milliseconds, or None.
        posted: whether it has sent messages.
        doubtful: or may have: the commit may land late.
    """

    due_ms: int | None
    posted: bool
    doubtful: bool = False


encode: Final = msgspec.msgpack.Encoder().encode
