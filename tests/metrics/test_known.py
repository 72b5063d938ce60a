"""A metric is known by what it does: in another process, too, and not by its name alone."""

import functools
import subprocess
import sys
from dataclasses import dataclass

import pytest

from promptopt.metrics.exact import ExactMatch
from promptopt.metrics.known import known_by

SHOWN = """
from promptopt import jsonio
from promptopt.metrics.known import known_by

def made(limit):
    def metric(example, prediction, weights=frozenset(("a", "b", "c"))):
        return float(len(prediction.answer) < limit)
    return metric

class Own:
    def __init__(self):
        self.limit = 3
    def __call__(self, example, prediction):
        return 1.0

print(jsonio.digest([known_by(made(3)), known_by(made(4)), known_by(Own()), known_by(lambda e, p: 1.0)]))
"""


def test_it_is_the_same_in_another_process():
    said = {
        subprocess.run(
            [sys.executable, "-c", SHOWN], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert len(said.pop().strip()) == 64


def within(limit, example, prediction):
    return float(len(prediction.answer) < limit)


@dataclass
class Within:
    limit: int

    def __call__(self, example, prediction):
        return within(self.limit, example, prediction)


def test_what_differs_is_another_metric():
    def closed(limit):
        return lambda example, prediction: float(len(prediction.answer) < limit)

    metrics = [
        lambda example, prediction: 1.0,
        lambda example, prediction: 0.0,
        closed(1),
        closed(2),
        within,
        functools.partial(within, 1),
        functools.partial(within, 2),
        Within(1),
        Within(2),
        ExactMatch(),
        ExactMatch(ignore_case=False),
    ]
    known = [repr(known_by(metric)) for metric in metrics]
    assert len(set(known)) == len(metrics)
    assert known == [repr(known_by(metric)) for metric in metrics]
    assert not any(" at 0x" in said for said in known)


RUN = """
import sys
from dataclasses import replace
from promptopt.api import optimize
from promptopt.optimizers.random_search import RandomSearch
from promptopt.testing.toy import splits, toy

def metric(example, prediction):
    return float(prediction.answer == example.target)

task, model = toy(lambda text: 0.5, splits=splits(4, 10, 6, 0))
task, search = replace(task, metric=metric), RandomSearch(trials=2)
result = optimize(task, optimizer=search, out=sys.argv[1], backends={"task": model})
print(result.verdict, model.calls)
"""


@pytest.mark.slow
def test_a_run_with_a_function_as_metric_goes_on_in_another_process(tmp_path):
    out = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", RUN, str(tmp_path / "run")], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        out.append(done.stdout)
    assert out[0].split()[0] == out[1].split()[0]
    assert int(out[0].split()[1]) > 0
    assert int(out[1].split()[1]) == 0
