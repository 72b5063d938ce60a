"""Rules of answers: what is counted and compared, what is refused, and that no answer or rule keeps us busy."""

import json
import time

import pytest

from promptopt.errors import ConfigError
from promptopt.metrics import forms
from promptopt.metrics.rules import KINDS, rules_of
from promptopt.testing.metrics import HOSTILE


def told(rule, answer):
    (made,) = rules_of([rule])
    return made.broken(answer)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One two-three four's.", 3),
        ("a – b * 5", 3),
        ("我爱猫 and dogs", 5),
        ("**bold**\n\nnew", 2),
    ],
)
def test_words(text, count):
    assert forms.words(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two! Three?", 3),
        ("No stop at the end", 1),
        ("One. and then", 2),
        ("It is 3.5 km, e.g. by bus. Dr. Who and J. Smith came.", 2),
        ("He said “stop.” Then (slowly!) he went.", 3),
        ("Really?! Yes...", 2),
        ("A heading\n\nA text. Another.", 3),
        ("Two lines that\nare one sentence.", 1),
        ("Items:\n- one\n- two.\n3. three", 4),
        ("猫が好き。犬も！", 2),
        ("am i late? i am. see you", 3),
        ("... !!! ---", 0),
        ("It was I. We went.", 2),
    ],
)
def test_sentences(text, count):
    assert forms.sentences(text) == count


def test_lines_paragraphs_bullets_and_characters():
    text = "\nTo do:\n\n- milk\n  * eggs\n12) bread\n\n \nDone -- 3. Really.\n**b**\n---\n-5\n"
    assert forms.lines(text) == 8
    assert forms.paragraphs(text) == 3
    assert forms.bullets(text) == 3
    assert forms.characters("  a b\n") == 3


@pytest.mark.parametrize(
    ("form", "yes", "no"),
    [
        (
            "number",
            ["7", "-1,200.50", ".5", "1e-3", "50 %", "+3", "−2"],
            ["", "seven", "7 apples", "1,20", "%", "-", "1.2.3"],
        ),
        (
            "date",
            ["2024-02-29", " 2024-12-01\n"],
            ["2023-02-29", "24-01-01", "2024-1-1", "1 May 2024", "20240501", "２０２４-01-01"],
        ),
        (
            "email",
            ["a@b.org", "first.last+x@mail.example.co"],
            ["a@b", "a b@c.org", "@b.org", "a@b..org", "a@-b.org", ".a@b.org", "a@b.org, c@d.org", "a@1.2.3.4"],
        ),
        (
            "url",
            ["https://example.org", "http://localhost:80/x?y=1#z", "https://sub.example.org/a(b)", "http://[::1]/"],
            [
                "example.org",
                "ftp://example.org",
                "https://",
                "https://a b.org",
                "http://x:99999/",
                "http://[::1",
                "see https://a.org",
            ],
        ),
        (
            "csv",
            ["a,b\n1,2", 'a,b\n"x, y","z\nz"\n', "```csv\na,b\n1,2\n```"],
            ["a,b", "a\n1", "a,b\n1", 'a,b\n"x,y', "Hello, you.\nHow?"],
        ),
        (
            "markdown_table",
            ["| a | b |\n|---|:-:|\n| 1 | 2 |", "a|b\n-|-\n1|2\n3|4", "|a|\n|-|\n|x \\| y|"],
            [
                "| a | b |\n|---|---|",
                "| a | b |\n| 1 | 2 |\n| 3 | 4 |",
                "|a|b|\n|-|-|\n|1|",
                "Table:\n|a|\n|-|\n|1|",
                "a\n-\nb",
            ],
        ),
    ],
)
def test_formats(form, yes, no):
    for text in yes:
        assert told({"kind": "format", "is": form}, text) is None, text
    for text in no:
        assert "expected" in (told({"kind": "format", "is": form}, text) or ""), text


@pytest.mark.parametrize(
    ("case", "yes", "no"),
    [
        ("lower", ["all small, 3 words", "ß"], ["Not all", "123", "ABC"]),
        ("upper", ["ALL BIG, 3 WORDS"], ["NOT aLL", "123"]),
        (
            "title",
            ["The Cat's End", "Don't Go", "E-Mail On 3rd May", "“Quoted” (So)", "Don'T"],
            ["The cat", "THE CAT", "McDonald", "5"],
        ),
    ],
)
def test_cases(case, yes, no):
    for text in yes:
        assert told({"kind": "case", "is": case}, text) is None, text
    for text in no:
        assert told({"kind": "case", "is": case}, text) is not None, text


@pytest.mark.parametrize(
    ("rule", "answer", "feedback"),
    [
        ({"kind": "words", "at_most": 2}, "One two three", "words: expected at most 2, got 3"),
        ({"kind": "words", "at_least": 2, "at_most": 2}, "One", "words: expected exactly 2, got 1"),
        ({"kind": "lines", "at_least": 1, "at_most": 2}, "a\nb\nc", "lines: expected at least 1 and at most 2, got 3"),
        ({"kind": "contains", "texts": ["cat", "dog"]}, "A dog.", "contains: expected 'cat', got none"),
        (
            {"kind": "contains", "texts": ["cat", "dog"], "times": 2},
            "A Cat, a cat, a dog",
            "contains: expected 'dog' 2 times (got 1), got too few",
        ),
        ({"kind": "contains", "texts": ["Cat"], "any_case": False}, "cat", "contains: expected 'Cat', got none"),
        ({"kind": "contains", "texts": ["art"]}, "party", "contains: expected 'art', got none"),
        ({"kind": "lacks", "texts": ["so", "very"]}, "So, very so", "lacks: expected no 'so' or 'very', got 3 in all"),
        (
            {"kind": "starts_with", "text": "Dear"},
            "Hello",
            "starts_with: expected 'Dear' at the beginning, got 'Hello'",
        ),
        ({"kind": "ends_with", "text": "Bye."}, "Good\nbye", "ends_with: expected 'Bye.' at the end, got 'Good bye'"),
        ({"kind": "lacks_letter", "letter": "E"}, "Eel", "lacks_letter: expected no 'E', got 2 of them"),
        ({"kind": "json"}, "Sure: {}", "json: expected JSON alone, got 'Sure: {}'"),
        (
            {"kind": "json", "schema": {"properties": {"n": {"type": "integer"}}}},
            '{"n": "x"}',
            "json: expected what fits the schema, got $.n: 'x' is not of type 'integer'",
        ),
        ({"kind": "format", "is": "date"}, "May", "format: expected a date as YYYY-MM-DD alone, got 'May'"),
    ],
)
def test_a_broken_rule_says_what_was_expected_and_got(rule, answer, feedback):
    assert told(rule, answer) == feedback


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ({"kind": "contains", "texts": ["art"], "whole_words": False}, "party"),
        ({"kind": "contains", "texts": ["CAFE\u0301"]}, "Un café."),
        ({"kind": "contains", "texts": ["```"]}, "```x```"),
        ({"kind": "lacks", "texts": ["so", "5"]}, "Also 15 or 0.5"),
        ({"kind": "starts_with", "text": "dear"}, "\n Dear you"),
        ({"kind": "ends_with", "text": "Bye."}, "Good bye.\n"),
        ({"kind": "json"}, '```json\n{"a": 1}\n```'),
        ({"kind": "json"}, " 5 "),
        ({"kind": "json", "schema": {"type": "object"}}, {"a": (1, 2), 3: None}),
        ({"kind": "json", "schema": {"type": "array"}}, (1, 2)),
    ],
)
def test_kept_rules_say_nothing(rule, answer):
    assert told(rule, answer) is None


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"kind": "word", "at_most": 3}, "Unknown kind 'word' of rule. Did you mean 'words'?"),
        ({"kind": "words", "most": 3}, "Unknown key 'most' of the rule words. Did you mean 'at_most'? Known: at_least"),
        ({"kind": "words"}, "words: Expected 'at_least' or 'at_most' or both"),
        ({"kind": "words", "at_most": -1}, "words: Expected 'at_most' to be a whole number from 0, got '-1'"),
        ({"kind": "words", "at_most": True}, "Expected 'at_most' to be a whole number"),
        ({"kind": "words", "at_most": "5"}, "Expected 'at_most' to be a whole number"),
        ({"kind": "words", "at_least": 5, "at_most": 4}, "words: Expected at_least ≤ at_most, got 5 and 4"),
        ({"kind": "contains", "texts": "cat"}, "contains: Expected 'texts' to be a list of texts, got 'cat'"),
        ({"kind": "contains", "texts": []}, "to be a list of texts"),
        ({"kind": "contains", "texts": ["a"], "times": 0}, "'times' to be a whole number from 1"),
        ({"kind": "contains", "texts": ["a"], "any_case": 1}, "'any_case' to be true or false"),
        ({"kind": "starts_with", "text": " "}, "starts_with: Expected 'text' to be a text, got"),
        ({"kind": "starts_with"}, "starts_with: Expected 'text' to be a text, got none"),
        ({"kind": "case", "is": "Lower"}, "'is' to be one of lower, upper, title, got 'Lower'. Did you mean 'lower'?"),
        ({"kind": "lacks_letter", "letter": "ab"}, "to be one letter"),
        ({"kind": "format", "is": "xml"}, "to be one of number, date, email, url, csv, markdown_table, got 'xml'"),
        ({"kind": "json", "schema": []}, "Expected a JSON Schema, a mapping, got list"),
        ({"kind": "json", "schema": {"type": "text"}}, r"Expected a JSON Schema, got an error at $.type"),
        ({"words": 5}, "Expected a mapping with 'kind'"),
        ("words", "Expected a mapping with 'kind', got 'words'"),
    ],
)
def test_what_is_wrong_with_a_rule_is_told_with_its_number(rule, message):
    with pytest.raises(ConfigError) as caught:
        rules_of([{"kind": "json"}, rule])
    assert str(caught.value).startswith("Rule 2: ")
    assert message in str(caught.value)


def test_what_is_no_list_of_rules_is_refused():
    for given in ({"kind": "json"}, "words", None, 5):
        with pytest.raises(ConfigError, match="Expected a list of rules"):
            rules_of(given)
    with pytest.raises(ConfigError, match="what is no JSON"):
        rules_of([{"kind": "starts_with", "text": "\ud800"}])
    assert rules_of([]) == ()


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(a+)+$"},
        {"properties": {"x": {"items": [{"pattern": "a"}]}}},
        {"patternProperties": {"(a+)+$": {}}},
        {"$defs": {"x": {"propertyNames": {"pattern": "(a+)+$"}}}},
        {"anything": {"pattern": "(a+)+$"}},
    ],
)
def test_no_pattern_is_taken_out_of_a_schema(schema):
    with pytest.raises(ConfigError, match="regular expression, which can take for ever"):
        rules_of([{"kind": "json", "schema": schema}])


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "file:///etc/passwd"},
        # Ways to what was taken for data or names, and so was not looked at
        {"enum": [{"pattern": "(a+)+$"}], "properties": {"x": {"$ref": "#/enum/0"}}},
        {"properties": {"patternProperties": {"(a+)+$": {}}, "x": {"$ref": "#/properties"}}},
        {"$defs": {"a": {"const": {"pattern": "(a+)+$"}}}, "$ref": "#/$defs/a%2Fconst"},
        {"$defs": {"a": {"const": {"pattern": "(a+)+$"}}}, "$ref": "#/$defs/a/const"},
        {"$ref": "#/$defs/gone"},
        {"$dynamicRef": "#x"},
        {"$ref": 5},
    ],
)
def test_references_lead_to_what_was_looked_at_and_nowhere_else(schema):
    with pytest.raises(ConfigError, match="Expected references in a JSON Schema"):
        rules_of([{"kind": "json", "schema": schema}])


def test_what_may_be_called_like_a_keyword_is_allowed():
    schema = {
        "type": "object",
        "properties": {"pattern": {"type": "string"}, "$ref": {"enum": ["pattern", {"pattern": "x"}]}},
        "required": ["pattern"],
        "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["value"]}},
        "anyOf": [{"$ref": "#/$defs/node"}, True],
    }
    rule = {"kind": "json", "schema": schema}
    assert told(rule, '{"pattern": "x", "value": 1}') is None
    assert told(rule, "{}") == "json: expected what fits the schema, got $: 'pattern' is a required property"
    with pytest.raises(ConfigError, match="'\\$id' at the top"):
        rules_of([{"kind": "json", "schema": {"properties": {"x": {"$id": "http://a.org/b"}}}}])


def test_a_schema_that_turns_in_a_circle_ends():
    assert "nested too deeply" in (told({"kind": "json", "schema": {"$ref": "#"}}, "{}") or "")
    deep = "[" * 400 + "]" * 400
    nested = {"kind": "json", "schema": {"items": {"$ref": "#"}}}
    assert told(nested, deep) is None or "nested too deeply" in (told(nested, deep) or "")


def test_equal_rules_are_read_once():
    rules = [{"kind": "json", "schema": {"title": "read once", "type": "object"}}]
    assert rules_of(rules) is rules_of(json.loads(json.dumps(rules)))


EVERY = [
    *({"kind": kind, "at_least": 1, "at_most": 9} for kind in forms.AMOUNTS),
    *({"kind": kind, "texts": ["a", " ", "{", "and", "answer ", "9"]} for kind in ("contains", "lacks")),
    *({"kind": kind, "text": "aaaa"} for kind in ("starts_with", "ends_with")),
    *({"kind": "case", "is": case} for case in forms.CASES),
    {"kind": "lacks_letter", "letter": "a"},
    {"kind": "json", "schema": {"type": "object", "properties": {"a": {"type": "object"}}}},
    *({"kind": "format", "is": form} for form in forms.FORMATS),
]


def test_every_kind_stays_calm_on_hostile_answers():
    assert {rule["kind"] for rule in EVERY} == set(KINDS)
    answers = [*HOSTILE, "." * 100_000, "a." * 100_000, "|" * 100_000, "a,b\n" * 50_000, "-\n" * 100_000, '"' * 100_001]
    answers += [
        "a@" + "a-" * 50_000,
        "http://" + "[" * 50_000,
        "1," * 50_000,
        "- " * 50_000,
        "`" * 50_000,
        "7" * 300_000,
    ]
    for rule in rules_of(EVERY):
        for answer in answers:
            began = time.process_time()
            said = rule.broken(answer)
            assert time.process_time() - began < 2, (rule, repr(answer)[:40])
            assert said is None or ("\n" not in said and len(said) < 400)
