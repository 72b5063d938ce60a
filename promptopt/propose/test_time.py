"""Better answers without better prompts: sample, judge, say in words what to change, and sample again.

TPO (Li et al. 2025, "Test-Time Preference Optimization", arXiv 2501.12895). N = width, D = depth:

1. N samples of the program, each judged (reward).
2. D times: the best answer so far (chosen) is compared with a worse one (rejected) in words, the *textual loss*; from
   that comes what to change, the *textual gradient*; then N samples of the answer with the changes made, each judged.
3. The best answer of all is returned.

Generations: N + D (2 + N), judgements: N (D + 1), calls one after the other: 1 + 3 D.

``mode``: ``tpo``; ``revision``, which assesses the best answer without a worse one; ``best_of_n``, step 1 alone.

``fidelity="reference"`` is the authors' code: the rejected answer is the worst of all rounds; nothing ends early; equal
answers are judged again. ``fixed`` (default): the rejected answer is the worst of the last round, as the worst of all
goes stale; a round in which nothing rose is the last, and so is a best of 1.0; equal answers are judged once, and when
all are equal there is nothing to contrast, so the best is assessed alone. In both, other than in the code: a new seed
for every request; an answer may hold any text; N = 1 works (as revision); a loss or a gradient that does not come ends
the refinement with what there is, and a revision that cannot be read is dropped and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Literal

from promptopt import jsonio
from promptopt.errors import BudgetExhaustedError, CallError, ConfigError, PromptOptError
from promptopt.lm.base import Request, failed
from promptopt.lm.calls import complete_many, sampled, together
from promptopt.metrics import METRICS
from promptopt.metrics.agreement import Grades, Preference, both_orders
from promptopt.metrics.base import Metric
from promptopt.metrics.known import known_by
from promptopt.metrics.reward import rewards
from promptopt.program import trace
from promptopt.program.module import Module
from promptopt.program.predict import Predict
from promptopt.propose import feedback
from promptopt.propose.feedback import Contrast, Rated, Sampling
from promptopt.propose.replies import Reply, ask
from promptopt.records import Example, Failure, Prediction, Score
from promptopt.seeds import Seeds

Mode = Literal["tpo", "revision", "best_of_n"]
_MODES = ("tpo", "revision", "best_of_n")


@dataclass(frozen=True)
class Answer:
    """One answer to a request.

    Args:
        text: what is refined: the value of the field.
        prediction: the program's whole output with it.
        reward: in [0, 1], higher is better; None where it could not be judged.
        remark: what the judge said; "" where it said nothing.
        round: 0: sampled from the program; else by which revision.
    """

    text: str
    prediction: Prediction
    reward: float | None
    remark: str
    round: int


@dataclass(frozen=True)
class Round:
    """What was said in a revision.

    Args:
        chosen: the text that was changed.
        rejected: what it was compared with; None: with nothing.
        loss: the assessment.
        gradient: the changes asked for.
    """

    chosen: str
    rejected: str | None
    loss: str
    gradient: str


@dataclass(frozen=True)
class Refinement:
    """What came of one request.

    Args:
        prediction: the program's output with the best answer.
        reward: of it, in [0, 1].
        answers: all, in the order in which they came.
        rounds: what was said, by revision.
        generations: requests to the model: samples, losses, gradients and revisions, other tries not counted; a sample
            of a program counts once, however many predictors it has.
        judgements: answers given to the judge.
        unusable: what was dropped, by reason.
        one_sample: reward of the program's first sample, in [0, 1]; None where it failed or could not be judged.
        verdicts: what a judge said in both orders, of each pair or answer, sorted; empty for a reward that asks once.
        unfinished: why the budget ended it early; "" where it did not.
    """

    prediction: Prediction
    reward: float
    answers: tuple[Answer, ...]
    rounds: tuple[Round, ...]
    generations: int
    judgements: int
    unusable: Mapping[str, int]
    one_sample: float | None = None
    verdicts: tuple[Preference | Grades, ...] = ()
    unfinished: str = ""

    @property
    def first(self) -> float | None:
        """The best reward of the program's own samples; None where none could be judged."""
        return max((a.reward for a in self.answers if a.round == 0 and a.reward is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        """As written to disk."""
        return {
            "output": dict(self.prediction.outputs),
            "reward": self.reward,
            "first": self.first,
            "one_sample": self.one_sample,
            "answers": [
                {"text": a.text, "reward": a.reward, "round": a.round, **({"remark": a.remark} if a.remark else {})}
                for a in self.answers
            ],
            "rounds": [
                {"chosen": r.chosen, "rejected": r.rejected, "loss": r.loss, "gradient": r.gradient}
                for r in self.rounds
            ],
            "generations": self.generations,
            "judgements": self.judgements,
            "unusable": dict(self.unusable),
            **({"verdicts": [[said.as_given, said.swapped] for said in self.verdicts]} if self.verdicts else {}),
            **({"unfinished": self.unfinished} if self.unfinished else {}),
        }


class TestTimePreference(Module):
    """Wraps a program: its answer to each example is refined at the time it is asked.

    A program like any other: it can be called, evaluated, and optimized (its parameters are the wrapped program's).

    Args:
        program: any program with an output that is a text.
        reward: judges answers: a reward model, a metric, a judge, a pairwise judge, which compares with the first
            sample. It sees the inputs alone when this is called like any program, the whole example in
            ``refine_example``. One of promptopt's own that has no ``field`` judges the output that is refined; a
            function judges what it likes.
        width: N, answers a round, ≥ 1.
        depth: D, revisions, ≥ 0; 0 is best of N.
        mode: ``tpo``, ``revision`` or ``best_of_n``.
        temperature: of samples and revisions, > 0 as samples must differ, ≤ 2.
        field: the output that is refined; None: the program's last.
        critic: the role whose model says what to change; the changes are made by the model that answers.
        critic_tokens: most tokens of a loss or a gradient.
        retries: how often a revision that cannot be read is asked for again.
        seed: of all samples.
        fidelity: ``fixed`` or ``reference``.
        strict: whether a failure that may pass, such as of a server that is down, is raised, so that all of it is done
            again later, instead of going on with what there is.

    Raises:
        ConfigError: a setting is out of range, the field is no text, or the reward judges another field.

    Example:
        >>> from promptopt.lm.calls import Session
        >>> from promptopt.lm.scripted import ScriptedLM
        >>> from promptopt.program.predict import Predict
        >>> short = TestTimePreference(Predict("question -> answer"), lambda _, p: len(p.answer) < 5, width=2, depth=0)
        >>> with Session({"task": ScriptedLM(lambda request: "yes" * (1 + request.replicate))}):
        ...     short(question="Is it?").answer
        'yes'
    """

    __test__ = False  # no test class, whatever pytest thinks of its name

    def __init__(
        self,
        program: Module,
        reward: Metric,
        *,
        width: int = 5,
        depth: int = 2,
        mode: Mode = "tpo",
        temperature: float = 0.7,
        field: str | None = None,
        critic: str = "task",
        critic_tokens: int = 256,
        retries: int = 1,
        seed: int = 0,
        fidelity: Literal["fixed", "reference"] = "fixed",
        strict: bool = False,
    ) -> None:
        if mode not in _MODES:
            raise ConfigError(f"Expected mode to be one of {', '.join(_MODES)}, got {mode!r}.")
        if fidelity not in ("fixed", "reference"):
            raise ConfigError(f"Expected fidelity fixed or reference, got {fidelity!r}.")
        if width < 1 or depth < 0 or retries < 0 or critic_tokens < 1:
            given = f"width {width}, depth {depth}, retries {retries}, critic_tokens {critic_tokens}"
            raise ConfigError(f"Expected width ≥ 1, depth ≥ 0, retries ≥ 0 and critic_tokens ≥ 1, got {given}.")
        if not 0 < temperature <= 2:
            raise ConfigError(f"Expected a temperature above 0 (samples must differ) up to 2, got {temperature}.")
        self.program = program
        self.width = width
        self.depth = 0 if mode == "best_of_n" else depth
        self.mode = mode
        self.temperature = temperature
        self.field = _last_output(program) if field is None else field
        if isinstance(program, Predict):
            texts = [output.name for output in program.signature.outputs if output.type is str and not output.choices]
            if self.field not in texts:
                has = ", ".join(texts) or "none"
                raise ConfigError(
                    f"Expected field to be an output of the program that is a text, got {self.field!r}. It has: {has}."
                )
        self.reward = _pointed(reward, self.field, self.depth)
        self.critic = critic
        self.critic_tokens = critic_tokens
        self.retries = retries
        self.seed = seed
        self.fidelity = fidelity
        self.strict = strict
        self.settings = _Settings(self._settings())

    def forward(self, **inputs: Any) -> Prediction:
        """The best answer to these inputs."""
        return self.refine(**inputs).prediction

    def refine(self, **inputs: Any) -> Refinement:
        """The best answer to these inputs, with everything that led to it. As ``refine_example`` without a target."""
        return self.refine_example(Example(jsonio.digest(inputs)[:16], inputs, None, inputs))

    def refine_example(self, example: Example, *, keep: bool = False) -> Refinement:
        """The best answer to an example, whose target and row the reward may look at, with everything that led to it.

        Not for measuring: an answer that is chosen by its target says nothing of the program.

        Args:
            example: what is asked.
            keep: whether the best answer so far is returned, as ``unfinished``, where the budget ends after the first
                samples are judged.

        Raises:
            CallError: no sample could be had, or none could be judged; the failure is that of the first.
            BudgetExhaustedError: the budget ended.
        """
        return _Refining(self, example).result(keep)

    def _settings(self) -> dict[str, Any]:
        names = ("width", "depth", "mode", "temperature", "field", "critic", "critic_tokens", "retries", "seed")
        own = {name: getattr(self, name) for name in names}
        return {**own, "fidelity": self.fidelity, "reward": known_by(self.reward)}


@dataclass(frozen=True)
class _Settings:
    """Part of the program's digest: another width is another program."""

    values: Mapping[str, Any]

    @property
    def digest(self) -> str:
        return jsonio.digest(dict(self.values))


class _Refining:
    """One request on its way."""

    def __init__(self, settings: TestTimePreference, example: Example) -> None:
        self._settings = settings
        self._example = example
        self._fixed = settings.fidelity == "fixed"
        self._seeds = Seeds(settings.seed)
        self._answers: list[Answer] = []
        self._rounds: list[Round] = []
        self._judged: dict[str, Score] = {}
        self._unusable: Counter[str] = Counter()
        self._generations = self._judgements = 0
        self._failure: Failure | None = None
        self._verdicts: list[Preference | Grades] = []
        self._asked = _asked(settings.program, example.inputs)
        predictors = list(settings.program.predictors().values())
        self._writer = predictors[-1].role if predictors else "task"

    def result(self, keep: bool) -> Refinement:
        samples, has_first = self._samples()
        self._judge(samples, 0)
        best = self._best()
        if best is None or best.reward is None:
            raise CallError(self._failure or Failure("program", "The program gave no answer that could be judged."))
        one_sample = self._answers[0].reward if has_first else None
        unfinished = ""
        try:
            self._revise(best)
        except BudgetExhaustedError as error:
            if not keep:
                raise
            unfinished = str(error)
        best = self._best()
        assert best is not None
        assert best.reward is not None
        return Refinement(
            best.prediction,
            best.reward,
            tuple(self._answers),
            tuple(self._rounds),
            self._generations,
            self._judgements,
            dict(sorted(self._unusable.items())),
            one_sample,
            # Sorted: which of the answers that are judged together is judged first depends on chance.
            tuple(sorted(self._verdicts, key=lambda said: (type(said).__name__, said.as_given, said.swapped))),
            unfinished,
        )

    def _revise(self, best: Answer) -> None:
        """All rounds; their answers are among the answers once all of a round are judged."""
        for number in range(1, self._settings.depth + 1):
            assert best.reward is not None
            if self._fixed and best.reward >= 1.0:
                return
            found = self._revised(number, best)
            if found is None:
                return
            self._judge(found, number)
            before, best = best, self._best() or best
            assert best.reward is not None
            assert before.reward is not None
            if self._fixed and best.reward <= before.reward:
                return

    def _samples(self) -> tuple[list[Prediction], bool]:
        """Those that came, and whether the first is among them."""
        settings = self._settings

        def sample(number: int) -> tuple[Prediction, list[trace.Step]]:
            seed = self._seeds.integer("test_time", "sample", number, bits=31)
            with sampled(number, seed, settings.temperature), trace.apart() as steps:
                try:
                    prediction = settings.program(**self._example.inputs)
                    self._text(prediction)
                except PromptOptError:
                    raise
                except Exception as error:  # the boundary: the user's program may raise what it likes
                    raise CallError(Failure("program", f"{type(error).__name__}: {error}")) from error
                return prediction, steps

        outcomes = together([lambda number=number: sample(number) for number in range(settings.width)])  # type: ignore[misc]
        self._generations += settings.width
        out, recorder = [], trace.recorder()
        for outcome in outcomes:
            if isinstance(outcome, CallError):
                self._drop(f"sample: {outcome.failure.kind}", outcome.failure)
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                out.append(outcome[0])
                if recorder is not None:  # in their order, whichever ended first
                    recorder.steps.extend(outcome[1])
        return out, not isinstance(outcomes[0], Exception)

    def _judge(self, predictions: Sequence[Prediction], number: int) -> None:
        texts = [self._text(prediction) for prediction in predictions]
        self._judgements += len(texts)
        # By the whole output: two answers may be alike in this field alone.
        keys = [jsonio.digest([number if not self._fixed else 0, repr(p.outputs)]) for p in predictions]
        new = [place for place, key in enumerate(keys) if key not in self._judged]
        with both_orders() as said:
            asked = rewards(self._settings.reward, self._reference(predictions), [predictions[place] for place in new])
        self._verdicts += said
        judged: dict[int, Score | Failure] = dict(zip(new, asked, strict=True))
        self._judged.update({keys[place]: made for place, made in judged.items() if isinstance(made, Score)})
        for place, (text, prediction) in enumerate(zip(texts, predictions, strict=True)):
            outcome = judged[place] if place in judged else self._judged[keys[place]]
            if isinstance(outcome, Failure):
                self._drop(f"judge: {outcome.kind}", outcome)
                self._answers.append(Answer(text, prediction, None, "", number))
            else:
                self._answers.append(Answer(text, prediction, outcome.value, outcome.feedback or "", number))

    def _reference(self, predictions: Sequence[Prediction]) -> Example:
        """The example; a pairwise judge without a target compares with the first sample, in all rounds the same."""
        if self._example.target is not None or not getattr(self._settings.reward, "needs_reference", False):
            return self._example
        first = self._answers[0].text if self._answers else self._text(predictions[0]) if predictions else None
        return replace(self._example, target=first)

    def _revised(self, number: int, best: Answer) -> list[Prediction] | None:
        """New answers; None when the critic's words did not come."""
        settings = self._settings
        rejected = self._rejected(number, best)
        contrast = Contrast(self._asked, _rated(best), None if rejected is None else _rated(rejected))
        assessed = self._said(*feedback.loss(contrast, self._critic("loss", number)), "loss")
        if assessed is None:
            return None
        changes = self._said(*feedback.gradient(contrast, assessed, self._critic("gradient", number)), "gradient")
        if changes is None:
            return None
        self._rounds.append(Round(best.text, None if rejected is None else rejected.text, assessed, changes))
        samplings = [
            Sampling(None, settings.temperature, self._seeds.integer("test_time", "revise", number, i, bits=31), i)
            for i in range(settings.width)
        ]
        requests, read, form = feedback.revision(contrast, changes, samplings)
        self._generations += settings.width
        replies = ask(lambda asked: complete_many(asked, self._writer), requests, read, settings.retries, form)
        texts = [text for reply in replies if (text := self._kept(reply, "revision")) is not None]
        return [best.prediction.replace(**{settings.field: text}) for text in texts]

    def _rejected(self, number: int, best: Answer) -> Answer | None:
        if self._settings.mode == "revision":
            return None
        judged = [answer for answer in self._answers if answer.reward is not None]
        last = [answer for answer in judged if answer.round == number - 1] if self._fixed else judged
        for among in (last, judged):
            others = [answer for answer in among if (answer.reward or 0.0) < (best.reward or 0.0)]
            if others:
                return min(others, key=lambda answer: answer.reward or 0.0)
        return None

    def _said(self, request: Request, read: Any, step: str) -> str | None:
        self._generations += 1
        (reply,) = ask(
            lambda asked: complete_many(asked, self._settings.critic), [request], read, self._settings.retries
        )
        return self._kept(reply, step)

    def _critic(self, step: str, number: int) -> Sampling:
        seed = self._seeds.integer("test_time", step, number, bits=31)
        return Sampling(self._settings.critic_tokens, self._settings.temperature, seed, 0)

    def _kept(self, reply: Reply[str], step: str) -> str | None:
        if reply.value is None:
            self._unusable[f"{step}: {reply.reason}"] += 1
            self._may_pass(reply.failure)
        return reply.value

    def _drop(self, reason: str, failure: Failure) -> None:
        self._unusable[reason] += 1
        self._failure = self._failure or failure
        self._may_pass(failure)

    def _may_pass(self, failure: Failure | None) -> None:
        if self._settings.strict and failure is not None and failure.passing:
            raise CallError(failure)

    def _best(self) -> Answer | None:
        judged = [answer for answer in self._answers if answer.reward is not None]
        return max(judged, key=lambda answer: answer.reward or 0.0, default=None)  # the first of equal ones

    def _text(self, prediction: Prediction) -> str:
        field = self._settings.field
        if field not in prediction.outputs:
            has = ", ".join(prediction.outputs) or "none"
            raise failed("program", f"Expected the output {field!r} of the program to refine, it has {has}. Set field.")
        value = prediction.outputs[field]
        if not isinstance(value, str):
            got = type(value).__name__
            told = f"Expected the output {field!r} to be a text that can be refined, got {got}. Set field."
            raise failed("program", told)
        return value


def _rated(answer: Answer) -> Rated:
    return Rated(answer.text, answer.reward or 0.0, answer.remark)


def _pointed(reward: Metric, field: str, depth: int) -> Metric:
    """The reward, judging the output that is refined where it can be told which output to judge.

    Raises:
        ConfigError: it was told to judge another one, which no revision changes.
    """
    if METRICS.name_of(type(reward)) is None or not is_dataclass(reward) or not hasattr(reward, "field"):
        return reward
    own = reward.field if reward.field is not None else getattr(getattr(reward, "inner", None), "field", None)
    if own is None:
        return replace(reward, field=field)
    # Whole samples may be chosen by any of their outputs; two answers are compared by the one that is refined.
    if own != field and (depth or getattr(reward, "needs_reference", False)):
        raise ConfigError(
            f"Expected the reward to judge the output that is refined, {field!r}, got one that judges {own!r}: set "
            f"field to {own!r}, or leave out the field of the metric."
        )
    return reward


def _asked(program: Module, inputs: Mapping[str, Any]) -> str:
    """What was to be answered, for the critic: the instruction of the predictor that answers, and the inputs."""
    predictors = list(program.predictors().values())
    values = {
        name: value if isinstance(value, str) else jsonio.canonical(value).decode() for name, value in inputs.items()
    }
    shown = next(iter(values.values())) if len(values) == 1 else "\n".join(f"{n}: {v}" for n, v in values.items())
    instruction = predictors[-1].instruction.strip() if predictors else ""
    return f"{instruction}\n\n{shown}" if instruction else shown


def _last_output(program: Module) -> str:
    predictors = list(program.predictors().values())
    if not predictors:
        raise ConfigError("Expected a program with at least one predictor, or field: the output to refine.")
    field = predictors[-1].signature.outputs[-1]
    if field.type is not str or field.choices:
        raise ConfigError(
            f"Expected the program's last output to be a text that can be refined, {field.name} is not. Set field."
        )
    return field.name
