"""Texts word by word: nothing is lost, what changed is found, long texts do not take long."""

import itertools
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptopt.report.words import diff_words


def before(pieces):
    return "".join(text for kind, text in pieces if kind != "new")


def after(pieces):
    return "".join(text for kind, text in pieces if kind != "gone")


def test_a_word_in_the_middle():
    assert diff_words("Write the opposite.", "Write its opposite.") == [
        ("same", "Write "),
        ("gone", "the"),
        ("new", "its"),
        ("same", " opposite."),
    ]


@pytest.mark.parametrize(
    ("a", "b", "pieces"),
    [
        ("", "", []),
        ("a b", "a b", [("same", "a b")]),
        ("", "a b", [("new", "a b")]),
        ("a b", "", [("gone", "a b")]),
        ("a b", "a  b", [("same", "a"), ("gone", " "), ("new", "  "), ("same", "b")]),
        ("one\ntwo", "one\n\ntwo", [("same", "one\n"), ("new", "\n"), ("same", "two")]),
        ("Say it!", "Say it?", [("same", "Say it"), ("gone", "!"), ("new", "?")]),
    ],
)
def test_small_ones(a, b, pieces):
    assert diff_words(a, b) == pieces


def test_a_passage_that_is_replaced_is_one_piece_each_way():
    assert diff_words("Do x y z now.", "Do p q r now.")[1:3] == [("gone", "x y z"), ("new", "p q r")]


words = st.lists(st.sampled_from(["a", "the", "Ü", "7", ".", " ", "\n", "\t ", "\r\n", "𝒳", "e\u0301"]), max_size=40)


@given(words.map("".join), words.map("".join))
def test_nothing_is_lost(a, b):
    pieces = diff_words(a, b)
    assert (before(pieces), after(pieces)) == (a, b)
    assert all(text for _, text in pieces)
    kinds = [kind for kind, _ in pieces]
    assert all(one != other for one, other in itertools.pairwise(kinds))
    assert set(kinds) <= {"same", "gone", "new"}
    assert not any(pair == ("new", "gone") for pair in itertools.pairwise(kinds))


@pytest.mark.parametrize("ends", ["", "\n"])
def test_long_texts_do_not_take_long(ends):
    rng = random.Random(0)
    common = ["the", "a", "on", "cat", f"dog{ends}"]
    a, b = (" ".join(rng.choice(common) for _ in range(60_000)) for _ in range(2))
    start = time.process_time()
    pieces = diff_words(a, b)
    assert time.process_time() - start < 20
    assert (before(pieces), after(pieces)) == (a, b)


def test_one_changed_word_of_a_long_text_is_found():
    lines = [f"Line {i} of many, which says {i * 7} things." for i in range(5000)]
    changed = [*lines]
    changed[2500] = changed[2500].replace("many", "few")
    changed[4000] = changed[4000].replace("many", "some")
    pieces = diff_words("\n".join(lines), "\n".join(changed))
    assert [(kind, text) for kind, text in pieces if kind != "same"] == [
        ("gone", "many"),
        ("new", "few"),
        ("gone", "many"),
        ("new", "some"),
    ]
