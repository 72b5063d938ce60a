"""The file of a sweep: optimizers × tasks × models × seeds × budgets, and the cells that it stands for.

tasks: [sentiment, tasks/mine.yaml]
optimizers: [opro, {name: mipro, proposals: 8}, {label: "opro, greedy", name: opro, temperature: 0}]
models: {task: hf/qwen2.5-coder-0.5b-instruct}          # or a list of such mappings
seeds: 3                                                # or a list
budgets: [100, {calls: 300, usd: 1}]
set: {splits.search: 30}                                # in every task
baselines: true                                         # random_search and best_of_seeds come along
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptopt import jsonio
from promptopt.errors import ConfigError, UnknownNameError, did_you_mean
from promptopt.optimizers import OPTIMIZERS
from promptopt.search.budget import Limits
from promptopt.task import yamlio
from promptopt.task.load import load_task
from promptopt.task.problems import Problem, as_error, plain
from promptopt.task.task import OptimizerSpec, Task

BASELINES = ("random_search", "best_of_seeds")
"""In every sweep, unless it says ``baselines: false``: what has to be beaten. The default program is in every run."""

_Text = Annotated[str, Field(min_length=1)]
_Count = Annotated[int, Field(ge=1)]
_Positive = Annotated[float, Field(gt=0)]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Task(_Keys):
    task: _Text
    set: dict[str, Any] = Field(default_factory=dict)


class _Optimizer(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: _Text
    label: _Text | None = None


class _Budget(_Keys):
    calls: _Count | None = None
    tokens: _Count | None = None
    usd: _Positive | None = None


class _Grid(_Keys):
    tasks: Annotated[list[_Text | _Task], Field(min_length=1)]
    optimizers: Annotated[list[_Text | _Optimizer], Field(min_length=1)]
    budgets: Annotated[list[_Count | _Budget], Field(min_length=1)]
    models: dict[str, Any] | Annotated[list[dict[str, Any]], Field(min_length=1)] = Field(default_factory=dict)
    seeds: _Count | Annotated[list[int], Field(min_length=1)] = 3
    set: dict[str, Any] = Field(default_factory=dict)
    baselines: bool = True


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep, as plain data: any machine can play it.

    Args:
        task: a file, relative to the grid's folder, or the name of a task that comes along.
        name: of the task.
        optimizer: what the board calls it.
        settings: ``name`` of the optimizer and its settings.
        limits: what the run may spend.
        seed: of the run.
        changes: of the task's keys, by dotted path.
        problem: digest of the task.
        variant: which of the grid's models, where it has several; "" where it has one.
    """

    task: str
    name: str
    optimizer: str
    settings: Mapping[str, Any]
    limits: Limits
    seed: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    variant: str = ""

    @property
    def id(self) -> str:
        """The same in every sitting, for the same run."""
        what = [self.problem, self.optimizer, dict(self.settings), self.limits.to_json(), self.seed]
        return jsonio.digest(what)[:16]

    @property
    def budget(self) -> str:
        """In words: ``100 calls``."""
        limits = self.limits.to_json().items()
        return ", ".join(f"{limit} {name}" for name, limit in limits if limit is not None)

    @property
    def title(self) -> str:
        """In words."""
        model = f" · {self.variant}" if self.variant else ""
        return f"{self.name} · {self.optimizer} · {self.budget} · seed {self.seed}{model}"

    @property
    def filters(self) -> dict[str, str]:
        """What finds it among others: ``--only NAME=VALUE``."""
        number = self.budget.removesuffix(" calls")
        found = {"task": self.name, "optimizer": self.optimizer, "seed": str(self.seed)}
        found["budget"] = number if number.isdigit() else self.budget
        return {**found, "model": self.variant} if self.variant else found

    @property
    def folder(self) -> str:
        """The name of its run folder."""
        return f"{_plain(self.name)}-{_plain(self.optimizer)}-s{self.seed}-{self.id[:8]}"

    def load(self, root: Path, allow_code: bool = True, cache: str | None = None) -> Task:
        """The task with the cell's models, seed and optimizer.

        Args:
            root: the folder of the grid.
            allow_code: False refuses tasks that name Python code.
            cache: of completions.

        Raises:
            ConfigError: the task is not in order.
        """
        extra = {} if cache is None else {"cache": cache}
        task = load_task(
            _path(self.task, root),
            overrides={**self.changes, **extra, "seed": self.seed},
            allow_code=allow_code,
        )
        settings = {key: value for key, value in self.settings.items() if key != "name"}
        place = f"optimizer {self.optimizer}"
        return replace(task, optimizer=OptimizerSpec(str(self.settings["name"]), settings, place, {}))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "task": self.task,
            "name": self.name,
            "optimizer": self.optimizer,
            "settings": dict(self.settings),
            "limits": self.limits.to_json(),
            "seed": self.seed,
            "changes": dict(self.changes),
            "problem": self.problem,
            "variant": self.variant,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        """The inverse of ``to_json``."""
        return cls(**{**data, "limits": Limits(**data["limits"])})


@dataclass(frozen=True, slots=True)
class Grid:
    """A sweep.

    Args:
        path: its file.
        cells: those to run, in this order.
        whole: all that the file stands for, in the order in which they are written down.
        allow_code: whether tasks may name Python code.
    """

    path: Path
    cells: tuple[Cell, ...]
    whole: tuple[Cell, ...]
    allow_code: bool = True

    def only(self, filters: Mapping[str, Sequence[str]]) -> Grid:
        """The cells that fit.

        Args:
            filters: values by ``task``, ``optimizer``, ``seed``, ``budget`` or ``model``; one of each must fit.

        Raises:
            ConfigError: a name or a value that no cell has.
        """

        known = [cell.filters for cell in self.cells]
        for name, wanted in filters.items():
            if name not in known[0]:
                raise UnknownNameError("part of a cell", name, known[0], "--only")
            there = list(dict.fromkeys(value[name] for value in known))
            for value in wanted:
                if value not in there:
                    raise UnknownNameError(name, value, there, "--only")
        kept = [
            cell
            for cell, has in zip(self.cells, known, strict=True)
            if all(has[name] in wanted for name, wanted in filters.items())
        ]
        return replace(self, cells=tuple(kept))


def load_grid(path: Path, allow_code: bool = True) -> Grid:
    """Read a grid and load every task in it once, so that all that is wrong is told before anything is spent.

    Raises:
        ConfigError: with ``file:line``.
    """
    file, node = _checked(path)
    optimizers = _optimizers(file, path)
    models = [file.models] if isinstance(file.models, dict) else file.models
    seeds = list(range(file.seeds)) if isinstance(file.seeds, int) else file.seeds
    budgets = [
        Limits(calls=budget) if isinstance(budget, int) else Limits(**budget.model_dump()) for budget in file.budgets
    ]
    for number, budget in enumerate(budgets):
        if budget == Limits():
            raise ConfigError("Expected a limit, got none: add calls, tokens or usd.", node.where(("budgets", number)))
    tasks = [_Task(task=entry) if isinstance(entry, str) else entry for entry in file.tasks]
    cells: list[Cell] = []
    for chosen, seed, entry in itertools.product(models, seeds, tasks):
        changes = {**file.set, **{f"models.{role}": _model(model) for role, model in chosen.items()}, **entry.set}
        task = load_task(_path(entry.task, path.parent), overrides={**changes, "seed": seed}, allow_code=allow_code)
        which = ", ".join(f"{role} {_named(model)}" for role, model in chosen.items()) if len(models) > 1 else ""
        cells += [
            Cell(entry.task, task.name, label, settings, limits, seed, changes, task.digest, which)
            for limits in budgets
            for label, settings in optimizers.items()
            # Without wordings of the user's it has nothing to try.
            if label != "best_of_seeds" or task.instructions or not file.baselines
        ]
    titles = [cell.title for cell in cells]
    if len(set(titles)) < len(titles):
        twice = next(title for title in titles if titles.count(title) > 1)
        raise ConfigError(
            f"Expected each cell once, got twice: {twice}. Leave out the task, seed or budget that stands there twice, "
            "or give the task another name: {task: …, set: {name: …}}.",
            str(path),
        )
    return Grid(path, tuple(cells), tuple(cells), allow_code)


def _checked(path: Path) -> tuple[_Grid, yamlio.Node]:
    if not path.is_file():
        raise ConfigError(f"Expected a file with tasks, optimizers and budgets, found no {path}. Check the path.")
    node = yamlio.read(path)
    try:
        return _Grid.model_validate(node.raw()), node
    except ValidationError as error:
        problems = []
        for item in error.errors(include_url=False, include_input=False):
            keys = _where(item["loc"])
            at = node.at(keys)
            if item["type"] == "extra_forbidden":
                said = f"Unknown key {str(item['loc'][-1])!r}.{did_you_mean(str(item['loc'][-1]), _Grid.model_fields)}"
            elif item["type"] == "missing":
                said = f"The key '{keys[-1]}' is missing."
            else:
                said = f"{'.'.join(map(str, keys))}: {plain(dict(item), None if at is None else at.raw())}"
            problem = Problem(said, node.where(keys))
            if problem not in problems:
                problems.append(problem)
        raise as_error(problems) from None


def _where(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The keys in the file: without the names of the forms that a value may have."""
    forms = ("_Task", "_Optimizer", "_Budget", "constrained-", "list[", "dict[")
    return tuple(key for key in loc if not (isinstance(key, str) and key.startswith(forms)))


def _optimizers(file: _Grid, path: Path) -> dict[str, dict[str, Any]]:
    """Name and settings, by what the board calls it."""
    found: dict[str, dict[str, Any]] = {}
    for entry in file.optimizers:
        settings = {"name": entry} if isinstance(entry, str) else {"name": entry.name, **(entry.model_extra or {})}
        if str(settings["name"]) not in OPTIMIZERS:
            raise UnknownNameError("optimizer", str(settings["name"]), OPTIMIZERS, str(path))
        given = None if isinstance(entry, str) else entry.label
        said = ", ".join(f"{key}={value}" for key, value in settings.items() if key != "name")
        label = given or (f"{settings['name']} ({said})" if said else str(settings["name"]))
        if label in found:
            raise ConfigError(f"Expected each optimizer once, got {label!r} twice. Give one a label.", str(path))
        found[label] = settings
    for name in BASELINES if file.baselines else ():
        if not any(settings == {"name": name} for settings in found.values()):
            if name in found:
                raise ConfigError(
                    f"Expected another label than {name!r} for an optimizer with settings: {name} as it comes is in "
                    "every sweep. Choose another label, or say baselines: false.",
                    str(path),
                )
            found[name] = {"name": name}
    return found


def _model(given: Any) -> Any:
    return {"id": given} if isinstance(given, str) else given


def _named(given: Any) -> str:
    if not isinstance(given, dict):
        return str(given)
    others = {key: value for key, value in given.items() if key not in ("id", "key")}
    return f"{given.get('id')} {jsonio.canonical(others).decode()}" if others else str(given.get("id"))


def _path(task: str, root: Path) -> Path:
    from promptopt_tasks import path as shipped

    beside = root / task
    found = beside if beside.exists() else shipped(task)
    if found is None:
        raise ConfigError(
            f"Expected a task file beside the grid, or the name of a task that comes along (promptopt ls tasks), got "
            f"{task!r}."
        )
    return found


def _plain(text: str) -> str:
    return "".join(c if c.isalnum() or c in "_." else "-" for c in text).strip("-.")[:40]
