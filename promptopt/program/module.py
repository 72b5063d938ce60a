"""Programs: trees of modules with predictors as leaves, written as plain synchronous Python.

    class Solve(Module):
        def __init__(self) -> None:
            self.draft = Predict("question -> draft")
            self.check = Predict("question, draft -> answer")

        def forward(self, question: str) -> Prediction:
            return self.check(question=question, draft=self.draft(question=question).draft)

A module's predictors are found where they are: in attributes, and in lists, tuples and dicts of them, at any depth.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from promptopt import jsonio
from promptopt.errors import ConfigError, did_you_mean
from promptopt.lm.base import failed
from promptopt.program import trace
from promptopt.program.params import Candidate, Exemplars, Instruction, Origin, Parameter
from promptopt.records import Prediction

if TYPE_CHECKING:
    from promptopt.lm.spec import ModelSpec
    from promptopt.program.predict import Predict


class Module:
    """A program, or a part of one. Subclasses define ``forward``; an ``__init__`` need not call this one's."""

    _threads: ClassVar[int] = 0
    """How many threads run the program, for one that may block or hold locks; 0: none, as ours need none."""

    _library: ClassVar[str] = ""
    """The library whose program it is; ours: none."""

    def _own_models(self) -> Mapping[str, tuple[ModelSpec, Any]]:
        """Open models that the program brings along, by role; a task's own come first."""
        return {}

    def _own_metric(self, metric: Any) -> Any:
        """A user's metric function as the program's library calls its metrics."""
        return metric

    def forward(self, *args: Any, **inputs: Any) -> Any:  # so that subclasses may name their own inputs
        """The program itself: call predictors, return a ``Prediction``, a mapping, or the value of a single output."""
        raise NotImplementedError(f"{type(self).__name__} needs a method forward(self, …) that returns a Prediction.")

    def __call__(self, /, **inputs: Any) -> Prediction:
        """Run the program on one example.

        Raises:
            CallError: a model call failed or its reply cannot be used.
        """
        recorder = trace.recorder()
        if recorder is None or recorder.paths is not None:
            return self._prediction(self.forward(**inputs))
        recorder.paths = {predictor: path for path, predictor in self.predictors().items()}
        try:
            return self._prediction(self.forward(**inputs))
        finally:
            recorder.paths = None

    def predictors(self) -> dict[str, Predict]:
        """The predictors by path (``draft``, ``steps.0``, ``tools.search``), in the order they were defined.

        One that is used in two places is one predictor, at the first of them.

        Raises:
            ConfigError: the program contains itself, or two predictors would have one path.
        """
        found: dict[str, Predict] = {}
        for path, leaf in _leaves(self, "", [], set()):
            if path in found:
                raise ConfigError(f"Two predictors have the path {path!r}. Rename a key or an attribute.")
            found[path] = leaf
        return found

    def parameters(self) -> tuple[Parameter, ...]:
        """What can be tuned: an instruction and exemplars for each predictor."""
        out: list[Parameter] = []
        for path, predictor in self.predictors().items():
            out.append(Instruction(_parameter(path, "instruction"), predictor.instruction, path))
            out.append(Exemplars(_parameter(path, "exemplars"), predictor.exemplars, path))
        return tuple(out)

    def default(self) -> Candidate:
        """The program as it stands, as a candidate."""
        return Candidate({parameter.path: parameter.default for parameter in self.parameters()}, (), Origin("default"))

    def bind(self, candidate: Candidate) -> Self:
        """A new program with the candidate's values; this one stays as it is, and what they share is not copied.

        Raises:
            ConfigError: the candidate is of another program, or a value does not fit its predictor.
        """
        predictors = self.predictors()
        known = [_parameter(path, name) for path in predictors for name in ("instruction", "exemplars")]
        for path in candidate:
            if path not in known:
                raise ConfigError(f"This program has no parameter {path!r}.{did_you_mean(path, known)}")
        for path in known:
            if path not in candidate.values:
                raise ConfigError(f"The candidate has no value for {path!r}. It has: {', '.join(candidate) or 'none'}.")
        bound = {
            predictor: predictor.with_values(
                candidate.text(_parameter(path, "instruction")),
                candidate.exemplars(_parameter(path, "exemplars")),
                path,
            )
            for path, predictor in predictors.items()
        }
        made: Self = _rebuilt(self, bound, {})
        return made

    def digest(self) -> str:
        """What the program is, whatever its instructions and exemplars.

        Its class, its predictors' settings, and each attribute with a text ``digest`` of its own: a corpus, an index.
        """
        made: dict[str, Any] = {"class": type(self).__qualname__}
        made["predictors"] = {path: predictor.identity() for path, predictor in self.predictors().items()}
        parts = dict(_digested(self, ""))
        if parts:
            made["parts"] = parts
        return jsonio.digest(made)

    def to_json(self, candidate: Candidate) -> dict[str, Any]:
        """The program with a candidate's values, as ``save`` writes it."""
        return saved_form(type(self).__name__, candidate, self.bind(candidate).predictors())

    def _as_predictor(self) -> Predict | None:
        """This module when it is a leaf."""
        return None

    def _prediction(self, made: Any) -> Prediction:
        if isinstance(made, Prediction):
            return made
        if isinstance(made, Mapping):
            return Prediction(dict(made))
        if made is None:
            raise failed(
                "program", f"{type(self).__name__}.forward returned nothing. Return a Prediction or a mapping."
            )
        # A bare value is the answer: it is called what the program's last predictor calls its own.
        last = list(self.predictors().values())[-1:]
        return Prediction({last[0].signature.outputs[-1].name if last else "answer": made})


def saved_form(program: str, candidate: Candidate, bound: Mapping[str, Predict]) -> dict[str, Any]:
    """What a saved program is on disk: its class's name, the candidate, and each predictor with its values."""
    return {
        "kind": "program",
        "version": 1,
        "program": program,
        "candidate": {
            "id": candidate.id,
            "parents": list(candidate.parents),
            "origin": candidate.origin.to_json(),
        },
        "predictors": {
            path: {
                "signature": predictor.signature.to_json(),
                "instruction": predictor.instruction,
                "exemplars": [exemplar.to_json() for exemplar in predictor.exemplars],
                **predictor.settings(),
            }
            for path, predictor in bound.items()
        },
    }


def _parameter(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _parts(thing: object) -> Iterator[tuple[Any, Any]]:
    """(key, part) of a module or a container, where a predictor may be inside the part."""
    if isinstance(thing, Module):
        held = {k: v for cls in reversed(type(thing).__mro__) for k, v in vars(cls).items() if not k.startswith("__")}
        held.update(vars(thing))
        pairs: Iterator[tuple[Any, Any]] = iter(held.items())
    elif isinstance(thing, dict):
        pairs = iter(thing.items())
    else:
        assert isinstance(thing, (list, tuple))
        pairs = enumerate(thing)
    return ((key, part) for key, part in pairs if isinstance(part, (Module, list, tuple, dict)))


def _digested(module: Module, prefix: str) -> Iterator[tuple[str, str]]:
    for name, value in vars(module).items():
        if isinstance(value, Module):
            yield from _digested(value, f"{prefix}{name}.")
        elif isinstance(digest := getattr(value, "digest", None), str):
            yield f"{prefix}{name}", digest


def _leaves(thing: object, path: str, above: list[int], seen: set[int]) -> Iterator[tuple[str, Predict]]:
    if id(thing) in above:
        raise ConfigError(f"The program contains itself at {path!r}. A program must be a tree; remove the reference.")
    if id(thing) in seen:
        return
    seen.add(id(thing))
    leaf = thing._as_predictor() if isinstance(thing, Module) else None
    if leaf is not None:
        yield path, leaf
        return
    above.append(id(thing))
    for key, part in _parts(thing):
        yield from _leaves(part, f"{path}.{key}" if path else str(key), above, seen)
    above.pop()


def _rebuilt(thing: Any, bound: Mapping[Any, Predict], done: dict[int, Any]) -> Any:
    """The same tree with other leaves: copies along the way to them, everything else shared."""
    if id(thing) in done:
        return done[id(thing)]
    made = thing
    leaf = thing._as_predictor() if isinstance(thing, Module) else None
    if leaf is not None:
        made = bound[leaf]
    else:
        parts = {key: (part, _rebuilt(part, bound, done)) for key, part in _parts(thing)}
        changed = {key: new for key, (old, new) in parts.items() if new is not old}
        if changed:
            made = _with_parts(thing, changed)
    done[id(thing)] = made
    return made


def _with_parts(thing: Any, changed: Mapping[Any, Any]) -> Any:
    if isinstance(thing, tuple):
        items = [changed.get(i, item) for i, item in enumerate(thing)]
        return thing._make(items) if hasattr(thing, "_make") else tuple(items)
    made = copy.copy(thing)
    if isinstance(thing, Module):
        made.__dict__.update(changed)  # not by setattr: a frozen dataclass is a module too
    else:
        for key, part in changed.items():
            made[key] = part
    return made
