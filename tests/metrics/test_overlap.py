import pytest

from promptopt.errors import CallError, ConfigError
from promptopt.metrics.base import judged
from promptopt.metrics.overlap import JsonMatch, SetMatch, TokenF1, find_json, items
from promptopt.records import Example, Prediction, Score


def score(metric, target, answer) -> Score:
    return judged(metric, Example("1", {}, target), Prediction({"answer": answer}))


def value(metric, target, answer) -> float:
    return score(metric, target, answer).value


@pytest.mark.parametrize(
    ("target", "answer", "f1"),
    [
        ("the black cat", "A black cat!", 1.0),
        ("black cat", "the black dog", 0.5),
        ("a b c d", "b d", 2 * 2 / (3 + 2)),  # "a" is an article
        ("to be or not to be", "to be to be to be", 2 * 4 / (6 + 6)),
        ("it's", "its", 1.0),
        ("cat", "", 0.0),
        (("white dog", "black cat"), "black cat", 1.0),
        (("white dog", "black cat"), "black dog", 0.5),
        (42, "42", 1.0),
        ("北京市", "北京", 0.8),
    ],
)
def test_token_f1(target, answer, f1: float) -> None:
    assert value(TokenF1(), target, answer) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a, b, and c", ["a", "b", "c"]),
        ("- a\n- b\n", ["a", "b"]),
        ("Here they are:\n1. a\n2) b", ["a", "b"]),
        ("a\nb, c", ["a", "b, c"]),
        ("a; b, c", ["a", "b, c"]),
        ('["a", "b"]', ["a", "b"]),
        ('```json\n["a"]\n```', ["a"]),
        ("a", ["a"]),
        ("", []),
        (None, []),
        (("a", "b"), ["a", "b"]),
        (5, ["5"]),
    ],
)
def test_items_however_written(text, found: list) -> None:
    assert items(text) == found


@pytest.mark.parametrize(
    ("target", "answer", "f1"),
    [
        (["red", "blue"], "Blue, red.", 1.0),
        (["red", "blue"], "red and blue", 1.0),
        (["black and white"], "black and white", 1.0),
        (["red", "blue"], "red, red, red", 2 / 3),
        (["red", "blue"], "green", 0.0),
        (["red", "blue"], ["blue", "red"], 1.0),
        (["red", "blue"], '["red", "blue", "green"]', 0.8),
        ([1, 2], "1, 2", 1.0),
        ([], "", 1.0),
        ("red, blue", "- blue\n- red", 1.0),
        ((["a"], ["b", "c"]), "c, b", 1.0),
    ],
)
def test_set_match(target, answer, f1: float) -> None:
    assert value(SetMatch(), target, answer) == pytest.approx(f1)
    assert value(SetMatch(score="exact"), target, answer) == float(f1 == 1.0)


def test_set_match_says_what_is_missing_and_too_many() -> None:
    told = score(SetMatch(), ["red", "blue"], "red, green").feedback
    assert told == "missing: 'blue'; too many: 'green'"
    with pytest.raises(ConfigError, match="Expected score"):
        SetMatch(score="jaccard")


PERSON = {"name": "Ann", "age": 30, "address": {"city": "Rome", "zip": "00100"}, "tags": ["a", "b"]}


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ('{"tags": ["a","b"], "address": {"zip": "00100", "city": "rome"}, "age": "30", "name": "Ann."}', 1.0),
        ('```json\n{"name": "Ann", "age": 30, "address": {"city": "Rome"}, "tags": ["b", "a"]}\n```', 3 / 5),
        ('Sure! {"name": "Ann"} Hope that helps {x}', 1 / 5),
        ('{"name": "Ann", "age": 31, "address": "Rome", "tags": []}', 1 / 6),
        ("no json", 0.0),
        ('{"name": "Ann", "age": 30', 0.0),
        (PERSON, 1.0),
        ("[]", 0.0),
    ],
)
def test_json_match_is_the_share_of_right_fields(answer, share: float) -> None:
    assert value(JsonMatch(), PERSON, answer) == pytest.approx(share)


def test_json_match_details() -> None:
    assert value(JsonMatch(), {"a": 1}, '{"a": 1, "b": 2}') == 0.5
    assert value(JsonMatch(extra_fields="ignore"), {"a": 1}, '{"a": 1, "b": 2}') == 1.0
    assert value(JsonMatch(), {"a": 1, "b": None}, '{"a": 1}') == 1.0
    assert value(JsonMatch(), '{"a": 1}', '{"a": 1}') == 1.0
    assert value(JsonMatch(), [{"n": 1}, {"n": 2}], '[{"n": 1}, {"n": 3}]') == 0.5
    assert value(JsonMatch(), ({"a": 2}, {"a": 1}), '{"a": 1}') == 1.0
    assert value(JsonMatch(), {"a": True}, '{"a": 1}') == 0.0
    assert value(JsonMatch(), {"a": 1}, '{"a": true}') == 0.0
    told = score(JsonMatch(), {"a": 1, "b": "x"}, '{"a": 2, "b": "x", "c": 3}').feedback
    assert told == "wrong fields: a (expected '1', got '2'); unexpected fields: 'c'"
    with pytest.raises(CallError, match="expected JSON, the target is 'x'"):
        score(JsonMatch(), "x", "{}")
    with pytest.raises(ConfigError, match="extra_fields"):
        JsonMatch(extra_fields="count")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', {"a": 1}),
        ("[1, 2]", [1, 2]),
        ('{bad} then {"a": 1}', {"a": 1}),
        ("```\n[1]\n```", [1]),
        ('{"a": NaN}', None),
        ("5", None),
        ("", None),
        ("{" * 100_000, None),
        ('[[[["a"' * 10_000, None),
    ],
)
def test_find_json(text: str, found) -> None:
    assert find_json(text) == found
