"""What the command line says of itself, as Markdown. Owns the form; the texts are the commands' own.

Texts are taken from the commands, not from their --help: that looks a little different with each click.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import click

from durum.cli import exits, main
from scripts import docstrings


def parts() -> list[str]:
    """The page's parts."""
    rows = ["| command | |", "|---|---|"]
    rows += [
        f"| [`durum {name}`](#durum-{name}) | {text} |" for name, text in main.SUMMARIES.items()
    ]
    codes = ["| exit code | |", "|---|---|"]
    for name, text in docstrings.spoken(exits).items():
        if not name.startswith("_"):
            codes.append(f"| {getattr(exits, name)} | {cell(text)} |")
    commands = {name: main.command_of(name) for name in main.SUMMARIES}
    found = ["\n".join(rows), "## Exit codes", "\n".join(codes), _variables(commands)]
    for name, command in commands.items():
        found += _command(name, command)
    return found


def _variables(commands: Mapping[str, click.Command]) -> str:
    """Which variables of the environment there are, and which options they stand for."""
    options = {
        each.envvar: each.opts[0]
        for command in commands.values()
        for each in command.params
        if isinstance(each, click.Option) and isinstance(each.envvar, str)
    }
    rows = ["| variable | stands for |", "|---|---|"]
    rows += [f"| `{variable}` | `{options[variable]}` |" for variable in sorted(options)]
    rows.append("| `DURUM_SECRET` | the cluster's secret itself; there is no option for it |")
    text = "An option that is given wins. `DURUM_SECRET` and those of TLS hold for programs, too."
    return f"## Variables\n\n{text}\n\n" + "\n".join(rows)


def _command(name: str, command: click.Command) -> Iterator[str]:
    context_ = click.Context(command, info_name=name)
    yield f"## durum {name}"
    yield docstrings.program(" ".join(["durum", name, *command.collect_usage_pieces(context_)]))
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        first, _, rest = paragraph.partition("\n")
        if first == "\b":
            title, _, lines = rest.partition("\n")
            yield title
            yield docstrings.program(inspect.cleandoc(lines))
        else:
            yield paragraph
    rows = ["| option | default | |", "|---|---|---|"]
    options = [each for each in command.params if isinstance(each, click.Option)]
    rows += [_option(each) for each in options if not each.hidden]
    if options:
        yield "\n".join(rows)


def _option(option: click.Option) -> str:
    names = " / ".join([*option.opts, *option.secondary_opts])
    if not option.is_flag:
        names += f" {option.metavar or _shape(option.type)}"
    help_ = re.sub(r"\s*\[(?:env var|default).*\]$", "", " ".join((option.help or "").split()))
    default = ""
    if option.show_default and not option.is_flag and option.default is not None:
        default = f"`{option.default}`"
    stated = re.search(r"default: ([^;\]]+)\]$", option.help or "")
    default = stated[1] if stated else default
    variable = f" Or the variable `{option.envvar}`." if option.envvar else ""
    return f"| `{cell(names)}` | {cell(default)} | {cell((help_ + variable).strip())} |"


def _shape(kind: click.ParamType[Any]) -> str:
    if isinstance(kind, click.Choice):
        return f"[{'|'.join(map(str, kind.choices))}]"
    if isinstance(kind, click.Path):
        return "FILE"
    number = (type(click.INT), type(click.FLOAT))  # the ranges are among them
    return "N" if isinstance(kind, number) else kind.name.upper()


def cell(text: str) -> str:
    """A text for a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")
