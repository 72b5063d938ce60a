"""The matrix file: what is written comes back, damage is told, and what we ship is what we say."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from promptopt.bench.matrix import load_matrix, matrix_path, shipped
from promptopt.errors import ConfigError, StorageError, UnknownNameError

DEVELOPMENT = {"plural", "past_tense", "number_words", "second_letter", "title_case", "units", "antonyms"}


@settings(max_examples=60)
@given(
    nps.arrays(
        float,
        st.tuples(st.integers(1, 9), st.integers(1, 40)),
        elements=st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1), st.just(float("nan"))),
    )
)
def test_a_file_holds_what_was_recorded(tmp_path_factory, matrix, scores):
    made = matrix(scores)
    path = tmp_path_factory.mktemp("m") / "made.json"
    made.save(path)
    read = load_matrix(path)
    exact = bool(np.all(np.isin(scores[~np.isnan(scores)], [0, 1])))
    assert np.array_equal(np.isnan(read.scores), np.isnan(scores))
    np.testing.assert_allclose(read.scores, scores, atol=0 if exact else 0.5 / 255 + 1e-12)
    assert np.array_equal(read.prompt_tokens, made.prompt_tokens)
    assert np.array_equal(read.completion_tokens, made.completion_tokens)
    assert (read.task, read.model, read.examples, read.about) == (made.task, made.model, made.examples, made.about)
    assert [c.values for c in read.candidates] == [c.values for c in made.candidates]
    assert [c.origin.note for c in read.candidates] == [c.origin.note for c in made.candidates]
    np.testing.assert_allclose(read.embeddings, made.embeddings, atol=0.5 / 127)


def test_binary_scores_take_a_bit_each(tmp_path, matrix):
    scores = np.random.default_rng(0).integers(0, 2, (48, 160))
    zeros = np.zeros((48, 160), dtype=int)
    matrix(scores, prompt_tokens=zeros, completion_tokens=zeros).save(tmp_path / "m.json")
    data = json.loads((tmp_path / "m.json").read_text())["scores"]
    assert data["kind"] == "bits"
    assert len(data["data"]) <= 48 * 160 / 8 * 4 / 3 + 40


def test_means_leave_out_what_could_not_be_scored(matrix):
    assert matrix([[1, 0, float("nan")], [float("nan")] * 3]).means[0] == 0.5
    assert np.isnan(matrix([[1.0, 0.0], [float("nan")] * 2]).means[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_tokens": np.zeros((2, 3))}, "Expected prompt_tokens of 2 candidates × 2 examples"),
        ({"embeddings": np.zeros((3, 4))}, "an embedding for each candidate"),
        ({"about": {"scores": 1}}, "other keys than the file's own"),
        ({"candidates": ()}, "Expected candidates and examples"),
        ({"scores": np.array([[0.0, 2.0], [0.0, 0.0]])}, r"scores in \[0, 1\]"),
    ],
)
def test_what_does_not_fit_is_refused(matrix, changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(matrix([[0, 1], [1, 0]]), **changes)


def damage(data, path, value):
    *parents, last = path
    for key in parents:
        data = data[key]
    data[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("scores", "data"), "AAAA"),
        (("scores", "data"), "no base64"),
        (("scores",), None),
        (("scores", "kind"), "bytes"),
        (("prompt_tokens",), ""),
        (("examples",), ["e0", "e0"]),
        (("examples",), ["e0"]),
        (("candidates", 0), [7, 0, "note"]),
        (("candidates", 0), [-1, 0, "note"]),
        (("candidates", 0), []),
        (("parameters",), {}),
        (("embeddings", "dimensions"), 10**12),
        (("embeddings", "dimensions"), "4"),
        (("task",), 3),
    ],
)
def test_a_damaged_file_is_told_with_its_name(tmp_path, matrix, path, value):
    made = tmp_path / "made.json"
    matrix([[0, 1], [1, 0]]).save(made)
    data = json.loads(made.read_text())
    damage(data, path, value)
    made.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=r"made\.json: The matrix is damaged"):
        load_matrix(made)


def test_what_is_no_matrix_is_told(tmp_path):
    path = tmp_path / "x.json"
    with pytest.raises(ConfigError, match="Cannot read the matrix"):
        load_matrix(path)
    for text, message in (("{", "x.json"), ("[]", "Expected a file of format"), ('{"format": "other"}', "'other'")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_matrix(path)


def test_a_name_is_a_file_first_then_a_shipped_matrix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert matrix_path("plural") == shipped()["plural"]
    (tmp_path / "plural").write_text("")
    assert str(matrix_path("plural")) == "plural"
    with pytest.raises(UnknownNameError, match="plural"):
        matrix_path("plurall")


def test_nothing_is_left_where_nothing_can_be_written(tmp_path, matrix):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        matrix([[0]]).save(tmp_path / "file" / "m.json")


# --- what is shipped


def test_at_least_twelve_matrices_of_our_own_tasks_in_less_than_a_megabyte():
    import promptopt_tasks

    files = shipped()
    assert len(files) >= 12
    assert set(files) <= set(promptopt_tasks.descriptions())
    assert len(set(files) - DEVELOPMENT) >= 4, "tasks that no setting was chosen on"
    assert sum(path.stat().st_size for path in files.values()) < 1_000_000


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_matrix_is_whole_and_says_how_it_was_made(name):
    read = load_matrix(shipped()[name])
    assert read.task == name
    assert read.scores.shape[0] >= 48
    assert read.scores.shape[1] >= 150
    assert "qwen2.5-coder-0.5b" in read.model
    assert read.about["command"].startswith(f"promptopt bench record tasks/{name}.yaml --examples {len(read.examples)}")
    assert set(read.about["made_with"]) == {"promptopt", "python"}
    assert len({c.id for c in read.candidates}) == len(read.candidates)
    assert (read.prompt_tokens > 0).all()
    assert np.nanmax(read.means) > np.nanmin(read.means)
    np.testing.assert_allclose(np.linalg.norm(read.embeddings, axis=1), 1, atol=0.02)


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_matrix_fits_its_task_as_it_is_today(name):
    """Examples and candidates are of this task: none is of a split that recording must not see."""
    import promptopt_tasks
    from promptopt.task.load import load_task

    read = load_matrix(shipped()[name])
    changes = {"splits.search": len(read.examples), "splits.confirm": 10}
    task = load_task(promptopt_tasks.path(name), overrides=changes)
    assert tuple(example.id for example in task.splits.search.examples) == read.examples
    default = task.program.default()
    assert read.candidates[0].values == default.values
    for candidate in read.candidates:
        task.program.bind(candidate)
