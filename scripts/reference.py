"""Writes docs/reference from docstrings, settings and the command line: `python -m scripts.reference`.

Owns which page has which name. tests/shape/test_reference.py compares the pages with what this makes.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import msgspec

import durum
from durum import config, errors, testing
from durum.cli import exits
from durum.client import admin, letters, sights, transfer
from durum.grains import context
from durum.testing import actors, plugin
from scripts import command_line, docstrings

PAGES: Final = Path(__file__).parents[1] / "docs" / "reference"
MADE: Final = (
    "<!-- Made from docstrings by `python -m scripts.reference`: change those, not this. -->"
)
_SECTIONS_OF_CONFIG: Final = (config.SiloConfig, config.Lease, config.Probing, config.Limits)
_UNITS: Final = (
    ("_per_s", "per second"),
    ("_s", "seconds"),
    ("_bytes", "bytes"),
    ("_factor", "leases"),
)
_NOT_CALLED: Final = frozenset(
    {"Actor", "Admin", "Cluster", "Invocation", "Timer", "Trace", "TurnContext"}
)
"""Classes that users do not construct."""


def pages() -> dict[str, str]:
    """All pages by file name."""
    by_page: dict[str, list[str]] = {}
    for name in sorted(durum.__all__, key=str.lower):
        by_page.setdefault(_page_of(name), []).append(name)
    made = {
        "actors.md": _named(
            "Writing actors",
            "What an actor's module imports, and what an actor can do. How to use it:"
            " [tutorial](../tutorial.md), [how to write actors](../actors.md),"
            " [how to model](../howto-model-actors.md).",
            [*((name, getattr(durum, name)) for name in by_page.pop("actors")),
             ("TurnContext", context.TurnContext)],
            "durum",
            ("Actor", "read_only", "one_way", "field", "Map", "List", "Opaque", "TurnContext"),
        ),
        "calls.md": _named(
            "Calling actors",
            "Connections from outside, references, and options of calls. How to use it:"
            " [calls and errors](../howto-calls-and-errors.md), [gateways](../gateway.md).",
            [(name, getattr(durum, name)) for name in by_page.pop("calls")],
            "durum",
            ("connect", "Cluster", "options"),
        ),
        "admin.md": _named(
            "Looking after a cluster",
            "`cluster.admin`, which every [Cluster](calls.md#cluster) has, and what it answers. The"
            " same from the shell: [commands](commands.md).",
            [
                ("Admin", admin.Admin),
                *((n, getattr(sights, n)) for n in ("Grain", "Page", "Silo")),
                ("Progress", transfer.Progress),
                *((n, getattr(letters, n)) for n in ("MessageAdmin", "DeadLetter", "DeadLetterPage")),
                ("Backlog", letters.Backlog),
            ],
            "durum.client.admin",
        ),
        "silos.md": _named(
            "Running silos",
            "A silo in your own process. Most run one by [`durum silo`](commands.md#durum-silo)"
            " instead.",
            [(name, getattr(durum, name)) for name in by_page.pop("silos")],
            "durum",
        ),
        "settings.md": _settings(),
        "errors.md": _errors(by_page.pop("errors")),
        "sync.md": _named(
            "durum.sync",
            "Calls from code without async. How to use it: [scripts, notebooks and threads](../sync.md).",
            [(name, getattr(durum.sync, name)) for name in ("connect", "Cluster")],
            "durum.sync",
        ),
        "testing.md": _testing(),
        "fastapi.md": _fastapi(),
        "commands.md": _page("Commands", "What `durum COMMAND --help` says.", command_line.parts()),
    }  # fmt: skip
    settings = by_page.pop("settings")
    known = {*(cls.__name__ for cls in _SECTIONS_OF_CONFIG), "Tls"}
    if by_page or set(settings) != known:
        raise SystemExit(f"say on which page these stand: {by_page} {set(settings) ^ known}")
    made["README.md"] = _index(made)
    return made


def _page_of(name: str) -> str:
    module = durum._ELSEWHERE.get(name, "durum.errors")  # noqa: SLF001 - ours
    for start, page in (
        ("durum.errors", "errors"),
        ("durum.config", "settings"),
        ("durum.client", "calls"),
        ("durum.grains.reference", "calls"),
        ("durum.silo", "silos"),
        ("durum.", "actors"),
    ):
        if module.startswith(start):
            return page
    raise AssertionError(f"{name} of {module} has no page")


def _page(title: str, lead: str, parts: Iterable[str]) -> str:
    return "\n\n".join([f"# {title}", MADE, lead, *parts]) + "\n"


def _named(
    title: str,
    lead: str,
    names: Iterable[tuple[str, object]],
    module: str,
    first: tuple[str, ...] = (),
) -> str:
    order = {name: place for place, name in enumerate(first)}
    ranked = sorted(names, key=lambda each: order.get(each[0], len(order)))
    return _page(title, lead, [_described(name, value, module) for name, value in ranked])


def _described(name: str, value: object, module: str) -> str:
    if inspect.isclass(value):
        return "\n\n".join(_class(name, value, module))
    if inspect.isroutine(value):
        shown = docstrings.signature(f"{module}.{name}", value, bound=False)
        return "\n\n".join(_spoken_of(name, shown, inspect.getdoc(value) or ""))
    home = getattr(value, "__module__", "") or ""
    where = durum._ELSEWHERE.get(name, home) if module == "durum" else module  # noqa: SLF001
    doc = docstrings.spoken(import_module(where)).get(name)
    members = [] if doc else list(_members(type(value)))
    parts = _spoken_of(name, f"{module}.{name}", doc or inspect.getdoc(type(value)) or "")
    below = [
        part for member, found in members for part in _member(f"{name}.{member}", member, found)
    ]
    return "\n\n".join([*parts, *below])


def _spoken_of(name: str, shown: str, doc: str) -> Iterator[str]:
    if not doc:
        raise SystemExit(f"{name} is public and has no docstring; write one")
    yield f"## {name}"
    yield docstrings.program(shown)
    yield docstrings.markdown(doc)


def _class(name: str, cls: type[Any], module: str) -> Iterator[str]:
    yield f"## {name}"
    is_data = dataclasses.is_dataclass(cls) or issubclass(cls, msgspec.Struct)
    if name == "Actor":
        shown = docstrings.signature("class Kind", cls.__init_subclass__, bound=False)
        yield docstrings.program(shown.replace("(\n", "(\n    durum.Actor,\n", 1))
    elif name in _NOT_CALLED or dataclasses.is_dataclass(cls):
        yield docstrings.program(f"class {module}.{name}")
    else:
        yield docstrings.program(docstrings.signature(f"{module}.{name}", cls, bound=False))
    doc = docstrings.markdown(
        inspect.getdoc(cls) or "", skip=("Args",) if name in {"Timer", "Cluster"} else ()
    )
    yield doc.replace("Args:\n", "Fields:\n", 1) if is_data and name in _NOT_CALLED else doc
    names = getattr(cls, "__struct_fields__", ()) or getattr(cls, "__dataclass_fields__", ())
    for member, found in _members(cls):
        if member not in names:
            yield from _member(f"{name.lower()}.{member}", member, found)


def _members(cls: type[Any]) -> Iterator[tuple[str, object]]:
    for base in [c for c in cls.__mro__ if c.__name__ == "Collection"] + [cls]:
        for name, member in vars(base).items():
            doc = inspect.getdoc(member) or ""
            if not name.startswith("_") and doc and "(called by the silo)" not in doc:
                yield name, member


def _member(shown: str, name: str, member: object) -> Iterator[str]:
    doc = inspect.getdoc(member) or ""
    if isinstance(member, property):
        yield f"### {name}"
        yield docstrings.program(shown)
        yield docstrings.markdown(doc)
        return
    function = getattr(member, "__func__", member)
    if inspect.isroutine(function):
        yield f"### {name}()"
        yield docstrings.program(docstrings.signature(shown, function, bound=True))
        yield docstrings.markdown(doc)


def _settings() -> str:
    lead = (
        "All settings of a silo, with units and defaults. Pass them as"
        " `durum.Silo(kinds, store, config=durum.SiloConfig(limits=durum.Limits(mailbox_calls=100)))`;"
        " clients take `durum.connect(target, limits=durum.Limits(call_timeout_s=5))`. Those that"
        " concern all silos of a cluster (`Lease`, `Probing`) have to be the same on all of them."
        " Settings of one kind are [class keywords](actors.md#actor)."
    )
    parts = []
    for cls in _SECTIONS_OF_CONFIG:
        prose, sections = docstrings.split(inspect.getdoc(cls) or "")
        meanings = dict(docstrings.entries(dict(sections)["Args"]))
        rows = ["| setting | unit | default | |", "|---|---|---|---|"]
        rows += [
            f"| `{field.name}` | {_unit(field.name)} | {_default(field.default)} "
            f"| {command_line.cell(meanings[field.name])} |"
            for field in msgspec.structs.fields(cls)
        ]
        parts.append(f"## {cls.__name__}\n\n{prose}\n\n" + "\n".join(rows))
    parts.append(
        "Settings that together break a promise are refused with `ConfigError`: "
        + "; ".join(f"{text}" for text in _rules())
        + "."
    )
    parts += _class("Tls", config.Tls, "durum")
    return _page("Settings", lead, parts)


def _rules() -> list[str]:
    """The rules on settings, as their own messages put them."""
    text = inspect.getsource(config.SiloConfig.__post_init__)
    found = re.findall(r'"([a-z]\w+[^"]* (?:must|be)[^"]*)"', text)
    return [rule for rule in found if " " in rule]


def _unit(name: str) -> str:
    return next((unit for ending, unit in _UNITS if name.endswith(ending)), "")


def _default(value: object) -> str:
    if isinstance(value, msgspec.Struct):
        return "all defaults"
    if isinstance(value, bool) or value == ():
        return {True: "on", False: "off"}.get(value, "none") if isinstance(value, bool) else "none"
    if isinstance(value, int | float):
        for size, unit in ((1024**2, "MB"), (1024, "KB")):
            if isinstance(value, int) and value >= size and value % size == 0 and value != 1024:
                return f"{value // size} {unit}"
        return f"{value:,}".removesuffix(".0")
    return repr(value)


def _errors(names: Iterable[str]) -> str:
    tree = (errors.__doc__ or "").partition("\n\n")[2]
    lead = (
        "One tree, cut by what you do next. Import them from `durum`. Every `CallError` has"
        " `did_run`; see [calls and errors](../howto-calls-and-errors.md). What your own methods"
        " raise arrives in its own type, and is none of these."
    )
    parts = ["## The tree", docstrings.program(tree.strip())]
    for cls in _walk(errors.DurumError):
        parts += _error(cls)
    left = set(names) - {cls.__name__ for cls in _walk(errors.DurumError)} - {"DidRun"}
    if left:
        raise SystemExit(f"errors outside of the tree: {left}")
    parts += ["## DidRun", docstrings.program("class durum.DidRun(StrEnum)")]
    parts.append(docstrings.markdown(inspect.getdoc(errors.DidRun) or ""))
    said = docstrings.spoken(errors)
    parts.append(
        "\n".join(
            f'- `DidRun.{each.name}`, `"{each.value}"`: {said[f"DidRun.{each.name}"]}'
            for each in errors.DidRun
        )
    )
    return _page("Errors", lead, parts)


def _walk(cls: type[Exception]) -> Iterator[type[Exception]]:
    yield cls
    for below in cls.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _walk(below)


def _error(cls: type[Exception]) -> Iterator[str]:
    yield f"## {cls.__name__}"
    facts = [f"below `{cls.__bases__[0].__name__}`"]
    if issubclass(cls, errors.CallError) and cls is not errors.CallError:
        facts.append(f'`did_run` is mostly `"{cls.usual}"`' if _varies(cls) else _always(cls))
    code = exits.of(cls.__new__(cls))
    if code != exits.FAILED:
        facts.append(f"ends a command with exit code {code}")
    yield docstrings.markdown(inspect.getdoc(cls) or "")
    yield f"*{'; '.join(facts)}.*"


def _varies(cls: type[errors.CallError]) -> bool:
    return not issubclass(cls, errors.Rejected | errors.ReplyForgotten)


def _always(cls: type[errors.CallError]) -> str:
    return f'`did_run` is `"{cls.usual}"`'


def _testing() -> str:
    lead = (
        "What users' tests import. How to use it: [testing your actors](../testing.md),"
        " [a strategy for tests](../howto-test-actors.md)."
    )
    first = ("TestCluster", "simulate", "CALM")
    names = sorted(testing.__all__, key=lambda name: (name not in first, name != first[0], name))
    parts = []
    for name in names:
        value = getattr(testing, name)
        if not inspect.isclass(value) and not inspect.isroutine(value):
            module = testing._ELSEWHERE[name][0]  # noqa: SLF001 - ours
            doc = docstrings.spoken(import_module(module))[name]
            parts.append("\n\n".join(_spoken_of(name, f"durum.testing.{name}", doc)))
        else:
            parts.append(_described(name, value, "durum.testing"))
    parts.append(_described("unhosted", actors.unhosted, "durum.testing.actors"))
    fixtures = [
        f"- fixture `{name}`: " + " ".join((inspect.getdoc(_inside(plugin, name)) or "").split())
        for name in ("durum_cluster", "durum_seed")
    ]
    mark = plugin._MARK.partition(": ")  # noqa: SLF001 - what pytest itself shows
    parts.append(
        "## The pytest plugin\n\nIt is loaded by pytest wherever Durum is installed.\n\n"
        + "\n".join(
            [
                f"- `@pytest.mark.{mark[0]}`: {mark[2]}",
                *fixtures,
                "- option `--durum-seed N`: the seed of all tests on virtual time that name none.",
            ]
        )
    )
    return _page("durum.testing", lead, parts)


def _inside(module: object, name: str) -> object:
    """A fixture's own function: pytest wraps it, each version in its own way."""
    found = getattr(module, name)
    return getattr(found, "__wrapped__", None) or getattr(found, "_fixture_function", found)


def _fastapi() -> str:
    module = import_module("durum.web.fastapi")
    lead = "Needs the extra `fastapi`. How to use it: [behind FastAPI](../fastapi.md)."
    said = docstrings.spoken(module)
    parts = [_described("Durum", module.Durum, "durum.web.fastapi")]
    parts += [
        "\n\n".join(_spoken_of(name, f"durum.web.fastapi.{name}", said[name]))
        for name in ("Cluster", "IdempotencyKey")
    ]
    return _page("durum.web.fastapi", lead, parts)


def _index(made: dict[str, str]) -> str:
    rows = ["| page | what it has |", "|---|---|"]
    for file, text in made.items():
        title = text.partition("\n")[0].removeprefix("# ")
        heads = re.findall(r"^## (.+)$", text, re.MULTILINE)
        shown = ", ".join(f"[{head}]({file}#{_anchor(head)})" for head in heads)
        rows.append(f"| [{title}]({file}) | {shown} |")
    lead = (
        "Every public name, setting, error and command, from the code's own docstrings. To learn how"
        " to use them, begin at the [index of all pages](../README.md)."
    )
    return _page("Reference", lead, ["\n".join(rows)])


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")


def write(made: Callable[[], dict[str, str]] = pages) -> None:
    """Write all pages, and take away those that are made no more."""
    PAGES.mkdir(exist_ok=True)
    done = made()
    for path in PAGES.glob("*.md"):
        if path.name not in done:
            path.unlink()
    for name, text in done.items():
        (PAGES / name).write_text(text)


if __name__ == "__main__":
    write()
