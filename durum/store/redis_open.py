"""Opens a store on Redis: one server, one that Sentinel names, or a cluster. Puts the parts together."""

from __future__ import annotations

import functools

import msgspec

from durum.clock import Clock
from durum.ids import Address, Entropy, split_address
from durum.store import redis_scripts, redis_url
from durum.store.redis import Links, RedisStore
from durum.store.redis_cluster import ClusterWay
from durum.store.redis_keys import Keys
from durum.store.redis_nodes import Nodes
from durum.store.redis_pipe import Endpoint, Guide, Pipe
from durum.store.redis_sentinel import Sentinels
from durum.store.redis_url import Form


async def open_redis(
    url: str,
    *,
    cluster: str,
    clock: Clock,
    entropy: Entropy,
    store_timeout_s: float = 1.5,
    replicas: int = 0,
    confirm: bool = True,
) -> RedisStore:
    """Connect to a server, or to several that belong together.

    Args:
        url: see redis_url.FORMS.
        cluster: the service's name.
        clock: for time limits and pauses.
        entropy: jitter.
        store_timeout_s: an operation that takes longer ends in StoreUnavailable.
        replicas: how many must have a write before it counts, where the URL does not say `wait=`.
        confirm: False waits for none all the same: for tools that only look.

    Raises:
        ConfigError: the URL is wrong, or the server does not accept what it says.
        StoreUnavailable: it cannot be reached.
    """
    place = redis_url.parse(url)
    scripts = redis_scripts.read_scripts()
    context = None if place.tls is None else place.tls.context()
    wanted = replicas if place.replicas is None else place.replicas

    def pipe(host: str, port: int, guide: Guide | None = None) -> Pipe:
        endpoint = Endpoint(
            url=place.url,
            host=host,
            port=port,
            path=place.path,
            login=place.login,
            tls=context,
            replicas=wanted if confirm else 0,
        )
        return Pipe(
            endpoint,
            scripts.values(),
            clock=clock,
            entropy=entropy,
            store_timeout_s=store_timeout_s,
            guide=guide,
        )

    def at(address: Address, guide: Guide) -> Pipe:
        made = pipe(*split_address(address), guide)
        made.endpoint = msgspec.structs.replace(made.endpoint, url=f"{place.url} ({address})")
        return made

    match place.form:
        case Form.ONE:
            host, port = place.nodes[0] if place.nodes else ("", 0)
            links = await _one(functools.partial(pipe, host, port), Guide())
        case Form.SENTINEL:
            sentinels = Sentinels(place, clock=clock, store_timeout_s=store_timeout_s)
            links = await _one(functools.partial(pipe, "", 0), sentinels)
        case Form.CLUSTER:
            nodes = Nodes(place, at, clock=clock)
            way = functools.partial(
                ClusterWay,
                nodes,
                at,
                home=Keys(cluster).members,
                clock=clock,
                store_timeout_s=store_timeout_s,
            )
            links = await _cluster(nodes, way)
    return RedisStore(
        place,
        links,
        scripts,
        cluster=cluster,
        clock=clock,
        entropy=entropy,
        store_timeout_s=store_timeout_s,
        replicas=wanted,
        confirm=confirm and wanted > 0,
    )


async def _one(make: functools.partial[Pipe], guide: Guide) -> Links:
    main, beats = make(guide), make(guide)
    await guide.open()
    try:
        await main.open()
        await beats.open()
    except BaseException:
        await beats.close()
        await main.close()
        await guide.close()
        raise
    return Links(main=main, beats=beats, guide=guide, home=lambda: main)


async def _cluster(nodes: Nodes, make: functools.partial[ClusterWay]) -> Links:
    await nodes.open()
    main, beats = make(), make()
    try:
        await main.connect_all()
    except BaseException:
        await main.close()
        await nodes.close()
        raise
    beats.home()
    nodes.follow(main.pipes, lambda: [*main.tidy(), *beats.tidy()])
    return Links(main=main, beats=beats, guide=nodes, home=main.home)
