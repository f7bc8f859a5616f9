"""Fuzzing by hand: `python -m tests.fuzz TARGET --inputs N --seed S`; TARGET "all" takes them in turn."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
import time
import traceback

from tests.fuzz.changes import changed
from tests.fuzz.targets import TARGETS, Target
from tests.support import bombs

SLOW_S = 0.5


async def fuzz(name: str, target: Target, inputs: int, seed: int) -> int:
    """Feed one target; return how many inputs it failed on."""
    rng = random.Random(f"{name} {seed}")
    bombs.disarm()
    failures, slowest, began = 0, 0.0, time.perf_counter()
    for number in range(inputs):
        data = changed(rng, target.corpus)
        since = time.process_time()  # what others do on the machine is no fault of an input
        try:
            target.take(data)
        except Exception:
            failures += 1
            print(f"{name} seed {seed} input {number}: {data!r}", file=sys.stderr)
            traceback.print_exc()
        took = time.process_time() - since
        slowest = max(slowest, took)
        if took > SLOW_S:
            failures += 1
            print(f"{name} seed {seed} input {number}: {took:.2f} s: {data!r}", file=sys.stderr)
        if number % 1_000 == 0:
            await asyncio.sleep(0)  # what connections left on the loop
    print(
        json.dumps(
            {
                "target": name,
                "seed": seed,
                "inputs": inputs,
                "failures": failures,
                "slowest_ms": round(slowest * 1000, 1),
                "seconds": round(time.perf_counter() - began, 1),
            }
        ),
        flush=True,
    )
    return failures


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--inputs", type=int, default=100_000, help="for each target")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    names = list(TARGETS) if given.target == "all" else [given.target]
    failures = 0
    for name in names:
        failures += await fuzz(name, TARGETS[name], given.inputs, given.seed)
    return 1 if failures else 0


sys.exit(asyncio.run(main()))
