"""``promptopt show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="With --html: where to. Default: report.html in RUN.")
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="Write the report as a page that works offline.")] = False,
    flips: Annotated[
        int, typer.Option("--flips", min=0, help="Examples to show each way that default and winner differ on.")
    ] = 3,
    json: options.Json = False,
) -> None:
    """The report of a run, finished or not; reads only, but for the page of --html."""
    from promptopt.report.detail import read_detail

    from .report import print_result, print_unfinished
    from .report_more import print_more

    if file is not None and not html:
        from promptopt.errors import ConfigError

        raise ConfigError(f"Expected one run folder, got {str(file)!r} after it. To write a page there, add --html.")
    if html:
        _write(run, file or run / "report.html", json)
        return
    detail = read_detail(run)
    if json:
        so_far = None if detail.so_far is None else detail.so_far.to_json()
        told = None if detail.thoughts is None else detail.thoughts.to_json()
        about = {"run": detail.about, "result": detail.result, "so_far": so_far, "thoughts": told}
        options.print_json({**about, "detail": detail.to_json(flips)})
        return
    if detail.result is not None:
        # The folder may have been moved since.
        print_result({**detail.result, "folder": str(run)}, detail.about, detail.thoughts)
    elif detail.so_far is not None:
        print_unfinished(run, detail.so_far, detail.thoughts)
    print_more(detail, flips)


def _write(run: Path, path: Path, json: bool) -> None:
    from promptopt.report.run_page import save_page

    from .console import console
    from .safe import safe

    save_page(run, path)
    if json:
        options.print_json({"html": str(path), "bytes": path.stat().st_size})
    else:
        console().print(safe(f"Wrote {path}", lines=True), soft_wrap=True)
