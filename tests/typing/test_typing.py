"""What mypy and pyright tell users: signatures come through, wrong calls are flagged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
API = Path(__file__).with_name("api.py")
WAYS = Path(__file__).with_name("ways.py")


@pytest.mark.timeout(120)
def test_mypy_sees_signatures_and_flags_every_mistake() -> None:
    """Most users run mypy: an unflagged wrong call would only fail in production."""
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(API), str(WAYS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = run.stdout.splitlines()
    assert [line for line in lines if ": note: Revealed" not in line] == [], run.stdout + run.stderr
    revealed = [line.partition("Revealed type is ")[2] for line in lines]
    assert len(revealed) == 2
    assert all("(amount: decimal.Decimal, *, note: " in each for each in revealed), revealed


@pytest.mark.timeout(120)
def test_pyright_sees_signatures_and_flags_every_mistake() -> None:
    """Editors run pyright: what it reveals is what they complete."""
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pyright", "--outputjson"),
            *("-p", str(API.parent), "--pythonpath", sys.executable),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(run.stdout)["generalDiagnostics"]
    told = [
        f"{each['range']['start']['line'] + 1}: {each['message']}"
        for each in found
        if each["severity"] != "information"
    ]
    assert told == []
    revealed = [each["message"] for each in found if each["severity"] == "information"]
    assert len(revealed) == 2
    assert all("(amount: Decimal, *, note: str = " in each for each in revealed), revealed
