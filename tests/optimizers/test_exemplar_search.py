"""Exemplar search: what it mutates, and what it does not take for the best."""

import pytest

from promptopt.errors import ConfigError
from promptopt.evaluate.cells import Trial
from promptopt.optimizers.exemplar_search import ExemplarSearch
from promptopt.search.optimizer import Context, Traced
from promptopt.seeds import Seeds
from promptopt.testing.toy import toy


def trial(candidate, examples, right, n=None):
    """A candidate on the first ``n`` examples, of which the first ``right`` are right."""
    ids = tuple(example.id for example in examples[:n])
    return Trial(candidate, "search", ids, tuple(float(i < right) for i in range(len(ids))), {}, {})


def search_of(optimizer):
    """A search on 20 examples, of which the default has 6 right, and those examples."""
    task, _ = toy(lambda _: 1.0)
    examples = task.splits.search.examples
    default = task.program.default()

    def run(pairs, by="task"):
        step = ("", {"word": "word"}, {"answer": "right"})
        return [Traced(candidate, example, 1.0, (step,), by) for candidate, example in pairs]

    context = Context(
        "", task.program, default, task.splits.demos.examples, (), examples, Seeds(0), lambda *_: [], run,
        lambda: None, trial(default, examples, 6),
    )  # fmt: skip
    return optimizer.start(context), examples, default


@pytest.mark.parametrize(("n", "taken"), [(9, False), (10, True), (20, True)])
def test_what_was_given_up_early_is_not_what_mutation_starts_from(n, taken):
    """Of the first three sets one has 9 right: of 9 it was given up on, of 10, or of 20."""
    search, examples, default = search_of(ExemplarSearch(first=3, per_step=4, evaluation="full"))
    first = []
    while len(first) < 3:
        (ask,) = search.ask()
        first.append(ask.candidate)
        search.tell([trial(ask.candidate, examples, 9, n) if len(first) == 1 else trial(ask.candidate, examples, 0)])
    mutated = [ask.candidate for ask in search.ask()]
    assert len(mutated) == 4
    assert {candidate.origin.note for candidate in mutated} == {"mutation"}
    assert {candidate.parents for candidate in mutated} == {(first[0].id,) if taken else (default.id,)}


@pytest.mark.parametrize("evaluation", ["full", "halving"])
def test_so_many_different_sets_are_tried_and_no_more(evaluation):
    search, examples, default = search_of(ExemplarSearch(trials=9, first=3, per_step=4, evaluation=evaluation))
    tried = {default.id}
    while asks := search.ask():
        tried.update(ask.candidate.id for ask in asks)
        search.tell([trial(ask.candidate, ask.of(examples), 1) for ask in asks])
    assert len(tried) == 1 + 9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 0}, "exemplar_search's trials ≥ 1, got 0"),
        ({"pool": 0}, "exemplar_search's pool ≥ 1"),
        ({"first": -1}, "exemplar_search's first ≥ 1, got -1"),
        ({"threshold": 0.0}, r"exemplar_search's threshold in \(0, 1\], got 0.0"),
        ({"evaluation": "racy"}, "racy"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ConfigError, match=message):
        ExemplarSearch(**settings)
