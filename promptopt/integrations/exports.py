"""An optimized program for other people's tools: what an export is given, and which tools there are.

An export is a function ``export(program: SavedProgram) -> Mapping[str, str]``: file name → text. It writes nothing, and
imports nothing of the tool that it writes for. What stands in a prompt comes from ``program.render`` alone: an export
turns it into the tool's own form and escapes what the tool would read as its own.
"""

from __future__ import annotations

import contextlib
import json
import keyword
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError, StorageError
from promptopt.lm.base import Constraint, Message
from promptopt.metrics import describe
from promptopt.program.params import Candidate
from promptopt.program.predict import Predict
from promptopt.program.render import Format, Renderer, constraint_of
from promptopt.program.save import Saved, load
from promptopt.program.signature import Field
from promptopt.records import Example
from promptopt.registry import Registry
from promptopt.report.summary import read_about, read_result
from promptopt.task.task import Task

EXPORTS = Registry(
    "export",
    {
        "dspy": "promptopt.integrations.export_dspy:export",
        "inspect": "promptopt.integrations.export_inspect:export",
        "langchain": "promptopt.integrations.export_langchain:export",
        "markdown": "promptopt.integrations.export_markdown:export",
        "openai": "promptopt.integrations.export_openai:export",
        "promptfoo": "promptopt.integrations.export_promptfoo:export",
    },
    "promptopt.exports",
)
"""Name → a function that is called with a ``SavedProgram`` and returns file name → text."""

Export = Callable[["SavedProgram"], Mapping[str, str]]

_MARK = "\ue000"  # for private use: no field's label has it
_LONGEST_NAME = 60


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one input goes in the last message of a prompt with several.

    Args:
        field: the input.
        before: what stands before a text of one line.
        before_lines: what stands before a text of several lines.
    """

    field: Field
    before: str
    before_lines: str


@dataclass(frozen=True)
class Prompt:
    """One predictor, without the program that calls it.

    Args:
        path: of the predictor; ``""`` of a program that is one.
        name: an identifier made of it, of ASCII letters, digits and underscores; different from the other prompts'.
        predict: with its signature, instruction, exemplars and settings.
        format: of the reply.
    """

    path: str
    name: str
    predict: Predict
    format: Format

    @property
    def inputs(self) -> tuple[Field, ...]:
        """What is filled in."""
        return self.predict.signature.inputs

    @property
    def writes(self) -> bool:
        """Whether the model writes the answer; else the likeliest choice is taken."""
        return self.predict.mode == "generate"

    @property
    def constraint(self) -> Constraint | None:
        """What a reply is held to where the model can be."""
        return constraint_of(self.predict.signature, self.format)

    @cached_property
    def head(self) -> tuple[Message, ...]:
        """What is the same for all inputs: the system message, and the exemplars as turns."""
        return self._renderer.messages({})[:-1]

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Where the inputs go in the last message, in order; what is between them is ``between``."""
        return tuple(
            Slot(field, self._before(field, _MARK), self._before(field, f"\n{_MARK}")) for field in self.inputs
        )

    @cached_property
    def between(self) -> str:
        """What stands between two inputs."""
        if len(self.slots) < 2:
            return ""
        first, second = self.slots[:2]
        query = self._renderer.query({first.field.name: _MARK, second.field.name: _MARK})
        return query.removeprefix(first.before + _MARK).removesuffix(second.before + _MARK)

    def messages(self, inputs: Mapping[str, Any]) -> tuple[Message, ...]:
        """What promptopt sends for these inputs."""
        return self._renderer.messages(inputs)

    def template(self, fill: Callable[[Field], str], literal: Callable[[str], str] = str) -> str:
        """The last message for texts of one line.

        Args:
            fill: the placeholder of an input, as the tool writes it.
            literal: text as the tool wants it beside placeholders.
        """
        return literal(self.between).join(literal(slot.before) + fill(slot.field) for slot in self.slots)

    @cached_property
    def _renderer(self) -> Renderer:
        predict = self.predict
        return Renderer(predict.signature, predict.instruction, predict.exemplars, self.format)

    def _before(self, field: Field, value: str) -> str:
        return self._renderer.query({field.name: value}).removesuffix(value)


@dataclass(frozen=True)
class SavedProgram:
    """What an export is given.

    Args:
        name: of the task where it is known, else of the program's class.
        saved: what the file holds.
        prompts: one a predictor, in the program's order.
        description: of the task; ``""``: not known.
        model: the task's model as ``run.json`` has it: ``id``, ``base_url``, ``generate``, …; None: not known.
        metric: ``name``, and its settings; None: not known.
        result: of the run that found it, as ``result.json`` has it; None: not known, or of something else.
        demos: examples that may be shown to anyone: the task's demos without those that stand in the prompts.
        unsure: predictors whose format depends on the model, and whose model is not known.
        dspy: whether it is a DSPy program, which asks its models in another form than ours.
    """

    name: str
    saved: Saved
    prompts: tuple[Prompt, ...]
    description: str = ""
    model: Mapping[str, Any] | None = None
    metric: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    demos: tuple[Example, ...] = ()
    unsure: tuple[str, ...] = ()
    dspy: bool = False

    @property
    def candidate(self) -> Candidate:
        """All values."""
        return self.saved.candidate

    @property
    def notes(self) -> tuple[str, ...]:
        """What the prompts alone do not say, a line each, for whoever uses them."""
        return tuple(self._notes())

    @property
    def input_notes(self) -> tuple[str, ...]:
        """How inputs become text, a line each, where a tool does it another way."""
        notes = [
            "Inputs are texts. Write other values as promptopt does: 3.0 as 3, true and false in lower case, lists and "
            "mappings as JSON."
        ]
        if any(len(prompt.slots) > 1 for prompt in self.prompts):
            notes.append(
                "Beside other inputs, one of several lines begins on the line below its label, and one that is None is "
                "left out with its label."
            )
        return tuple(notes)

    def sampling(self, prompt: Prompt) -> dict[str, Any]:
        """``temperature``, ``max_tokens`` and ``stop`` of a prompt, as far as they are known."""
        generate = (self.model or {}).get("generate", {}) if prompt.predict.role == "task" else {}
        known = {name: generate[name] for name in ("temperature", "max_tokens", "stop") if name in generate}
        if not known.get("stop"):
            known.pop("stop", None)
        for name in ("temperature", "max_tokens"):
            value = getattr(prompt.predict, name)
            if value is not None:
                known[name] = value
        return known

    def cases(self, prompt: Prompt) -> tuple[Example, ...]:
        """The demos that can be tried on this prompt: none of a program that calls several."""
        names = {field.name for field in prompt.inputs}
        return tuple(demo for demo in self.demos if names <= set(demo.inputs)) if len(self.prompts) == 1 else ()

    def _notes(self) -> Iterable[str]:
        if len(self.prompts) > 1:
            paths = ", ".join(one_line(prompt.path) for prompt in self.prompts)
            yield (
                f"The program {one_line(self.saved.program)} calls {len(self.prompts)} predictors ({paths}). Each is a "
                "prompt of its own here. What the program does between the calls is Python code and is not in here."
            )
        if self.dspy:
            yield (
                "This is a DSPy program: DSPy asks in a form of its own. Here its instructions and examples are in the "
                "form of promptopt, which may score otherwise."
            )
        for prompt in self.prompts:
            of = f" of {one_line(prompt.path)}" if prompt.path else ""
            if not prompt.writes:
                yield (
                    f"promptopt takes the likeliest of the choices{of} by its log-probability (mode: "
                    f"{prompt.predict.mode}). Here the model writes its answer, which may score otherwise."
                )
            elif prompt.constraint is not None:
                held = "the choices" if prompt.constraint.choices else "a JSON schema"
                yield f"Where the model can be, promptopt holds replies{of} to {held} while they are written."
        for path in self.unsure:
            yield (
                f"Whether the reply{' of ' + one_line(path) if path else ''} is asked for as labelled lines or as JSON "
                "depends on the model, and no run says which it was: here it is lines."
            )


def read_program(path: str | Path, task: Task | None = None) -> SavedProgram:
    """An optimized program for an export.

    Args:
        path: a run folder, its ``best.json``, or another saved program.
        task: the task it is of: says how replies are asked for where the file is of an earlier version, and gives
            description, metric and demos.

    Raises:
        ConfigError: there is no program, or it is another one than the task's.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    of_run = (path.is_dir() or path.name == "best.json") and (folder / "run.json").exists()
    about: Mapping[str, Any] = read_about(folder) if of_run else {}
    file = folder / "best.json" if path.is_dir() else path
    if not file.exists():
        raise ConfigError(_missing(path, of_run))
    saved = load(file)
    dspy = "promptopt" in jsonio.loads(file.read_bytes(), str(file))  # its own state, with ours beside it
    bound = None if task is None else saved.apply(task.program)
    predictors = saved.predictors() if bound is None or dspy else bound.predictors()
    result = read_result(folder) if of_run else None
    if result is not None and result["best"].get("id") != saved.candidate.id:
        result = None
    held = _held(folder, of_run)
    names = _names(predictors)
    formats: dict[str, Format] = {
        where: "json" if held and one.json_if_held else one.usual_format for where, one in predictors.items()
    }
    return SavedProgram(
        name=str(about.get("name") or (task.name if task else "") or saved.program),
        saved=saved,
        prompts=tuple(Prompt(where, names[where], one, formats[where]) for where, one in predictors.items()),
        description=str(about.get("description") or (task.description if task else "")),
        model=about.get("models", {}).get("task"),
        metric=describe(task.metric) if task else about.get("metric"),
        result=result,
        demos=_demos(task, predictors.values()) if task else (),
        dspy=dspy,
        unsure=() if held is not None else tuple(where for where, one in predictors.items() if one.json_if_held),
    )


def export(program: SavedProgram, to: str) -> dict[str, str]:
    """The files for a tool: name → text. Nothing is written.

    Args:
        program: from ``read_program``.
        to: a name in ``EXPORTS``.

    Raises:
        UnknownNameError: no such tool.

    Example:
        write(export(read_program("runs/antonyms-1a2b3c4d"), "langchain"), "prompts")
    """
    made: Export = EXPORTS.load(to)
    return dict(made(program))


def write(files: Mapping[str, str], folder: str | Path, force: bool = False) -> list[Path]:
    """Write the files of an export; what stands there already with the same text is left alone.

    Args:
        files: name → text.
        folder: made when it is not there.
        force: whether files with another text are replaced.

    Returns:
        Their paths, in order.

    Raises:
        ConfigError: a file with another text is there, or a name leads out of the folder. Nothing was written.
        StorageError: a file cannot be written.
    """
    folder = Path(folder)
    for name in files:
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or not inside.parts:
            raise ConfigError(f"Expected file names inside of the folder, got {name!r}. The export is to blame.")
    texts = {folder / name: text.encode() for name, text in files.items()}
    try:
        there = {path: path.read_bytes() for path in texts if path.exists()}
        differs = [path for path, data in there.items() if data != texts[path]]
        if differs and not force:
            raise ConfigError(
                f"{differs[0]} exists already and is different, and nothing was written. Choose another folder with "
                "--out, or replace it with --force."
            )
        for path, data in texts.items():
            if there.get(path) != data:
                _write(path, data)
    except OSError as error:
        raise StorageError(f"Cannot write {error.filename or folder}: {error.strerror}.") from error
    return list(texts)


def file_name(text: str) -> str:
    """A name that is safe for a file or folder, made of a text."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:_LONGEST_NAME] or "program"


def one_line(text: object, most: int = 200) -> str:
    """Text that is safe in a comment of any language: one line of printable characters, quoted where it must be."""
    shown = str(text)
    plain = shown if shown.isprintable() else repr(shown)[1:-1]
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def json_text(value: object) -> str:
    """JSON for people and any reader: what is not printable is escaped, all other text is as it is."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(data)
        os.replace(new, path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def _missing(path: Path, of_run: bool) -> str:
    if of_run:
        return (
            f"The run {path} has no best.json yet: it is written when the run has ended. The command that began it "
            "goes on where it stopped."
        )
    if path.is_dir():
        return f"Expected a run folder with best.json, found none in {path}. Runs are under runs/ by default."
    return f"Expected a run folder or a saved program, but there is no {path}."


def _held(folder: Path, of_run: bool) -> bool | None:
    """Whether the run's model was held to choices and schemas; None: not known."""
    result = read_result(folder) if of_run else None
    if result is None:
        return None
    return bool(result.get("constrained"))


def _names(paths: Iterable[str]) -> dict[str, str]:
    """An identifier for each path, different for all, also where upper and lower case are one."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path in paths:
        plain = re.sub(r"[^A-Za-z0-9]+", "_", path).strip("_")[:_LONGEST_NAME] or "prompt"
        if plain[0].isdigit() or keyword.iskeyword(plain):
            plain = f"prompt_{plain}"
        name, number = plain, 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}_{number}"
        taken.add(name.casefold())
        names[path] = name
    return names


def _demos(task: Task, predictors: Iterable[Predict]) -> tuple[Example, ...]:
    shown = {exemplar.source for one in predictors for exemplar in one.exemplars}
    return tuple(example for example in task.splits.demos if example.id not in shown)
