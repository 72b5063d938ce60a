"""``promptopt``: the list of commands, and what an error looks like. Nothing heavy is imported here."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from . import commands

app = typer.Typer(
    name="promptopt",
    help="Better prompts for fewer LM calls, with honest statistics.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in commands.COMMANDS:
    app.command(command.name, help=command.help)(command.function)


def _version(wanted: bool) -> None:
    if wanted:
        import promptopt

        typer.echo(promptopt.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Better prompts for fewer LM calls, with honest statistics."""


def main() -> None:
    """The entry point: no traceback ever reaches a user who did not ask for it.

    Exit codes: 0 improved (or done), 3 no improvement that can be told from noise, 4 budget too small, 2 bad
    configuration, 130 interrupted and resumable, 1 anything else.
    """
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        app()
    except KeyboardInterrupt:
        # The engine has recorded everything by now; what is left to say was said by the command.
        _leave("Interrupted. Nothing is lost: run the same command again to go on.", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("PROMPTOPT_DEBUG"):
            raise
        from .errors import code_of, text_of

        _leave(text_of(error), code_of(error))


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _leave(message: str, code: int) -> None:
    from .safe import safe

    if "--json" in sys.argv:
        import json

        print(json.dumps({"error": {"message": safe(message), "exit_code": code}}))  # noqa: T201 — standard output is the interface
    print(safe(message, lines=True), file=sys.stderr)  # noqa: T201
    sys.stdout.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
