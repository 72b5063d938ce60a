"""Fields: what they promise of their truth, and that a search on one is counted as the engine counts it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import pytest

from promptopt.bench.fields import (
    RecordedField,
    TextField,
    TupleField,
    Tuples,
    Uniform,
    play,
    run,
    said,
)
from promptopt.bench.matrix import load_matrix, shipped
from promptopt.errors import ConfigError, OptimizerError
from promptopt.program.params import Candidate, Exemplar
from promptopt.propose.exemplars import labelled
from promptopt.search.optimizer import Ask
from promptopt.search.scheduled import scheduled
from promptopt.surrogate.gp import GaussianProcess

TEXTS = TextField(texts=60, dimensions=8, clusters=5)
TUPLES = TupleField(pool=12, k=3, dimensions=8, clusters=4)


def drawn(field, seed=0):
    return field.draw(np.random.default_rng(seed))


def of_text(pool, place):
    return pool.program.default().replace("instruction", pool.texts[place])


def of_shots(pool, places):
    shots = labelled(pool.program, "", pool.demos)
    return pool.program.default().replace("exemplars", tuple(shots[i] for i in places))


@dataclass(frozen=True)
class Scripted:
    """Asks for these rounds, in order, and keeps what it sees."""

    rounds: list
    seen: list

    def start(self, context):
        self.seen.append(context)
        return Script(iter(self.rounds), self.seen)


@dataclass(frozen=True)
class Script:
    left: Iterator
    seen: list

    def ask(self):
        return next(self.left, [])

    def tell(self, trials):
        self.seen.append(trials)


# Texts


def test_scores_of_texts_are_about_the_truth():
    pool = drawn(replace(TEXTS, examples=4000))
    assert pool.answers.mean(1) == pytest.approx(pool.truths, abs=0.04)
    candidate = of_text(pool, 7)
    assert pool.true(candidate) == pool.truths[7]
    assert np.array_equal(pool.scores(candidate), pool.answers[7])
    assert set(np.unique(pool.answers)) == {0.0, 1.0}
    assert pool.best == pool.truths.max()
    assert pool.program.default().text("instruction") == pool.texts[0]
    assert pool.instructions == pool.texts[1:]


def test_embeddings_of_texts_are_unit_vectors_and_found_in_longer_texts():
    pool = drawn(TEXTS)
    found = pool.embed([pool.texts[1], f"{pool.texts[11]}\nWord: case 3", "something else", "something else"])
    assert found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(found[:2], pool.vectors[[1, 11]])
    assert np.array_equal(found[2], found[3])
    assert np.abs(pool.vectors @ found[2]).max() < 0.999


@pytest.mark.parametrize(("smooth", "least", "most"), [(0.0, -0.2, 0.2), (0.9, 0.45, 0.95)])
def test_the_embedding_explains_as_much_as_it_should(smooth, least, most):
    found = []
    for seed in range(3):
        pool = drawn(TextField(texts=400, smooth=smooth, examples=20), seed)
        model = GaussianProcess()
        model.fit(pool.vectors[:200], pool.answers[:200].mean(1), np.full(200, 20))
        found.append(np.corrcoef(model.belief(pool.vectors[200:]).mean, pool.truths[200:])[0, 1])
    assert least < np.mean(found) < most


def test_near_texts_have_near_scores_as_far_as_the_field_is_smooth():
    def alike(smooth):
        """Share of the variance between texts that a text and its nearest neighbour have in common."""
        found = []
        for seed in range(5):
            pool = drawn(TextField(texts=1500, dimensions=8, width=0.3, smooth=smooth, spread=0.2), seed)
            near = pool.vectors @ pool.vectors.T - 2 * np.eye(1501)
            found.append(np.corrcoef(pool.truths, pool.truths[near.argmax(1)])[0, 1])
        return np.mean(found)

    assert alike(0.0) == pytest.approx(0.0, abs=0.1)
    assert alike(0.5) == pytest.approx(0.5, abs=0.1)
    assert alike(1.0) > 0.9


# Tuples


def test_scores_of_tuples_are_about_the_truth_and_stay():
    pool = drawn(replace(TUPLES, examples=4000))
    candidate = of_shots(pool, (3, 0, 7))
    scores = pool.scores(candidate)
    assert scores.mean() == pytest.approx(pool.true(candidate), abs=0.04)
    assert np.array_equal(scores, pool.scores(candidate))
    turned = pool.scores(of_shots(pool, (7, 0, 3)))
    assert 0.1 < (scores != turned).mean() < 0.5
    assert pool.true(pool.program.default()) == pytest.approx(0.5)


def test_abilities_are_sums_of_parts():
    pool = drawn(replace(TUPLES, noise=0.0, interaction=0.0))
    assert pool.weights.mean() == pytest.approx(1.0)
    expected = pool.quality[3] * 0.75 + pool.quality[0] + pool.quality[7] * 1.25
    assert pool.ability([[3, 0, 7]]) == pytest.approx([expected])
    assert pool.ability([[7]]) == pytest.approx([1.25 * pool.quality[7]]), "the last place is the last of any length"
    assert pool.ability(np.zeros((2, 0), dtype=int)) == pytest.approx([0.0, 0.0])
    paired = drawn(replace(TUPLES, noise=0.0))
    single = paired.quality[[2, 5, 1]] @ [0.75, 1.0, 1.25]
    assert paired.ability([[2, 5, 1]])[0] - single == pytest.approx(
        paired.pairs[2, 5] + paired.pairs[2, 1] + paired.pairs[5, 1]
    )


def test_the_parts_are_as_large_as_the_field_says():
    noisy = drawn(replace(TUPLES, pool=60, noise=2.0, wrong=0.0))
    calm = replace(noisy, noise=0.0)
    rng = np.random.default_rng(0)
    tuples = np.array([rng.permutation(60)[:3] for _ in range(4000)])
    own = noisy.ability(tuples) - calm.ability(tuples)
    assert own.std() == pytest.approx(2 * 0.6, rel=0.05)
    assert own.mean() == pytest.approx(0, abs=0.06)
    assert calm.ability(tuples).mean() == pytest.approx(0.8, abs=0.1)
    bad = drawn(replace(TUPLES, pool=60, wrong=1.0))
    assert bad.ability(tuples).mean() == pytest.approx(-1.6, abs=0.15)
    half = drawn(replace(TUPLES, pool=60))
    assert half.wrong.sum() == 30
    assert half.quality[half.wrong].mean() < half.quality[~half.wrong].mean() - 0.5


def test_wrongness_is_as_visible_as_the_field_says():
    def apart(visible):
        found = []
        for seed in range(10):
            pool = drawn(TupleField(visible=visible), seed)
            cost = 1 - pool.vectors @ pool.cases.T
            found.append(cost[pool.wrong].mean() - cost[~pool.wrong].mean())
        return np.mean(found)

    assert apart(0.0) == pytest.approx(0.0, abs=0.01)
    assert apart(1.0) > apart(0.5) - 0.01
    pool = drawn(TupleField(visible=1.0))
    direction = pool.vectors[pool.wrong].mean(0) - pool.vectors[~pool.wrong].mean(0)
    sides = pool.vectors @ direction
    assert (sides[pool.wrong] > np.median(sides)).mean() > 0.9


def test_the_best_of_a_small_field_is_the_best():
    pool = drawn(TUPLES)
    truth = max(pool.true(of_shots(pool, places)) for places in permutations(range(12), 3))
    assert pool.best == pytest.approx(truth)


def test_embeddings_of_tuples_tell_what_is_in_them_and_a_little_of_the_order():
    pool = drawn(TUPLES)
    one, other, alone, case, nothing = pool.embed(
        ["shot 3 answer 3\nshot 10 answer 10", "shot 10\nshot 3", "shot 3.", "{'word': 'case 2'}", "Answer."]
    )
    both = pool.vectors[3] + pool.vectors[10]
    assert one @ (both / np.linalg.norm(both)) > 0.95
    assert 0.8 < one @ other < 0.9999
    assert alone == pytest.approx(pool.vectors[3], abs=1e-6)
    assert case == pytest.approx(pool.cases[2], abs=1e-6)
    assert np.linalg.norm(nothing) == pytest.approx(1)


# Games


@pytest.mark.parametrize("field", [TEXTS, TUPLES, RecordedField(load_matrix(shipped()["plural"]))])
def test_a_game_repeats_and_counts(field):
    one, again = (run(field, Uniform(30, 3), trials=20, seed=3) for _ in range(2))
    assert (one.cells, one.true, one.winner) == (again.cells, again.true, again.winner)
    assert one.cells == tuple(range(0, 401, 20))
    assert len(one.true) == 21
    assert one.regret() == one.best - one.true[-1] == one.regret(99)
    assert one.regret(0) == one.regret_at(19) == one.best - one.true[0]
    assert one.regret_at(20) == one.best - one.true[1]
    assert run(field, Uniform(30, 3), trials=20, seed=4).true != one.true
    assert run(field, Uniform(5, 3), trials=20, seed=3).true == one.true[:6]
    assert run(field, Uniform(30, 3), cells=59, seed=3).cells == (0, 20, 40)


def test_the_winner_is_the_first_of_the_highest_scores():
    pool = drawn(TEXTS)
    order = [5, 3, 9, 20, 41]
    curve = play(pool, Scripted([[Ask(of_text(pool, i))] for i in order], []))
    means, leader = [pool.answers[0].mean()], [0]
    for place in order:
        leader.append(place if pool.answers[place].mean() > max(means) else leader[-1])
        means.append(pool.answers[place].mean())
    assert curve.true == tuple(pool.truths[i] for i in leader)
    assert curve.found == tuple(max(pool.truths[[0, *order[:n]]]) for n in range(6))
    assert curve.winner == of_text(pool, leader[-1])


def test_no_cell_is_paid_twice_and_few_cells_do_not_win():
    pool = drawn(TEXTS)
    a, b = of_text(pool, 1), of_text(pool, int(pool.answers.mean(1).argmax()))
    seen = []
    rounds = [[Ask(a, n=5)], [Ask(a), Ask(a), Ask(pool.program.default())], [Ask(b, places=(3, 1))], [Ask(b, n=10)]]
    curve = play(pool, Scripted(rounds, seen))
    assert curve.cells == (0, 5, 20, 22, 30)
    context, first, second, third, fourth = seen
    assert [len(trials) for trials in seen[1:]] == [1, 3, 1, 1]
    assert first[0].scores == tuple(pool.answers[1][:5])
    assert second[0] == second[1]
    assert second[2] == context.baseline
    assert third[0].examples == ("c3", "c1")
    assert curve.true[3] != pool.true(b), "two examples are not enough"
    assert curve.true[4] == pool.true(b)
    assert fourth[0].n == 10


def test_what_an_optimizer_sees():
    seen = []
    pool = drawn(TUPLES)
    play(pool, Scripted([], seen), trials=7, cells=120)
    (context,) = seen
    assert context.cells_left() == 120
    assert len(context.demos) == 12
    assert context.search_size == context.baseline.n == 20
    assert context.guard.passes(of_shots(pool, (1, 2)))
    assert context.embed.name == "field"
    assert context.embed(["shot 1", "case 1"]).shape == (2, 8)
    for call in (context.complete, context.run):
        with pytest.raises(ConfigError, match="no model"):
            call([])
    play(pool, Scripted([], seen))
    assert seen[1].cells_left() is None


def test_any_fidelity_can_be_played():
    @dataclass(frozen=True)
    class Raced:
        def start(self, context):
            asks = [[Ask(of_text(pool, i)) for i in range(1, 17)]]
            return scheduled(Scripted(asks, []).start(context), "halving", context)

    pool = drawn(TEXTS)
    curve = play(pool, Raced())
    assert 20 < curve.cells[-1] < 16 * 20
    assert pool.true(curve.winner) == curve.true[-1]


def test_random_search_gets_better_and_a_surrogate_beats_it():
    """The field does what it is for: where scores follow the embedding, following it pays."""

    @dataclass(frozen=True)
    class Greedy:
        def start(self, context):
            return Follower(context)

    class Follower:
        def __init__(self, context):
            self.default, self.texts = context.default, context.instructions
            self.vectors = context.embed(context.instructions)
            self.told = dict.fromkeys(context.seeds.rng("greedy").permutation(len(self.texts))[:20].tolist())
            self.left = list(self.told)

        def ask(self):
            if not self.left:
                model = GaussianProcess()
                known = list(self.told)
                model.fit(self.vectors[known], [self.told[i] for i in known], np.full(len(known), 60))
                belief = model.belief(self.vectors)
                value = belief.mean + belief.sigma
                value[known] = -1
                self.left = np.argsort(-value)[:10].tolist()
            self.asked, self.left = self.left, []
            return [Ask(self.default.replace("instruction", self.texts[i])) for i in self.asked]

        def tell(self, trials):
            self.told |= {i: trial.mean for i, trial in zip(self.asked, trials, strict=True)}

    field = TextField(texts=500, examples=60)
    random = [run(field, Uniform(), trials=60, seed=seed) for seed in range(12)]
    greedy = [run(field, Greedy(), trials=60, seed=seed) for seed in range(12)]
    assert [c.best for c in random] == [c.best for c in greedy]
    assert np.mean([c.regret() for c in random]) < np.mean([c.regret(1) for c in random])
    assert np.mean([c.regret() for c in greedy]) < np.mean([c.regret() for c in random]) - 0.02
    assert np.mean([c.found[-1] for c in greedy]) > np.mean([c.found[-1] for c in random]) + 0.02


# Recorded


def test_recorded_texts_are_the_candidates_and_the_rest_is_the_truth():
    matrix = load_matrix(shipped()["plural"])
    pool = drawn(RecordedField(matrix, search=30))
    n = len(matrix.examples)
    assert pool.answers.shape == (48, 30)
    assert (pool.answers.sum(1) + pool.truths * (n - 30)) / n == pytest.approx(matrix.means)
    assert len(set(pool.texts)) == 48
    assert np.linalg.norm(pool.embed(pool.texts), axis=1) == pytest.approx(1, abs=1e-5)
    given = np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32)
    assert drawn(RecordedField(matrix, vectors=given)).vectors.shape == (48, 3)
    shot = Exemplar({"word": "cat"}, {"plural": "cats"})
    assert said(Candidate({"a": "Do.", "b": (shot, shot)})) == "Do.\ncat cats\ncat cats"


# Misuse


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TextField(texts=0), "texts ≥ 1"),
        (lambda: TextField(smooth=1.5), r"smooth in \[0, 1\]"),
        (lambda: TextField(spread=-1), "spread ≥ 0"),
        (lambda: TupleField(wrong=-0.1), "wrong"),
        (lambda: TupleField(pool=3), "k ≤ pool"),
        (lambda: RecordedField(load_matrix(shipped()["plural"]), search=0), "examples to search on"),
        (lambda: RecordedField(load_matrix(shipped()["plural"]), vectors=np.ones((3, 2))), "48 vectors"),
        (lambda: Uniform(trials=0), "trials ≥ 1"),
        (lambda: run(TEXTS, Uniform(), trials=0), "trials ≥ 1"),
        (lambda: run(TEXTS, Uniform(), cells=0), "cells ≥ 1"),
    ],
)
def test_misuse_says_what_was_expected(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_candidates_that_are_not_of_the_pool_are_refused():
    texts, shots = drawn(TEXTS), drawn(TUPLES)
    default = texts.program.default()
    for pool, candidate in (
        (texts, default.replace("instruction", "Another.")),
        (texts, default.replace("exemplars", (Exemplar({"word": "a"}, {"answer": "b"}),))),
        (shots, of_shots(shots, (1,)).replace("instruction", "Another.")),
        (shots, of_shots(shots, (1, 1))),
        (shots, shots.program.default().replace("exemplars", (Exemplar({"word": "a"}, {"answer": "b"}),))),
    ):
        with pytest.raises(ConfigError, match="of the pool"):
            play(pool, Scripted([[Ask(candidate)]], []))


def test_who_asks_for_the_same_for_ever_is_stopped():
    pool = drawn(TEXTS)
    with pytest.raises(OptimizerError, match="1000 rounds"):
        play(pool, Scripted([[Ask(pool.program.default())]] * 2000, []))


def test_large_pools_are_quick_enough_to_draw():
    pool = drawn(TextField(texts=10_000))
    assert pool.embed(pool.texts).shape == (10_001, 64)
    assert isinstance(drawn(TupleField()), Tuples)
    assert [field.name for field in (TEXTS, TUPLES)] == ["text", "tuple"]
