"""What a batch of messages may be."""

from __future__ import annotations

from durum.ids import GrainId
from durum.silo.outbox import BATCH_BYTES, FRAME_ROOM, Batch, Outbox, Patience, Room
from durum.store.effects import Posted

BOX = GrainId("Box/x")
FRAME = 1024 * 1024


def filled(*sizes: int, frame_bytes: int = FRAME, room: int = 64 * 1024 * 1024) -> Outbox:
    box = Outbox(Patience(1.0, 8.0), Room(room), pending=True, frame_bytes=frame_bytes)
    box.asked()
    box.read(rows(*sizes), last=True)
    return box


def rows(*sizes: int) -> list[Posted]:
    return [Posted(n, 1, bytes(16), BOX, bytes(size)) for n, size in enumerate(sizes, 1)]


def batch_of(box: Outbox) -> Batch:
    batch = box.next(0.0)
    assert batch is not None
    return batch


def test_batch_fits_a_frame_whatever_its_rows_are() -> None:
    """One that does not would fail for ever, and hold up all behind it."""
    largest = FRAME - FRAME_ROOM
    box = filled(BATCH_BYTES - 10, largest, 10, 10)
    for expected in ((1,), (2,), (3, 4)):
        batch = batch_of(box)
        assert batch.numbers == expected
        box.delivered(BOX, expected[-1])


def test_small_frames_bound_batches_too() -> None:
    """Whoever makes frames small has an ordinary backlog that is larger than one."""
    box = filled(*[1000] * 20, frame_bytes=FRAME_ROOM + 4096)
    assert batch_of(box).numbers == (1, 2, 3, 4)


def test_rows_that_had_no_room_are_sent_in_fitting_parts() -> None:
    """They are read again by their numbers alone, and nobody knew then how large they are."""
    box = filled(*[BATCH_BYTES // 2] * 5, room=0)
    assert len(batch_of(box).numbers) == 5
    assert [row.number for row in box.fitting(rows(*[BATCH_BYTES // 2] * 5))] == [1, 2]
    assert [row.number for row in box.fitting(rows(FRAME, 1))] == [1]
