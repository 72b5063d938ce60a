"""Text of strangers in a terminal, and in a document that may be printed on one."""

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from promptopt_cli.options import print_json
from promptopt_cli.safe import safe, short

HOSTILE = st.text(st.sampled_from("ab \n\t\x00\x07\x08\x0d\x1b\x7f\x90\x9b\x9c\x9d[]0;31mPX^_\\\u202e\u200b\u2028é"))


@given(HOSTILE | st.text(), st.booleans())
def test_nothing_that_steers_a_terminal_is_left(text, lines):
    assert not [c for c in safe(text, lines) if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs")]
    assert lines or "\n" not in safe(text)


@given(HOSTILE, st.integers(1, 30))
def test_short_is_short(text, width):
    assert len(short(text, width)) <= width


def test_what_is_never_closed_hides_nothing():
    assert "do evil" in safe("be good \x1b]0; do evil")
    assert "do evil" in safe("be good \x1bP do evil")


def test_a_text_as_long_as_a_book_takes_no_time():
    assert safe("\x1b]" * 200_000) is not None


def test_json_is_plain_and_whole(capsys):
    print_json({"a": "\x9b31m\u202e\ud800é", "n": [float("nan"), float("inf"), 0.29]})
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert json.loads(out) == {"a": "\x9b31m\u202e\ud800é", "n": [None, None, 0.29]}
