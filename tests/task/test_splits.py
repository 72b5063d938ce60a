"""Who gets which example."""

from collections import Counter

import pytest

from promptopt import jsonio
from promptopt.errors import ConfigError
from promptopt.records import Example
from promptopt.task.dataset import Read, without_duplicates
from promptopt.task.splits import Sizes, make_splits, resolve_counts


def reads(n: int, targets=("x",), repeat: int = 1) -> list[Read]:
    made = []
    for i in range(n):
        inputs = {"q": i // repeat}
        made.append(Read(Example(f"{i}", inputs, targets[i % len(targets)]), f"d.jsonl:{i + 1}", jsonio.digest(inputs)))
    return made


def ids(split) -> list[str]:
    return [example.id for example in split.examples]


def test_counts_are_kept_and_nothing_is_twice() -> None:
    splits = make_splits(reads(100), None, Sizes(10, 20, 30, 40), seed=0)
    assert [len(split) for split in splits.all] == [10, 20, 30, 40]
    everything = [i for split in splits.all for i in ids(split)]
    assert len(set(everything)) == 100


def test_the_seed_alone_decides() -> None:
    a, b = (make_splits(reads(60), None, Sizes(), seed=0) for _ in range(2))
    c = make_splits(reads(60), None, Sizes(), seed=1)
    assert a == b
    assert a != c
    assert ids(a.search) != sorted(ids(a.search), key=int)


def test_shares_without_counts() -> None:
    assert resolve_counts(dict.fromkeys(("demos", "search", "confirm", "test")), 100) == {
        "demos": 15,
        "search": 30,
        "confirm": 30,
        "test": 25,
    }
    assert resolve_counts(dict.fromkeys(("demos", "search", "confirm")), 100_000) == {
        "demos": 100,
        "search": 200,
        "confirm": 200,
    }
    assert resolve_counts({"demos": 5, "search": None, "confirm": 10, "test": 0}, 20)["search"] == 5


@pytest.mark.parametrize("rows", range(2, 40))
def test_shares_of_few_rows_fit_and_leave_nobody_out(rows: int) -> None:
    counts = resolve_counts(dict.fromkeys(("demos", "search", "confirm", "test")), rows)
    assert sum(counts.values()) <= rows
    assert counts["search"] >= 1
    assert counts["confirm"] >= 1


def test_too_few_rows_says_how_many_there_are_and_what_was_asked() -> None:
    with pytest.raises(
        ConfigError, match=r"at least 22 rows \(demos 10, search 11 and at least 1 for confirm\), got 12"
    ):
        make_splits(reads(12), [], Sizes(10, 11, None, None), seed=0)
    with pytest.raises(ConfigError, match=r"got 1 in data\.train"):
        make_splits(reads(1), None, Sizes(), seed=0)
    with pytest.raises(ConfigError, match=r"Expected 9 rows for test, got 3 in data\.test"):
        make_splits(reads(10), reads(3), Sizes(test=9), seed=0)


def test_a_test_file_is_taken_whole_and_in_order() -> None:
    test = [Read(Example(f"t{i}", {"q": -i - 1}, "x"), "", f"t{i}") for i in range(7)]
    splits = make_splits(reads(40), test, Sizes(), seed=0)
    assert splits.test is not None
    assert ids(splits.test) == [f"t{i}" for i in range(7)]
    some = make_splits(reads(40), test, Sizes(test=3), seed=0)
    assert some.test is not None
    assert len(some.test) == 3


def test_no_test_split_when_none_is_wanted() -> None:
    assert make_splits(reads(40), None, Sizes(test=0), seed=0).test is None


@pytest.mark.parametrize("seed", range(5))
def test_stratified_splits_have_the_same_shares(seed: int) -> None:
    targets = ["a"] * 6 + ["b"] * 3 + [1]
    splits = make_splits(reads(300, targets), None, Sizes(50, 100, 100, 50), seed, stratify=True)
    for split in splits.all:
        counts = Counter(example.target for example in split.examples)
        for target, share in (("a", 0.6), ("b", 0.3), (1, 0.1)):
            assert abs(counts[target] - share * len(split)) <= 1.5, (split.name, counts)


def test_rows_with_equal_inputs_stay_together() -> None:
    train, _ = without_duplicates(reads(120, repeat=3), [], "keep")
    for seed in range(10):
        splits = make_splits(train, None, Sizes(12, 30, 30, 48), seed)
        seen: dict[int, str] = {}
        for split in splits.all:
            for example in split.examples:
                assert seen.setdefault(example.inputs["q"], split.name) == split.name
        assert sum(len(split) for split in splits.all) == 120


def test_groups_that_do_not_fit_are_told() -> None:
    train, _ = without_duplicates(reads(20, repeat=10), [], "keep")
    with pytest.raises(ConfigError, match="10 rows with equal inputs"):
        make_splits(train, None, Sizes(5, 5, 5, 5), seed=0)
