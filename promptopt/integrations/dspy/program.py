"""A DSPy program as a program of ours: what is optimized is its predictors' instructions and demos, and nothing else.

Nested modules, tools, adapters, typed signatures and several LMs stay as they are; the program that was given is never
changed. It runs on threads, as it would in DSPy, since its tools and retrievers may block.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import dspy

from promptopt import jsonio
from promptopt.errors import ConfigError
from promptopt.integrations.dspy.bars import safe_bars
from promptopt.integrations.dspy.graph import copied, described, lms, public
from promptopt.integrations.dspy.metric import DSPyMetric
from promptopt.integrations.dspy.models import DSPyModel, PromptoptEngine
from promptopt.integrations.dspy.routed import RoutedLM, arun_cell, roles_of, run_cell
from promptopt.integrations.dspy.values import LABELLED, demo_of, exemplar_of, plain, signature_of
from promptopt.lm.loop import wait
from promptopt.lm.spec import Generate, ModelSpec, Price
from promptopt.program import trace
from promptopt.program.module import Module, saved_form
from promptopt.program.params import Candidate, Exemplar
from promptopt.program.predict import Predict
from promptopt.records import Prediction, Usage

_MAX_TOKENS = 1000
_NOT_OURS = {"lm", "trace", "usage_tracker", "caller_modules", "caller_predict", "send_stream", "stream_listeners"}


class DSPyPrediction(Prediction):
    """What a DSPy program answered, with the ``dspy.Prediction`` itself for metrics that want it."""

    __slots__ = ("native",)

    def __init__(self, native: Any) -> None:
        object.__setattr__(self, "native", native)
        outputs = plain(native) if isinstance(native, dspy.Example) else {"answer": plain(native)}
        object.__setattr__(self, "outputs", outputs)


class DSPyProgram(Module):
    """Wraps a ``dspy.Module``.

    Args:
        student: the program; it is copied.
        lm: its default LM, where predictors have none of their own; None: the model of the role ``task``.
        threads: how many threads run it; 0: none. Without threads it is faster, and must neither block nor hold locks
            while it calls a model.
        settings: DSPy settings that are active while it runs, such as ``adapter`` and ``rm``; default: those that are
            active now.
        native: inputs in JSON → the inputs themselves, where they are more than JSON.
        source: of the program's code, where that is known; part of what it is.
        labels: targets by the ids of examples: exemplars that say no more than these are labelled, not augmented.
        price: of the LMs that predictors have of their own, where DSPy does not know it.

    Raises:
        ConfigError: it is no DSPy program, or has nothing to optimize.
    """

    _library = "dspy"

    def __init__(
        self,
        student: Any,
        *,
        lm: Any = None,
        threads: int = 32,
        settings: Mapping[str, Any] | None = None,
        native: Mapping[str, Mapping[str, Any]] | None = None,
        source: str = "",
        labels: Mapping[str, Any] | None = None,
        price: Price | None = None,
    ) -> None:
        if not isinstance(student, dspy.Module):
            raise ConfigError(f"Expected a dspy.Module, got a {type(student).__name__}.")
        active = dict(dspy.settings.config) if settings is None else dict(settings)
        self._settings = {name: value for name, value in active.items() if name not in _NOT_OURS}
        self._native = dict(native or {})
        self._threads = threads  # type: ignore[misc]
        if threads:
            safe_bars()
        self._source = source
        self._labels = dict(labels or {})
        self._price = price or Price()
        self._models: dict[str, tuple[ModelSpec, Any]] | None = None  # made when they are asked for, and once
        self._names = {("" if name == "self" else name): name for name, _ in student.named_predictors()}
        if not self._names:
            raise ConfigError(
                f"{type(student).__name__} has nothing to tune: DSPy finds no predictor in it (a module that was "
                "compiled before is frozen; set its _compiled to False to optimize it again)."
            )
        self.student = copied(student)
        self._default = lm
        self._found = lms(self.student)
        self._roles = {id(lm): "task"} if lm is not None else {}
        others = [found for found in self._found if id(found) not in self._roles]
        self._roles.update(zip(map(id, others), roles_of(others), strict=True))
        self._others = dict(zip(roles_of(others), others, strict=True))
        routed = {key: RoutedLM(role, self._lm_of(key)) for key, role in self._roles.items()}
        self._main = routed[id(lm)] if lm is not None else RoutedLM("task")
        self._template = copied(student, lambda lm: routed[id(lm)])
        self._signatures = {
            path: signature_of(predictor.signature, name)
            for (path, name), (_, predictor) in zip(self._names.items(), student.named_predictors(), strict=True)
        }
        self._demos: dict[str, dict[Exemplar, Any]] = {}
        self._predictors = {path: self._predictor(path, p) for path, (_, p) in self._by_path(self.student)}

    def forward(self, **inputs: Any) -> Prediction:
        """Run it as it was given, through the active session."""
        return self._run(self._template, inputs)

    def predictors(self) -> dict[str, Predict]:
        """Its predictors as ours, by DSPy's names; the one of a program that is a single predictor is ``""``."""
        return dict(self._predictors)

    def bind(self, candidate: Candidate) -> BoundProgram:  # type: ignore[override]
        """A copy with the candidate's instructions and demos."""
        self._check(candidate)
        return BoundProgram(self, candidate)

    def compiled(self, candidate: Candidate) -> Any:
        """A copy of the DSPy program as it was given, its own LMs in it, with the candidate's values."""
        return self._with_values(copied(self.student), candidate)

    def candidate_of(self, compiled: Any) -> Candidate:
        """The instructions and demos of a program of the same shape (one that DSPy compiled) as a candidate.

        Raises:
            ConfigError: it has other predictors.
        """
        found = {("" if name == "self" else name): p for name, p in compiled.named_predictors()}
        if set(found) != set(self._names):
            raise ConfigError(
                f"Expected the predictors {', '.join(self._names.values())}, got {', '.join(found) or 'none'}."
            )
        values: dict[str, Any] = {}
        for path, predictor in found.items():
            made = self._predictor(path, predictor)
            values[_key(path, "instruction")], values[_key(path, "exemplars")] = made.instruction, made.exemplars
        return Candidate(values)

    def digest(self) -> str:
        """Its code as far as that can be read, with all its settings, types, adapter and LMs; not what is tuned."""
        return jsonio.digest(
            {
                "source": self._source,
                "program": described(self.student),
                "default": None if self._default is None else described(self._default),
                "adapter": described(self._settings.get("adapter")),
            }
        )

    def to_json(self, candidate: Candidate) -> dict[str, Any]:
        """DSPy's own state of the program, which its ``load`` reads, with ours under ``promptopt``."""
        from dspy.utils.saving import get_dependency_versions

        made = self.compiled(candidate)
        bare = isinstance(made, dspy.Predict)  # which DSPy saves without a name
        state: dict[str, Any] = _state(made) if bare else {n: _state(p) for n, p in made.named_parameters()}
        state["metadata"] = {"dependency_versions": get_dependency_versions()}
        bound = {
            path: predictor.with_values(
                candidate.text(_key(path, "instruction")), candidate.exemplars(_key(path, "exemplars")), path
            )
            for path, predictor in self._predictors.items()
        }
        ours = saved_form(type(self.student).__name__, candidate, bound)
        return {**state, "promptopt": ours}

    def _own_models(self) -> Mapping[str, tuple[ModelSpec, Any]]:
        """The LMs that its predictors have of their own, and its default one where it was given."""
        if self._models is None:
            found = dict(self._others) if self._default is None else {**self._others, "task": self._default}
            width = self._threads or 32
            self._models = {role: model_of(lm, width, self._settings, self._price) for role, lm in found.items()}
        return self._models

    def _own_metric(self, metric: Any) -> Any:
        return metric if isinstance(metric, DSPyMetric) else DSPyMetric(metric, settings=self._metric_settings())

    def _metric_settings(self, judge: Any = None) -> dict[str, Any]:
        return {**self._settings, "lm": RoutedLM("judge", self._default if judge is None else judge)}

    def _lm_of(self, key: int) -> Any:
        return next((lm for lm in [self._default, *self._found] if id(lm) == key), None)

    def _by_path(self, program: Any) -> list[tuple[str, tuple[str, Any]]]:
        return [("" if name == "self" else name, (name, p)) for name, p in program.named_predictors()]

    def _predictor(self, path: str, predictor: Any) -> Predict:
        signature = self._signatures[path]
        known = self._demos.setdefault(path, {})
        exemplars = []
        for number, demo in enumerate(predictor.demos):
            made = exemplar_of(demo, signature, f"{LABELLED} {number}")
            if made is not None:
                exemplars.append(made)
                known.setdefault(made, demo)
        text = predictor.signature.instructions
        role = "task" if predictor.lm is None else self._roles.get(id(predictor.lm), "task")
        made_one = Predict(signature, instruction=text, exemplars=exemplars, role=role)
        return made_one.with_values(text, tuple(exemplars), path)

    def _check(self, candidate: Candidate) -> None:
        known = {_key(path, name) for path in self._predictors for name in ("instruction", "exemplars")}
        if set(candidate) != known:
            raise ConfigError(
                f"Expected a candidate with {', '.join(sorted(known))}, got {', '.join(candidate) or 'nothing'}."
            )

    def _with_values(self, program: Any, candidate: Candidate) -> Any:
        for path, (_, predictor) in self._by_path(program):
            text = candidate.text(_key(path, "instruction"))
            if text != predictor.signature.instructions:  # a new class: setting it on this one would change all copies
                predictor.signature = predictor.signature.with_instructions(text)
            exemplars = candidate.exemplars(_key(path, "exemplars"))
            if exemplars != self._predictors[path].exemplars:
                known = self._demos[path]
                predictor.demos = [
                    known[one] if one in known else demo_of(one, augmented=not self._labelled(path, one))
                    for one in exemplars
                ]
        return program

    def _labelled(self, path: str, exemplar: Exemplar) -> bool:
        labels = self._labels.get(exemplar.source)
        if isinstance(labels, Mapping):
            return all(name in labels and labels[name] == value for name, value in exemplar.outputs.items())
        # One that came out of a run of the program has every output; a label seldom knows the reasoning.
        return set(exemplar.outputs) != {field.name for field in self._signatures[path].outputs}

    def _run(self, program: Any, inputs: Mapping[str, Any]) -> Prediction:
        given = self._native.get(jsonio.digest(plain(inputs)), inputs) if self._native else inputs
        recorder = trace.recorder()
        seen: list[Any] = []  # also where nobody looks: modules of DSPy's own write to it
        settings = {**self._settings, "lm": self._main, "trace": seen, "disable_history": True}
        if asynchronous(program):
            # On a thread of its own it has a loop of its own, which it may block.
            cell = functools.partial(arun_cell, lambda: program.acall(**given), settings)
            native = asyncio.run(cell()) if self._threads else wait(_in_context(cell))
        else:
            native = run_cell(lambda: program(**given), settings)
        if recorder is not None:
            paths = {id(predictor): path for path, (_, predictor) in self._by_path(program)}
            recorder.steps.extend(_step(entry, paths) for entry in seen if id(entry[0]) in paths)
        return cast(Prediction, DSPyPrediction(native))


class BoundProgram:
    """A DSPy program with a candidate's values, ready to be run by the evaluator."""

    def __init__(self, owner: DSPyProgram, candidate: Candidate) -> None:
        self._owner = owner
        self._program = owner._with_values(copied(owner._template), candidate)

    def __call__(self, /, **inputs: Any) -> Prediction:
        """Run it on one example."""
        return self._owner._run(self._program, inputs)

    def predictors(self) -> dict[str, Predict]:
        """As the program's."""
        return self._owner.predictors()

    def to_json(self, candidate: Candidate) -> dict[str, Any]:
        """As the program's."""
        return self._owner.to_json(candidate)


def adopt(thing: Any, args: Mapping[str, Any], source: str = "") -> DSPyProgram | None:
    """A program of ours from what a task file names: a ``dspy.Module``, its class, or a ``dspy.Signature``.

    Raises:
        ConfigError: it has nothing to optimize.
    """
    if isinstance(thing, type) and issubclass(thing, dspy.Signature):
        thing = dspy.Predict(thing)
    elif isinstance(thing, type) and issubclass(thing, dspy.Module):
        thing = thing(**args)
    return DSPyProgram(thing, source=source) if isinstance(thing, dspy.Module) else None


def model_of(
    lm: Any, concurrency: int = 32, settings: Mapping[str, Any] | None = None, price: Price | None = None
) -> tuple[ModelSpec, Any]:
    """A ``dspy.LM`` as a model of ours; one that is answered by a model of ours is that model itself.

    Returns:
        How it is called, and the open model.
    """
    engine = getattr(lm, "engine", None)
    if isinstance(engine, PromptoptEngine):
        if engine.budget is not None:
            raise ConfigError(
                "An LM with a budget of its own cannot be optimized with: the run has the budget. Make the LM without "
                "one, and give the optimizer its budget."
            )
        return engine.spec, engine.backend
    name = str(lm.model)
    # Where promptopt itself asks it (as proposer, say), it asks with the LM's own settings.
    most = lm.kwargs.get("max_tokens") or lm.kwargs.get("max_completion_tokens") or _MAX_TOKENS
    generate = Generate(temperature=float(lm.kwargs.get("temperature") or 0.0), max_tokens=int(most))
    identity = name if "/" in name.strip("/") else f"dspy/{name}"
    spec = ModelSpec(identity, generate=generate, retries=lm.num_retries, price=price or Price())
    return spec, DSPyModel(lm, concurrency, settings)


def asynchronous(program: Any) -> bool:
    """Whether a program can only be awaited: it defines ``aforward`` and no ``forward``."""
    # Of the class: DSPy warns whoever reads ``forward`` of a program.
    return hasattr(type(program), "aforward") and not hasattr(type(program), "forward")


def _key(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _state(parameter: Any) -> Any:
    """A predictor's state without what may be a secret of its LM's: DSPy leaves out ``api_key`` alone."""
    try:
        state = parameter.dump_state()
    except TypeError:  # an LM that cannot be saved: a run must not be lost for it, and DSPy loads a state without one
        state = copied(parameter, lambda _: None).dump_state()
    return {**state, "lm": public(state["lm"])} if isinstance(state.get("lm"), dict) else state


def _step(entry: Any, paths: Mapping[int, str]) -> trace.Step:
    predictor, inputs, prediction = entry
    fields = predictor.signature
    given = {name: plain(value) for name, value in inputs.items() if name in fields.input_fields}
    outputs = {name: plain(value) for name, value in prediction.items() if name in fields.output_fields}
    return trace.Step(paths[id(predictor)], given, outputs, None, None, Usage(), 0)


def _in_context(function: Callable[[], Any]) -> Any:
    """A coroutine that runs another one in the caller's context, on whichever loop awaits it."""
    context = contextvars.copy_context()

    async def awaited() -> Any:
        return await asyncio.get_running_loop().create_task(function(), context=context)

    return awaited()
