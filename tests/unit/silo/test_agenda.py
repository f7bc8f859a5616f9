"""Which wake-ups a silo has in memory, and what becomes of news while they are read or delivered."""

from __future__ import annotations

from durum.ids import GrainId
from durum.silo import agenda
from durum.silo.agenda import Agenda
from durum.silo.wakeup_rows import Page, Row
from durum.store.effects import WakeUp

GRAINS = [GrainId(f"Till/{number:02}") for number in range(20)]
NAME = b"r"


def small() -> Agenda:
    box = Agenda(at_once=2, rows=4, page=2, ahead_ms=20)
    box.hold(0, 0)
    return box


def page_of(box: Agenda, now_ms: int) -> Page:
    page = box.read(now_ms)
    assert page is not None
    return page


def row_of(box: Agenda, now_ms: int) -> Row:
    row = box.next(now_ms)
    assert row is not None
    return row


def due(*times: int) -> list[WakeUp]:
    return [WakeUp(at, GRAINS[number], NAME) for number, at in enumerate(times)]


def test_nothing_is_read_for_partitions_without_wake_ups() -> None:
    """A silo holds hundreds; most have none."""
    box = Agenda(at_once=2)
    for partition in range(1000):
        box.hold(partition, None)
    assert box.next_ms() is None
    assert box.read(10**15) is None


def test_wake_ups_of_next_week_are_one_number() -> None:
    """A million of them cost nothing until they come near."""
    box = Agenda(at_once=2, ahead_ms=20)
    box.hold(0, 1000)
    assert box.read(979) is None
    assert box.next_ms() == 980
    page = page_of(box, 980)
    box.loaded(page, due(1000, 5000), 980)
    assert (box.rows, box.next_ms()) == (1, 1000)
    assert box.next(999) is None
    box.done(row_of(box, 1000), None, 1000)
    assert (box.rows, box.next_ms()) == (0, 4980)


def test_wake_up_set_behind_a_page_that_is_being_read_is_not_lost() -> None:
    """The page was read before the commit, and answered after it."""
    box = small()
    page = page_of(box, 0)
    box.put(0, GRAINS[5], NAME, 500, 0)
    box.loaded(page, [], 0)
    assert box.next_ms() == 480


def test_wake_up_set_before_the_place_that_was_read_up_to_is_read() -> None:
    """Memory is full, so it stays in the store, before what has been read already."""
    box = small()
    box.loaded(page_of(box, 0), due(10, 11), 0)
    box.suspect(0, 5)
    page = page_of(box, 0)
    assert page.after is not None
    assert page.after < (5, GRAINS[0], NAME)


def test_news_that_come_while_somebody_is_woken_count() -> None:
    """Its turn has moved the wake-up, and another turn has moved it once more before the answer came."""
    box = small()
    box.loaded(page_of(box, 0), due(10), 0)
    row = row_of(box, 10)
    box.put(0, GRAINS[0], NAME, 15, 10)
    box.done(row, 1000, 11)
    assert row_of(box, 15).due_ms == 15
    box.remove(0, GRAINS[0], NAME)


def test_dropped_wake_up_wakes_nobody() -> None:
    """It was cancelled in time."""
    box = small()
    box.loaded(page_of(box, 0), due(10), 0)
    box.remove(0, GRAINS[0], NAME)
    assert box.next(100) is None
    assert box.rows == 0


def test_so_many_are_out_at_once_and_no_more() -> None:
    """Calls run beside them."""
    box = small()
    box.loaded(page_of(box, 0), due(1, 2), 0)
    box.loaded(page_of(box, 0), due(1, 2), 0)
    box.put(0, GRAINS[9], NAME, 3, 3)
    first, second = row_of(box, 5), row_of(box, 5)
    assert (first.due_ms, second.due_ms) == (1, 2)
    assert box.next(5) is None
    box.done(first, None, 5)
    assert row_of(box, 5).due_ms == 3


def test_memory_holds_so_many_and_reads_on_as_they_go() -> None:
    """All of an hour's at once would not fit."""
    box = small()
    box.loaded(page_of(box, 0), due(1, 2), 0)
    page = page_of(box, 0)
    assert page.after == (2, GRAINS[1], NAME)
    box.loaded(page, [WakeUp(3, GRAINS[2], NAME), WakeUp(4, GRAINS[3], NAME)], 0)
    assert box.read(10) is None
    box.done(row_of(box, 10), None, 10)
    assert box.read(10) is not None


def test_failed_one_is_tried_again_less_and_less_often_and_then_left_in_the_store() -> None:
    """Whatever keeps its grain from being woken must not keep memory, nor anybody else."""
    box = small()
    box.loaded(page_of(box, 0), due(10), 0)
    now, pauses = 10, []
    for _ in range(agenda._ATTEMPTS):
        box.failed(row_of(box, now), now)
        soon = box.next_ms()
        assert soon is not None
        pauses.append(soon - now)
        now = soon
    assert pauses[:3] == [200, 400, 800]
    assert pauses[-1] == agenda.AGAIN_MS
    assert box.rows == 0
    page = page_of(box, now)
    assert page.after is None


def test_kind_that_nobody_hosts_is_passed_over_and_tried_again_later() -> None:
    """A million reminders of a class that was dropped must not keep the others waiting."""
    box = small()
    box.loaded(page_of(box, 0), [*due(10), WakeUp(11, GrainId("Bell/b"), NAME)], 0)
    box.failed(row_of(box, 12), 12, unhosted=True)
    assert row_of(box, 12).grain == "Bell/b"
    box.loaded(page_of(box, 12), due(10, 13), 12)
    assert box.rows == 1, "none of that kind"
    page = page_of(box, 12 + agenda.UNHOSTED_MS)
    assert page.after is None


def test_partition_that_went_and_came_back_begins_anew() -> None:
    """Another silo may have delivered meanwhile; answers from before mean nothing."""
    box = small()
    page = page_of(box, 0)
    box.hold(0, 50)
    box.loaded(page, due(1, 2), 0)
    assert box.rows == 0
    box.unread(page, 10)
    assert box.next_ms() == 30


def test_unread_page_is_read_later() -> None:
    """The store did not answer."""
    box = small()
    box.unread(page_of(box, 0), 500)
    assert box.read(499) is None
    assert box.read(500) is not None


def test_everything_can_be_suspected_at_once() -> None:
    """After a silo has died that may have committed for others."""
    box = Agenda(at_once=2)
    box.hold(0, None)
    box.hold(1, 10**9)
    box.suspect_all()
    assert {page_of(box, 0).partition, page_of(box, 0).partition} == {0, 1}
    assert repr(box) == "<Agenda partitions=2 rows=0 out=0>"


def test_doubt_puts_nothing_off() -> None:
    """Where a tick's commit did not land, its wake-up stands as it was; forgetting it would be for ever."""
    box = Agenda(at_once=2, ahead_ms=20)
    box.hold(0, 0)
    box.loaded(page_of(box, 80), due(100), 80)
    row = row_of(box, 100)
    box.doubt(0, GRAINS[0], NAME, 3_600_000, 150)  # its next time, if that landed
    box.failed(row, 150)
    again_ms = box.next_ms()
    assert again_ms is not None
    assert again_ms < 60_000
    assert row_of(box, again_ms).due_ms == 100


def test_doubt_about_a_row_that_waits_keeps_the_earlier_time_and_looks_at_the_later() -> None:
    """Either may be in the store."""
    box = Agenda(at_once=2, ahead_ms=20)
    box.hold(0, 0)
    box.loaded(page_of(box, 80), due(100), 80)
    box.doubt(0, GRAINS[0], NAME, 500, 90)
    row = row_of(box, 100)
    assert row.due_ms == 100
    box.done(row, None, 110)  # so the grain said; but the later one has landed since
    box.loaded(page_of(box, 480), [WakeUp(500, GRAINS[0], NAME)], 480)
    assert row_of(box, 500).due_ms == 500
