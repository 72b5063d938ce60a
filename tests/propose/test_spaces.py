"""What bandits search: tuples of exemplars, pools of texts, soft prompts, and their product."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial
from promptopt.lm.base import Completion
from promptopt.lm.capabilities import SOFT_PROMPT
from promptopt.lm.scripted import ScriptedReader
from promptopt.program.params import Exemplar, Origin
from promptopt.program.predict import Predict
from promptopt.propose.soft_prompt import SoftAxis, SoftSettings
from promptopt.propose.space import Space
from promptopt.propose.text_pool import TextAxis, text_axis
from promptopt.propose.tuples import TupleAxis
from promptopt.records import Failure
from promptopt.search.local import Recorded, SoftModel
from promptopt.search.optimizer import Context
from promptopt.seeds import Seeds
from promptopt.surrogate import transport
from promptopt.testing.toy import examples

POOL = [Exemplar({"word": f"word {i}"}, {"answer": f"right {i}"}, f"e{i}") for i in range(12)]
SMALL = SoftSettings(vectors=2, intrinsic=3, size=40, pairs=3)


def context(complete=None, soft=None, instructions=(), demos=12, notes=None, once=None, **changes):
    program = Predict("word -> answer", instruction="Start here.")
    default = program.default()
    search = examples(50, 60)
    trial = Trial(default, "search", tuple(e.id for e in search), (0.0,) * 10, {}, {})
    made = Context(
        "toy", program, default, examples(0, demos), instructions, search, Seeds(0), complete or refuse, refuse,
        lambda: None, trial, soft=soft,
    )  # fmt: skip
    more = {"note": notes.append} if notes is not None else {}
    if once is not None:
        more["once"] = once
    return dataclasses.replace(made, **more, **changes)


def refuse(*_):
    raise AssertionError("nobody should be called")


def rng(seed=0):
    return np.random.default_rng(seed)


# Tuples ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parts", "text"])
def test_the_order_of_exemplars_changes_the_features_and_so_does_any_of_them(kind):
    axis = TupleAxis("exemplars", POOL, 3, context(), kind)
    a, b, c = axis.features(np.array([[0, 1, 2], [2, 1, 0], [0, 1, 3]]))
    assert np.linalg.norm(a - b) > 1e-3
    assert np.linalg.norm(a - c) > 1e-3
    assert np.array_equal(a, axis.features(np.array([[0, 1, 2]]))[0])


def test_no_exemplar_stands_twice_in_a_tuple_and_all_places_are_alike():
    axis = TupleAxis("exemplars", POOL, 3, context())
    drawn = axis.sample(12_000, rng())
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    for place in range(3):
        counts = np.bincount(drawn[:, place], minlength=12)
        assert abs(counts - 1000).max() < 5 * np.sqrt(1000 * 11 / 12)
    for some in (axis.promising(200, rng()), axis.near(np.array([3, 7, 1]), 500, rng())):
        assert all(len(set(row)) == 3 for row in some.tolist())


def test_neighbours_are_all_swaps_and_exchanges_and_never_the_tuple_itself():
    axis = TupleAxis("exemplars", POOL, 3, context())
    here = np.array([3, 7, 1])
    found = {tuple(row) for row in axis.near(here, 1000, rng()).tolist()}
    assert len(found) == 3 * 9 + 3
    assert tuple(here) not in found
    assert sum(sorted(row) == sorted(here.tolist()) for row in found) == 3
    assert all(sum(a != b for a, b in zip(row, here, strict=True)) in (1, 2) for row in found)
    assert len(axis.near(here, 5, rng())) == 5


def test_promising_tuples_are_nearer_to_the_scored_examples_than_random_ones():
    axis = TupleAxis("exemplars", POOL, 3, context(), filtered=1.0)
    free = TupleAxis("exemplars", POOL, 3, context(), filtered=0.0)
    cost = axis._cost
    near, random = (transport.exact(cost, some.promising(50, rng())).mean() for some in (axis, free))
    assert near < random - 0.5 * transport.exact(cost, free.sample(200, rng())).std()


def test_few_tuples_are_all_there_and_many_are_not():
    assert TupleAxis("exemplars", POOL[:4], 2, context()).every(12).shape == (12, 2)
    assert TupleAxis("exemplars", POOL[:4], 2, context()).every(11) is None
    assert TupleAxis("exemplars", POOL, 1, context()).features(np.array([[0], [1]])).shape[0] == 2


@pytest.mark.parametrize("k", [0, 13])
def test_a_tuple_longer_than_the_pool_is_refused(k):
    with pytest.raises(ConfigError, match="1 to 12 exemplars"):
        TupleAxis("exemplars", POOL, k, context())


def test_what_a_tuple_says_is_found_again():
    axis = TupleAxis("exemplars", POOL, 3, context())
    (value,) = axis.values(np.array([[5, 0, 9]]))
    assert [exemplar.source for exemplar in value] == ["e5", "e0", "e9"]
    assert axis.option(value).tolist() == [5, 0, 9]
    assert axis.option(value[:2]) is None
    assert axis.option((*value[:2], Exemplar({"word": "x"}, {"answer": "y"}, "z"))) is None


# Texts ----------------------------------------------------------------------------------------------------------------


def writer(texts):
    asked = []

    def complete(requests, role="proposer"):
        out = [texts[(len(asked) + i) % len(texts)] for i in range(len(requests))]
        asked.extend(requests)
        return [text if isinstance(text, Failure) else Completion(text) for text in out]

    return complete, asked


def test_a_pool_has_what_can_be_used_once_with_the_default_and_the_seeds():
    complete, asked = writer(["Say the word.", '"Say the word."', "", Failure("server", "no"), "Write it down."])
    made = context(complete, instructions=("My own words.",))
    axis = text_axis(made, made.instruction_parameters[0], 5, 0.9, 3)
    assert axis.texts == ("Start here.", "My own words.", "Say the word.", "Write it down.")
    assert len(asked) == 6, "three are wanted, in at most twice as many calls"
    assert len({request.seed for request in asked}) == len(asked)
    assert made.guard.counts() == {"empty": 1, "seen before": 2}


def test_a_proposer_that_writes_nothing_new_is_asked_at_most_twice_as_often_as_texts_are_wanted():
    complete, asked = writer(["Say the word."])
    made = context(complete)
    axis = text_axis(made, made.instruction_parameters[0], 10, 0.9, 3)
    assert axis.texts == ("Start here.", "Say the word.")
    assert len(asked) == 18


def test_the_nearest_texts_are_the_neighbours():
    axis = TextAxis("instruction", ["a", "b", "c"], np.array([[0.0], [1.0], [5.0]]))
    assert axis.near(np.array([0]), 1, rng()).tolist() == [[1]]
    assert axis.near(np.array([2]), 9, rng()).tolist() == [[1], [0]]
    assert axis.option("c").tolist() == [2]
    assert axis.option("d") is None
    assert sorted(axis.promising(3, rng())[:, 0].tolist()) == [0, 1, 2]


# Soft prompts ---------------------------------------------------------------------------------------------------------


class Reader(ScriptedReader):
    def __init__(self, reply):
        super().__init__(reply, digest="scripted/reader")
        self.read = []

    def soft_states(self, vectors, requests):
        self.read += [(vector.copy(), request) for vector, request in zip(vectors, requests, strict=True)]
        return super().soft_states(vectors, requests)


def soft_axis(settings=SMALL, reply=lambda request: f"Use way {request.seed}.\nAnd more.", **more):
    model = Reader(reply)

    def ask(request, names, role, digest, make):
        assert len(set(names)) == len(names)
        return make(list(range(len(names))))

    made = context(soft=SoftModel(model, "scripted/reader", "proposer", Recorded(), ask), **more)
    return SoftAxis(made, made.instruction_parameters[0], settings), model, made


def test_features_are_states_of_the_projected_sobol_points():
    axis, model, _ = soft_axis(dataclasses.replace(SMALL, scale=1.0))
    assert axis.size == 40
    z = axis.drawn
    assert z.shape == (40, 3)
    assert (z >= 0).all()
    assert (z <= 1).all()
    # A Sobol sequence fills the box evenly: of 32 points each half of each side has 16.
    assert ((z[:32] < 0.5).sum(0) == 16).all()
    vectors = np.array([vector for vector, _ in model.read])
    assert vectors.shape == (40, 2, 8)
    # One linear map without a constant, with entries from −1 to 1.
    solved, *_ = np.linalg.lstsq(z, vectors.reshape(40, -1), rcond=None)
    assert np.abs(z @ solved - vectors.reshape(40, -1)).max() < 1e-4
    assert np.abs(solved).max() <= 1
    assert np.abs(solved).max() > 0.8
    assert np.allclose(axis.features(axis.every(100)), vectors[:, 0], atol=1e-2)


def test_vectors_can_be_made_as_long_as_words():
    _, model, _ = soft_axis(dataclasses.replace(SMALL, scale=0.0, intrinsic=10, size=64))
    vectors = np.array([vector for vector, _ in model.read])
    assert 0.5 * 0.02 < np.sqrt((vectors**2).mean()) < 2 * 0.02


@pytest.mark.parametrize("order", ["prefix", "paper"])
def test_where_the_soft_prompt_stands(order):
    axis, _, _ = soft_axis(dataclasses.replace(SMALL, order=order))
    texts = [text for _, text in axis.request.messages]
    assert sum(SOFT_PROMPT in text for text in texts) == (1 if order == "prefix" else 0)
    last = texts[-1]
    shown = [line for line in last.splitlines() if "->" in line]
    assert len(shown) == 3
    if order == "prefix":
        assert last.index(SOFT_PROMPT) > last.index(shown[-1]), "after the demonstrations"
    assert axis.request.temperature == 0.0


def test_only_what_is_tried_is_decoded_and_only_once():
    axis, model, _ = soft_axis()
    assert model.calls == 0
    texts = axis.values(np.array([[3], [5], [3]]))
    assert model.calls == 2
    assert texts[0] == texts[2]
    assert texts[0].startswith("Use way")
    assert "\n" not in texts[0]
    axis.values(np.array([[5], [3]]))
    assert model.calls == 2


@pytest.mark.parametrize("reply", ["", "word 1 -> right 1", "I'm sorry, I can't.", Failure("server", "no")])
def test_what_cannot_be_tried_says_nothing(reply):
    axis, _, made = soft_axis(reply=lambda _: reply)
    assert axis.values(np.array([[0], [1]])) == [None, None]
    assert sum(made.guard.counts().values()) == (0 if isinstance(reply, Failure) else 2)


def test_the_machine_says_how_large_the_domain_is_once():
    notes, kept = [], {}

    def once(key, make):
        return kept.setdefault(key, make())

    axis, _, _ = soft_axis(dataclasses.replace(SMALL, size=0, minutes=1e-9), notes=notes, once=once)
    assert axis.size == 64, "never fewer"
    assert list(kept.values()) == [64]
    assert notes[0]["points"] == 64
    assert "minutes" in notes[0]["why"]
    large, _, _ = soft_axis(dataclasses.replace(SMALL, size=0, minutes=60), once=lambda *_: 100)
    assert large.size == 100
    assert np.array_equal(large.drawn[:64], axis.drawn), "a larger domain begins with the smaller one"


def test_nothing_to_show_is_refused():
    with pytest.raises(ConfigError, match="demos split, which is empty"):
        soft_axis(demos=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vectors": 0}, "vectors ≥ 1"),
        ({"intrinsic": 0}, "intrinsic ≥ 1"),
        ({"minutes": 0.0}, "minutes > 0"),
        ({"scale": -1.0}, "scale ≥ 0"),
        ({"order": "last"}, "order to be prefix or paper"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALL, **changes)


# Products -------------------------------------------------------------------------------------------------------------


def product():
    texts = TextAxis("instruction", ["a", "b", "c"], np.array([[0.0, 1.0], [100.0, 1.0], [500.0, -3.0]]))
    tuples = TupleAxis("exemplars", POOL[:4], 2, context())
    made = context()
    return Space([texts, tuples], made.default, rng()), made


def test_all_points_of_a_small_product_are_there_once():
    space, _ = product()
    points = space.every(36)
    assert points.shape == (36, 3)
    assert len({tuple(row) for row in points.tolist()}) == 36
    assert space.every(35) is None


def test_no_axis_counts_for_more_than_another():
    space, _ = product()
    features = space.features(space.sample(4000, rng(1)))
    shares = 2 * features.var(0)
    assert shares.sum() == pytest.approx(1, rel=0.1)
    assert shares[:2].sum() == pytest.approx(0.5, rel=0.15)


def test_neighbours_differ_on_one_axis():
    space, _ = product()
    here = np.array([1, 0, 2])
    for row in space.near(here, 100, rng()).tolist():
        assert (row[0] != 1) != (row[1:] != [0, 2])
    assert all(row[1:] == [0, 2] for row in space.near(here, 100, rng(), axis=0).tolist())
    moved = space.along(space.sample(50, rng()), here, 1)
    assert set(moved[:, 0]) == {1}
    assert len(moved) == len({tuple(row) for row in moved.tolist()})


def test_points_and_candidates():
    space, made = product()
    (candidate,) = space.candidates(np.array([[2, 3, 0]]), Origin("me", 4))
    assert candidate.text("instruction") == "c"
    assert [e.source for e in candidate.exemplars("exemplars")] == ["e3", "e0"]
    assert candidate.origin == Origin("me", 4)
    assert candidate.parents == (made.default.id,)
    assert space.point(candidate).tolist() == [2, 3, 0]
    assert space.point(made.default) is None


def test_promising_points_hold_options_of_every_axis():
    space, _ = product()
    points = space.promising(30, rng())
    assert set(Counter(points[:, 0].tolist())) == {0, 1, 2}
    assert len(points) == len({tuple(row) for row in points.tolist()})
