"""How figures are shown: a line of JSON each, a line for people, and bench/RESULTS.md. Measures nothing."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Iterator, Sequence

import msgspec

from bench.processes import ROOT, machine
from bench.rounds import Effort, Figure, Reading


def as_json(figure: Figure | Reading) -> str:
    """One line for programs."""
    return msgspec.json.encode(figure).decode()


def as_text(figure: Figure | Reading) -> str:
    """One line for people."""
    if isinstance(figure, Reading):
        text = (
            f"{figure.question:20} {figure.name}  {figure.value:,g} {figure.unit}  ({figure.note})"
        )
        return text + (f"  ABOVE {figure.bar:g}" if figure.short else "")
    cpu = ", ".join(f"{name} {us:.1f}" for name, us in figure.cpu_us.items())
    text = (
        f"{figure.question:20} {figure.place:9} {figure.in_flight:4} in flight  {figure.contender:23}"
        f" {figure.calls_per_s:>9,}/s  CPU us: {cpu}"
    )
    if figure.ratio is not None:
        text += f"  ratio {figure.ratio:.2f} (by CPU {figure.cpu_ratio:.2f})"
    return text + (f"  BELOW {figure.bar}" if figure.short else "")


def read(paths: Sequence[str]) -> list[Figure | Reading]:
    """Figures that were printed as lines of JSON."""
    found: list[Figure | Reading] = []
    for path in paths:
        for line in pathlib.Path(path).read_bytes().splitlines():
            if b'"contender"' in line:
                found.append(msgspec.json.decode(line, type=Figure))
            else:
                found.append(msgspec.json.decode(line, type=Reading))
    return found


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


def results(figures: Sequence[Figure | Reading], effort: Effort) -> str:
    """The page with all figures."""
    return "\n".join(_results(figures, effort)) + "\n"


def _results(figures: Sequence[Figure | Reading], effort: Effort) -> Iterator[str]:
    yield "# What Durum costs\n"
    yield f"Commit {commit()}; {'; '.join(machine())}.\n"
    yield (
        f"`python -m bench` made this page. {effort.rounds} rounds of {effort.seconds:g} s each,"
        " all contenders of a table in turn; every figure is the median of its rounds, every ratio the"
        " median of the rounds' ratios to the first contender. Spread is that of the ratio's middle half:"
        " what this machine's other work adds. The yardstick (`bench/yardstick.py`) is a bare prototype"
        " of the wire without any of Durum's promises; with Redis it runs Durum's own commit script; the"
        " richer one (`bench/yardstick_rich.py`) also decodes by type, and keeps deadlines, contexts and"
        " mailboxes. With one call in flight on all cores the scheduler's wake-ups are what is measured."
        " A bar marked CPU is for the ratio by CPU time. Where the load is above what a question's own"
        " processes want (one core's worth, or two), others had the rest of the machine, and their work"
        " pushes ours out of the processor's caches: then all cost more, Durum more than the yardstick.\n"
    )
    for question in dict.fromkeys(figure.question for figure in figures):
        yield f"## {question[0].upper()}{question[1:]}\n"
        asked = [figure for figure in figures if figure.question == question]
        if isinstance(asked[0], Reading):
            yield "| | median | bar | |"
            yield "|---|---:|---:|---|"
        else:
            yield "| | in flight | | calls/s | CPU µs per call | ratio | by CPU | spread | bar |"
            yield "|---|---:|---|---:|---|---:|---:|---:|---:|"
        yield from map(_row, asked)
        loads = [each.load for each in asked]
        yield f"\nLoad average of the machine meanwhile: {min(loads)} to {max(loads)}.\n"


def _row(each: Figure | Reading) -> str:
    if isinstance(each, Reading):
        bar = "" if each.bar is None else f"{each.bar:,g}{_missed(each)}"
        return f"| {each.name} | {each.value:,g} {each.unit} | {bar} | {each.note} |"
    cpu = ", ".join(f"{name} {us:.1f}" for name, us in each.cpu_us.items())
    ratios = ["" if one is None else f"{one:.2f}" for one in (each.ratio, each.cpu_ratio)]
    spread = "" if each.spread is None else "{:.2f} to {:.2f}".format(*each.spread)
    bar = "" if each.bar is None else f"{each.bar}{' CPU' if each.by_cpu else ''}{_missed(each)}"
    cells = [each.place, str(each.in_flight), each.contender, f"{each.calls_per_s:,}", cpu]
    return "| " + " | ".join([*cells, *ratios, spread, bar]) + " |"


def _missed(each: Figure | Reading) -> str:
    return ", **missed**" if each.short else ""
