"""mipro on small budgets against MIPROv2's own loop, played on recorded matrices: no model, many seeds.

    python tests/benchmarks/bench_small.py [--seeds 40] [--calls 230] [--arms reference mipro …]

Each problem is a recorded matrix (48 candidates on 150 or more examples): the default instruction and two others, drawn
by the seed, times the six exemplar sets; 100 examples to search with, the others are the truth. The runs are whole
ones, by the code that users run, but for the proposals: the options are there from the start.

    reference   MIPROv2 light as its code does it: 10 trials on 35 of the 100 examples, the best in full after every
                five; returned is the best full score, nothing is confirmed
    mipro       ours with --calls: 60 examples to search, 40 to confirm; "best" is what a user gets (the winner only
                where it is better beyond noise), "likely" the same with promote: likely, "winner" in any case
    no order    the same without trying exemplar sets first

Points of true score, mean over tasks, with 95 % intervals over tasks. Development tasks were looked at while defaults
were chosen, report tasks were not.
"""

import argparse
import dataclasses
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.stats

from promptopt import api
from promptopt.bench.matrix import load_matrix, matrix_path, shipped
from promptopt.lm.scripted import ScriptedLM
from promptopt.lm.spec import ModelSpec
from promptopt.optimizers import mipro
from promptopt.program.params import Candidate, Exemplar
from promptopt.program.predict import Predict
from promptopt.records import Example, Score
from promptopt.search.budget import Limits
from promptopt.task.dataset import ConfirmSplit, DemoSplit, SearchSplit, Splits
from promptopt.task.task import Task

DEVELOPMENT = ("antonyms", "number_words", "past_tense", "plural", "second_letter", "title_case", "units")
ARMS = ("reference", "mipro", "no order")
SEARCHED = 100
CONFIRM = 40
WORDINGS = 3


class AsRecorded:
    """The score is the reply."""

    def __call__(self, example, prediction):
        return Score(float(prediction.answer))


@dataclass(frozen=True)
class Given:
    """mipro with its options at hand. No fields: they would be settings, which a run writes down as JSON."""

    def __init__(self, variables, settings, first):
        self.__dict__.update(variables=variables, settings=settings, first=first)

    def start(self, context):
        space = mipro.Space(context.default, self.variables)
        made = mipro.exemplars_first
        mipro.build_space, kept = lambda *_, **__: space, mipro.build_space
        mipro.exemplars_first = made if self.first else lambda _: []
        try:
            search = self.settings.start(context)
            asked = search.ask()  # builds its space at the first question
        finally:
            mipro.build_space, mipro.exemplars_first = kept, made
        return _Begun(search, asked)


class _Begun:
    def __init__(self, search, asked):
        self._search, self._asked = search, asked

    def ask(self):
        asked, self._asked = self._asked, None
        return self._search.ask() if asked is None else asked

    def tell(self, trials):
        self._search.tell(trials)


def scores_of(name, seed):
    """(instructions, exemplar sets, examples), the default at (0, 0), and an order of the examples."""
    matrix = load_matrix(matrix_path(name))
    first = matrix.candidates[0].values
    words = next(path for path, value in first.items() if isinstance(value, str))
    (shelf,) = first.keys() - {words}
    texts = list(dict.fromkeys(c.values[words] for c in matrix.candidates))
    sets = list(dict.fromkeys(c.values[shelf] for c in matrix.candidates))
    rows = {(c.values[words], c.values[shelf]): i for i, c in enumerate(matrix.candidates)}
    table = np.nan_to_num(matrix.scores)
    grid = np.array([[table[rows[text, shown]] for shown in sets] for text in texts])
    rng = np.random.default_rng([seed, 77])
    return grid[[0, *(1 + rng.permutation(len(texts) - 1)[: WORDINGS - 1])]], rng.permutation(grid.shape[2])


def play(name, seed, arm, calls):
    """True scores of best, likely and winner, and the calls."""
    scores, order = scores_of(name, seed)
    search = SEARCHED if arm == "reference" else SEARCHED - CONFIRM
    # One example to confirm on, whose verdict is not looked at, where the other's own choice is taken.
    confirm = order[search:SEARCHED] if arm != "reference" else order[:1]
    truth = order[SEARCHED:]
    texts = [f"Wording {i}." for i in range(len(scores))]
    sets = [(), *((Exemplar({"number": f"set {s}"}, {"answer": "x"}),) for s in range(1, scores.shape[1]))]

    def reply(request):
        (system,) = [text for role, text in request.messages if role == "system"]
        shown = int(request.messages[1][1].split()[-1]) if len(request.messages) > 2 else 0
        return repr(float(scores[texts.index(system), shown, int(request.messages[-1][1])]))

    def examples(numbers):
        return tuple(Example(f"e{n}", {"number": str(n)}, "1") for n in numbers)

    demos = DemoSplit((Example("d", {"number": "d"}, "1"),))
    confirm_examples = examples(confirm) if arm != "reference" else (Example("c", {"number": str(order[0])}, "1"),)
    task = Task(
        name="small",
        program=Predict("number -> answer", instruction=texts[0]),
        splits=Splits(demos, SearchSplit(examples(order[:search])), ConfirmSplit(confirm_examples), None),
        metric=AsRecorded(),
        models={"task": ModelSpec("scripted/task")},
        cache="run",
        seed=seed,
    )
    settings = mipro.Mipro(fidelity="reference") if arm == "reference" else mipro.Mipro()
    variables = [mipro.Variable("instruction", tuple(texts)), mipro.Variable("exemplars", tuple(sets))]
    folder = Path(tempfile.mkdtemp())
    try:
        result = api.optimize(
            task,
            optimizer=Given(variables, settings, arm != "no order"),
            budget=Limits() if arm == "reference" else Limits(calls=calls),
            out=folder / "run",
            backends={"task": ScriptedLM(reply, digest="scripted/task")},
        )
        trials = [json.loads(line) for line in (folder / "run" / "trials.jsonl").read_text().splitlines()]
    finally:
        shutil.rmtree(folder)

    def true(candidate):
        place = texts.index(candidate.values["instruction"]), sets.index(candidate.values["exemplars"])
        return scores[place][truth].mean()

    charged = sum(usage.calls for usage in result.charged.values())
    if arm != "reference":
        likely = dataclasses.replace(result, promote="likely").best
        return true(result.best), true(likely), true(result.winner), charged
    # Its own choice: the best of what it has in full.
    whole = [trial for trial in trials if trial["split"] == "search" and trial["n"] == SEARCHED]
    best = max(whole, key=lambda trial: trial["mean"])
    found = true(Candidate.from_json(best["candidate"]))
    return found, found, found, charged - sum(trial["n"] for trial in trials if trial["split"] == "confirm")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=230, help="ours, all in all")
    parser.add_argument("--arms", nargs="*", default=ARMS, choices=ARMS)
    given = parser.parse_args()
    means = {}
    for name in shipped():
        line = f"{name:16}"
        for arm in given.arms:
            runs = np.array([play(name, seed, arm, given.calls) for seed in range(given.seeds)])
            means[name, arm] = runs.mean(0)
            best, likely, winner, calls = means[name, arm]
            shown = (
                f"{100 * best:.1f}" if arm == "reference" else f"{100 * best:.1f}/{100 * likely:.1f}/{100 * winner:.1f}"
            )
            line += f"   {arm}: {shown} ({calls:.0f})"
        print(line, flush=True)
    for kind, names in (
        ("development", [n for n in shipped() if n in DEVELOPMENT]),
        ("report", [n for n in shipped() if n not in DEVELOPMENT]),
        ("all", list(shipped())),
    ):
        print(f"\n{kind}, {len(names)} tasks")
        table = {arm: np.array([means[name, arm] for name in names]) for arm in given.arms}
        for arm in given.arms:
            *found, calls = table[arm].mean(0)
            line = f"  {arm:10}{calls:4.0f} calls  " + " ".join(f"{100 * value:5.1f}" for value in found)
            if arm != given.arms[0]:
                for column, what in enumerate(("best", "likely", "winner")):
                    apart = 100 * (table[arm][:, column] - table[given.arms[0]][:, column])
                    half = scipy.stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
                    line += f"   {what} {apart.mean():+.1f} ± {half:.1f}"
            print(line)


if __name__ == "__main__":
    main()
