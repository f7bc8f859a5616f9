"""The server's words and settings, judged without a server."""

from __future__ import annotations

import pytest

from durum import errors
from durum.ids import Address, GrainId
from durum.store import redis_durability, redis_errors, redis_scripts
from durum.store.protocol import Durability, Level
from durum.store.redis_keys import Keys
from durum.store.redis_url import Form


@pytest.mark.parametrize(
    "text",
    [
        "READONLY You can't write against a read only replica.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk.",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        "LOADING Redis is loading the dataset in memory",
        "NOREPLICAS Not enough good replicas to write.",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "NOSCRIPT No matching script. Please use EVAL.",
        "NOAUTH Authentication required.",
        "NOPERM this user has no permissions to run the 'evalsha' command",
        "MOVED 3999 127.0.0.1:6381",
        "CLUSTERDOWN Hash slot not served",
        # As Redis 6 says it from inside a script.
        (
            "ERR Error running script (call to f_ab12): @user_script:14: @user_script: 14: -READONLY "
            "You can't write against a read only replica. "
        ),
        (
            "ERR Error running script (call to f_ab12): @user_script:14: -OOM command not allowed when "
            "used memory > 'maxmemory'. "
        ),
        (
            "ERR Error running script (call to f_ab12): @user_script:14: -MISCONF Errors writing to the "
            "AOF file: No space left on device "
        ),
    ],
)
def test_refusal_is_unavailable_and_not_applied(text: str) -> None:
    """The server says so itself: the caller may try again."""
    error = redis_errors.translate(text, "redis://h")
    assert isinstance(error, errors.StoreUnavailable)
    assert error.applied is False
    assert text in str(error)


@pytest.mark.parametrize("text", ["ERR something new", "", "WEIRD thing", "ERR user_script:1: -x"])
def test_unknown_error_has_an_unknown_outcome(text: str) -> None:
    """What is not understood is not trusted."""
    error = redis_errors.translate(text, "redis://h")
    assert isinstance(error, errors.StoreUnavailable)
    assert error.applied is None


@pytest.mark.parametrize(
    "text",
    [
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "ERR Error running script (call to f_ab): @user_script:5: WRONGTYPE Operation against a key",
        "WRONGTYPE Operation against a key script: f_ab, on @user_script:9.",
    ],
)
def test_key_of_another_type_is_data_loss(text: str) -> None:
    """Somebody else writes to this database."""
    assert isinstance(redis_errors.translate(text, "redis://h"), errors.DataLoss)


GOOD = {
    "redis_version": "7.0.15",
    "role": "master",
    "aof_enabled": "1",
    "maxmemory_policy": "noeviction",
    "cluster_enabled": "0",
}


def judge(
    info: dict[str, str],
    sync: str = "always",
    host: str = "127.0.0.1",
    password: bool = False,
    *,
    form: Form = Form.ONE,
    wait: int = 0,
    config: dict[str, str] | None = None,
) -> Durability:
    """Judge a good server with some fields changed."""
    settings = config or {}
    return redis_durability.judge(
        redis_durability.Asked(
            form=form,
            info={**GOOD, **info},
            config={"appendfsync": sync, **settings} if sync else None,
            peer_host=host,
            trusted=password,
            wait=wait,
        )
    )


@pytest.mark.parametrize(
    ("aof", "sync", "level"),
    [
        ("1", "always", Level.D2),
        ("1", "everysec", Level.D1),
        ("1", "", Level.D1),
        ("1", "no", Level.D0),
        ("0", "always", Level.D0),
    ],
)
def test_level_follows_from_the_append_only_file(aof: str, sync: str, level: Level) -> None:
    """What a power cut takes."""
    assert judge({"aof_enabled": aof}, sync).level is level


@pytest.mark.parametrize(
    ("changed", "host", "word"),
    [
        ({"redis_version": "6.0.16"}, "", "6.2"),
        ({"redis_version": "5"}, "", "6.2"),
        ({"maxmemory_policy": "allkeys-lru"}, "", "noeviction"),
        ({"role": "slave"}, "", "replica"),
        ({"cluster_enabled": "1"}, "", "cluster mode"),
        ({}, "10.0.0.5", "password"),
        ({}, "fe80::1%eth0", "password"),
    ],
)
def test_unsafe_setting_is_named_with_its_change(
    changed: dict[str, str], host: str, word: str
) -> None:
    """Silos refuse to run on it."""
    (unsafe,) = judge(changed, host=host).unsafe
    assert word in unsafe


@pytest.mark.parametrize("host", ["", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_needs_no_password(host: str) -> None:
    """Only this host's own processes reach it."""
    assert judge({}, host=host).unsafe == ()


def test_password_off_loopback_is_safe() -> None:
    """That is what it is for."""
    assert judge({}, host="10.0.0.5", password=True).unsafe == ()


REPLICA = {"connected_slaves": "1", "slave0": "ip=10.0.0.8,port=6379,state=online,lag=0"}


@pytest.mark.parametrize(
    ("form", "wait", "info", "sync", "level", "words"),
    [
        (Form.ONE, 0, REPLICA, "always", Level.D2, "nothing acknowledged is lost"),
        (Form.ONE, 1, REPLICA, "always", Level.D3, "lost together"),
        (Form.ONE, 1, {}, "always", Level.D2, "Replicas are missing"),
        (Form.ONE, 1, REPLICA, "everysec", Level.D1, "on a replica too"),
        (Form.SENTINEL, 0, REPLICA, "always", Level.D1, "ask for wait=1"),
        (Form.SENTINEL, 1, REPLICA, "always", Level.D3, "lost together"),
        (Form.SENTINEL, 0, {}, "always", Level.D2, "nothing acknowledged is lost"),
        (Form.CLUSTER, 0, REPLICA, "everysec", Level.D1, "A failover loses"),
        (Form.CLUSTER, 2, REPLICA, "always", Level.D2, "Replicas are missing"),
        (
            Form.ONE,
            1,
            {"connected_slaves": "1", "slave0": "ip=10.0.0.8,port=6379,state=wait_bgsave"},
            "always",
            Level.D2,
            "Replicas are missing",
        ),
    ],
)
def test_level_follows_from_replicas_and_who_promotes_them(
    form: Form, wait: int, info: dict[str, str], sync: str, level: Level, words: str
) -> None:
    """A promotion without a person loses what nobody waited for."""
    clustered = {"cluster_enabled": "1"} if form is Form.CLUSTER else {}
    found = judge({**info, **clustered}, sync, form=form, wait=wait)
    assert found.level is level
    assert words in found.summary
    assert found.unsafe == ()


@pytest.mark.parametrize(
    ("form", "info", "config", "word"),
    [
        (Form.SENTINEL, REPLICA, {"min-replicas-to-write": "0"}, "min-replicas-to-write"),
        (
            Form.SENTINEL,
            {**REPLICA, "redis_version": "6.2.5"},
            {"min-replicas-to-write": "1"},
            "does not heed min-replicas-to-write",
        ),
        (Form.SENTINEL, {}, {}, "nobody takes over"),
        (Form.CLUSTER, REPLICA, {"cluster-require-full-coverage": "yes"}, "all stand still"),
        (Form.ONE, {"maxmemory": "100", "used_memory": "90"}, {}, "90% of maxmemory"),
        (Form.ONE, {"aof_last_write_status": "err"}, {}, "disk"),
        (Form.ONE, {}, {"no-appendfsync-on-rewrite": "yes"}, "rewrite"),
    ],
)
def test_setting_that_can_hurt_is_warned_of(
    form: Form, info: dict[str, str], config: dict[str, str], word: str
) -> None:
    """Before it does."""
    clustered = {"cluster_enabled": "1"} if form is Form.CLUSTER else {}
    (warning,) = judge({**info, **clustered}, form=form, config=config).warnings
    assert word in warning


def test_cluster_is_as_strong_as_its_weakest_master() -> None:
    """And what only some of them do wrong is said with their names."""
    strong = judge({**REPLICA, "cluster_enabled": "1"}, form=Form.CLUSTER, wait=1)
    weak = judge(
        {"cluster_enabled": "1", "maxmemory_policy": "allkeys-lru"}, "no", form=Form.CLUSTER, wait=1
    )
    nodes = {Address("a:1"): strong, Address("b:1"): weak, Address("c:1"): strong}
    found = redis_durability.merge(nodes, {"cluster_state": "fail"})
    assert found.level is Level.D0
    assert found.summary.startswith("3 masters. The weakest, b:1: ")
    assert found.unsafe == (f"b:1: {weak.unsafe[0]}",)
    assert "CLUSTER INFO" in found.warnings[-1]
    assert found.facts["eviction"] == "a:1: noeviction; b:1: allkeys-lru; c:1: noeviction"
    alike = redis_durability.merge(dict.fromkeys(nodes, strong), {"cluster_state": "ok"})
    assert (alike.level, alike.warnings) == (Level.D3, ())
    assert alike.summary == f"3 masters. {strong.summary}"


@pytest.mark.parametrize("cluster", ["shop", "a:b", "a}b", "{a", "a b", "\u00e9", "%7D"])
def test_all_keys_of_a_partition_share_their_hash_tag(cluster: str) -> None:
    """On a cluster one script may then touch them; a key's own braces come too late to matter."""
    keys = Keys(cluster)

    def tag(key: str) -> str:
        start = key.index("{") + 1
        return key[start : key.index("}", start)]

    hostile = GrainId("K/{x}}{")
    tags = {tag(one) for one in (keys.owner(3), keys.grain(3, hostile), keys.replies(3, hostile))}
    (only,) = tags
    assert only.endswith(":3")
    assert only != tag(keys.owner(4))
    assert tag(keys.members) == only.removesuffix(":3")


def test_names_of_clusters_never_alias() -> None:
    """Two services on one server must not meet, whatever they are called."""
    names = ["a", "a:1", "a%3A1", "A", "a ", "a+", "\u00e9", "e\u0301"]
    assert len({Keys(name).owner(1) for name in names}) == len(names)
    assert len({Keys(name).members for name in names}) == len(names)


def test_scripts_write_only_after_their_checks() -> None:
    """Lua has no undo: a refusal after a write would leave half a turn."""
    writes = ("HSET", "HDEL", "HINCRBY", "SET'", "DEL'", "ZADD", "ZREM")
    for name, script in redis_scripts.read_scripts().items():
        code = [line.partition("--")[0] for line in script.text.splitlines()]
        written = False
        for line in code:
            refuses = "return -" in line
            assert not (refuses and written), name
            # By pcall a script repeats what is there, for WAIT's sake, and returns.
            written = written or ("pcall" not in line and any(word in line for word in writes))
        assert "#include" not in script.text
