"""``promptopt``: the list of commands, and what an error looks like. Nothing heavy is imported here."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, NoReturn

import typer

from . import commands

_INTERRUPTED = 130


def _app(name: str, help_: str, table: Sequence[commands.Command]) -> typer.Typer:
    made = typer.Typer(
        name=name,
        help=help_,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for command in table:
        made.command(command.name, help=command.help)(command.function)
    return made


app = _app("promptopt", "Better prompts for fewer LM calls, with honest statistics.", commands.COMMANDS)
for group in commands.GROUPS:
    app.add_typer(_app(group.name, group.help, group.commands))


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


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point: no traceback ever reaches a user who did not ask for it.

    Exit codes: 0 improved (or done), 3 no improvement that can be told from noise, 4 budget too small, 2 bad
    configuration, 130 interrupted and resumable, 1 anything else.

    Args:
        argv: what stands behind ``promptopt``; default: the process's own.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _as_interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that knows no arrows must not cost anyone the report of a run that is paid for.
            stream.reconfigure(errors="replace")
    json = "--json" in arguments
    try:
        # Not standalone: typer would leave without a word at Ctrl-C, and without a document under --json.
        code = app(arguments, prog_name="promptopt", standalone_mode=False) or 0
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.stdout.flush()
    except KeyboardInterrupt:
        again = shlex.join(["promptopt", *arguments])
        _leave(f"Interrupted. Nothing is lost; the same command goes on: {again}", _INTERRUPTED, json)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("PROMPTOPT_DEBUG"):
            raise
        from .errors import code_of, is_usage, text_of

        if is_usage(error) and not json:
            error.show()  # type: ignore[attr-defined]
            sys.exit(code_of(error))
        _leave(text_of(error), code_of(error), json)
    sys.exit(code)


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _leave(message: str, code: int, json: bool) -> NoReturn:
    from .safe import safe

    if json:
        from .options import print_json

        print_json({"error": {"message": safe(message), "exit_code": code}})
    print(safe(message, lines=True), file=sys.stderr)  # noqa: T201 — standard error is the interface
    sys.stdout.flush()
    sys.exit(code)


if __name__ == "__main__":
    main()
