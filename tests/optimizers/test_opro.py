"""OPRO's conformance list (Yang et al. 2023, and the authors' code)."""

import re

import pytest

from promptopt.api import optimize
from promptopt.errors import ConfigError
from promptopt.lm.scripted import ScriptedLM
from promptopt.optimizers.opro import Opro
from promptopt.records import Failure
from promptopt.task.task import Guards
from promptopt.testing.toy import splits, toy


def quality(instruction):
    return (len(instruction) * 37 % 101) / 100


class Recorder:
    """A proposer that says something new each time and remembers what it was asked."""

    def __init__(self, reply=None):
        self.requests = []
        self.reply = reply or (lambda n: f"<INS>Text number {n}{'x' * (n % 23)}.</INS>")

    def __call__(self, request):
        self.requests.append(request)
        return self.reply(len(self.requests))


def run(tmp_path, optimizer, recorder=None, name="run", **settings):
    recorder = recorder or Recorder()
    settings.setdefault("splits", splits(demos=12, search=10, confirm=10, test=0))
    task, lm = toy(quality, **settings)
    proposer = ScriptedLM(recorder, digest="scripted/proposer", max_batch=1)
    result = optimize(task, optimizer=optimizer, out=tmp_path / name, backends={"task": lm, "proposer": proposer})
    return result, lm, recorder


def pairs(request):
    """(score, text) as the last turn shows them."""
    return [(int(s), t) for s, t in re.findall(r"score (-?\d+): (.*)", request.messages[-1][1])]


def test_pairs_are_ascending_at_most_twenty_and_scores_are_integers(tmp_path):
    _, _, recorder = run(tmp_path, Opro(steps=6, per_step=8))
    assert len(recorder.requests) == 48
    for request in recorder.requests:
        scores = [score for score, _ in pairs(request)]
        assert scores == sorted(scores)
        assert 1 <= len(scores) <= 20
    assert len(pairs(recorder.requests[-1])) == 20


def test_those_shown_are_the_best_of_the_whole_history(tmp_path):
    _, _, recorder = run(tmp_path, Opro(steps=6, per_step=8, shown=5))
    best = [score for score, _ in pairs(recorder.requests[-1])]
    seen = {score for request in recorder.requests for score, _ in pairs(request)}
    assert min(best) >= sorted(seen)[-5]


@pytest.mark.parametrize(("score", "shown"), [(0.29, "29"), (0.57, "57"), (0.0, "0"), (1.0, "100"), (0.125, "12")])
def test_scores_are_rounded_once(tmp_path, score, shown):
    from promptopt.optimizers.opro import _Search

    class Settings:
        _settings = Opro()

    assert str(_Search._shown_score(Settings(), score)) == shown


def test_examples_shown_are_the_same_for_the_same_step_and_never_scored_ones(tmp_path):
    def shown(request):
        return request.messages[-1][1].split("Examples:\n")[1]

    _, _, first = run(tmp_path, Opro(steps=3, per_step=2), name="a")
    _, _, second = run(tmp_path, Opro(steps=3, per_step=2), name="b")
    assert [shown(r) for r in first.requests] == [shown(r) for r in second.requests]
    steps = [shown(r) for r in first.requests[::2]]
    assert len(set(steps)) == 3
    for text in steps:
        assert text.count("->") == 3
        assert all(int(n) < 12 for n in re.findall(r"word (\d+) ->", text))  # the demos are examples 0 … 11


def test_the_reference_shows_scored_examples_and_one_plain_request(tmp_path):
    _, _, recorder = run(tmp_path, Opro(steps=1, per_step=1, fidelity="reference"))
    assert [role for role, _ in recorder.requests[0].messages] == ["user"]
    numbers = [int(n) for n in re.findall(r"word (\d+) ->", recorder.requests[0].messages[0][1])]
    assert len(numbers) == 3
    assert all(12 <= n < 22 for n in numbers)


def test_an_identical_text_is_never_scored_twice(tmp_path):
    recorder = Recorder(lambda n: "<INS>The same text.</INS>" if n % 2 else "<INS> the same   TEXT. </INS>")
    _, lm, _ = run(tmp_path, Opro(steps=3, per_step=4, evaluation="full"), recorder)
    assert lm.calls == 10 + 10 + 20  # default and one candidate on search, both on confirm


def test_initial_texts_count_as_seen_when_fixed_and_not_in_the_reference(tmp_path):
    def same(n):
        return "<INS>Start here.</INS>"

    for fidelity, searched in (("fixed", 10), ("reference", 20)):
        _, lm, _ = run(
            tmp_path, Opro(steps=1, per_step=1, fidelity=fidelity), Recorder(same), fidelity, instruction="start here."
        )
        assert lm.calls >= searched
        assert (lm.calls == 20) == (fidelity == "fixed")  # fixed: 10 search + 10 confirm of the default alone


def test_call_counts_follow_the_formula(tmp_path):
    steps, per_step, search, confirm = 5, 4, 10, 10
    _, lm, recorder = run(tmp_path, Opro(steps=steps, per_step=per_step, evaluation="full"))
    assert len(recorder.requests) == steps * per_step
    assert lm.calls == search * (1 + steps * per_step) + confirm * 4


def test_a_reply_without_delimiters_is_dropped_when_fixed_and_kept_whole_in_the_reference(tmp_path):
    sorry = Recorder(lambda n: f"**sorry**, I can't help with {n}.")
    fixed, _, _ = run(tmp_path, Opro(steps=1, per_step=2), sorry, "fixed")
    assert fixed.trials == 2  # the default on search and confirm
    as_coded, kept = Opro(steps=1, per_step=2, fidelity="reference"), Guards(refusals=False)
    reference, _, _ = run(tmp_path, as_coded, sorry, "reference", guards=kept)
    lines = (tmp_path / "reference" / "trials.jsonl").read_text()
    assert "Sorry, I can't help with" in lines  # kept, without the bold marks and with a capital
    assert reference.trials > 2
    guarded, _, _ = run(tmp_path, as_coded, Recorder(sorry.reply), "guarded")
    assert (guarded.trials, guarded.dropped) == (2, {"refusal": 2})


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("x" * 501, {}),
        ("Use 3 words.", {"no_digits": True}),
        ("Put <INS> here.", {}),
        ("", {}),
    ],
)
def test_unusable_texts_are_dropped(tmp_path, text, settings):
    result, lm, _ = run(tmp_path, Opro(steps=1, per_step=1, **settings), Recorder(lambda n: f"<INS>{text}</INS>"))
    assert result.trials == 2
    assert lm.calls == 20


def test_failed_proposals_cost_nothing_else(tmp_path):
    result, _, recorder = run(tmp_path, Opro(steps=2, per_step=3), Recorder(lambda n: Failure("request", "no")))
    assert len(recorder.requests) == 6
    assert result.verdict == "indistinguishable"


def test_the_temperature_follows_its_line(tmp_path):
    _, _, recorder = run(tmp_path, Opro(steps=3, per_step=1, temperature=1.0, final_temperature=0.5))
    assert [request.temperature for request in recorder.requests] == [1.0, 0.75, 0.5]


def test_most_frequently_wrong_examples_are_shown(tmp_path):
    settings = Opro(steps=2, per_step=2, criterion="accumulative_most_frequent", exemplars=2)
    _, _, recorder = run(tmp_path, settings)
    numbers = [int(n) for n in re.findall(r"word (\d+) ->", recorder.requests[-1].messages[-1][1])]
    hardness = sorted(((n * 7919 % 100) for n in range(12, 22)), reverse=True)
    assert sorted((n * 7919 % 100 for n in numbers), reverse=True) == hardness[:2]


def test_user_seeds_are_scored_first(tmp_path):
    _, _, recorder = run(tmp_path, Opro(steps=1, per_step=1), instructions=("One seed.", "Another seed."))
    assert {"One seed.", "Another seed."} <= {text for _, text in pairs(recorder.requests[0])}


def test_a_pretrained_proposer_continues_the_whole_history(tmp_path):
    recorder = Recorder(lambda n: f"Continued text {n}</INS> and more")
    _, _, recorder = run(tmp_path, Opro(steps=2, per_step=2, meta="continue"), recorder)
    last = recorder.requests[-1]
    assert last.messages[-1][1].rstrip().endswith("<INS>")
    assert "Continued text 1</INS>\nprecision:" in last.messages[-1][1]
    assert last.stop == ("</INS>",)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="per_step ≥ 1, got 0"):
        Opro(per_step=0)


@pytest.mark.parametrize("fidelity", ["fixed", "reference"])
def test_non_ascii_texts_are_fine(tmp_path, fidelity):
    recorder = Recorder(lambda n: f"<INS>Schreib größer: {n} 日本語</INS>")
    result, _, _ = run(tmp_path, Opro(steps=1, per_step=2, fidelity=fidelity), recorder)
    assert result.trials >= 4
