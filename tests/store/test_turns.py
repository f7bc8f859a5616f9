"""What every store promises of grains: the fence, the version, and one answer to one commit."""

from __future__ import annotations

import asyncio

import pytest

from durum import errors
from durum.ids import GrainId, Token
from durum.store.protocol import NEVER_OWNED, Committed, Record, Take
from tests.support.services import ALICE, BOB, ENTROPY, Service, commit, commit_id


async def test_grain_has_version_0_and_no_state_before_its_first_commit(service: Service) -> None:
    """A grain always exists; its first activation must be able to tell that nothing is stored."""
    token = await service.hold()
    assert await service.store.load(0, token, ALICE) == Record(version=0, state=None)


async def test_commit_makes_state_and_version_true(service: Service) -> None:
    """The plain path."""
    token = await service.hold()
    assert await service.store.commit(commit(token, state=b"one")) == Committed(1, 1)
    assert await service.store.load(0, token, ALICE) == Record(version=1, state=b"one")


async def test_commit_without_state_leaves_the_state(service: Service) -> None:
    """No turn rewrites what it did not change."""
    token = await service.hold()
    await service.store.commit(commit(token, state=b"one"))
    await service.store.commit(commit(token, version=1, state=None))
    assert await service.store.load(0, token, ALICE) == Record(version=2, state=b"one")


async def test_state_of_no_bytes_is_a_state(service: Service) -> None:
    """Empty must not read as absent."""
    token = await service.hold()
    await service.store.commit(commit(token, state=b""))
    assert await service.store.load(0, token, ALICE) == Record(version=1, state=b"")


async def test_commit_under_an_earlier_token_is_superseded(service: Service) -> None:
    """The fence: a silo that was paused while another took over changes nothing."""
    old = await service.hold()
    await service.store.commit(commit(old, state=b"mine"))
    new = await service.hold()
    with pytest.raises(errors.Superseded):
        await service.store.commit(commit(old, version=1, state=b"late"))
    assert await service.store.load(0, new, ALICE) == Record(version=1, state=b"mine")


@pytest.mark.parametrize("wrong", [b"x" * 16, NEVER_OWNED, b"\0" * 16])
async def test_every_turn_operation_checks_the_token(service: Service, wrong: bytes) -> None:
    """One that did not would let a superseded silo read or write."""
    await service.hold()
    token, store = Token(wrong), service.store
    for operation in (
        lambda: store.load(0, token, ALICE),
        lambda: store.load(0, token, ALICE, raise_version=True),
        lambda: store.replies(0, token, ALICE),
        lambda: store.verify(0, token),
        lambda: store.commit(commit(token)),
        lambda: store.commit(commit(token, replies={b"k" * 16: b"r"}, state=None)),
    ):
        with pytest.raises(errors.Superseded):
            await operation()


async def test_the_empty_token_holds_nothing(service: Service) -> None:
    """A partition that nobody took is nobody's, not everybody's."""
    with pytest.raises(errors.Superseded):
        await service.store.commit(commit(NEVER_OWNED))
    with pytest.raises(errors.Superseded):
        await service.store.verify(0, NEVER_OWNED)


async def test_missing_owner_record_is_data_loss(service: Service) -> None:
    """Missing data must never read as never owned, or an emptied store would start afresh."""
    store, token = service.store, Token(b"x" * 16)
    for operation in (
        lambda: store.load(99, token, ALICE),
        lambda: store.load(99, token, ALICE, raise_version=True),
        lambda: store.replies(99, token, ALICE),
        lambda: store.verify(99, token),
        lambda: store.commit(commit(token, partition=99)),
    ):
        with pytest.raises(errors.DataLoss):
            await operation()


async def test_commit_from_another_version_is_superseded(service: Service) -> None:
    """The second fence, against one's own lost replies."""
    token = await service.hold()
    await service.store.commit(commit(token, state=b"one"))
    for version in (0, 2):
        with pytest.raises(errors.Superseded):
            await service.store.commit(commit(token, version=version, state=b"two"))
    assert await service.store.load(0, token, ALICE) == Record(version=1, state=b"one")


async def test_commit_sent_again_changes_nothing_and_gets_the_first_answer(
    service: Service,
) -> None:
    """A lost reply is answered by sending the same bytes again."""
    token = await service.hold()
    once = commit(token, state=b"one", replies={b"k" * 16: b"reply"})
    first = await service.store.commit(once)
    await service.store.commit(commit(token, grain=BOB))
    assert await service.store.commit(once) == first
    assert await service.store.load(0, token, ALICE) == Record(version=1, state=b"one")
    (owner, *_) = await service.store.owners(service.mark)
    assert owner.commits == 2


async def test_commit_sent_again_after_a_takeover_gets_the_first_answer(service: Service) -> None:
    """It was applied while its token was right: saying Superseded would be a lie."""
    token = await service.hold()
    once = commit(token, state=b"one")
    first = await service.store.commit(once)
    await service.hold()
    assert await service.store.commit(once) == first


async def test_commit_sent_again_after_raise_version_gets_the_first_answer(
    service: Service,
) -> None:
    """Raising the version makes what never landed fail; it does not unmake what did."""
    token = await service.hold()
    once = commit(token, state=b"one")
    first = await service.store.commit(once)
    await service.store.load(0, token, ALICE, raise_version=True)
    assert await service.store.commit(once) == first


async def test_commit_of_same_content_under_another_id_is_another_commit(service: Service) -> None:
    """Only the id says that it is the same."""
    token = await service.hold()
    await service.store.commit(commit(token))
    with pytest.raises(errors.Superseded):
        await service.store.commit(commit(token))


async def test_commit_writes_state_and_replies_together(service: Service) -> None:
    """State without the remembered reply would run a keyed call twice."""
    token = await service.hold()
    one, two, three = (bytes([n]) * 16 for n in (1, 2, 3))
    await service.store.commit(commit(token, replies={one: b"1", two: b"2"}))
    await service.store.commit(
        commit(token, version=1, state=None, replies={three: b"3", two: b""}, forget=[one])
    )
    assert await service.store.replies(0, token, ALICE) == {two: b"", three: b"3"}
    assert await service.store.replies(0, token, BOB) == {}
    assert await service.store.load(0, token, ALICE) == Record(version=2, state=b"state")


async def test_commit_can_forget_only(service: Service) -> None:
    """Old replies go even where nothing new is remembered."""
    token = await service.hold()
    await service.store.commit(commit(token, replies={b"k" * 16: b"1"}))
    await service.store.commit(commit(token, version=1, state=b"s", forget=[b"k" * 16, b"?" * 16]))
    assert await service.store.replies(0, token, ALICE) == {}


@pytest.mark.parametrize("fault", ["token", "version"])
async def test_refused_commit_writes_none_of_its_effects(service: Service, fault: str) -> None:
    """All of a turn or nothing of it."""
    token = await service.hold()
    await service.store.commit(commit(token, state=b"one", replies={b"a" * 16: b"1"}))
    refused = commit(
        token if fault == "version" else ENTROPY.token(),
        version=1 if fault == "token" else 5,
        state=b"two",
        replies={b"b" * 16: b"2"},
        forget=[b"a" * 16],
    )
    with pytest.raises(errors.Superseded):
        await service.store.commit(refused)
    assert await service.store.load(0, token, ALICE) == Record(version=1, state=b"one")
    assert await service.store.replies(0, token, ALICE) == {b"a" * 16: b"1"}
    (owner, *_) = await service.store.owners(service.mark)
    assert owner.commits == 1


async def test_many_replies_are_kept_and_forgotten_in_one_commit(service: Service) -> None:
    """The default window keeps ten thousand; a script must not trip over their number."""
    token = await service.hold()
    many = {n.to_bytes(16, "big"): b"r%d" % n for n in range(10_000)}
    await service.store.commit(commit(token, replies=many))
    assert await service.store.replies(0, token, ALICE) == many
    await service.store.commit(commit(token, version=1, forget=list(many)))
    assert await service.store.replies(0, token, ALICE) == {}


async def test_raise_version_kills_a_commit_that_lands_later(service: Service) -> None:
    """A ghost: sent, given up, and applied by a store that woke up late."""
    token = await service.hold()
    await service.store.commit(commit(token, state=b"one"))
    ghost = commit(token, version=1, state=b"ghost")
    record = await service.store.load(0, token, ALICE, raise_version=True)
    assert record == Record(version=2, state=b"one")
    with pytest.raises(errors.Superseded):
        await service.store.commit(ghost)
    assert await service.store.commit(commit(token, version=2, state=b"two")) == Committed(3, 2)


async def test_raise_version_works_on_a_grain_that_never_committed(service: Service) -> None:
    """The ghost may be the grain's first commit."""
    token = await service.hold()
    ghost = commit(token, state=b"ghost")
    record = await service.store.load(0, token, ALICE, raise_version=True)
    assert record == Record(version=1, state=None)
    with pytest.raises(errors.Superseded):
        await service.store.commit(ghost)


async def test_commits_counter_grows_by_one_for_each_commit_of_the_partition(
    service: Service,
) -> None:
    """By it an owner sees a store that has gone back in time."""
    token = await service.hold(3)
    answers = [
        await service.store.commit(commit(token, partition=3, grain=GrainId(f"K/{n}")))
        for n in range(3)
    ]
    assert [answer.commits for answer in answers] == [1, 2, 3]
    counts = [owner.commits for owner in await service.store.owners(service.mark)]
    assert counts == [0, 0, 0, 3, 0, 0, 0, 0]


async def test_verify_succeeds_only_under_the_present_token(service: Service) -> None:
    """strict_reads stand on it."""
    old = await service.hold()
    await service.store.verify(0, old)
    new = await service.hold()
    await service.store.verify(0, new)
    with pytest.raises(errors.Superseded):
        await service.store.verify(0, old)


async def test_token_of_one_partition_is_worth_nothing_in_another(service: Service) -> None:
    """The fence is per partition."""
    token = await service.hold(0)
    await service.hold(1)
    with pytest.raises(errors.Superseded):
        await service.store.commit(commit(token, partition=1))


async def test_operations_of_one_tick_take_effect_in_order(service: Service) -> None:
    """A take behind a commit must find it done, and a commit behind a take must fail."""
    token = await service.hold()
    new = ENTROPY.token()
    before = service.store.commit(commit(token, state=b"before"))
    take = asyncio.ensure_future(
        service.store.take(service.mark, [Take(partition=0, seen=token, token=new, silo=None)])
    )
    await asyncio.sleep(0)  # lets the take be sent, behind the commit
    after = service.store.commit(commit(token, version=1, state=b"after"))
    assert (await before).version == 1
    await take
    with pytest.raises(errors.Superseded):
        await after
    assert (await service.store.load(0, new, ALICE)).state == b"before"


async def test_commits_of_one_tick_succeed_or_fail_alone(service: Service) -> None:
    """They travel together; one that is refused must not take the others along."""
    token = await service.hold()
    futures = [
        service.store.commit(
            commit(
                token if n % 10 else ENTROPY.token(),
                grain=GrainId(f"K/{n}"),
                version=0 if n % 7 else 3,
                state=b"%d" % n,
            )
        )
        for n in range(600)
    ]
    results = await asyncio.gather(*futures, return_exceptions=True)
    for n, result in enumerate(results):
        good = n % 10 and n % 7
        assert isinstance(result, Committed if good else errors.Superseded), n
    records = await asyncio.gather(
        *(service.store.load(0, token, GrainId(f"K/{n}")) for n in range(600))
    )
    for n, record in enumerate(records):
        assert record.state == (b"%d" % n if n % 10 and n % 7 else None)
    succeeded = [result for result in results if isinstance(result, Committed)]
    assert [answer.commits for answer in succeeded] == list(range(1, len(succeeded) + 1))


HOSTILE = [
    "{0}",
    "}{",
    "a:b:c",
    "g:a",
    "r:a",
    "own",
    "nul\0in",
    "nul\0",
    "nul",
    "line\r\nfeed",
    "*3\r\n$3\r\nSET",
    "' OR 1=1; --",
    '"; DROP TABLE grains',
    "%s%n{0!r}",
    "x" * 1024,
    "x" * 1023,
    "caf\u00e9",
    "cafe\u0301",
    "\u0410",  # Cyrillic, looks like A
    "A",
    "a",
    "\uff21",  # full-width A
    " a",
    "a ",
    "a/b",
    "\U0001f40a",
    "*",
    "?",
    "[a]",
]


async def test_hostile_keys_never_alias(service: Service) -> None:
    """A key is compared byte for byte: no quoting, folding or trimming lets two grains meet."""
    token, store = await service.hold(), service.store
    grains = [GrainId(f"{kind}/{key}") for kind in ("K", "k") for key in HOSTILE]
    assert len(set(grains)) == len(grains)
    for number, grain in enumerate(grains):
        name = number.to_bytes(16, "big")
        answer = await store.commit(
            commit(token, grain=grain, state=b"%d" % number, replies={name: b"%d" % number})
        )
        assert answer == Committed(1, number + 1)
    for number, grain in enumerate(grains):
        assert (await store.load(0, token, grain)).state == b"%d" % number
        name = number.to_bytes(16, "big")
        assert await store.replies(0, token, grain) == {name: b"%d" % number}


async def test_large_state_comes_back_whole(service: Service) -> None:
    """Eight megabytes is the default limit of a state."""
    token = await service.hold()
    state = bytes(range(256)) * (8 * 4096)
    await service.store.commit(commit(token, state=state))
    assert (await service.store.load(0, token, ALICE)).state == state


async def test_closed_store_refuses_and_says_that_nothing_was_applied(service: Service) -> None:
    """A late caller must learn that its commit did not happen."""
    token = await service.hold()
    await service.store.close()
    with pytest.raises(errors.StoreUnavailable) as caught:
        await service.store.commit(commit(token, id=commit_id()))
    assert caught.value.applied is False
    await service.store.close()


@pytest.mark.parametrize("length", [0, 15, 17])
async def test_commit_id_has_sixteen_bytes(service: Service, length: int) -> None:
    """A store looks for it at a fixed place; another length would never be found again."""
    token = await service.hold()
    with pytest.raises(errors.DurumBug):
        await service.store.commit(commit(token, id=b"x" * length))
