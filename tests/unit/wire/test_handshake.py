"""The handshake: who knows the secret gets in, nobody else does, and nobody learns it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durum.errors import ConfigError, IncompatibleSilo
from durum.ids import SeededEntropy, SiloId
from durum.wire import handshake
from durum.wire.handshake import HANDSHAKE_BYTES, Handshake, Introduction, Session, Side, Step
from tests.support.wire import OTHER_SECRET, SECRET, SILO, client, silo

THIRD_SECRET = b"a secret that nobody asked for"


def play(
    dialer: Introduction,
    listener: Introduction,
    *,
    private: bool = False,
    tamper: dict[int, tuple[int, int]] | None = None,
) -> tuple[Step, Step, list[bytes]]:
    """Play a handshake to its end; the messages come back as they were sent.

    Args:
        tamper: for a message's number, a position and what is added to the byte there.
    """
    ends = {
        Side.DIALER: Handshake(dialer, Side.DIALER, private=private),
        Side.LISTENER: Handshake(listener, Side.LISTENER, private=private),
    }
    last = {Side.DIALER: Step(), Side.LISTENER: Step()}
    assert ends[Side.LISTENER].begin() == b""
    said, receiver, bodies = ends[Side.DIALER].begin(), Side.LISTENER, []
    while said:
        bodies.append(said)
        if tamper and len(bodies) in tamper:
            position, change = tamper[len(bodies)]
            changed = bytearray(said)
            changed[position % len(said)] = (changed[position % len(said)] + change) % 256
            said = bytes(changed)
        last[receiver] = ends[receiver].receive(said)
        said = last[receiver].send
        receiver = Side.LISTENER if receiver is Side.DIALER else Side.DIALER
    return last[Side.DIALER], last[Side.LISTENER], bodies


def sessions(dialer: Step, listener: Step) -> tuple[Session, Session]:
    assert dialer.session is not None
    assert listener.session is not None
    return dialer.session, listener.session


@pytest.mark.parametrize(
    ("dialer", "listener"),
    [
        ((), ()),
        ((SECRET,), (SECRET,)),
        ((SECRET, OTHER_SECRET), (SECRET,)),
        ((SECRET, OTHER_SECRET), (OTHER_SECRET,)),
        ((SECRET,), (OTHER_SECRET, SECRET)),
        ((SECRET, OTHER_SECRET), (OTHER_SECRET, SECRET)),
        ((SECRET, OTHER_SECRET), (THIRD_SECRET, OTHER_SECRET)),
    ],
)
def test_handshake_accepts_a_shared_secret(
    dialer: tuple[bytes, ...], listener: tuple[bytes, ...]
) -> None:
    """A rotation replaces the secret process by process, and no pair of them may fall out."""
    near, far = sessions(*play(client(*dialer), silo(*listener))[:2])
    assert (near.peer.silo, near.peer.address, near.peer.role) == (SILO, "127.0.0.1:7600", "silo")
    assert (far.peer.silo, far.peer.address, far.peer.role) == (None, "", "client")
    assert near.peer.authenticated == far.peer.authenticated == bool(dialer)
    assert (near.send_key, near.receive_key) == (far.receive_key, far.send_key)


@pytest.mark.parametrize(
    ("dialer", "listener", "at_dialer", "at_listener"),
    [
        (
            (SECRET,),
            (OTHER_SECRET,),
            "the other side refused: the two sides have different cluster secrets",
            "the two sides have different cluster secrets",
        ),
        (
            (SECRET, THIRD_SECRET),
            (OTHER_SECRET,),
            "the other side refused: the two sides have different cluster secrets",
            "the two sides have different cluster secrets",
        ),
        (
            (),
            (SECRET,),
            (
                "the other side refused: that side has a cluster secret, this side has none; "
                "give both the same"
            ),
            "this side has a cluster secret, that side has none; give both the same",
        ),
        (
            (SECRET,),
            (),
            (
                "the other side refused: this side has a cluster secret, that side has none; "
                "give both the same"
            ),
            "that side has a cluster secret, this side has none; give both the same",
        ),
    ],
)
def test_handshake_refuses_another_secret(
    dialer: tuple[bytes, ...], listener: tuple[bytes, ...], at_dialer: str, at_listener: str
) -> None:
    """Strangers stay out, and the reason tells an operator which process to look at."""
    near, far, bodies = play(client(*dialer), silo(*listener))
    assert str(near.error) == f"the handshake failed: {at_dialer}."
    assert str(far.error) == f"the handshake failed: {at_listener}."
    assert isinstance(near.error, IncompatibleSilo)
    assert near.session is far.session is None
    for secret in (SECRET, OTHER_SECRET, THIRD_SECRET):
        assert not any(secret in body for body in bodies)
        assert secret.decode() not in f"{near.error}{far.error}"


def test_listener_that_lacks_a_secret_gets_no_proof() -> None:
    """Whoever pretends to be a silo without a secret must not collect material to guess it from."""
    dialer = Handshake(client(SECRET), Side.DIALER, private=False)
    listener = Handshake(silo(), Side.LISTENER, private=False)
    dialer.begin()
    # What a listener says that hides that the dialer has announced a secret.
    other = Handshake(client(), Side.DIALER, private=False)
    step = dialer.receive(listener.receive(other.begin()).send)
    assert b"durum-proof" not in step.send
    assert "this side has a cluster secret, that side has none" in str(step.error)


def test_stranger_who_dials_gets_no_proof() -> None:
    """The listener proves itself last, so a stranger learns no keyed value at all."""
    listener = Handshake(silo(SECRET), Side.LISTENER, private=False)
    stranger = Handshake(client(OTHER_SECRET), Side.DIALER, private=False)
    hello = listener.receive(stranger.begin()).send
    refusal = listener.receive(stranger.receive(hello).send).send
    assert b"durum-proof" not in hello + refusal


def test_replayed_handshake_is_refused() -> None:
    """A recorded handshake is worth nothing: the listener's nonce is new each time."""
    *_, bodies = play(client(SECRET), silo(SECRET))
    listener = Handshake(
        replace(silo(SECRET), entropy=SeededEntropy(9)), Side.LISTENER, private=False
    )
    assert listener.receive(bodies[0]).error is None
    step = listener.receive(bodies[2])
    assert "different cluster secrets" in str(step.error)
    assert step.session is None


def test_replayed_answer_is_refused() -> None:
    """Whoever recorded a silo cannot play it towards a new dialer."""
    *_, bodies = play(client(SECRET), silo(SECRET))
    dialer = Handshake(
        replace(client(SECRET), entropy=SeededEntropy(9)), Side.DIALER, private=False
    )
    dialer.begin()
    assert dialer.receive(bodies[1]).error is None
    assert "different cluster secrets" in str(dialer.receive(bodies[3]).error)


def test_reflected_handshake_is_refused() -> None:
    """A process must not authenticate its own words."""
    dialer = Handshake(silo(SECRET), Side.DIALER, private=False)
    proof = dialer.receive(dialer.begin()).send
    step = dialer.receive(proof)
    assert "different cluster secrets" in str(step.error)


@settings(max_examples=1000, deadline=None)
@given(st.integers(1, 4), st.integers(0, HANDSHAKE_BYTES), st.integers(1, 255))
def test_tampered_handshake_never_opens_both_ends(message: int, position: int, change: int) -> None:
    """1,000 changes of one byte in one message: versions, cluster, claims and proofs are all covered."""
    near, far, _ = play(client(SECRET), silo(SECRET), tamper={message: (position, change)})
    assert near.session is None
    assert far.session is None or message == 4


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(Side), st.booleans(), st.lists(st.binary(max_size=200), max_size=4))
def test_handshake_survives_garbage(side: Side, guarded: bool, bodies: list[bytes]) -> None:
    """1,000 strangers with any bytes: an IncompatibleSilo, never another exception, never a session."""
    end = Handshake(silo(*(SECRET,) * guarded), side, private=False)
    end.begin()
    for body in bodies:
        step = end.receive(body)
        assert isinstance(step.error, IncompatibleSilo)
        assert step.session is None


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 3), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=5))
def test_handshake_survives_damage(message: int, changes: list[tuple[int, int]]) -> None:
    """500 damaged real messages towards an end without a secret, which checks least."""
    _, _, bodies = play(client(), silo())
    damaged = bytearray(bodies[message - 1])
    for position, value in changes:
        damaged[position % len(damaged)] = value
    end = Handshake(silo(), Side.LISTENER if message != 2 else Side.DIALER, private=False)
    end.begin()
    if message == 3:
        end.receive(bodies[0])
    step = end.receive(bytes(damaged))
    assert step.error is None or isinstance(step.error, IncompatibleSilo | ConnectionAbortedError)


def test_handshake_refuses_a_body_that_is_too_long() -> None:
    """A stranger gets two kilobytes and no more."""
    end = Handshake(silo(), Side.LISTENER, private=False)
    assert "it sent 2049 bytes; 2048 are allowed here" in str(end.receive(bytes(2049)).error)


@pytest.mark.parametrize(
    "body",
    [
        b"\x92\xabdurum-hello\xdd\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 2000,
        b"\x97\xabdurum-hello\x01\x01\xa1c\xc4\x01x\xc2\xc2",
        b"\x97\xabdurum-hello\x01\x01\xa1\xff\xc4\x10" + b"x" * 16 + b"\xc2\xc2",
    ],
    ids=["long array in it", "long array", "deep", "short nonce", "bad text"],
)
def test_handshake_refuses_bombs(body: bytes) -> None:
    """Before a proof nothing may cost memory or stack."""
    end = Handshake(silo(), Side.LISTENER, private=False)
    step = end.receive(body)
    assert str(step.error) == "the handshake failed: it does not speak Durum's protocol."
    assert step.send == b""


def test_handshake_refuses_messages_out_of_turn() -> None:
    """Each side has one thing to say at a time."""
    *_, (hello, _, proof, _) = play(client(), silo())
    listener = Handshake(silo(), Side.LISTENER, private=False)
    assert "it sent a proof, not a hello" in str(listener.receive(proof).error)
    listener = Handshake(silo(), Side.LISTENER, private=False)
    listener.receive(hello)
    assert "it sent a hello, not a proof" in str(listener.receive(hello).error)
    assert "it sent a hello, not a nothing" in str(listener.receive(hello).error)


@pytest.mark.parametrize(
    ("mine", "theirs", "common"),
    [((1, 1), (1, 1), 1), ((1, 2), (1, 1), 1), ((1, 2), (2, 3), 2), ((1, 4), (2, 3), 3)],
)
def test_handshake_picks_the_highest_common_version(
    mine: tuple[int, int], theirs: tuple[int, int], common: int
) -> None:
    """A rolling upgrade mixes two neighbouring releases."""
    for one, other in ((mine, theirs), (theirs, mine)):
        near, far = sessions(*play(replace(client(), wire=one), replace(silo(), wire=other))[:2])
        assert near.peer.version == far.peer.version == common


def test_handshake_refuses_where_no_version_is_common() -> None:
    """Both sides say which of them is to be upgraded."""
    near, far, _ = play(replace(client(), wire=(1, 2)), replace(silo(), wire=(3, 4)))
    assert str(near.error) == (
        "the handshake failed: the other side refused: this side speaks protocol versions 1 to 2, "
        "that side 3 to 4; upgrade the older one."
    )
    assert "this side speaks protocol versions 3 to 4, that side 1 to 2" in str(far.error)


def test_handshake_refuses_another_cluster() -> None:
    """A client of staging must not call production."""
    near, far, _ = play(client(SECRET, cluster="staging"), silo(SECRET, cluster="production"))
    assert "this is cluster 'staging', that is cluster 'production'" in str(near.error)
    assert "this is cluster 'production', that is cluster 'staging'" in str(far.error)


@pytest.mark.parametrize(
    ("mine", "theirs", "fits"),
    [("", "", True), ("aa", "", True), ("", "aa", True), ("aa", "aa", True), ("aa", "bb", False)],
)
def test_handshake_compares_genesis_marks(mine: str, theirs: str, fits: bool) -> None:
    """Two silos of one cluster name on two stores would corrupt each other's picture."""
    near, far, _ = play(client(SECRET, mark=mine), silo(SECRET, mark=theirs))
    assert (near.session is not None, far.session is not None) == (fits, fits)
    if not fits:
        assert "belong to different services (their genesis marks differ)" in str(near.error)
        assert "check which store each was given" in str(far.error)


def test_session_keys_differ_by_direction_and_session() -> None:
    """A frame must not be good in the other direction, nor in the next connection."""
    first, _ = sessions(*play(client(SECRET), silo(SECRET))[:2])
    fresh = replace(client(SECRET), entropy=SeededEntropy(77))
    second, _ = sessions(*play(fresh, silo(SECRET))[:2])
    keys = {first.send_key, first.receive_key, second.send_key, second.receive_key}
    assert len(keys) == 4
    assert all(len(key) == 32 for key in keys)
    assert first.send_key.hex() not in repr(first)


@pytest.mark.parametrize(
    ("dialer_private", "listener_private", "secrets", "sealed"),
    [
        (True, True, (SECRET,), False),
        (False, True, (SECRET,), True),
        (True, False, (SECRET,), True),
        (False, False, (SECRET,), True),
        (False, False, (), False),
    ],
)
def test_frames_are_sealed_where_either_end_is_elsewhere(
    dialer_private: bool, listener_private: bool, secrets: tuple[bytes, ...], sealed: bool
) -> None:
    """One end may see a forwarded port as loopback; the other then decides."""
    dialer = Handshake(client(*secrets), Side.DIALER, private=dialer_private)
    listener = Handshake(silo(*secrets), Side.LISTENER, private=listener_private)
    proof = dialer.receive(listener.receive(dialer.begin()).send).send
    far = listener.receive(proof)
    near = dialer.receive(far.send)
    for session in sessions(near, far):
        assert bool(session.send_key) == bool(session.receive_key) == sealed


@pytest.mark.parametrize(
    "claims",
    [
        b"\xc1",
        b"\x93\xa5admin\xa0\xa0",
        b"\x93\xa6client\xa1\xff\xa0",
        b"\x91" * 1500,
        b"\xdd\xff\xff\xff\xff",
    ],
    ids=["unused", "role", "text", "deep", "long"],
)
def test_handshake_refuses_claims_that_cannot_be_read(claims: bytes) -> None:
    """Claims are decoded after the proof, and even then bounded."""
    *_, (hello, _, _, _) = play(client(), silo())
    listener = Handshake(silo(), Side.LISTENER, private=False)
    listener.receive(hello)
    proof = msgspec.msgpack.encode(["durum-proof", claims, b"", b""])
    assert "its claims cannot be read" in str(listener.receive(proof).error)


@pytest.mark.parametrize(
    ("role", "name"),
    [("silo", ""), ("silo", "host"), ("silo", "host:1@x"), ("client", SILO), ("silo", f"{SILO}\n")],
)
def test_handshake_refuses_names_that_are_none(role: str, name: str) -> None:
    """A name without form would break whoever takes it apart later."""
    *_, (hello, _, _, _) = play(client(), silo())
    listener = Handshake(silo(), Side.LISTENER, private=False)
    listener.receive(hello)
    claims = msgspec.msgpack.encode([role, name, ""])
    proof = msgspec.msgpack.encode(["durum-proof", claims, b"", b""])
    assert f"it claims to be the {role} {name!r}" in str(listener.receive(proof).error)


def test_silos_meet() -> None:
    """Between silos both ends are named."""
    other = replace(silo(SECRET), silo=SiloId("[::1]:7601@2"))
    near, far = sessions(*play(other, silo(SECRET))[:2])
    assert (near.peer.silo, far.peer.silo) == (SILO, "[::1]:7601@2")
    assert far.peer.address == "[::1]:7601"


def test_refusal_may_say_to_come_again() -> None:
    """A full silo is no reason to think it incompatible, and a refused dial none to think it dead."""
    dialer = Handshake(client(), Side.DIALER, private=False)
    dialer.begin()
    step = dialer.receive(handshake.refusal("10 connections are open\nalready", again=True))
    assert isinstance(step.error, ConnectionAbortedError)
    assert str(step.error) == "the other side has no room now: 10 connections are open?already."


def test_refusal_text_is_cut_and_cleaned() -> None:
    """The text of an unauthenticated side goes into logs."""
    dialer = Handshake(client(), Side.DIALER, private=False)
    dialer.begin()
    step = dialer.receive(handshake.refusal("\x1b[2J\r\n" + "x" * 1000))
    assert str(step.error).startswith("the handshake failed: the other side refused: ?[2J??xxx")
    assert len(str(step.error)) < 600


def test_introduction_refuses_secrets_that_protect_nothing() -> None:
    """A short secret can be guessed from one recorded handshake; more than two are no rotation."""
    with pytest.raises(ConfigError, match="shorter than 16 bytes and can be guessed"):
        client(b"hunter2")
    with pytest.raises(ConfigError, match="3 cluster secrets were given"):
        client(SECRET, OTHER_SECRET, THIRD_SECRET)
    assert SECRET.decode() not in repr(client(SECRET))


def test_handshake_shows_where_it_stands() -> None:
    """What is alive can be looked at, without its secrets."""
    end = Handshake(silo(SECRET), Side.LISTENER, private=False)
    assert repr(end) == "<Handshake listener cluster='tests' waits_for=hello>"
    end.receive(Handshake(client(SECRET), Side.DIALER, private=False).begin())
    assert repr(end) == "<Handshake listener cluster='tests' waits_for=proof>"
