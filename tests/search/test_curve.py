from promptopt.evaluate.cells import Trial
from promptopt.program.params import Candidate
from promptopt.records import Usage
from promptopt.search.curve import Curve


def trial(name, *scores, split="search"):
    examples = tuple(f"e{i}" for i in range(len(scores)))
    usage = {"task": Usage(calls=len(scores), prompt_tokens=10 * len(scores))}
    return Trial(Candidate({"instruction": name}), split, examples, scores, {}, usage)


def drawn(*trials, every=10):
    curve = Curve()
    for number, each in enumerate(trials, 1):
        curve.add([each], Usage(), Usage(number * every, number * 100, 7, 0, number / 4))
    return curve.points


def test_the_best_so_far_by_what_it_had_cost():
    points = drawn(trial("a", 0.0, 1.0), trial("b", 1.0, 1.0), trial("c", 0.0, 0.0), trial("d", 0.0, 1.0))
    assert points == ((10, 107, 0.25, 0.5, 2), (20, 207, 0.5, 1.0, 2), (40, 407, 1.0, 1.0, 2))


def test_a_short_trial_is_no_best_beside_long_ones():
    points = drawn(trial("a", *[0.5] * 10), trial("lucky", 1.0, 1.0, 1.0, 1.0), trial("b", *[0.6] * 5))
    assert [(round(best, 6), n) for *_, best, n in points] == [(0.5, 10), (0.5, 10), (0.6, 5)]


def test_a_trial_that_grows_replaces_itself():
    points = drawn(trial("a", 0.5, 0.5), trial("b", 1.0, 1.0), trial("b", 1.0, 1.0, 0.0, 0.0), trial("b", 0.0))
    assert [best for *_, best, _ in points] == [0.5, 1.0, 0.5]  # a shorter one than there was says nothing
    assert points[-1][-1] == 4  # of equal means, the one that was seen on more examples


def test_other_splits_and_trials_without_a_score_say_nothing():
    assert drawn(trial("a", 1.0, split="confirm"), trial("b", None, None)) == ()


def test_a_long_search_without_progress_is_two_points():
    points = drawn(trial("best", 1.0, 1.0), *(trial(f"c{i}", 0.0, 0.0) for i in range(50)))
    assert [calls for calls, *_ in points] == [10, 510]


def test_of_trials_that_are_evaluated_together_each_has_cost_what_it_added():
    curve = Curve()
    curve.add([trial("a", 0.0, 0.0)], Usage(), Usage(calls=2))
    batch = [trial("b", 0.5, 0.5), trial("c", 0.6, 0.6), trial("b", 0.7, 0.7, 0.7), trial("d", 1.0, 1.0, 1.0)]
    curve.add(batch, Usage(calls=5, prompt_tokens=50), Usage(calls=20, prompt_tokens=200))
    assert [calls for calls, *_ in curve.points] == [2, 7, 9, 10, 20]


def test_what_trials_share_is_not_counted_beyond_what_was_charged():
    curve = Curve()
    curve.add([trial("a", 0.1, 0.1), trial("b", 0.2, 0.2), trial("c", 0.3, 0.3)], Usage(), Usage(calls=3))
    assert [calls for calls, *_ in curve.points] == [2, 3, 3]
