"""The command line: one short function a verb.

Progress and messages go to stderr, results to stdout; `--json` makes the last line of stdout one JSON object. Exit 0
fine, 1 a person's mistake (one line), 2 usage.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from draem.cli.calibrating import calibrate
from draem.cli.data import check, demo, simulate
from draem.cli.deploying import benchmark, export
from draem.cli.inspecting import compare, evaluate, info, predict, report, set_
from draem.cli.speaking import is_first_process, message
from draem.cli.training import distill, import_weights, train
from draem.errors import DraemError, MemoryLimitError

__all__ = ["app", "main"]

app = typer.Typer(
    name="draem",
    help="From a folder of good images to a deployed defect detector.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_VERBS = (
    *(
        demo,
        check,
        simulate,
        train,
        distill,
        evaluate,
        compare,
        report,
        calibrate,
        predict,
        export,
        benchmark,
        info,
        set_,
    ),
    import_weights,
)
for _verb in _VERBS:
    app.command(_verb.__name__.replace("_", "-").rstrip("-"))(_verb)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        from draem import __version__

        typer.echo(f"draem {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a person's mistake is one line on stderr and exit code 1."""
    log = logging.getLogger("draem")
    if not log.handlers:
        log.addHandler(_Messages())
        log.setLevel(logging.INFO)
    try:
        app()
    except DraemError as error:
        # Of several processes that share a run, all meet the same mistakes; memory is each one's own.
        if is_first_process() or isinstance(error, MemoryLimitError):
            message(f"draem: {error}")
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does: nothing to say, and nowhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        # A name too long, a folder without permission, a full disc: the system's own words, and where.
        place = f"{str(error.filename)[:200]}: " if error.filename else ""
        message(f"draem: {place}{error.strerror or error}")
        sys.exit(1)


class _Messages(logging.Handler):
    """Shows what the package logs as messages."""

    def emit(self, record: logging.LogRecord) -> None:
        if is_first_process():
            message(record.getMessage())
