"""The documentation says what is so: its programs run, its commands print what it shows, its links lead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import pages

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "durum/demo/README.md")
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def links(page: Path) -> list[tuple[str, str]]:
    """Where a page leads within the project: file and fragment."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    return [
        (file, fragment)
        for file, _, fragment in (t.partition("#") for t in targets if "://" not in t)
    ]


def anchors(path: Path) -> set[str]:
    """The fragments that a page's headings answer to, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    """A tutorial that fails at its third command loses its reader for ever."""
    with pages.Reader(tmp_path) as reader:
        for step in pages.steps(page.read_text()):
            reader.do(step)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_links_to_what_exists(page: Path) -> None:
    """A promise whose link is dead is not a promise."""
    dead = []
    for file, fragment in links(page):
        path = (page.parent / file) if file else page
        if not path.exists() or (fragment and fragment not in anchors(path)):
            dead.append(f"{file}#{fragment}")
    assert not dead


def test_every_page_is_reached_from_the_readme() -> None:
    """What no page leads to is found by nobody."""
    found, left = set[Path](), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page not in found:
            found.add(page)
            ways = ((page.parent / file).resolve() for file, _ in links(page) if file)
            left += [way for way in ways if way.suffix == ".md" and way.is_file()]
    docs = {page for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert docs - found - {page for page in docs if page.parent.name == "decisions"} == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_table_names_nothing_twice(page: Path) -> None:
    """Two rows about one thing soon say two things."""
    for table in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE):
        _, _, *rows = (line.split("|")[1].strip() for line in table.splitlines())
        named = sorted(row for row in rows if row.startswith("`"))
        assert sorted(set(named)) == named


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_tests_that_exist(page: Path) -> None:
    """What a page promises is held by the tests it names; a name that leads nowhere hides that none does."""
    text = page.read_text()
    missing = []
    for file, test in re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text):
        path = ROOT / file
        if not path.is_file() or f"def {test}(" not in path.read_text():
            missing.append(f"{file}::{test}")
    assert not missing


def test_every_fault_that_is_tested_is_on_its_page() -> None:
    """Who wonders what happens in some fault finds it; a test that no row names is a row that is missing."""
    pages = "".join((ROOT / "docs" / page).read_text() for page in ("faults.md", "security.md"))
    tested = {
        f"tests/faults/{path.name}::{test}"
        for path in (ROOT / "tests" / "faults").glob("test_*.py")
        for test in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert {name for name in tested if f"`{name}`" not in pages} == set()
