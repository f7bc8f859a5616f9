"""The failure detector: outcomes of probes in, judgements out."""

from __future__ import annotations

import pytest

from durum.config import Probing
from durum.ids import SiloId
from durum.silo.detector import Detector, Judgement, Outcome, Round
from durum.views import SiloRow, Status, Suspicion, View

ME, A, B, C, D, E = (SiloId(f"{name}:1@1") for name in ("me", "a", "b", "c", "d", "e"))
ANSWERED, INDIRECT, SILENT, REFUSED = (
    Outcome.ANSWERED,
    Outcome.INDIRECT,
    Outcome.SILENT,
    Outcome.REFUSED,
)
LONG_S = 99.0


def view(*silos: SiloId, suspected: SiloId | None = None) -> View:
    doubt = (Suspicion(by=A, at=0.0),)
    rows = tuple(
        SiloRow(silo=s, status=Status.ACTIVE, suspicions=doubt if s == suspected else ())
        for s in (ME, *silos)
    )
    return View(version=1, rows=rows)


def rounds(
    detector: Detector, times: int, outcome: Outcome, silence_s: float = LONG_S, late_s: float = 0.0
) -> Judgement:
    """So many rounds in which A fared so and B answered; what the last one says."""
    judgement = Judgement()
    for _ in range(times):
        done = Round({A: outcome, B: ANSWERED}, {A: silence_s, B: 0.0}, late_s)
        judgement = detector.judge(done)
    return judgement


@pytest.fixture
def detector() -> Detector:
    return Detector(ME, Probing())


def test_detector_suspects_after_five_misses_in_a_row(detector: Detector) -> None:
    """A stall under four seconds costs four misses and must evict nobody."""
    assert rounds(detector, 4, SILENT).silent == ()
    assert rounds(detector, 1, SILENT).silent == (A,)


def test_detector_starts_over_after_an_answer(detector: Detector) -> None:
    """Misses that are not in a row are a bad network, not a death."""
    rounds(detector, 4, SILENT)
    assert rounds(detector, 1, ANSWERED).answering == (A, B)
    assert rounds(detector, 4, SILENT).silent == ()


def test_bytes_received_lately_veto_suspicion(detector: Detector) -> None:
    """Its answers may be lost on the way; what does arrive proves that it lives."""
    assert rounds(detector, 9, SILENT, silence_s=3.9).silent == ()
    assert rounds(detector, 1, SILENT, silence_s=4.0).silent == (A,)


def test_refusals_count_at_once(detector: Detector) -> None:
    """A living process does not refuse at the address it listens on."""
    assert rounds(detector, 1, REFUSED) == Judgement(refused=(A,), answering=(B,))


def test_a_silo_that_answers_others_is_reported_once_and_not_suspected(detector: Detector) -> None:
    """Two silos that cannot see each other while others see both are no reason to evict one."""
    assert rounds(detector, 9, SILENT, silence_s=0.0).cut_off == ()
    assert rounds(detector, 1, INDIRECT) == Judgement(answering=(A, B), cut_off=(A,))
    assert rounds(detector, 1, INDIRECT) == Judgement(answering=(A, B))
    rounds(detector, 1, ANSWERED)
    assert rounds(detector, 1, INDIRECT).cut_off == (A,)


def test_misses_of_a_round_that_ran_late_do_not_count(detector: Detector) -> None:
    """After a pause of our own, every timer has run out before the first answer is read."""
    assert rounds(detector, 20, SILENT, late_s=0.3).silent == ()
    assert detector.patience_s == 4.0


def test_detector_is_more_patient_while_it_is_late_itself(detector: Detector) -> None:
    """A silo at a tenth of a CPU must not evict the healthy ones."""
    assert detector.patience_s == 1.0
    rounds(detector, 1, ANSWERED, late_s=0.3)
    assert detector.patience_s == 2.0
    rounds(detector, 1, ANSWERED)
    assert detector.patience_s == 1.0


def test_detector_doubts_itself_where_nobody_answers(detector: Detector) -> None:
    """If all others seem dead, it is probably we who are cut off."""
    detector.judge(Round({A: SILENT, B: SILENT}, {A: LONG_S, B: LONG_S}))
    assert detector.patience_s == 2.0


def test_detector_does_not_doubt_itself_for_the_silence_of_a_single_silo(
    detector: Detector,
) -> None:
    """Where two are left, one vote decides, and it must come in time."""
    detector.judge(Round({A: SILENT}, {A: LONG_S}))
    assert detector.patience_s == 1.0


def test_a_silence_without_a_known_last_byte_does_not_condemn(detector: Detector) -> None:
    """What is not known must not count against anybody."""
    for _ in range(9):
        judgement = detector.judge(Round({A: SILENT, B: ANSWERED}, {}))
    assert judgement.silent == ()


def test_targets_are_the_next_along_the_ring_for_everybody(detector: Detector) -> None:
    """Each silo must be watched by as many as a vote needs, whoever joins."""
    silos = (A, B, C, D, E)
    watchers = dict.fromkeys((ME, *silos), 0)
    for me in watchers:
        targets = Detector(me, Probing()).targets(view(*silos))
        assert len(targets) == 3
        assert me not in targets
        for target in targets:
            watchers[target] += 1
    assert set(watchers.values()) == {3}
    assert detector.targets(view(A)) == (A,)


def test_whoever_others_suspect_is_probed_by_all(detector: Detector) -> None:
    """The second vote has to come from somewhere."""
    silos = (A, B, C, D, E)
    beyond = next(s for s in silos if s not in detector.targets(view(*silos)))
    assert beyond in detector.targets(view(*silos, suspected=beyond))


def test_helpers_are_others_that_answered_last(detector: Detector) -> None:
    """One that is silent itself cannot tell anything of a third."""
    assert set(detector.helpers(view(A, B, C), A)) == {B, C}
    detector.judge(Round({C: SILENT}, {C: LONG_S}))
    assert detector.helpers(view(A, B, C), A) == (B,)
    assert len(detector.helpers(view(A, B, D, E), A)) == 2


def test_help_is_asked_for_where_the_next_miss_could_lead_to_a_vote(detector: Detector) -> None:
    """Asked earlier it would cost messages, later it would cost a round."""
    rounds(detector, 3, SILENT)
    assert not detector.needs_help(A)
    rounds(detector, 1, SILENT)
    assert detector.needs_help(A)


def test_the_dead_are_forgotten(detector: Detector) -> None:
    """Silo ids are never used again, so what is kept of them would only grow."""
    rounds(detector, 4, SILENT)
    rounds(detector, 1, INDIRECT)
    assert repr(detector) == f"<Detector {ME} health=0 misses={{'{A}': 4}}>"
    detector.forget(view(B))
    assert repr(detector) == f"<Detector {ME} health=0 misses={{}}>"
    assert rounds(detector, 1, INDIRECT).cut_off == (A,)
