"""The durum command. Owns the list of commands and how each may end; knows what none of them does.

A command's module is imported when that command runs: --help has to answer in under 100 ms.
"""

from __future__ import annotations

import sys
from importlib import import_module
from keyword import iskeyword
from typing import Final, NoReturn

import click

import durum
from durum import errors
from durum.cli import exits

SUMMARIES: Final = {
    "demo": "Watch three silos serve a shop while one of them is killed.",
    "dev": "Run one silo for development, on a store in ./.durum.",
    "init": "Create a service's data in a store.",
    "silo": "Run one silo of a cluster.",
    "ps": "List a cluster's silos.",
    "doctor": "Look over a store and its silos.",
    "call": "Call one method of one actor.",
    "grains": "List the grains of one kind.",
    "state": "Show what is kept of one grain.",
    "evict": "Take one grain out of memory.",
    "delete": "Take one grain's state away.",
    "reminders": "List, show, set and cancel reminders.",
    "dead-letters": "List, show, retry and drop messages that could not be taken.",
    "export": "Copy a service into a file, while it runs.",
    "import": "Copy the grains of a file into a service that runs.",
    "completion": "Print a script that completes durum's commands and options.",
}
"""In the order in which a newcomer meets them; each sentence is the first of the command's help."""


def command_of(name: str) -> click.Command:
    """Import a command's module, and give the command."""
    module = f"{name}_" if iskeyword(name) else name.replace("-", "_")
    command = import_module(f"durum.cli.{module}").command
    assert isinstance(command, click.Command)  # noqa: S101 - our own modules
    return command


class _Commands(click.Group):
    """Commands that are listed without being imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(SUMMARIES)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in SUMMARIES:
            return None
        return command_of(cmd_name)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with durum demo, then durum dev yourfile.py. durum COMMAND --help tells more.",
)
@click.version_option(durum.__version__, prog_name="durum", message="%(prog)s %(version)s")
def cli() -> None:
    """Durable virtual actors for Python."""


def main() -> NoReturn:
    """Run the command line; each way to end has its exit code and no traceback of ours."""
    try:
        code = cli.main(prog_name="durum", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (errors.DurumError, ExceptionGroup) as exc:
        # Of several that failed together, the first is the one to mend.
        error = _first(exc)
        if not isinstance(error, errors.DurumError) or isinstance(error, errors.DurumBug):
            raise
        say_failed(error)
        sys.exit(exits.of(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(exits.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has enough of it. Python would complain once more at exit.
        sys.stdout = None
        sys.exit(exits.CLEAN)
    sys.exit(code if isinstance(code, int) else exits.CLEAN)


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def say_failed(error: errors.DurumError) -> None:
    """Tell a person on standard error what went wrong. The message itself says what to do."""
    # By the name that the reference has, where one of our own is narrower.
    name = next(one for one in type(error).__mro__ if one.__module__ == errors.__name__).__name__
    click.echo(click.style(f"{name}: ", fg="red", bold=True) + str(error), err=True)
