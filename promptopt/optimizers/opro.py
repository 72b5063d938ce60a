"""OPRO: a model reads earlier instructions with their scores, in ascending order, and writes better ones.

Yang et al. 2023, "Large Language Models as Optimizers"; defaults and details from the authors' code. ``fidelity``:

``reference``  as the code does it: replies without delimiters are kept whole; md5 over the raw text, initial texts not
               among the seen; pairs under ``threshold`` are not shown; examples shown are drawn from the scored ones;
               one plain request.
``fixed``      (default) replies without delimiters are dropped; texts are compared normalised, in UTF-8, initial ones
               included; no threshold; examples shown come from the demos split, which is never scored on; the request
               comes with worked turns, which small proposers need.

In both, the engine confirms the winner on a split of its own, and refuses what the run's ``guards`` refuse of any
optimizer; the code has no such guards, so a comparison with it switches them off in the task file. The instruction
stands at the head of our prompts (the paper's "before the question"). A program with several instructions is worked on
one at a time: in turn in ``reference`` (Module-Level OPRO, Opsahl-Ong et al. 2024), else where another proposal can be
expected to gain most (``surrogate/headroom.py``); or on all of them at once (Program-Level OPRO, same authors).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial, adjusted_mean, paired
from promptopt.evaluate.fidelity import Setting, fidelity
from promptopt.lm.base import Request
from promptopt.program.params import Candidate, Origin
from promptopt.propose.filters import Sieve
from promptopt.propose.induce import shown
from promptopt.propose.templating import messages
from promptopt.records import Example, Failure
from promptopt.search.optimizer import Ask, Context, Search
from promptopt.search.scheduled import scheduled
from promptopt.surrogate.headroom import Headroom

Criterion = Literal["random", "accumulative_most_frequent", "current_most_frequent", "constant"]
_PLACE = "<INS>"
_LINE = re.compile(r"^\s*\[([^\]\n]*)\]\s*(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Opro:
    """Shows a model the best instructions so far with their scores and asks for better ones.

    Args:
        steps: rounds of proposing (paper: 200).
        per_step: proposals a round, a call each.
        shown: most instructions shown, the best of all so far.
        exemplars: task examples shown; drawn again each step by the step's own seed.
        criterion: which examples: ``random``; the ones most often answered wrongly so far (``accumulative…``) or by the
            instructions shown (``current…``); or the same ones always (``constant``). The middle two need the scored
            examples and therefore show those.
        temperature: of the proposer in the first step.
        final_temperature: of the last step, linear in between; None: no change.
        max_tokens: of a proposal.
        buckets: scores are shown as round(score × buckets).
        threshold: lowest score shown (``reference`` only).
        instructions_first: whether instructions stand before examples in the request.
        meta: ``chat``, or ``continue`` for a pretrained model: no examples, the whole history, an open end.
        no_digits: drop proposals with a digit in them (the code does, for GSM8K).
        max_length: longest proposal, in characters.
        examples: search examples each candidate is scored on; None: all.
        evaluation: how many of them a candidate gets: ``full``, ``minibatch``, ``halving``, ``race``, or a mapping with
            ``name`` and settings (``evaluate/fidelity.py``). None: ``race``; the paper's ``full`` with ``reference`` or
            ``examples``.
        modules: which of several instructions a step works on: ``headroom``, where most can be expected (``reference``:
            in turn), ``in_turn``, or ``all``: a proposal may change every one of them.
        fidelity: ``fixed`` or ``reference``.
    """

    steps: int = 10
    per_step: int = 8
    shown: int = 20
    exemplars: int = 3
    criterion: Criterion = "random"
    temperature: float = 1.0
    final_temperature: float | None = None
    max_tokens: int = 512
    buckets: int = 100
    threshold: float = 0.0
    instructions_first: bool = True
    meta: Literal["chat", "continue"] = "chat"
    no_digits: bool = False
    max_length: int = 500
    examples: int | None = None
    evaluation: Setting | None = None
    modules: Literal["headroom", "in_turn", "all"] = "headroom"
    fidelity: Literal["fixed", "reference"] = "fixed"

    def __post_init__(self) -> None:
        least = {"steps": 1, "per_step": 1, "shown": 1, "exemplars": 0, "buckets": 1, "max_tokens": 1, "max_length": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"Expected opro's {name} ≥ {bound}, got {getattr(self, name)}.")
        fidelity(self.way)
        if self.modules == "all" and self.meta == "continue":
            raise ConfigError("opro's modules: all needs a proposer that follows a form; meta: continue has none.")
        if self.examples is not None and self.way != "full":
            raise ConfigError("opro's examples is for evaluation: full alone; the others choose examples themselves.")

    def start(self, context: Context) -> Search:
        """Begin.

        Raises:
            ConfigError: the program has no instruction.
        """
        if not context.instruction_parameters:
            raise ConfigError("The optimizer opro needs a program with at least one instruction.")
        return scheduled(_Search(self, context), self.way, context)

    @property
    def way(self) -> Setting:
        """How many examples a candidate gets, decided."""
        if self.evaluation is not None:
            return self.evaluation
        return "full" if self.fidelity == "reference" or self.examples is not None else "race"


@dataclass(frozen=True)
class _Tried:
    text: str
    score: float
    trial: Trial


class _Search:
    def __init__(self, settings: Opro, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._paths = [p.path for p in context.instruction_parameters]
        self._step = -1  # step −1 scores the user's own instructions
        self._best = context.default
        self._best_trial = context.baseline
        self._best_score = context.baseline.mean or 0.0
        self._path = self._paths[0]
        self._headroom = Headroom(self._paths, warm_up=settings.per_step)
        self._history: dict[str, list[_Tried]] = {path: [] for path in self._paths}
        self._labels = {p.path: p.predictor or "answer" for p in context.instruction_parameters}
        self._whole = settings.modules == "all" and len(self._paths) > 1
        self._seen = {path: self._new_sieve(path) for path in self._paths}
        self._wrong: Counter[str] = Counter()
        for path in self._paths:
            text = self._written(context.default) if self._whole else context.default.text(path)
            self._history[path].append(_Tried(text, self._best_score, context.baseline))
        self._count_wrong(context.baseline)

    def ask(self) -> Sequence[Ask]:
        settings = self._settings
        if self._step == -1:
            seeds = [c for text in self._context.instructions if (c := self._made(text, "seed")) is not None]
            if seeds:
                return [Ask(candidate, settings.examples) for candidate in seeds]
            self._step = 0
        while self._step < settings.steps:
            self._path = self._next_path()
            candidates = self._propose()
            if candidates:
                return [Ask(candidate, settings.examples) for candidate in candidates]
            if not self._whole:
                for _ in range(settings.per_step):  # nothing that could be tried came of it: no gain
                    self._headroom.tell(self._path, 0.0, 0.0)
            self._step += 1
        return []

    def _text_of(self, candidate: Candidate) -> str:
        return self._written(candidate) if self._whole else candidate.text(self._path)

    def _written(self, candidate: Candidate) -> str:
        """All instructions of a program, a line each."""
        return "\n".join(f"[{self._labels[path]}] {' '.join(candidate.text(path).split())}" for path in self._paths)

    def _next_path(self) -> str:
        settings = self._settings
        if self._whole:
            return self._paths[0]  # one history for all
        if settings.modules == "in_turn" or settings.fidelity == "reference":
            return self._paths[self._step % len(self._paths)]
        return self._headroom.choose(self._context.seeds.rng("opro", "module", self._step))

    def tell(self, trials: Sequence[Trial]) -> None:
        base = self._best_trial  # of the candidate that these were made from
        for trial in trials:
            score = self._score(trial)
            if score is None:  # every call failed: nothing is known about it
                self._headroom.tell(self._path, 0.0, 0.0)
                continue
            if not self._whole:
                self._headroom.tell(self._path, *_gain(trial, base))
            self._history[self._path].append(_Tried(self._text_of(trial.candidate), score, trial))
            self._count_wrong(trial)
            # What was tried on few examples is no basis to build on.
            if score > self._best_score and 2 * trial.n >= self._context.search_size:
                self._best, self._best_score, self._best_trial = trial.candidate, score, trial
        self._step += 1

    def _score(self, trial: Trial) -> float | None:
        # With the paper's fixed examples every trial has the same ones: means compare as they are.
        return trial.mean if self._settings.way == "full" else adjusted_mean(trial, self._context.baseline)

    def _propose(self) -> list[Candidate]:
        settings, step = self._settings, self._step
        texts = self._meta_prompt(step)
        requests = [
            Request(
                texts,
                settings.max_tokens,
                self._temperature(step),
                stop=("</INS>",) if settings.meta == "continue" else (),
                seed=self._context.seeds.integer("opro", "sampling", step, i, bits=31),
                replicate=i,
            )
            for i in range(settings.per_step)
        ]
        out = []
        for reply in self._context.complete(requests):
            if isinstance(reply, Failure):
                continue
            text = self._parsed(reply.text)
            if text is not None and (candidate := self._made(text, f"step {step}")) is not None:
                out.append(candidate)
        return out

    def _meta_prompt(self, step: int) -> tuple[tuple[Literal["system", "user", "assistant"], str], ...]:
        settings = self._settings
        pairs = self._trajectory()
        if settings.meta == "continue":
            whole = "\n".join(f"<INS>{t.text}</INS>\nprecision: {self._shown_score(t.score)}" for t in pairs)
            return messages("opro_continue", trajectory=whole)
        signature = self._context.program.predictors()[self._predictor()].signature
        examples = [shown(example, signature) for example in self._examples(step)]
        if self._whole:
            blocks = [f"score {self._shown_score(t.score)}:\n{t.text}" for t in pairs]
            return messages(
                "opro_program",
                trajectory="\n".join(blocks),
                exemplars="\n".join(examples),
                buckets=str(settings.buckets),
            )
        if settings.fidelity == "fixed":
            trajectory = "\n".join(f"score {self._shown_score(t.score)}: {t.text}" for t in pairs)
            return messages(
                "opro_small", trajectory=trajectory, exemplars="\n".join(examples), buckets=str(settings.buckets)
            )
        trajectory = "\n\n".join(f"text:\n{t.text}\nscore:\n{self._shown_score(t.score)}" for t in pairs)
        blocks = [f"{_PLACE}\ninput -> output: {example}" for example in examples]
        name = "opro" if settings.instructions_first else "opro_exemplars_first"
        return messages(name, trajectory=trajectory, exemplars="\n\n".join(blocks), buckets=str(settings.buckets))

    def _trajectory(self) -> list[_Tried]:
        """Ascending by score; at most ``shown``, the best. The threshold comes after the cut, as in the code."""
        settings = self._settings
        ordered = sorted(self._history[self._path], key=lambda tried: tried.score)
        if settings.meta == "continue":
            return ordered
        best = ordered[-settings.shown :]
        if settings.fidelity == "reference":
            best = [tried for tried in best if tried.score >= settings.threshold]
        return best

    def _examples(self, step: int) -> list[Example]:
        settings, context = self._settings, self._context
        scored = list(context.search)
        pool = scored if settings.fidelity == "reference" or settings.criterion.endswith("frequent") else context.demos
        n = min(settings.exemplars, len(pool))
        if n == 0:
            return []
        if settings.criterion == "accumulative_most_frequent":
            return self._most_wrong(self._wrong, scored, n)
        if settings.criterion == "current_most_frequent":
            return self._most_wrong(_wrong_of(self._trajectory()), scored, n)
        rng = context.seeds.rng("opro", "exemplars", 0 if settings.criterion == "constant" else step)
        return [pool[i] for i in rng.choice(len(pool), size=n, replace=False)]

    @staticmethod
    def _most_wrong(wrong: Counter[str], examples: Sequence[Example], n: int) -> list[Example]:
        return sorted(examples, key=lambda example: -wrong[example.id])[:n]

    def _count_wrong(self, trial: Trial) -> None:
        self._wrong.update(_wrong_examples(trial))

    def _parsed(self, reply: str) -> str | None:
        """The text between the delimiters; without them: nothing (fixed) or the whole reply (reference)."""
        settings = self._settings
        if settings.meta == "continue":
            found: str | None = reply.split("</INS>")[0]
        else:
            inside = re.search(r"<INS>(.*?)(?:</INS>|$)", reply, re.DOTALL)
            found = inside.group(1) if inside else (reply if settings.fidelity == "reference" else None)
        if found is None:
            return None
        text = found.strip().replace("**", "")
        return text[:1].upper() + text[1:]

    def _made(self, text: str, note: str) -> Candidate | None:
        guard = self._context.guard
        if self._settings.no_digits and re.search(r"\d", text):
            guard.count("digits")
            return None
        if _PLACE in text or "INS>" in text:
            guard.count("delimiters")
            return None
        if not self._seen[self._path].passes(text):
            return None
        origin = Origin("opro", max(0, self._step), note)
        whole = self._whole and note != "seed"
        made = self._changed(text, origin) if whole else self._best.replace(self._path, text, origin)
        return made if made is not None and guard.passes(made) else None

    def _changed(self, text: str, origin: Origin) -> Candidate | None:
        """The best with those instructions that the reply names; None when it names none that is new."""
        paths = {label: path for path, label in self._labels.items()}
        found = {paths[label]: said.strip() for label, said in _LINE.findall(text) if label in paths and said.strip()}
        if all(self._best.text(path) == said for path, said in found.items()):
            self._context.guard.count("no step changed")
            return None
        return Candidate({**self._best.values, **found}, (self._best.id,), origin)

    def _new_sieve(self, path: str) -> Sieve | _Md5:
        if self._settings.fidelity == "reference":
            return _Md5(self._settings.max_length, self._context.guard.dropped)
        return Sieve([self._context.default.text(path)], self._settings.max_length, (), self._context.guard.dropped)

    def _predictor(self) -> str:
        return next(p.predictor for p in self._context.instruction_parameters if p.path == self._path)

    def _shown_score(self, score: float) -> int:
        return round(score * self._settings.buckets)

    def _temperature(self, step: int) -> float:
        settings = self._settings
        if settings.final_temperature is None or settings.steps == 1:
            return settings.temperature
        part = step / (settings.steps - 1)
        return settings.temperature + part * (settings.final_temperature - settings.temperature)


class _Md5:
    """The reference's own filter: exact texts, those proposed only; empty ones pass."""

    def __init__(self, max_length: int, dropped: Counter[str]) -> None:
        self._max_length = max_length
        self._seen: set[str] = set()
        self._dropped = dropped

    def passes(self, text: str) -> bool:
        # UTF-8, where the code's ASCII would crash on the first accent.
        mark = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        if mark in self._seen or len(text) > self._max_length:
            self._dropped["seen before" if mark in self._seen else "too long"] += 1
            return False
        self._seen.add(mark)
        return True


def _gain(trial: Trial, base: Trial) -> tuple[float, float]:
    """Mean paired difference, and the variance of that mean; one difference each way is added, as few may be equal."""
    differences = np.array([*paired(trial, base), 1.0, -1.0])
    n = len(differences) - 2
    return (float(differences.sum() / n), float(differences.var() / n)) if n else (0.0, 1.0)


def _wrong_examples(trial: Trial) -> list[str]:
    return [e for e, score in zip(trial.examples, trial.scores, strict=True) if score is not None and score < 1.0]


def _wrong_of(tried: Sequence[_Tried]) -> Counter[str]:
    return sum((Counter(_wrong_examples(one.trial)) for one in tried), Counter())
