"""Small matrices."""

import functools
import json

import numpy as np
import pytest

from promptopt.bench.matrix import Matrix
from promptopt.program.params import Candidate, Exemplar, Origin


def _matrix(scores, **changes):
    scores = np.asarray(scores, dtype=float)
    k, n = scores.shape
    rng = np.random.default_rng(0)
    shots = (Exemplar({"word": "cat"}, {"plural": "cats"}),)
    values = [{"instruction": f"Way {i // 2}", "exemplars": shots if i % 2 else ()} for i in range(k)]
    content = {
        "task": "made",
        "model": "scripted/none",
        "about": {"command": "promptopt bench record made"},
        "candidates": tuple(Candidate(v, origin=Origin("bench", i, f"note {i}")) for i, v in enumerate(values)),
        "examples": tuple(f"e{i}" for i in range(n)),
        "scores": scores,
        "prompt_tokens": rng.integers(0, 3000, scores.shape),
        "completion_tokens": rng.integers(0, 60, scores.shape),
        "embeddings": np.eye(k, 4, dtype=np.float32),
    }
    return Matrix(**{**content, **changes})


@pytest.fixture(scope="session")
def matrix():
    """Makes one of these scores, (candidates, examples)."""
    return _matrix


@pytest.fixture(scope="session")
def coins():
    """Makes one of so many candidates × examples, right or wrong by chance."""
    return lambda k, n, seed=0: _matrix(np.random.default_rng(seed).integers(0, 2, (k, n)))


WORDS = [f"{a}{b}{c}" for a in "bcdfgh" for b in "aeiou" for c in "lmnrst"]
TASK = """\
name: {name}
program: {{input: word, output: shouted, instruction: say it}}
data: {{train: rows.jsonl, input: word, target: shouted}}
splits: {{demos: 10, search: 20, confirm: 20, test: 60}}
metric: {{name: exact_match, ignore_case: false}}
models: {{task: scripted/obedient, proposer: scripted/echo}}
instructions: [Write it in upper case letters., Write {name}.]
"""


def _write(folder, tasks=("shout",), **grid):
    """The tasks and ``grid.yaml``; JSON is YAML."""
    rows = "".join(json.dumps({"word": word, "shouted": word.upper()}) + "\n" for word in WORDS)
    (folder / "rows.jsonl").write_text(rows)
    for name in tasks:
        (folder / f"{name}.yaml").write_text(TASK.format(name=name))
    usual = {"tasks": [f"{name}.yaml" for name in tasks], "optimizers": ["opro"], "seeds": 1, "budgets": [150]}
    path = folder / "grid.yaml"
    path.write_text(json.dumps({**usual, **grid}))
    return path


@pytest.fixture
def grid_file(tmp_path):
    """Writes a grid over made-up tasks into ``tmp_path``; returns its path."""
    return functools.partial(_write, tmp_path)
