"""How an input is changed: the mistakes and tricks that decoders meet. Pure; a seed repeats it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

TELLING: Final = (
    *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"),
    *(b"\xdb\x7f\xff\xff\xff", b"\xdc\xff\xff", b"\xc9\xff\xff\xff\xff\x03", b"\xd4\x01\x80"),
    *(b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xc1", b"\xc0", b"\x90", b"\x80", b"\xa0"),
    *(b"\xd3\x80" + bytes(7), b"\xcf" + b"\xff" * 8, b"\xcb\x7f\xf8" + bytes(6), b"\xd8\x03"),
    *(b"\xed\xa0\x80", b"\xc3\x28", b"\x91" * 300, b"\x81\xa1a" * 300, b"[" * 300, b'{"a":' * 300),
    *(b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x80\x04\x95", b"\r\n", b"\x00"),
)
"""Heads of huge values, depth, broken text, other protocols."""


def changed(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One input: noise, or something valid with up to eight changes."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(200))
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        _change(rng, data, corpus)
    return bytes(data[:20_000])


def _change(rng: random.Random, data: bytearray, corpus: Sequence[bytes]) -> None:
    place = rng.randrange(len(data) + 1)
    other = min(len(data), place + rng.randrange(1, 16))
    match rng.randrange(9):
        case 0 if place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        case 1 if place < len(data):
            data[place] = rng.randrange(256)
        case 2:
            data[place:place] = rng.choice(TELLING)
        case 3:
            data[place:other] = rng.choice(TELLING)
        case 4:
            del data[place:other]
        case 5:
            data[place:place] = data[place:other] * rng.choice((1, 2, 30))
        case 6:
            data[place:] = rng.choice(corpus)[rng.randrange(20) :]
        case 7:
            del data[place:]
        case _:
            data[place:place] = rng.randbytes(rng.randrange(1, 9))
