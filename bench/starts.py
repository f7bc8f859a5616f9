"""How long does Durum take to start? The import, the command, and a silo until it serves.

Each is a process of its own, on files that the system has in memory; an interpreter that does nothing is
measured too, since every figure but the import's contains it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Final

from bench.processes import ROOT, Crew
from bench.rounds import Effort, Reading

_IMPORT: Final = (
    "import time; began = time.perf_counter(); import durum; print(time.perf_counter() - began)"
)


def figures(effort: Effort) -> Iterator[Reading]:
    """Measure each as often as there are rounds, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/start.db"
        subprocess.run(
            [sys.executable, "-m", "durum", "init", "--store", url],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        asked: dict[str, tuple[Callable[[], float], float | None]] = {
            "python -c pass": (lambda: _whole("-c", "pass"), None),
            "import durum, in Python": (_import, 0.15),
            "python -c 'import durum'": (lambda: _whole("-c", "import durum"), None),
            "durum --help": (lambda: _whole("-m", "durum", "--help"), 0.2),
            "durum silo until ready, memory:": (lambda: _ready("memory:"), 1.0),
            "durum silo until ready, SQLite": (lambda: _ready(url), 1.0),
        }
        took: dict[str, list[float]] = {name: [] for name in asked}
        for number in range(effort.rounds + 1):
            for name, (measure, _) in asked.items():
                seconds = measure()
                if number:  # the first one fills the caches
                    took[name].append(seconds)
    for name, (_, bar_s) in asked.items():
        median = statistics.median(took[name])
        yield Reading(
            question="start",
            name=name,
            value=round(median * 1000, 1),
            unit="ms",
            bar=None if bar_s is None else bar_s * 1000,
            note=f"{min(took[name]) * 1000:.0f} to {max(took[name]) * 1000:.0f}",
        )


def _whole(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _import() -> float:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def _ready(url: str) -> float:
    with Crew() as crew:
        began = time.perf_counter()
        crew.silo(url).first_line()
        return time.perf_counter() - began
