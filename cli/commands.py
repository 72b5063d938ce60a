"""The table of commands: the name, what ``--help`` says, and the function. Each is a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import (
    bench_ls,
    bench_record,
    bench_replay,
    bench_run,
    diff,
    evaluate,
    export,
    import_,
    init,
    leaderboard,
    ls,
    models,
    optimize,
    plan,
    refine,
    render,
    schema,
    serve,
    show,
    validate,
    view,
)


@dataclass(frozen=True)
class Command:
    """One command."""

    name: str
    help: str
    function: Callable[..., None]


COMMANDS = (
    Command("optimize", "Find a better prompt for a task; resume when it was begun before.", optimize.optimize),
    Command("refine", "Better answers to prompts: sampled, judged, criticised and revised.", refine.refine),
    Command("evaluate", "Score a program as it is, or a saved candidate.", evaluate.evaluate),
    Command("validate", "Check task files: no call, no network.", validate.validate),
    Command("plan", "What a run would cost and could show, before spending.", plan.plan),
    Command("show", "The report of a run, in the terminal or as a page (--html).", show.show),
    Command("diff", "Compare two candidates or runs: words, scores on common examples, what it cost.", diff.diff),
    Command("view", "A local page over a folder of runs, live while they go on.", view.view),
    Command("leaderboard", "Which optimizer wins, on what, at what cost, with intervals.", leaderboard.leaderboard),
    Command("export", "The prompts of a run for another tool: OpenAI, LangChain, promptfoo, …", export.export),
    Command("render", "The exact messages that a candidate sends.", render.render),
    Command("ls", "List optimizers, metrics, backends, tasks or programs.", ls.ls),
    Command("init", "Write a small task to start from.", init.init),
    Command("import", "A configuration of promptfoo, lm-eval or llama-prompt-ops as a task.", import_.import_),
    Command("models", "Local models: ls, pull, path, verify, rm.", models.models),
    Command("serve", "Serve a local model to several runs, OpenAI-compatible.", serve.serve),
    Command("schema", "The JSON Schema of task files, for editors.", schema.schema),
)


@dataclass(frozen=True)
class Group:
    """Commands under one word."""

    name: str
    help: str
    commands: tuple[Command, ...]


GROUPS = (
    Group(
        "bench",
        "Compare optimizers: sweeps with models, and strategies on recorded matrices without.",
        (
            Command("run", "A sweep: optimizers × tasks × models × seeds at matched budgets.", bench_run.run),
            Command("ls", "List recorded matrices and made-up landscapes.", bench_ls.ls),
            Command("record", "Record a matrix with a real model: candidates × examples.", bench_record.record),
            Command("replay", "Play strategies on matrices: score against cells paid.", bench_replay.replay),
        ),
    ),
)
