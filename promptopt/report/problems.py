"""Problems of one name: a task solved with several models is several tasks, where every optimizer solved each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from promptopt import jsonio
from promptopt.errors import ConfigError
from promptopt.report.rows import Row


def row_name(row: Row) -> str:
    """A run as a message names it."""
    return f"{row.optimizer} ({row.source})" if row.source else row.optimizer


def tell_apart(rows: Sequence[Row], mixed: bool) -> tuple[list[Row], list[str]]:
    """Rows whose task and seed say the problem: a task with several gets a name for each.

    Args:
        rows: all.
        mixed: let runs of several problems stand in one place, where each optimizer has one alone.

    Returns:
        The rows in the same order, and what differs although it is compared.

    Raises:
        ConfigError: not every optimizer has runs of the same problems, and not ``mixed``.
    """
    warnings: list[str] = []
    names: dict[tuple[str, str, int], str] = {}
    by_task: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_task[row.task].append(row)
    for task, own in by_task.items():
        variants = _variants(own)
        if len(set(variants.values())) == 1:
            continue
        unlike = _unlike(own, variants)
        if unlike is not None and not mixed:
            one, other = unlike
            raise ConfigError(
                f"Expected runs of one problem for task {task!r}, seed {one.seed}, or of all of them by every "
                f"optimizer, got two: {row_name(one)} and {row_name(other)} differ in {_difference(one, other)}. "
                "Compare them in leaderboards of their own, run the missing ones or one again with the other's task "
                "file, or compare them as they are with --mixed."
            )
        if unlike is not None:
            warnings += _warnings(own)
            if not _several(own):
                continue
        called = _names(task, own, variants, set(by_task) | set(names.values()))
        names.update({(task, problem, seed): called[v] for (problem, seed), v in variants.items()})
    return [replace(row, task=names.get((row.task, row.problem, row.seed), row.task)) for row in rows], warnings


def _variants(rows: Sequence[Row]) -> dict[tuple[str, int], str]:
    """Which of the task's problems one is, the same over seeds: by what it is solved with, else by its place."""
    by_seed: defaultdict[int, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        by_seed[row.seed].setdefault(row.problem, row)
    if all(len(own) == 1 for own in by_seed.values()):
        return {(problem, seed): "" for seed, own in by_seed.items() for problem in own}
    told = {(p, seed): _signature(row) for seed, own in by_seed.items() for p, row in own.items()}
    if all(len({told[p, seed] for p in own}) == len(own) for seed, own in by_seed.items()):
        return told
    return {(p, seed): f"{i:06d}" for seed, own in by_seed.items() for i, p in enumerate(own)}


def _signature(row: Row) -> str:
    return jsonio.canonical([dict(row.models), row.metric, dict(row.splits)]).decode()


def _unlike(rows: Sequence[Row], variants: Mapping[tuple[str, int], str]) -> tuple[Row, Row] | None:
    """Two rows of one seed that differ in their problem, where not every optimizer has each; None: every one has."""
    wanted: defaultdict[int | None, set[str]] = defaultdict(set)
    ran: defaultdict[tuple[int | None, str], set[str]] = defaultdict(set)
    for row in rows:
        variant = variants[row.problem, row.seed]
        # A number says nothing over seeds; what it is solved with does: there a missing seed is a missing run.
        seed = row.seed if variant.isdigit() else None
        wanted[seed].add(row.optimizer)
        ran[seed, variant].add(row.optimizer)
    if all(names == wanted[seed] for (seed, _), names in ran.items()):
        return None
    first: dict[int, Row] = {}
    for row in rows:
        other = first.setdefault(row.seed, row)
        if other.problem != row.problem:
            return other, row
    return None


def _several(rows: Sequence[Row]) -> bool:
    """Whether an optimizer has runs of two problems in one place."""
    problems: dict[tuple[str, int, str], str] = {}
    return any(problems.setdefault((row.optimizer, row.seed, _budget(row)), row.problem) != row.problem for row in rows)


def _budget(row: Row) -> str:
    return jsonio.canonical(dict(row.budget)).decode()


def _warnings(rows: Sequence[Row]) -> list[str]:
    first: dict[int, Row] = {}
    told: Counter[str] = Counter()
    for row in rows:
        other = first.setdefault(row.seed, row)
        if row.problem != other.problem:
            told[f"Task {row.task!r}, seed {row.seed}: runs differ in {_difference(other, row)}."] += 1
    return [f"{text} ({count:,} runs)" for text, count in told.items()]


def _names(task: str, rows: Sequence[Row], variants: Mapping[tuple[str, int], str], taken: set[str]) -> dict[str, str]:
    """What each of a task's problems is called: by the models that differ, else by a number."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(variants[row.problem, row.seed], row)
    roles = sorted({role for row in first.values() for role in row.models})
    differs = [role for role in roles if len({row.models.get(role) for row in first.values()}) > 1]
    taken = taken - {task}
    called: dict[str, str] = {}
    for variant, row in first.items():
        models = [(role, row.models.get(role, "none")) for role in differs]
        told = models[0][1] if len(models) == 1 else ", ".join(f"{role} {model}" for role, model in models)
        plain = name = f"{task} @ {told}" if told else task
        number = 1
        while name in taken:
            number += 1
            name = f"{plain} ({number})"
        called[variant] = name
        taken.add(name)
    return called


def _difference(one: Row, other: Row) -> str:
    said = [
        f"{name}: {_plain(a)} and {_plain(b)}"
        for name, a, b in (
            ("splits", one.splits, other.splits),
            ("metric", one.metric, other.metric),
            ("models", one.models, other.models),
        )
        if a != b
    ]
    return "; ".join(said) or "the program or the data (splits, metric and models have the same names)"


def _plain(value: str | Mapping[str, object]) -> str:
    return value if isinstance(value, str) else ", ".join(f"{key} {item}" for key, item in value.items())
