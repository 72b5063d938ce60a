"""What local models compute for an optimizer: recorded before it is used, made once, paid for where it writes."""

import dataclasses
import json

import numpy as np
import pytest

from promptopt.api import optimize
from promptopt.errors import ConfigError, ModelUnavailableError, RunError
from promptopt.lm.scripted import ScriptedLM, ScriptedReader
from promptopt.lm.spec import ModelSpec
from promptopt.optimizers.ease import Ease
from promptopt.optimizers.instinct import Instinct
from promptopt.optimizers.instructzero import InstructZero
from promptopt.optimizers.random_search import RandomSearch
from promptopt.propose.soft_prompt import SoftSettings
from promptopt.search.budget import Limits
from promptopt.search.journal import JsonLines
from promptopt.search.local import Recorded
from promptopt.search.run import read_notes
from promptopt.testing.toy import splits, toy

SOFT = SoftSettings(vectors=2, intrinsic=3, size=64, pairs=3)


class Restless:
    """An embedder whose last digits are never the same twice, and that counts what it embeds."""

    digest = "st/restless"

    def __init__(self, error=None):
        self.texts = []
        self.closed = False
        self._error = error

    def embed(self, texts):
        if self._error:
            raise self._error
        self.texts += texts
        rows = [np.random.default_rng(len(text) + sum(text.encode())).normal(size=12) for text in texts]
        return (np.array(rows) + 1e-3 * np.random.default_rng().normal(size=(len(texts), 12))).astype(np.float32)

    def close(self):
        self.closed = True


def run(folder, optimizer, proposer=None, embedder=None, limits=None, **settings):
    quality = settings.pop("quality", lambda text: (sum(text.encode()) % 89) / 100)
    task, model = toy(quality, splits=splits(demos=12, search=16, confirm=8, test=8), **settings)
    backends = {"task": model, "proposer": proposer or reader(), "embedder": embedder or Restless()}
    return optimize(task, optimizer=optimizer, out=folder, budget=limits or Limits(), backends=backends)


def reader(reply=lambda request: f"Try the way with number {request.seed}."):
    return ScriptedReader(reply, digest="scripted/reader")


def trials(folder):
    return (folder / "trials.jsonl").read_bytes()


# Recorded -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(tmp_path):
    """Opens the record anew, as the next sitting does."""
    files = []

    def open_it():
        files.append(JsonLines(tmp_path / "local.jsonl"))
        return Recorded(files[-1])

    yield open_it
    for file in files:
        file.close()


def test_vectors_are_made_once_in_any_order_and_come_back_as_they_were_used(opened):
    made = []

    def make(places):
        made.append(list(places))
        return np.array([[place + 0.1234567, -1.0] for place in places], dtype=np.float32)

    recorded = opened()
    first = recorded.vectors(["a", "b", "a"], make)
    assert made == [[0, 1]]
    assert first.shape == (3, 2)
    assert first.dtype == np.float32
    assert np.array_equal(first[0], first[2])
    assert np.allclose(first[:2, 0], [0.1234567, 1.1234567], rtol=1e-3)
    more = recorded.vectors(["c", "b"], make)
    assert made == [[0, 1], [0]]
    again = opened().vectors(["b", "c", "a"], make)
    assert len(made) == 2
    assert np.array_equal(again, [more[1], more[0], first[0]])


def test_many_vectors_reach_the_disk_as_they_come(opened):
    def make(places):
        if len(made) == 2:
            raise RuntimeError("the power is gone")
        made.append(len(places))
        return np.ones((len(places), 3), dtype=np.float32)

    made = []
    keys = [str(i) for i in range(1000)]
    with pytest.raises(RuntimeError, match="power"):
        opened().vectors(keys, make)
    left = []
    opened().vectors(keys, lambda places: left.extend(places) or np.ones((len(places), 3), dtype=np.float32))
    assert sum(made) + len(left) == 1000
    assert made


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_what_is_no_number_or_too_large_is_refused_and_not_kept(tmp_path, opened, bad):
    path = tmp_path / "local.jsonl"
    with pytest.raises(ConfigError, match="finite vectors"):
        opened().vectors(["a"], lambda _: np.array([[bad]], dtype=np.float32))
    assert path.read_bytes() == b""


def test_once(opened):
    recorded = opened()
    assert recorded.once("size", lambda: 7) == 7
    assert recorded.once("size", lambda: 8) == 7
    assert opened().once("size", lambda: 9) == 7


# In a run -------------------------------------------------------------------------------------------------------------

EASE = Ease(exemplars=2, trials=8, first=3, per_step=2, surrogate="gp", look=60, features="text", evaluation="full")


def test_a_rerun_reads_the_vectors_of_the_first_run(tmp_path):
    first, second = Restless(), Restless()
    run(tmp_path, EASE, embedder=first)
    before = trials(tmp_path)
    run(tmp_path, EASE, embedder=second)
    assert trials(tmp_path) == before
    assert first.texts
    assert not second.texts, "everything was recorded"
    assert not first.closed, "it was given, and is the giver's to close"


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.8])
def test_a_killed_run_goes_on_with_its_own_vectors(tmp_path, keep):
    run(tmp_path, EASE)
    before = trials(tmp_path)
    for name in ("cells", "trials", "events", "search"):
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    run(tmp_path, EASE)
    assert trials(tmp_path) == before


def test_notes_are_written_once_and_a_cut_file_is_completed(tmp_path):
    run(tmp_path, EASE)
    whole = (tmp_path / "search.jsonl").read_bytes()
    rounds = [note for note in read_notes(tmp_path) if note["kind"] == "round"]
    assert rounds
    for note in rounds:
        assert note["surrogate"] == "gp"
        assert note["points"] > 10
        assert all(wanted["sigma"] >= 0 and 0 <= wanted["mean"] <= 1.5 for wanted in note["wanted"])
        assert [w["gain"] for w in note["wanted"]] == sorted((w["gain"] for w in note["wanted"]), reverse=True)
    assert set(rounds[0]["coverage"]) == {"0.5", "0.9"}
    run(tmp_path, EASE)
    assert (tmp_path / "search.jsonl").read_bytes() == whole
    (tmp_path / "search.jsonl").write_bytes(whole[: len(whole) // 2])
    run(tmp_path, EASE)
    assert (tmp_path / "search.jsonl").read_bytes() == whole


def test_a_damaged_record_of_vectors_is_refused(tmp_path):
    run(tmp_path, EASE)
    path = tmp_path / "local.jsonl"
    path.write_bytes(b"{nonsense\n" + path.read_bytes())
    with pytest.raises(RunError, match=r"local\.jsonl:1"):
        run(tmp_path, EASE)


def test_the_embedder_is_opened_only_for_those_who_embed(tmp_path):
    broken = Restless(ModelUnavailableError("no such model"))
    run(tmp_path / "a", RandomSearch(trials=2), embedder=broken)
    with pytest.raises(ModelUnavailableError, match="no such model"):
        run(tmp_path / "b", EASE, embedder=broken)


def test_what_makes_no_vectors_is_no_embedder(tmp_path):
    with pytest.raises(ConfigError, match="makes no vectors"):
        run(tmp_path, EASE, embedder=ScriptedLM(lambda _: ""))
    assert not (tmp_path / "run.json").exists(), "refused before anything is written"


def test_without_an_embedder_words_are_hashed(tmp_path):
    task, model = toy(lambda text: 0.5, splits=splits(demos=12, search=16, confirm=8, test=8))
    assert "embedder" not in task.models
    optimize(task, optimizer=EASE, out=tmp_path, backends={"task": model})
    assert '"vector"' not in (tmp_path / "local.jsonl").read_text(), "what anybody can work out is not recorded"
    assert any(note["kind"] == "round" for note in read_notes(tmp_path))


# Soft prompts ---------------------------------------------------------------------------------------------------------

INSTINCT = Instinct(domain="soft", soft=SOFT, trials=8, first=4, per_step=2, surrogate="gp", evaluation="full")


@pytest.mark.parametrize("optimizer", [INSTINCT, InstructZero(SOFT, first=4, rounds=2, per_round=3)])
def test_soft_prompts_are_written_once_and_charged_to_the_proposer(tmp_path, optimizer):
    first, second = reader(), reader()
    result = run(tmp_path, optimizer, first)
    before = trials(tmp_path)
    assert first.calls == result.paid["proposer"].calls == result.charged["proposer"].calls > 4
    again = run(tmp_path, optimizer, second)
    assert trials(tmp_path) == before
    assert second.calls == 0
    assert again.charged["proposer"] == result.charged["proposer"]
    assert again.paid.get("proposer") is None or again.paid["proposer"].calls == 0


@pytest.mark.parametrize("calls", [90, 100, 125])
def test_soft_prompts_stay_within_the_budget(tmp_path, calls):
    result = run(tmp_path, INSTINCT, limits=Limits(calls=calls))
    assert sum(usage.calls for usage in result.charged.values()) <= calls
    before = trials(tmp_path)
    run(tmp_path, INSTINCT, limits=Limits(calls=calls))
    assert trials(tmp_path) == before


def test_what_soft_prompts_would_cost_is_asked_before_they_are_written(tmp_path):
    many = Instinct(
        domain="soft", soft=SOFT, trials=60, first=40, per_step=2, surrogate="gp", examples=1, evaluation="full"
    )
    proposer = reader()
    result = run(tmp_path, many, proposer, limits=Limits(tokens=3500))
    assert sum(u.tokens for u in result.charged.values()) <= 3500
    assert "tokens" in result.stopped
    assert proposer.calls == result.paid.get("proposer", result.paid["task"]).calls or proposer.calls == 0


def test_one_that_reads_no_soft_prompts_is_refused_with_the_fix(tmp_path):
    with pytest.raises(ConfigError, match=r"models\.proposer to an hf/ model"):
        run(tmp_path, INSTINCT, ScriptedLM(lambda _: "x"))


def test_a_task_model_that_reads_soft_prompts_does_for_a_missing_proposer(tmp_path):
    task, _ = toy(lambda text: 0.5, splits=splits(demos=12, search=16, confirm=8, test=8))
    models = {"task": ModelSpec("scripted/task")}
    model = reader(lambda request: "Say it." if request.seed is not None else "right 1")
    result = optimize(
        dataclasses.replace(task, models=models), optimizer=INSTINCT, out=tmp_path, backends={"task": model}
    )
    assert result.candidates == 1
    assert json.loads((tmp_path / "calls.jsonl").read_text().splitlines()[0])["role"] == "task"
