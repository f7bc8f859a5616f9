"""APP is found where people expect it, and its mistakes are shown as its author would want to see them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from durum.cli import app
from durum.errors import ConfigError

GREETER = """
from durum import Actor

class Greeter(Actor):
    greeted: int = 0

    async def hello(self, name: str) -> str:
        self.greeted += 1
        return f"Hello {name}"
"""


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working directory of our own, and no modules or paths left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def names(app_name: str) -> list[str]:
    return [kind.__name__ for kind in app.load_kinds(app_name)]


def test_a_file_is_an_app() -> None:
    """The shortest way to a running actor."""
    Path("greeter.py").write_text(GREETER)
    assert names("greeter.py") == ["Greeter"]


def test_a_file_with_a_dash_in_its_name_is_an_app() -> None:
    """Not every file is importable by its name, and no user should have to know that."""
    Path("my-greeter.py").write_text(GREETER)
    assert names("my-greeter.py") == ["Greeter"]


def test_kinds_imported_by_name_are_hosted() -> None:
    """An app file may be nothing but imports."""
    Path("greeter.py").write_text(GREETER)
    Path("shop.py").write_text("from greeter import Greeter\n")
    assert names("shop.py") == ["Greeter"]


def test_a_file_inside_a_package_has_the_package_s_name() -> None:
    """An exception it defines must have the name under which its callers import it."""
    Path("acme").mkdir()
    Path("acme/__init__.py").write_text("")
    Path("acme/greeter.py").write_text(GREETER)
    assert [kind.__module__ for kind in app.load_kinds("acme/greeter.py")] == ["acme.greeter"]


def test_a_module_is_an_app() -> None:
    """Installed applications have no file to point to."""
    Path("acme").mkdir()
    Path("acme/__init__.py").write_text("")
    Path("acme/grains.py").write_text(GREETER)
    assert names("acme.grains") == ["Greeter"]


def test_a_name_in_a_module_chooses_kinds() -> None:
    """Silos of different roles host different kinds of one code base."""
    Path("two.py").write_text(
        GREETER + "\nclass Other(Actor):\n    n: int = 0\n\nKINDS = [Other]\nNOTHING = 3\n"
    )
    assert names("two:Greeter") == ["Greeter"]
    assert names("two:KINDS") == ["Other"]
    with pytest.raises(ConfigError, match="it must be an Actor class"):
        app.load_kinds("two:NOTHING")
    with pytest.raises(ConfigError, match="no name 'Missing'"):
        app.load_kinds("two:Missing")


def test_a_missing_file_is_named_with_the_place_that_was_searched(tmp_path: Path) -> None:
    """Most often the working directory is another than one thinks."""
    with pytest.raises(ConfigError, match=r"no file nothing\.py") as raised:
        app.load_kinds("nothing.py")
    assert str(tmp_path) in str(raised.value)


def test_a_missing_module_is_named() -> None:
    """And the message thinks of the forgotten .py."""
    with pytest.raises(ConfigError, match=r"no module 'nothing'.*nothing\.py"):
        app.load_kinds("nothing")


def test_a_module_that_lacks_another_is_not_called_missing() -> None:
    """The app is there; what it needs is not. Saying the wrong name costs an hour."""
    Path("greeter.py").write_text("import nowhere_to_be_found\n")
    for name in ("greeter.py", "greeter"):
        with pytest.raises(ConfigError, match="No module named 'nowhere_to_be_found'"):
            app.load_kinds(name)


def test_a_syntax_error_shows_its_line() -> None:
    """File, line, and the place in it; no traceback of ours."""
    Path("broken.py").write_text("x = 1\ndef f(:\n    pass\n")
    with pytest.raises(ConfigError, match="is not valid Python") as raised:
        app.load_kinds("broken.py")
    text = str(raised.value)
    assert "line 2" in text
    assert "def f(:" in text
    assert "durum/cli" not in text


def test_an_app_that_raises_shows_its_own_lines_only() -> None:
    """The author's frames lead to the mistake; the import machinery's do not."""
    Path("raising.py").write_text("def f():\n    return 1 / 0\n\nf()\n")
    with pytest.raises(ConfigError, match="failed while it was loaded") as raised:
        app.load_kinds("raising.py")
    text = str(raised.value)
    assert "line 2" in text
    assert "ZeroDivisionError" in text
    assert "importlib" not in text
    assert "durum/cli" not in text


def test_an_actor_that_cannot_work_is_refused_with_the_reason() -> None:
    """Durum's own objection to a class reads like any other mistake in the app."""
    Path("bad.py").write_text("from durum import Actor\nclass A(Actor):\n    def f(self): ...\n")
    with pytest.raises(ConfigError, match="async def"):
        app.load_kinds("bad.py")


def test_an_app_that_exits_is_an_error() -> None:
    """sys.exit() at import would otherwise end the silo with the app's own code."""
    Path("exiting.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ConfigError, match="SystemExit"):
        app.load_kinds("exiting.py")


def test_an_app_without_kinds_is_refused() -> None:
    """A silo that serves nothing is always a mistake."""
    Path("empty.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match="no Actor class"):
        app.load_kinds("empty.py")


def test_a_file_that_hides_a_loaded_module_is_refused() -> None:
    """A file called json.py would break whatever imports json after it."""
    Path("json.py").write_text(GREETER)
    with pytest.raises(ConfigError, match="Rename the file"):
        app.load_kinds("json.py")
