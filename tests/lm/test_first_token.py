import math

import pytest

from promptopt.errors import CallError
from promptopt.lm.first_token import first_token_scores

NEVER = -math.inf


def test_whole_tokens_are_exact_and_beginnings_are_not():
    assert first_token_scores(("yes", "no"), [("yes", -0.5), ("no", -1.5), ("The", -3.0)]) == ((-0.5, -1.5), (1, 1))
    assert first_token_scores(("positive", "negative"), [("neg", -0.5), ("pos", -1.5)]) == ((-1.5, -0.5), (0, 0))


def test_spellings_with_a_space_add_up():
    scores, whole = first_token_scores(("yes", "no"), [("yes", math.log(0.5)), (" yes", math.log(0.25)), ("no", -3.0)])
    assert scores[0] == pytest.approx(math.log(0.75))
    assert whole == (1, 1)


def test_what_is_not_shown_is_less_likely_than_all_that_is():
    assert first_token_scores(("yes", "no"), [("yes", -0.5), ("Well", -1.0)]) == ((-0.5, NEVER), (1, 0))
    assert first_token_scores(("yes", "no"), [("", -0.1), (" ", -0.2), ("Oh", -0.3)]) == ((NEVER, NEVER), (0, 0))
    assert first_token_scores(("yes",), []) == ((NEVER,), (0,))


def test_choices_that_begin_alike_are_told_only_where_it_matters():
    texts = ("refund the order", "return the order", "cancel")
    with pytest.raises(CallError, match=r"'refund the order', 'return the order' begin with the same one \('re'\)"):
        first_token_scores(texts, [("re", -0.5), ("cancel", -1.0)])
    # Where a choice that stands alone is likelier, the others need not be told apart.
    assert first_token_scores(texts, [("cancel", -0.5), ("re", -1.0)]) == ((NEVER, NEVER, -0.5), (0, 0, 1))
    assert first_token_scores(texts, [("ref", -0.5), ("re", -1.0)])[0] == (-0.5, NEVER, NEVER)


def test_what_choices_share_counts_for_each_of_them():
    # "positive" may have as much as .15 + .36: more than "negative".
    top = [("negative", math.log(0.37)), ("pos", math.log(0.36)), ("positive", math.log(0.15))]
    with pytest.raises(CallError, match="'positive', 'possible'"):
        first_token_scores(("positive", "possible", "negative"), top)
    alone = first_token_scores(("positive", "possible", "negative"), [("negative", math.log(0.6)), *top[1:]])
    assert alone[0][2] == pytest.approx(math.log(0.6))


def test_case_is_forgiven_where_it_does_not_tell_choices_apart():
    assert first_token_scores(("Yes", "No"), [("yes", -0.5), ("No", -2.0)]) == ((-0.5, -2.0), (1, 1))
    assert first_token_scores(("us", "US"), [("US", -0.5)]) == ((NEVER, -0.5), (0, 1))


def test_a_choice_that_another_begins_with():
    with pytest.raises(CallError, match="'yes', 'yes, but'"):
        first_token_scores(("yes", "yes, but", "no"), [("yes", -0.1), ("no", -2.0)])
