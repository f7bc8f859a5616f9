"""What a record may hold, and what becomes of one that holds something else."""

from __future__ import annotations

import pytest

from durum import errors
from durum.config import Limits
from durum.ids import GrainId
from durum.silo.replies import RememberedReplies
from durum.store.damage import Damaged, version_of


@pytest.mark.parametrize(
    ("version", "state", "number"),
    [(None, None, 0), (0, None, 0), (b"7", b"x", 7), (7, b"x", 7), (b"7", None, 7)],
)
def test_sound_record_has_a_version(version: object, state: object, number: int) -> None:
    """As both stores keep it; a grain that was raised before its first commit has no state."""
    assert version_of(version, state) == number


@pytest.mark.parametrize(
    ("version", "state"),
    [
        (b"seven", b"x"),
        (b"-3", b"x"),
        (-3, b"x"),
        (b"", b"x"),
        (b"9" * 5_000, b"x"),
        ("7", b"x"),
        (7.5, b"x"),
        (None, b"x"),
        (0, b"x"),
        (7, "text"),
        (7, 7),
    ],
)
def test_damaged_record_is_named_as_such(version: object, state: object) -> None:
    """A version that cannot be read must not pass for 0, nor a state without one for a new grain's."""
    with pytest.raises(Damaged, match="untouched") as caught:
        version_of(version, state)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("entry", [b"\xc1", b"", b"\x91\x01", "text"])
def test_damaged_reply_is_named_as_such(entry: bytes) -> None:
    """Who cannot tell whether a call ran before must not run it."""
    with pytest.raises(errors.DataLoss, match="damaged"):
        RememberedReplies(GrainId("Counter/x"), {b"k" * 16: entry}, Limits())
