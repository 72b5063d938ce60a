"""Small matrices."""

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
