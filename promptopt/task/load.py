"""From a task file to a ``Task``: all is checked before a model is opened, all that is wrong is told at once."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptopt import jsonio
from promptopt.errors import ConfigError, UnknownNameError, did_you_mean
from promptopt.lm import BACKENDS
from promptopt.lm.spec import Generate, ModelSpec, Price
from promptopt.metrics import METRICS
from promptopt.task import spec as schema
from promptopt.task import yamlio
from promptopt.task.dataset import (
    Columns,
    Hub,
    Read,
    Row,
    Splits,
    check_columns,
    examples,
    read_rows,
    without_duplicates,
)
from promptopt.task.problems import Problem, Problems, SeveralError, as_error, placed, quote, tidy
from promptopt.task.settings import check_settings as check_settings
from promptopt.task.splits import Sizes, make_splits
from promptopt.task.task import BudgetSpec, FailureSpec, Guards, OptimizerSpec, Task
from promptopt.task.usercode import Code, call_user, is_reference, load_code
from promptopt.task.yamlio import Node

if TYPE_CHECKING:
    from promptopt.metrics.base import Metric
    from promptopt.program.module import Module

ROLES = ("task", "proposer", "judge", "teacher", "reward", "embedder")
"""Roles that promptopt itself calls; programs may have more."""

_WRITING = ("task", "proposer", "judge", "teacher")

_PATH_OF_A_MODEL = re.compile(r"\.{1,2}/.*|.*\.gguf")
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL", re.IGNORECASE)
_LEAST_SECRET = 6
_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Checked:
    """A task file that is in order, as far as can be told without the network.

    Args:
        name: of the task.
        task: the task; None when its data comes from the hub, which was not asked.
        notes: what was not checked, and what is worth knowing.
    """

    name: str
    task: Task | None
    notes: tuple[str, ...] = ()


def load_task(
    path: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    optimizer: str | None = None,
    allow_code: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Task:
    """The task in a file. Opens no model; uses the network only for data of the hub.

    Args:
        path: the file. Paths in it are relative to it.
        overrides: dotted path → value, e.g. ``{"optimizer.steps": 3}``; read as if they stood in the file.
        optimizer: in place of the file's, with the settings in ``overrides`` alone; the file's are kept where it names
            the same one.
        allow_code: False refuses ``path.py:Name``.
        environment: where ``${NAME}`` is looked up; default: the process's own.

    Raises:
        ConfigError: with ``file:line``; several problems are listed in one error.
    """
    boundary = _Boundary(environment)
    with boundary:
        task, _ = _finish(_draft(Path(path), overrides or {}, allow_code, boundary, optimizer))
    return task


def validate(
    path: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    allow_code: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Checked:
    """Check a task file without opening a model or using the network. Arguments and errors as for ``load_task``."""
    boundary = _Boundary(environment)
    with boundary:
        draft = _draft(Path(path), overrides or {}, allow_code, boundary)
        hub = [source for source, _ in (*draft.train, *draft.test) if isinstance(source, Hub)]
        if hub:
            notes = tuple(f"{source} was not read: checking uses no network." for source in hub)
            return Checked(draft.name, None, notes)
        task, notes = _finish(draft)
    return Checked(draft.name, task, notes)


def parse_override(text: str) -> tuple[str, Any]:
    """``a.b=c`` as (dotted path, value); the value is read as YAML.

    Raises:
        ConfigError: it has another form.

    Example:
        >>> parse_override("optimizer.steps=3")
        ('optimizer.steps', 3)
    """
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals:
        raise ConfigError(f"Expected key=value, got {quote(path)}. For example: --set optimizer.steps=3", "--set")
    _split(path, "--set")
    if "\n" in value.strip():
        raise ConfigError(f"Expected a value on one line for {path}. Change the task file instead.", f"--set {path}")
    return path, yamlio.parse(value.strip(), f"--set {path}", first_line=None).raw()


def _split(path: str, place: str) -> list[str]:
    keys = path.split(".")
    if not all(_KEY.fullmatch(key) for key in keys):
        raise ConfigError(
            f"Expected keys with dots between them, got {quote(path)}. For example: optimizer.steps", place
        )
    return keys


@dataclass(frozen=True, slots=True)
class _Draft:
    """A task but for its examples."""

    file: schema.TaskFile
    node: Node
    path: Path
    name: str
    program: Module
    program_digest: Any
    metric: Metric
    metric_digest: Any
    models: Mapping[str, ModelSpec]
    columns: Columns
    train: Sequence[tuple[Path | Hub, str]]
    test: Sequence[tuple[Path | Hub, str]]


class _Boundary:
    """A ``with`` block that errors leave without secrets, terminal escapes and values as long as a book.

    Args:
        environment: where ``${NAME}`` is looked up; what is secret in it is told by name.
    """

    def __init__(self, environment: Mapping[str, str] | None) -> None:
        self.environment = os.environ if environment is None else environment
        self._secrets = {name for name in self.environment if _SECRET_NAME.search(name)}

    def hide(self, name: str) -> None:
        """This variable is secret, whatever it is called."""
        self._secrets.add(name)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, ConfigError):
            return
        found = error.problems if isinstance(error, SeveralError) else (Problem(error.message, error.place or ""),)
        clean = [Problem(tidy(self._hidden(p.message)), tidy(self._hidden(p.place))) for p in found]
        if clean != list(found):
            raise as_error(clean) from None

    def _hidden(self, text: str) -> str:
        for name in self._secrets:
            value = self.environment.get(name, "")
            if len(value) >= _LEAST_SECRET:
                text = text.replace(value, f"${{{name}}}")
        return text


def _draft(
    path: Path, overrides: Mapping[str, Any], allow_code: bool, boundary: _Boundary, optimizer: str | None = None
) -> _Draft:
    problems = Problems()
    node = yamlio.read(path)
    if optimizer is not None:
        node = _with_optimizer(node, optimizer, boundary.environment)
    node = _overridden(node, overrides)
    node = _without_literal_keys(node, problems, boundary)
    data = _expanded(node, boundary.environment, problems)
    checked = schema.check(data, node)
    if isinstance(checked, list):
        for problem in checked:
            problems.add(problem.message, problem.place)
    problems.check()
    assert isinstance(checked, schema.TaskFile)
    folder = path.parent
    program, program_digest, metric, metric_digest = None, None, None, None
    models: dict[str, ModelSpec] = {}
    columns = Columns({})
    with problems.collect(node.where(("program",))):
        program, program_digest = _program(checked, folder, allow_code)
    with problems.collect(node.where(("data",))):
        columns = _columns(checked.data, node)
    if program is not None and columns.inputs:
        with problems.collect(node.where(("data", "input"))):
            _check_inputs(program, columns)
    with problems.collect(node.where(("metric",))):
        metric, metric_digest = _metric(checked, node, folder, allow_code)
        if program is not None and "code" in metric_digest and not isinstance(metric, type):
            metric = program._own_metric(metric)
    for role, entry in checked.models.items():
        with problems.collect(node.where(("models", role))):
            models[role] = _model(entry, folder, node, role)
    with problems.collect(node.where(("models",))):
        _check_roles(checked.models, program, metric, node, problems)
        _check_needs(models, metric, node, problems)
    train = _sources(checked.data.train, folder, node, "train")
    test = _sources(checked.data.test, folder, node, "test")
    for source, place in (*train, *test):
        with problems.collect(place):
            _check_exists(source)
    problems.check()
    assert program is not None
    assert metric is not None
    return _Draft(
        file=checked,
        node=node,
        path=path,
        name=checked.name or path.stem,
        program=program,
        program_digest=program_digest,
        metric=metric,
        metric_digest=metric_digest,
        models=models,
        columns=columns,
        train=train,
        test=test,
    )


def _finish(draft: _Draft) -> tuple[Task, tuple[str, ...]]:
    file, node = draft.file, draft.node
    splits = _splits(draft)
    name, settings = schema.settings_of(file.optimizer)
    at = node.at(("optimizer",))
    optimizer = OptimizerSpec(
        name,
        settings,
        node.where(("optimizer", "name")) if "optimizer" in file.model_fields_set else f"{draft.path}:1",
        {key: at.keys.get(key, at.place) for key in settings} if at is not None else {},
    )
    failures = FailureSpec(None if isinstance(file.failures.score, str) else file.failures.score, file.failures.stop_at)
    task = Task(
        name=draft.name,
        description=file.description,
        path=draft.path,
        program=draft.program,
        splits=splits,
        metric=draft.metric,
        models=draft.models,
        optimizer=optimizer,
        budget=BudgetSpec(file.budget.calls, file.budget.tokens, file.budget.usd, file.budget.minutes),
        failures=failures,
        instructions=tuple(file.instructions),
        guards=Guards(**file.guards.model_dump()),
        promote=file.promote,
        seed=file.seed,
        cache=file.cache if file.cache in ("shared", "run") else str((draft.path.parent / file.cache).absolute()),
        digest=_digest(draft, splits),
    )
    notes = () if splits.test is not None else ("There is no test split: the report will be on confirm alone.",)
    return task, notes


# What was written -----------------------------------------------------------------------------------------------------


def _overridden(node: Node, overrides: Mapping[str, Any]) -> Node:
    for path, value in overrides.items():
        place = f"--set {path}" if isinstance(path, str) else "--set"
        keys = _split(str(path), place)
        node = yamlio.put(node, keys, yamlio.from_python(value, place), schema.SHORTHANDS)
    return node


def _with_optimizer(node: Node, name: str, environment: Mapping[str, str]) -> Node:
    own = node.at(("optimizer",))
    named = own.at(("name",)) if own is not None and isinstance(own.value, dict) else own
    if named is not None and isinstance(named.value, str) and yamlio.expand(named, environment) == name:
        return node
    return yamlio.put(node, ("optimizer",), yamlio.from_python({"name": name}, "--optimizer"), schema.SHORTHANDS)


def _without_literal_keys(node: Node, problems: Problems, boundary: _Boundary) -> Node:
    """Secrets are named, never written: a literal one is taken out before anything could show it."""
    models = node.at(("models",))
    if models is None or not isinstance(models.value, dict):
        return node
    for role, model in models.value.items():
        key = model.at(("key",))
        if key is None or key.value is None:
            continue
        name = yamlio.variable(key)
        if name is None:
            problems.add(
                f"models.{role}.key: Expected an environment variable as ${{NAME}}, got something else (not shown). "
                "Put the secret into the environment and write, for example, key: ${OPENAI_API_KEY}.",
                key.place,
            )
        else:
            boundary.hide(name)
        # As text, even when the secret consists of digits.
        safe = Node(key.value if name else "", key.place, quoted=True)
        assert isinstance(model.value, dict)
        changed = Node({**model.value, "key": safe} if name else _less(model.value, "key"), model.place, model.keys)
        models = Node({**models.value, role: changed}, models.place, models.keys)
        node = Node({**node.value, "models": models}, node.place, node.keys)  # type: ignore[dict-item]
        assert isinstance(models.value, dict)
    return node


def _less(values: Mapping[str, Node], key: str) -> dict[str, Node]:
    return {name: value for name, value in values.items() if name != key}


def _expanded(node: Node, environment: Mapping[str, str], problems: Problems) -> dict[str, Any]:
    assert isinstance(node.value, dict)
    data: dict[str, Any] = {}
    for key, child in node.value.items():
        with problems.collect(child.place):
            data[key] = yamlio.expand(child, environment)
    if len(data) < len(node.value):
        # What is missing now would be told as missing keys, too.
        problems.check()
    return data


# Programs -------------------------------------------------------------------------------------------------------------
def _program(file: schema.TaskFile, folder: Path, allow_code: bool) -> tuple[Module, Any]:
    given = file.program
    if isinstance(given, schema.InlineProgram):
        return _inline(given), {"inline": given.model_dump()}
    reference, args = (given, {}) if isinstance(given, str) else (given.code, given.args)
    if not is_reference(reference):
        raise ConfigError(
            f"Expected a program as path.py:Name, or as {{input: …, output: …}}, got {quote(reference)}. "
            "For example: program: {input: word, output: antonym}"
        )
    code = load_code(reference, folder, allow_code)
    program = _made(code, args)
    return program, {"code": code.sha256, "name": code.name, "args": args}


def _inline(given: schema.InlineProgram) -> Module:
    from promptopt.program.predict import Predict
    from promptopt.program.signature import REASONING, TYPES, Field, Signature

    choices = _choices(given)
    inputs = tuple(Field(name, TYPES[kind]) for name, kind in _typed(given.input).items())
    outputs = tuple(
        Field(name, TYPES[kind], choices=choices.get(name, ())) for name, kind in _typed(given.output).items()
    )
    if given.reasoning and not any(field.name == REASONING for field in outputs):
        outputs = (Field(REASONING), *outputs)
    signature = Signature(inputs, outputs)
    names = (", ".join(field.name for field in fields) for fields in (inputs, outputs))
    instruction = given.instruction or Signature.parse(" -> ".join(names)).instruction
    return Predict(Signature.of(signature, instruction), format=given.format, mode=given.mode)


def _typed(fields: str | list[str] | dict[str, Any]) -> dict[str, str]:
    if isinstance(fields, dict):
        return fields
    names = [fields] if isinstance(fields, str) else fields
    if len(set(names)) < len(names):
        raise ConfigError(f"Expected each field once, got {', '.join(names)}. Remove the repeated one.")
    return dict.fromkeys(names, "str")


def _choices(given: schema.InlineProgram) -> dict[str, tuple[str, ...]]:
    outputs = list(_typed(given.output))
    if given.choices is None:
        return {}
    if isinstance(given.choices, list):
        if len(outputs) > 1:
            raise ConfigError(
                f"Expected choices for one of the outputs {', '.join(outputs)}, got a list for all. "
                f"Write choices: {{{outputs[-1]}: […]}}"
            )
        return {outputs[0]: tuple(given.choices)}
    unknown = next((name for name in given.choices if name not in outputs), None)
    if unknown is not None:
        raise ConfigError(f"Choices for an unknown output {quote(unknown)}.{did_you_mean(unknown, outputs)}")
    return {name: tuple(values) for name, values in given.choices.items()}


def _made(code: Code, args: Mapping[str, Any]) -> Module:
    from promptopt.program.foreign import adopter
    from promptopt.program.module import Module
    from promptopt.program.predict import Predict
    from promptopt.program.signature import Signature

    thing = code.thing
    foreign = adopter(thing)
    if foreign is not None:
        if isinstance(thing, type) and args:
            # Not of the class itself: another library's may be made by a metaclass that takes anything.
            made_by: Any = vars(thing).get("__init__", thing)
            _check_args(functools.partial(made_by, None) if made_by is not thing else thing, args, code)
        elif args:
            raise ConfigError(f"{code.name} takes no arguments: it is not a class of a program. Remove 'args'.")
        thing = call_user(lambda: foreign(thing, args, code.sha256), code.file)
        args = {}
    if isinstance(thing, type) and issubclass(thing, Module):
        made = thing
        _check_args(made, args, code)
        program = call_user(lambda: made(**args), code.file)
    elif args:
        raise ConfigError(f"{code.name} takes no arguments: it is not a class of a program. Remove 'args'.")
    elif isinstance(thing, Signature) or (isinstance(thing, type) and issubclass(thing, Signature)):
        program = call_user(lambda: Predict(thing), code.file)
    else:
        program = thing
    if not isinstance(program, Module):
        raise ConfigError(
            f"Expected {code.name} to be a Module or a Signature, got a {type(program).__name__}. "
            f"Write 'class {code.name}(Module)' with a method forward."
        )
    if not call_user(program.parameters, code.file):
        raise ConfigError(
            f"{code.name} has nothing to tune: no Predict is in any of its attributes. Add one in __init__."
        )
    return program


def _check_args(made: Callable[..., Any], args: Mapping[str, Any], code: Code) -> None:
    try:
        signature = inspect.signature(made)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(**args)
    except TypeError as error:
        known = [name for name, p in signature.parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        wrong = next((name for name in args if name not in known), None)
        hint = did_you_mean(wrong, known) or " It takes none." if wrong else f" Takes: {', '.join(known) or 'none'}."
        raise ConfigError(f"The arguments do not fit {code.name}: {error}.{hint}") from None


def _check_inputs(program: Module, columns: Columns) -> None:
    needed, possible = _inputs(program)
    given = list(columns.inputs)
    missing = [name for name in needed if name not in given]
    unknown = [name for name in given if possible is not None and name not in possible]
    if not missing and not unknown:
        return
    example = ", ".join(f"{name}: {column}" for name, column in zip(needed, columns.inputs.values(), strict=False))
    takes = ", ".join(possible if possible is not None else needed)
    near = did_you_mean(unknown[0], possible or ()).partition(" Known:")[0] if unknown else ""
    raise ConfigError(
        f"The program takes {takes}; data.input gives {', '.join(given)}.{near} Name the column of each: "
        f"input: {{{example or takes}}}"
    )


def _inputs(program: Module) -> tuple[list[str], list[str] | None]:
    """Input fields a program needs, and all that it can take (None: any)."""
    signature = getattr(program, "signature", None)
    if signature is not None:
        names = [field.name for field in signature.inputs]
        return names, names
    parameters = list(inspect.signature(program.forward).parameters.values())
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in parameters if p.name in names and p.default is p.empty]
    return needed, None if any(p.kind is p.VAR_KEYWORD for p in parameters) else names


# Metric ---------------------------------------------------------------------------------------------------------------


def _metric(file: schema.TaskFile, node: Node, folder: Path, allow_code: bool) -> tuple[Metric, Any]:
    name, settings = schema.settings_of(file.metric)
    at = node.at(("metric",))
    place = node.where(("metric", "name"))
    places = {key: at.keys.get(key, at.place) for key in settings} if at is not None else {}
    digest: dict[str, Any] = {"name": name}
    if is_reference(name):
        code = load_code(name, folder, allow_code)
        digest = {"code": code.sha256, "name": code.name, "settings": settings}
        thing: Any = code.thing
        if isinstance(thing, type):
            metric: Any = call_user(lambda: check_settings(thing, settings, place, places), code.file)
        elif settings:
            raise ConfigError(
                f"{code.name} takes no settings: it is not a dataclass. Remove {', '.join(settings)}.", place
            )
        else:
            metric = thing
        _check_metric(metric, code.name)
        return metric, digest
    if name not in METRICS:
        raise UnknownNameError("metric", name, METRICS, place)
    cls = METRICS.load(name)
    settings = _with_rubric(settings, folder, places)
    if isinstance(settings.get("metric"), Mapping):  # of a metric around another
        inner = _with_rubric(settings["metric"], folder, {"rubric": places.get("metric", place)})
        settings = {**settings, "metric": inner}
    metric = check_settings(cls, settings, place, places)
    if is_dataclass(metric) and not isinstance(metric, type):
        digest["settings"] = asdict(metric)
    return metric, digest


def _check_metric(metric: object, name: str) -> None:
    if not callable(metric):
        raise ConfigError(
            f"Expected {name} to be a function (example, prediction) -> score, got a {type(metric).__name__}."
        )
    try:
        inspect.signature(metric).bind(None, None)
    except TypeError as error:
        raise ConfigError(f"Expected {name} to take (example, prediction), but: {error}.") from None
    except ValueError:
        pass  # written in C: nobody knows what it takes


def _with_rubric(settings: Mapping[str, Any], folder: Path, places: Mapping[str, str]) -> Mapping[str, Any]:
    """``rubric: rubric.txt`` is the text in that file; any other text is the rubric itself."""
    rubric = settings.get("rubric")
    if not isinstance(rubric, str) or "\n" in rubric or not rubric.endswith((".txt", ".md")) or " " in rubric.strip():
        return settings
    place = places.get("rubric")
    try:
        if not (folder / rubric).is_file():
            raise ConfigError(
                f"Expected a rubric in {str(folder / rubric)!r}, got nothing there. "
                "Paths are relative to the task file.",
                place,
            )
        return {**settings, "rubric": (folder / rubric).read_text(encoding="utf-8-sig")}
    except (OSError, ValueError) as error:
        raise ConfigError(f"Expected a rubric that can be read in {rubric!r}, got: {error}.", place) from None


# Models ---------------------------------------------------------------------------------------------------------------


def _model(entry: str | schema.ModelFile, folder: Path, node: Node, role: str) -> ModelSpec:
    given = schema.ModelFile(id=entry) if isinstance(entry, str) else entry
    if given.key == "":
        raise ConfigError("The environment variable of 'key' is empty. Set it.", node.where(("models", role, "key")))
    place = node.where(("models", role, "id"))
    made = ModelSpec(
        id=given.id,
        base_url=given.base_url,
        key=given.key,
        generate=Generate(
            given.generate.temperature, given.generate.max_tokens, tuple(given.generate.stop), given.generate.extra
        ),
        concurrency=given.concurrency,
        rpm=given.rpm,
        tpm=given.tpm,
        price=Price(given.price.input, given.price.output, given.price.cached),
        timeout=given.timeout,
        retries=given.retries,
        device=given.device,
        dtype=given.dtype,
    )
    if made.provider not in BACKENDS:
        raise UnknownNameError("model provider", made.provider, BACKENDS, place)
    if _PATH_OF_A_MODEL.fullmatch(made.name) and _is_there(folder / made.name):
        return ModelSpec(**{**_fields(made), "id": f"{made.provider}/{(folder / made.name).absolute()}"})
    return made


def _fields(spec: ModelSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in ModelSpec.__dataclass_fields__}


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _check_roles(
    models: Mapping[str, Any], program: Module | None, metric: object, node: Node, problems: Problems
) -> None:
    known = {*ROLES, *(_roles(program) if program is not None else ()), *getattr(metric, "needs", ())}
    unknown = [role for role in models if role not in known]
    for role in unknown:
        problems.add(f"Unknown role {quote(role)}.{did_you_mean(role, known)}", node.where(("models", role)))
    if "task" not in models and not unknown:
        problems.add(
            "The model of the program is missing. Add it: models: {task: provider/name}", node.where(("models",))
        )


def _check_needs(models: Mapping[str, ModelSpec], metric: object, node: Node, problems: Problems) -> None:
    """Whether the metric has the models that nothing else can stand in for, and only models that write are to write."""
    for role in getattr(metric, "needs", ()):
        if role not in models:
            like = "reward/<org/name of the hub, or folder>" if role == "reward" else "provider/name"
            problems.add(
                f"The metric asks the model of the role {role}, which is missing. Add it: models: {{{role}: {like}}}",
                node.where(("models",)),
            )
    for role, model in models.items():
        if model.provider == "reward" and role in _WRITING:
            problems.add(
                f"Expected a model that writes as models.{role}, got {quote(model.id)}, which only judges. "
                "Name it as models.reward.",
                node.where(("models", role)),
            )


def _roles(program: Module) -> Iterable[str]:
    return {str(getattr(predictor, "role", "task")) for predictor in program.predictors().values()}


# Data -----------------------------------------------------------------------------------------------------------------


def _columns(data: schema.DataFile, node: Node) -> Columns:
    if data.target and data.targets:
        raise ConfigError("Expected target or targets, got both. Keep one of them.", node.where(("data", "targets")))
    given = data.input
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list):
        if len(set(given)) < len(given):
            raise ConfigError("Expected each input column once, got one twice.", node.where(("data", "input")))
        given = {name: name for name in given}
    return Columns(given, data.target, data.targets)


def _sources(given: Any, folder: Path, node: Node, name: str) -> list[tuple[Path | Hub, str]]:
    """Each source with the place where it is named."""
    if given is None:
        return []
    if not isinstance(given, list):
        return [(_source(given, folder), node.where(("data", name)))]
    return [(_source(item, folder), node.where(("data", name, index))) for index, item in enumerate(given)]


def _source(given: str | schema.HubSource, folder: Path) -> Path | Hub:
    if isinstance(given, schema.HubSource):
        return Hub(given.hub, given.config, given.split)
    return folder / given


def _check_exists(source: Path | Hub) -> None:
    if isinstance(source, Path) and not _is_file(source):
        near = ""
        try:
            near = did_you_mean(source.name, (entry.name for entry in source.parent.iterdir())).partition(" Known:")[0]
        except (OSError, ValueError):
            pass  # the folder is missing, too
        raise ConfigError(
            f"Expected a data file at {str(source)!r}, got nothing there.{near} Paths are relative to the task file."
        )


def _splits(draft: _Draft) -> Splits:
    given, node = draft.file.splits, draft.node
    limit = draft.file.data.limit
    train = _read(draft, draft.train, limit)
    test = _read(draft, draft.test, limit)
    place = node.where(("splits",)) if "splits" in draft.file.model_fields_set else node.where(("data",))
    if given.stratify and draft.columns.answer is None:
        raise ConfigError(
            "Stratifying needs targets. Name their column in data.target.", node.where(("splits", "stratify"))
        )
    train, test = without_duplicates(train, test, given.duplicates)
    sizes = Sizes(given.demos, given.search, given.confirm, given.test)
    try:
        return make_splits(train, test if draft.test else None, sizes, draft.file.seed, given.stratify)
    except ConfigError as error:
        raise placed(error, place) from None


def _read(draft: _Draft, sources: Sequence[tuple[Path | Hub, str]], limit: int | None) -> list[Read]:
    read: list[Read] = []
    for source, place in sources:
        left = None if limit is None else limit - len(read)
        if left == 0:
            break
        try:
            rows = read_rows(source, limit=left)
            _check_columns(rows, source, draft)
            read.extend(examples(rows, draft.columns))
        except ConfigError as error:
            raise placed(error, place) from None
    return read


def _check_columns(rows: Sequence[Row], source: Path | Hub, draft: _Draft) -> None:
    """Before a row is looked at; all wrong columns at once, each where it is written."""
    problems = Problems()
    data, node = draft.file.data, draft.node
    asked = [(column, ("data", "input", field)) for field, column in draft.columns.inputs.items()]
    answers = (("target", data.target), ("targets", data.targets))
    asked.extend((column, ("data", key, "")) for key, column in answers if column is not None)
    for column, keys in asked:
        with problems.collect(node.where(keys)):
            check_columns(rows, [column], str(source))
    problems.check()


# Digest ---------------------------------------------------------------------------------------------------------------


def _digest(draft: _Draft, splits: Splits) -> str:
    file = draft.file
    content = hashlib.sha256()
    for split in splits.all:
        content.update(split.name.encode() + b"\n")
        for example in split.examples:
            content.update(jsonio.canonical([example.id, example.inputs, example.target, dict(example.row)]) + b"\n")
    models = {}
    for role, entry in file.models.items():
        model = schema.ModelFile(id=entry) if isinstance(entry, str) else entry
        models[role] = {"id": model.id, "base_url": model.base_url, "generate": model.generate.model_dump()}
        if model.dtype is not None:  # what it answers depends on it; on the device only by rounding
            models[role]["dtype"] = model.dtype
    # Without the optimizer: runs of several optimizers on one task are compared by this digest.
    return jsonio.digest(
        {
            "description": file.description,
            "data": content.hexdigest(),
            "program": draft.program_digest,
            "metric": draft.metric_digest,
            "models": models,
            "instructions": file.instructions,
            "failures": file.failures.model_dump(),
        }
    )
