"""``promptopt view``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import options

_PORT = 8484
_ENDLESS = 65_535


def view(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="A folder of runs, or one run.")] = Path("runs"),
    port: Annotated[int, typer.Option(min=0, max=_ENDLESS, help="0: any free one.")] = _PORT,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    json: options.Json = False,
) -> None:
    """Reads only, for this machine alone; the pages follow runs that go on. Ctrl-C ends it."""
    from promptopt.report.view import Server

    from .console import console, error_console
    from .safe import safe

    server = Server(runs, port)
    if json:
        options.print_json({"url": server.url, "folder": str(runs)})
    else:
        console().print(f"Runs of {safe(runs, lines=True)} at {server.url} (Ctrl-C ends it)", soft_wrap=True)
    sys.stdout.flush()
    try:
        if not no_open:
            _open(server.url)
        server.run()
    except KeyboardInterrupt:
        if not json:
            error_console().print("Ended.")


def _open(url: str) -> None:
    import threading
    import webbrowser

    # Some browsers of a terminal come back only when they are closed.
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
