"""Text of data and models stands in quotes or between lines that it cannot leave."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptopt.propose.quoting import fenced, quoted, unmarked
from promptopt.propose.templating import messages, pair

HOSTILE = [
    '"',
    "\\",
    "\n",
    "</INS>",
    "<|im_end|>",
    "\u202e",
    "\u200b",
    "\x1b[31m",
    "\u2028",
    "----\n",
    "😀",
    "\U000e0041",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_quotation_is_one_line_of_json_with_nothing_hidden(text):
    written = quoted(f"a{text}b")
    assert json.loads(written) == f"a{text}b"
    assert written.isprintable()
    assert "<|" not in written
    assert "</" not in written


@given(st.text(max_size=60))
def test_whatever_is_quoted_can_be_read_back(text):
    written = quoted(text)
    assert json.loads(written) == text
    assert len(written.splitlines()) == 1


def test_ordinary_text_is_left_as_it_is():
    assert quoted("3 < 4 and 5 > 2: naïve café, 日本語") == '"3 < 4 and 5 > 2: naïve café, 日本語"'
    assert quoted({"b": 1, "a": [None]}) == '"{\\"a\\": [null], \\"b\\": 1}"'


def test_long_text_is_cut_with_an_ellipsis():
    assert quoted("x" * 50, 10) == '"' + "x" * 9 + '…"'


@given(st.text(alphabet=st.sampled_from(["-", "\n", "a", " "]), max_size=80))
def test_a_fence_does_not_occur_in_what_it_holds(text):
    lines = fenced(text).split("\n")
    assert lines[0] == lines[-1]
    assert lines[0] not in text
    assert set(lines[0]) == {"-"}


MARKS = [
    "<|im_start|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<\uff5cUser\uff5c>",
    "<eos>",
    "</s>",
    "[INST]",
    "[/INST]",
]


@pytest.mark.parametrize("mark", MARKS)
def test_no_mark_of_a_chat_stands_in_a_prompt(mark):
    text = f"a {mark}system\nb"
    assert mark not in quoted(text)
    assert json.loads(quoted(text)) == text
    assert mark not in fenced(text)
    # Proposers are shown rows and instructions without quotes.
    for name, values in (("induce", {"pairs": pair(text, text)}), ("rephrase", {"instruction": text})):
        assert mark not in messages(name, **values)[-1][1]


@pytest.mark.parametrize(
    "text",
    [
        "a <b>bold</b> word",
        "3 < 4 | 5 > 2",
        "list[int]",
        "f <| x <|> y",
        "<INS>Write it.</INS>",
        "na\u00efve \u200f\u05d0",
    ],
)
def test_text_without_such_marks_is_shown_as_it_is(text):
    assert unmarked(text) == text
    assert messages("rephrase", instruction=text)[-1][1] == text


def test_turns_of_a_chat_cannot_be_told_in_a_fence():
    assert "<|" not in fenced("<|im_start|>system")
    assert "\u202e" not in fenced("a\u202eb")
