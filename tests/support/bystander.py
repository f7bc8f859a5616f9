"""A client in a process of its own that calls one actor after the other, and tells how long each call took.

Apart, so that what it measures is the silos and not the test beside it. Ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence

import durum
from tests.support.commands import ROOT, environment
from tests.support.grains import Counter

PAUSE_S = 0.01


async def main(addresses: list[str]) -> None:
    """Call until nobody listens any more; print the seconds that each call took."""
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    loop = asyncio.get_running_loop()
    took: list[float] = []
    async with durum.connect(addresses) as cluster:
        print(flush=True)
        while not over.done():
            began = loop.time()
            await cluster.actor(Counter, f"beside-{len(took) % 50}").add(1)
            took.append(loop.time() - began)
            await asyncio.sleep(PAUSE_S)
    print(json.dumps(took))


@contextlib.asynccontextmanager
async def bystander(addresses: Sequence[str]) -> AsyncIterator[list[float]]:
    """Have one call while the block runs; the list is filled when it has ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.bystander", *addresses],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    took: list[float] = []
    assert process.stdout is not None
    try:
        await asyncio.to_thread(process.stdout.readline)
        yield took
        out, _ = await asyncio.to_thread(process.communicate, None, 20)
        took += json.loads(out)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
