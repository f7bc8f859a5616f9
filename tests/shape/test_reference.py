"""The reference is what the docstrings say. `DURUM_ACCEPT=1 make test ARGS=tests/shape` makes it anew."""

from __future__ import annotations

import os

import pytest

from scripts import docstrings, reference

MADE = reference.pages()


def test_reference_has_these_pages_and_no_others() -> None:
    """A page that nobody makes any more is one that nobody corrects."""
    if os.environ.get("DURUM_ACCEPT") == "1":
        reference.write()
    assert {path.name for path in reference.PAGES.glob("*.md")} == set(MADE)


@pytest.mark.parametrize("page", sorted(MADE))
def test_reference_is_what_the_docstrings_say(page: str) -> None:
    """A reference that says what was so a month ago is worse than none."""
    assert (reference.PAGES / page).read_text() == MADE[page], (
        f"docs/reference/{page} says otherwise: DURUM_ACCEPT=1 make test ARGS=tests/shape, or"
        " python -m scripts.reference"
    )


def test_docstrings_keep_programs_lists_and_later_prose() -> None:
    """What the form loses, readers never see."""
    doc = """Do it.

        do("it")

    Args:
        what: first line,
            and second.
        how: in *one* way.

    Hooks: none,
    really.
    """
    assert docstrings.markdown(doc) == (
        'Do it.\n\n    do("it")\n\nHooks: none,\nreally.\n\n'
        "Args:\n\n- `what`: first line, and second.\n- `how`: in *one* way."
    )
