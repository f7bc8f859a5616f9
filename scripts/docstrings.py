"""Docstrings as Markdown. Owns how prose, sections and signatures look; knows no page and no name of Durum's.

The form is Google's: paragraphs, then sections such as `Args:` whose entries are `name: text`. Indented lines
in the prose are programs, and stay as they are.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Final

SECTIONS: Final = (
    "Args",
    "Attributes",
    "Class keywords",
    "Raises",
    "Returns",
    "Source",
    "Yields",
)
_LISTED: Final = frozenset({"Args", "Attributes", "Class keywords", "Raises"})
_HEAD: Final = re.compile(rf"^({'|'.join(SECTIONS)}):(?: (.*))?$")
_ENTRY: Final = re.compile(r"^([A-Za-z_*][\w*, ]*): (.*)$")
_WIDTH: Final = 100


def markdown(doc: str, *, skip: Sequence[str] = ()) -> str:
    """A docstring as Markdown.

    Args:
        doc: as `inspect.getdoc` gives it.
        skip: sections to leave out.
    """
    prose, sections = split(doc)
    parts = [prose] if prose else []
    for title, body in sections:
        if title in skip or title == "Source":
            continue
        if title in _LISTED:
            parts.append(f"{title}:\n\n" + "\n".join(_bullet(*each) for each in entries(body)))
        else:
            parts.append(f"{title}: {' '.join(body.split())}")
    return "\n\n".join(parts)


def split(doc: str) -> tuple[str, list[tuple[str, str]]]:
    """The prose of a docstring, and its sections: title and body."""
    prose: list[str] = []
    sections: list[tuple[str, list[str]]] = []
    inside = False
    for line in inspect.cleandoc(doc).splitlines():
        head = _HEAD.match(line)
        if head is not None:
            sections.append((head[1], [head[2]] if head[2] else []))
            inside = True
        elif inside and (line.startswith(" ") or not line):
            sections[-1][1].append(line)
        else:
            # Prose behind a section, as after a class's keywords, reads well before it, too.
            prose += ["", line] if inside and prose and prose[-1] else [line]
            inside = False
    return "\n".join(prose).strip(), [
        (title, textwrap.dedent("\n".join(body)).strip()) for title, body in sections
    ]


def entries(body: str) -> list[tuple[str, str]]:
    """What a section lists: names and texts."""
    found: list[tuple[str, str]] = []
    for line in body.splitlines():
        entry = _ENTRY.match(line)
        if entry is not None:
            found.append((entry[1], entry[2]))
        elif found:
            name, text = found[-1]
            found[-1] = (name, f"{text} {line.strip()}".strip())
        else:
            found.append(("", line.strip()))
    return found


def _bullet(name: str, text: str) -> str:
    return f"- {text}" if not name else f"- `{name}`: {text}"


def program(text: str) -> str:
    """Lines as a block that nobody runs."""
    return textwrap.indent(text, "    ")


def signature(name: str, function: Callable[..., object], *, bound: bool) -> str:
    """How something is called, over several lines where one is too long.

    Args:
        name: what stands before the parenthesis.
        function: whose parameters are meant.
        bound: leave out the first parameter.
    """
    found = inspect.signature(function)
    parameters = list(found.parameters.values())[1 if bound else 0 :]
    block = inspect.isgeneratorfunction(inspect.unwrap(function)) and hasattr(
        function, "__wrapped__"
    )
    if block:
        name = f"with {name}"
    elif inspect.iscoroutinefunction(function):
        name = f"await {name}"
    shown = [_parameter(each) for each in parameters]
    kinds = [each.kind for each in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        shown.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    only = [
        p for p, each in enumerate(parameters) if each.kind is inspect.Parameter.POSITIONAL_ONLY
    ]
    if only:
        shown.insert(only[-1] + 1, "/")
    returns = _annotation(found.return_annotation)
    tail = f" -> {returns}" if returns not in ("", "None") and not block else ""
    line = f"{name}({', '.join(shown)}){tail}"
    if len(line) <= _WIDTH:
        return line
    inside = "".join(f"    {each},\n" for each in shown)
    return f"{name}(\n{inside}){tail}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = ""
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        stars = "*"
    elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
        stars = "**"
    text = f"{stars}{parameter.name}"
    annotation = _annotation(parameter.annotation)
    if annotation:
        text += f": {annotation}"
    if parameter.default is not inspect.Parameter.empty:
        text += (" = " if annotation else "=") + _default(parameter.default)
    return text


def _default(value: object) -> str:
    shown = repr(value)
    return "..." if isinstance(value, type) or value is ... or shown.startswith("<") else shown


def _annotation(annotation: object) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    if isinstance(annotation, str):
        return annotation.replace('"', "'")
    return getattr(annotation, "__name__", None) or repr(annotation)


def spoken(module: ModuleType) -> dict[str, str]:
    """The strings that stand below assignments in a module and its classes: `NAME` and `Class.NAME`."""
    tree = ast.parse(inspect.getsource(module))
    found = dict(_below(tree.body, ""))
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found.update(_below(node.body, f"{node.name}."))
    return found


def _below(body: Sequence[ast.stmt], before: str) -> Iterator[tuple[str, str]]:
    for node, after in itertools.pairwise(body):
        targets: list[ast.expr] = []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Assign):
            targets = node.targets
        target = targets[0] if targets else None
        if not isinstance(target, ast.Name) or not isinstance(after, ast.Expr):
            continue
        if isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            yield f"{before}{target.id}", inspect.cleandoc(after.value.value)
