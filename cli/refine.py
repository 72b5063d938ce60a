"""``promptopt refine``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options

if TYPE_CHECKING:
    from promptopt.refine import Refined


def refine(
    task: options.TaskName,
    prompts: Annotated[
        Path,
        typer.Argument(metavar="PROMPTS", help="Rows with the program's inputs: jsonl, json, csv, tsv or parquet."),
    ],
    out: Annotated[Path | None, typer.Option(help="The run folder; default: runs/<task>-refine-<digest>.")] = None,
    width: Annotated[int, typer.Option(min=1, help="Answers a round.")] = 5,
    depth: Annotated[int, typer.Option(min=0, help="Revisions; 0: best of WIDTH.")] = 2,
    mode: Annotated[str, typer.Option(help="tpo, revision or best_of_n.")] = "tpo",
    temperature: Annotated[float, typer.Option(help="Of samples and revisions.")] = 0.7,
    field: Annotated[str | None, typer.Option(help="The output to refine; default: the program's last.")] = None,
    critic: Annotated[str, typer.Option(help="The role of the model that says what to change.")] = "task",
    candidate: options.CandidateFile = None,
    calls: Annotated[int | None, typer.Option(min=1, help="Budget in calls.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Budget in tokens.")] = None,
    usd: Annotated[float | None, typer.Option(min=0.0, help="Budget in US dollars.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.0, help="Budget in minutes.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed.")] = None,
    set_: options.Set = None,
    no_code: options.NoCode = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the report.")] = False,
    json: options.Json = False,
) -> None:
    """Better answers to prompts: sampled, judged by the task's metric, criticised, revised; exit code 3 when the
    budget ended before all were done, 4 when it is too small for any, 1 when none has an answer for other reasons."""
    loaded = options.load(task, set_, no_code, seed)
    from promptopt.refine import Refine, read_prompts, with_models_asked
    from promptopt.refine import refine as run
    from promptopt.search.budget import Limits

    from .counting import Counting
    from .optimize import fetch_models

    settings = Refine(width, depth, mode, temperature, field, critic)  # type: ignore[arg-type]
    asked = read_prompts(prompts, loaded)
    saved = options.candidate(candidate, loaded)
    fetch_models(with_models_asked(loaded, settings), quiet)
    with Counting("prompts", len(asked), quiet) as counting:
        result = run(
            loaded,
            asked,
            settings,
            budget=Limits(calls, tokens, usd, minutes),
            out=out,
            candidate=saved,
            watch=lambda _: counting.one(),
        )
    if json:
        options.print_json(result.to_json())
    else:
        _print(result)
    if result.stopped:
        raise typer.Exit(3)
    raise typer.Exit(0 if result.answered else 1)


def _print(result: Refined) -> None:
    from promptopt.records import PASSING

    from .console import console
    from .report import percent
    from .safe import safe

    out = console()
    partly = f", {result.unfinished:,} of them not to the end" if result.unfinished else ""
    out.print(f"{result.answered:,} of {result.prompts:,} prompts answered{partly}")
    if result.refined is not None and result.best_of_width is not None:
        out.print("  reward by the task's metric, mean over prompts")
        unjudged = f"  ({result.unjudged:,} failed or could not be judged, which counts 0)" if result.unjudged else ""
        out.print(f"    one sample        {percent(result.first):>7}{unjudged}", soft_wrap=True)
        out.print(f"    best of the first {percent(result.best_of_width):>7}")
        gain = result.gain
        within = f"  (gain {percent(gain.mean)}, 95 % {percent(gain.low)} to {percent(gain.high)})" if gain else ""
        out.print(f"    refined           {percent(result.refined):>7}{within}", soft_wrap=True)
    out.print(f"  {result.generations:,} generations, {result.judgements:,} judgements")
    if result.agreement is not None:
        agreed, first = percent(result.agreement.agreed), result.agreement.first_position
        told = (
            "" if first is None else f", {percent(first)} of verdicts for the answer that is shown first (fair: 50 %)"
        )
        out.print(
            f"  the judge: both orders agree on {agreed} of {result.agreement.pairs:,} pairs{told}", soft_wrap=True
        )
    if result.grades is not None:
        apart, shift = percent(result.grades.difference), f"{100 * result.grades.first_position:+.1f} %"
        out.print(
            f"  the judge: the same grade in both orders for {percent(result.grades.agreed)} of "
            f"{result.grades.answers:,} answers, {apart} of the scale apart on average, "
            f"{shift.replace('-', '−')} where the answer is shown first (fair: 0 %)",
            soft_wrap=True,
        )
    for role, usage in result.charged.items():
        paid = result.paid[role].calls if role in result.paid else 0
        out.print(f"  {safe(role)}: {usage.calls:,} calls, {usage.tokens:,} tokens ({paid:,} calls paid now)")
    for reason, count in result.unusable.items():
        out.print(f"  {count:,} dropped: {safe(reason)}")
    for kind, count in result.failures.items():
        out.print(f"  {count:,} prompts failed: {safe(kind)}: {safe(result.why[kind])}", soft_wrap=True)
    if PASSING & result.failures.keys():
        out.print("  The same command asks again for what failed in passing; nothing that was answered is paid twice.")
    if result.stopped:
        out.print(f"  ended early: {safe(result.stopped)}", soft_wrap=True)
    out.print(f"  {safe(result.folder)}/answers.jsonl", soft_wrap=True)
