"""How figures are shown: a line of JSON each, a line for people, and bench/RESULTS.md. Measures nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence

import msgspec

from bench.processes import ROOT, machine
from bench.rounds import Effort, Figure


def as_json(figure: Figure) -> str:
    """One line for programs."""
    return msgspec.json.encode(figure).decode()


def as_text(figure: Figure) -> str:
    """One line for people."""
    cpu = ", ".join(f"{name} {us:.1f}" for name, us in figure.cpu_us.items())
    text = (
        f"{figure.question:20} {figure.place:9} {figure.in_flight:4} in flight  {figure.contender:23}"
        f" {figure.calls_per_s:>9,}/s  CPU us: {cpu}"
    )
    if figure.ratio is not None:
        text += f"  ratio {figure.ratio:.2f} (by CPU {figure.cpu_ratio:.2f})"
    return text + (f"  BELOW {figure.bar}" if figure.short else "")


def commit() -> str:
    """What was measured."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip() or "unknown"


def results(figures: Sequence[Figure], effort: Effort) -> str:
    """The page with all figures."""
    return "\n".join(_results(figures, effort)) + "\n"


def _results(figures: Sequence[Figure], effort: Effort) -> Iterator[str]:
    yield "# What Durum costs\n"
    yield f"Commit {commit()}; {'; '.join(machine())}.\n"
    yield (
        f"`python -m bench --write` made this page. {effort.rounds} rounds of {effort.seconds:g} s each,"
        " the yardstick and Durum in turn; every figure is the median of its rounds, every ratio the"
        " median of the rounds' ratios. The yardstick (`bench/yardstick.py`) is a bare prototype of the"
        " wire without any of Durum's promises; with Redis it runs Durum's own commit script. With one"
        " call in flight on all cores the scheduler's wake-ups are what is measured.\n"
    )
    for question in dict.fromkeys(figure.question for figure in figures):
        yield f"## {question[0].upper()}{question[1:]}\n"
        yield "| | in flight | | calls/s | CPU µs per call | ratio | by CPU | bar |"
        yield "|---|---:|---|---:|---|---:|---:|---:|"
        for each in figures:
            if each.question == question:
                yield _row(each)
        yield ""


def _row(each: Figure) -> str:
    cpu = ", ".join(f"{name} {us:.1f}" for name, us in each.cpu_us.items())
    ratios = ["" if one is None else f"{one:.2f}" for one in (each.ratio, each.cpu_ratio)]
    cells = [each.place, str(each.in_flight), each.contender, f"{each.calls_per_s:,}", cpu]
    return "| " + " | ".join([*cells, *ratios, "" if each.bar is None else f"{each.bar}"]) + " |"
