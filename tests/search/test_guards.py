"""What the guards refuse, what they let pass, and what a run says of it."""

import json
import unicodedata
from dataclasses import asdict, dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptopt.api import default_folder, optimize
from promptopt.errors import ConfigError, OptimizerError, RunMismatchError
from promptopt.lm.scripted import ScriptedLM
from promptopt.optimizers.ape import Ape
from promptopt.optimizers.best_of_seeds import BestOfSeeds
from promptopt.optimizers.opro import Opro
from promptopt.optimizers.random_search import RandomSearch
from promptopt.program.params import Candidate, Exemplar, Origin
from promptopt.records import Example
from promptopt.search.budget import Limits
from promptopt.search.guards import OFF, Guard, Guards, is_refusal, placeholders, words
from promptopt.search.optimizer import Ask
from promptopt.task.spec import GuardsFile
from promptopt.testing.toy import splits, toy

LONG = "The quick brown fox jumps over the lazy dog near the old river bank"
SHORT = "Bring me five apples"
ROWS = (
    Example("long", {"text": LONG}, "A sly animal springs across a sleeping pet by the water tonight"),
    Example("short", {"text": SHORT}, "four words as target"),
    Example("tiny", {"text": "red green blue"}, "colours"),
    Example("nested", {"text": {"turns": ["Alpha beta gamma", "delta epsilon zeta eta theta iota"]}}, 7),
)


def guard(settings=None, default="Answer the question.", scored=ROWS, shown=(), exemplars=()):
    start = Candidate({"instruction": default, "exemplars": tuple(exemplars)})
    return Guard(settings or Guards(), start, scored, shown)


def told(made, text):
    return made.reason(Candidate({"instruction": text, "exemplars": ()}))


# Copies of rows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"For example, {LONG}: say no.", "copy of a scored row"),
        ("If jumps over the lazy dog near the old is there, say no.", "copy of a scored row"),  # 8 words
        ("If jumps over the lazy dog near the young is there, say no.", None),  # 7
        ("Say: a SLY animal -- springs across; a sleeping pet!", "copy of a scored row"),  # of a target
        ("Think of “Bring me\nfive apples” first.", "copy of a scored row"),  # a whole input of 4 words
        ("Bring me five pears.", None),
        ("Reply with four words as target.", None),  # a short target may be a label
        ("Choose from red, green, blue.", None),  # 3 words
        ("Mind alpha beta gamma delta epsilon zeta eta theta.", "copy of a scored row"),  # across a list
    ],
)
def test_copies_of_rows_are_refused(text, reason):
    assert told(guard(), text) == reason


def test_how_many_words_make_a_copy_is_a_setting():
    said = "Think of the lazy dog near here."
    assert told(guard(Guards(copied_words=4)), said) == "copy of a scored row"
    assert told(guard(Guards(copied_words=5)), said) is None
    assert told(guard(Guards(copied_words=1)), "A river.") == "copy of a scored row"
    # An input shorter than the run is compared as a whole, however long the run must be.
    assert told(guard(Guards(copied_words=500)), f"Say: {LONG}.") == "copy of a scored row"
    assert told(guard(Guards(copied_words=500)), f"Say: {LONG[:-4]}.") is None
    assert told(guard(Guards(copied_words=0)), LONG) is None


@pytest.mark.parametrize("split", ["search", "confirm", "test"])
def test_rows_of_every_scored_split_count_and_those_of_demos_do_not(tmp_path, split):
    made = splits(demos=4, search=12, confirm=12, test=12, before="one two three four five six seven ")
    leak = getattr(made, split).examples[-1].inputs["word"]
    shown = made.demos.examples[0].inputs["word"]
    task, lm = toy(lambda text: 0.5, splits=made, instructions=(f"As in {leak}", f"As in {shown}"))
    result = optimize(task, optimizer=BestOfSeeds(), out=tmp_path, backends={"task": lm})
    assert result.dropped == {"copy of a scored row": 1}
    assert result.candidates == 1


def test_what_the_default_or_a_demo_says_is_no_copy():
    assert told(guard(default=f"Answer. {LONG[:60]}"), f"Reply! {LONG[:60]}") is None
    assert told(guard(default="x", shown=[Example("d", {"text": LONG.upper()})]), f"Reply to {LONG}") is None
    assert told(guard(shown=[Example("d", {"text": f"Do {SHORT}."})]), SHORT) is None
    # But not one word more.
    assert told(guard(shown=[Example("d", {"text": LONG[:60]})]), LONG) == "copy of a scored row"


def test_the_default_passes_whatever_it_is():
    for text in ("", "I'm sorry.", LONG, "x" * 9000, "{a} {b}"):
        assert told(guard(default=text), text) is None


def test_each_place_is_compared_with_its_own_default():
    start = Candidate({"draft.instruction": "Draft {x}.", "check.instruction": "Check."})
    made = Guard(Guards(), start, ROWS)
    assert made.reason(start.replace("check.instruction", "Check well.")) is None
    assert made.reason(start.replace("check.instruction", "Check {x}.")) == "new placeholder"
    assert made.reason(start.replace("draft.instruction", "Draft.")) == "lost placeholder"
    assert made.reason(start.replace("draft.instruction", "Check.")) == "lost placeholder"


# Unicode --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hidden",
    [
        LONG.upper(),
        unicodedata.normalize("NFD", LONG.replace("i", "í")).replace("\u0301", ""),
        "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in LONG),  # full width
        LONG.replace("o", "o\u200b"),
        LONG.replace("ck", "c\u00adk"),
        LONG.replace(" ", "\u00a0…\u2014"),
        LONG.replace(" ", "_"),
    ],
)
def test_writing_it_otherwise_hides_no_copy(hidden):
    assert told(guard(), f"Note: {hidden}") == "copy of a scored row"


@pytest.mark.parametrize(
    ("row", "copy"),
    [
        ("Die Straße nach Köln ist heute für alle gesperrt", "DIE STRASSE NACH KO\u0308LN IST HEUTE FÜR ALLE gesperrt"),
        ("今日はとても天気がいいですね", "例えば「今日はとても天気がいいですね」"),
        ("画蛇添足", "比如：画蛇添足。"),
        ("मैं आज बाज़ार से ताज़ी सब्ज़ियाँ और फल लाया", "जैसे: मैं आज बाज़ार से ताज़ी सब्ज़ियाँ और फल लाया।"),
        ("오늘은 날씨가 아주 좋아서 우리는 함께 공원에 갔다", "예: 오늘은 날씨가 아주 좋아서 우리는 함께 공원에 갔다!"),
    ],
)
def test_other_languages(row, copy):
    assert told(guard(scored=[Example("1", {"text": row})]), copy) == "copy of a scored row"
    assert told(guard(scored=[Example("1", {"text": row})]), copy[: len(copy) // 3]) is None


def test_a_word_with_its_marks_is_one_word():
    assert words("𝐁𝐨𝐥𝐝 Ⅳ ﬁne") == ["bold", "iv", "fine"]
    assert words("सब्ज़ियाँ ko\u0308ln don’t 天気 a\u00adb") == ["सब्ज़ियाँ", "köln", "don", "t", "天", "気", "ab"]


@given(st.text(), st.text())
def test_words_are_the_same_in_every_form_and_case(text, other):
    assert words(unicodedata.normalize("NFD", text)) == words(text)
    assert words(" ".join(words(text))) == words(text)
    assert words(f"{text}\n{other}") == words(text) + words(other)


# Properties -----------------------------------------------------------------------------------------------------------

FEW = st.lists(st.sampled_from("abcd"), max_size=12)


@given(st.lists(st.tuples(FEW, FEW), max_size=4), FEW, FEW, FEW, st.integers(1, 6))
def test_copies_are_those_that_a_search_by_hand_finds(rows, default, shown, text, n):
    def windows(values, size):
        return {tuple(values[i : i + size]) for i in range(len(values) - size + 1)}

    examples = [Example(str(i), {"x": " ".join(x)}, " ".join(y)) for i, (x, y) in enumerate(rows)]
    settings = replace(OFF, copied_words=n)
    made = guard(settings, " ".join(default), examples, [Example("d", {"x": " ".join(shown)})])
    looked_for = {n: [window for row in rows for side in row for window in windows(side, n)]}
    for x, _ in rows:
        if 4 <= len(x) < n:
            looked_for.setdefault(len(x), []).append(tuple(x))
    copied = any(
        (set(found) - windows(default, size) - windows(shown, size)) & windows(text, size)
        for size, found in looked_for.items()
    )
    assert (told(made, " ".join(text)) is not None) == (copied and text != default)


@given(st.text(), st.text(), st.text(), st.booleans(), st.integers(0, 30), st.floats(0, 9))
def test_no_text_breaks_it_and_the_default_passes(default, row, text, on, number, growth):
    settings = Guards(number, on, on, number, growth)
    made = guard(settings, default, [Example("1", {"x": row}, text)], [Example("2", {"x": text})])
    assert told(made, default) is None
    assert told(made, text) == told(made, text)
    assert told(guard(OFF, default, [Example("1", {"x": row})]), text) is None


@given(st.lists(st.sampled_from(LONG.split()), min_size=8, max_size=30), st.text("xyz ,."), st.text("xyz ,."))
def test_a_row_within_other_words_is_seen(row, before, after):
    made = guard(scored=[Example("1", {"x": " ".join(row)})])
    assert told(made, f"{before} {' '.join(row).title()} {after}") == "copy of a scored row"


class Counted(dict):
    """A row that counts how often it is looked at."""

    looks = 0

    def values(self):
        Counted.looks += 1
        return super().values()


def test_rows_are_read_once_however_many_candidates_come():
    rows = [Example(str(i), Counted(x=f"row {i} " + " ".join(f"w{i}x{j}" for j in range(40)))) for i in range(3000)]
    made = guard(scored=rows)
    Counted.looks, built = 0, Counted.looks
    for number in range(500):
        assert told(made, f"Try way {number} with w7x1 w7x2 w7x3.") is None
    assert built > 0
    assert Counted.looks == 0
    # 30,000 words at once, the copy at their end
    assert told(guard(Guards(max_length=0), scored=rows), "so on " * 15_000 + rows[-1].inputs["x"]) is not None


# The other reasons ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Read {text} and {tone}.", None),
        ("{tone} then {text} then {text}", None),
        ("Read {text}.", "lost placeholder"),
        ("Read {text} and tone.", "lost placeholder"),
        ("Read {text} and {{tone}}.", "lost placeholder"),
        ("Read {text}, {tone} and {more}.", "new placeholder"),
        ("Read {text}, {tone} and {{ more }}.", "new placeholder"),
        ('Read {text}, {tone}; reply as {"a": 1}, {0}, {} or \\boxed{x}.', None),
    ],
)
def test_placeholders(text, reason):
    default = "Use {text} with {tone}."
    assert told(guard(default=default), text) == reason
    assert told(guard(Guards(placeholders=False), default), text) is None


def test_what_is_a_placeholder():
    assert placeholders("{a} {{b}} {{ c }} {_d} ${e} {ü} {{{f}}}") == {
        "{a}", "{{b}}", "{{ c }}", "{_d}", "{e}", "{ü}", "{{f}}",
    }  # fmt: skip
    assert placeholders("{} {1} {a b} {a: 1} \\frac{x}{y} \\text {z") == set()


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't do that.",
        "I’m sorry.",
        "“I cannot help.”",
        "As an AI model",
        "Sorry, no.",
        "I am not able to",
    ],
)
def test_refusals(text):
    assert is_refusal(text)
    assert told(guard(), text) == "refusal"
    assert told(guard(Guards(refusals=False)), text) is None


@pytest.mark.parametrize("text", ["", " \n\t", "\u200b", "...", "🙂"])
def test_texts_without_a_word(text):
    assert told(guard(), text) == "empty"
    assert told(guard(Guards(refusals=False)), text) is None


@pytest.mark.parametrize(
    "text", ["Say sorry.", "I can do it. Be brief.", "Assume that I'm sorry.", "Icons: name them."]
)
def test_what_is_no_refusal(text):
    assert told(guard(), text) is None


def test_length():
    assert told(guard(), "x" * 2000) is None
    assert told(guard(), "x" * 2001) == "too long"
    assert told(guard(Guards(max_length=0)), "x" * 200_000) is None
    assert told(guard(Guards(max_length=10), "Go."), "Elf letters") == "too long"
    # A default that is longer than the limit is the limit.
    assert told(guard(Guards(max_length=10), "y" * 50), "x" * 50) is None
    assert told(guard(Guards(max_length=10), "y" * 50), "x" * 51) == "too long"


def test_growth():
    grown = Guards(growth=1.5)
    assert told(guard(default="y" * 1000), "x" * 1999) is None
    assert told(guard(grown, "y" * 1000), "x" * 1500) is None
    assert told(guard(grown, "y" * 1000), "x" * 1501) == "grown too long"
    assert told(guard(grown, "y"), "x" * 400) is None  # a short default may grow up to the floor
    assert told(guard(grown, "y"), "x" * 401) == "grown too long"


def test_exemplars_are_no_scored_rows():
    def exemplars(*sources):
        return Candidate({"instruction": "x", "exemplars": tuple(Exemplar({"a": 1}, {"b": 2}, s) for s in sources)})

    assert guard().reason(exemplars("demo", "")) is None
    assert guard().reason(exemplars("demo", "tiny")) == "exemplar of a scored row"
    assert guard(OFF).reason(exemplars("tiny")) == "exemplar of a scored row"
    own = Exemplar({"a": 1}, {"b": 2}, "tiny")
    assert guard(exemplars=[own]).reason(exemplars("demo", "tiny")) is None
    # Exemplars may say what rows say: they come from demos on purpose, whose texts may be alike.
    assert guard().reason(Candidate({"exemplars": (Exemplar({"text": LONG}, {"b": 2}, "demo"),)})) is None


def test_it_counts_what_it_drops():
    made = guard()
    assert made.passes(Candidate({"instruction": "Do it well."}))
    for text in ("", "", "x" * 3000):
        assert not made.passes(Candidate({"instruction": text}))
    made.count("of an optimizer's own")
    assert made.counts() == {"empty": 2, "of an optimizer's own": 1, "too long": 1}
    assert made.reason(Candidate({"instruction": ""})) == "empty"  # asking alone counts nothing
    assert sum(made.dropped.values()) == 4


def test_by_default_all_passes():
    made = Guard()
    for text in ("", "I'm sorry.", "x" * 100_000, "{a}", LONG):
        assert made.passes(Candidate({"instruction": text}))
    assert not made.counts()


@pytest.mark.parametrize(
    "settings", [{"copied_words": -1}, {"max_length": -1}, {"growth": -0.1}, {"growth": float("nan")}]
)
def test_settings_that_mean_nothing(settings):
    (name,) = settings
    with pytest.raises(ConfigError, match=rf"guards\.{name} of at least 0"):
        Guards(**settings)


def test_the_task_file_and_python_have_the_same_defaults():
    assert GuardsFile().model_dump() == asdict(Guards())


# Runs -----------------------------------------------------------------------------------------------------------------

START = "start with {word}"
GOOD = "Better: use {word} well."
ROW = splits(demos=12, search=20, confirm=20, test=20, before="one two three four five six seven ").test.examples[3]
REPLIES = (
    f"Like {ROW.inputs['word']} for {{word}}.",
    "I'm sorry, but I can't help with {word}.",
    "Forget the place.",
    "Go on with {word}. " * 120,
    GOOD,
    GOOD,
    "Use {word} and {name}.",
    "",
)
DROPPED = {
    "copy of a scored row": 1,
    "empty": 1,
    "lost placeholder": 1,
    "new placeholder": 1,
    "refusal": 1,
    "seen before": 1,
    "too long": 1,
}


def quality(text):
    return 0.9 if text.startswith("Better") else 0.3


def run(folder, optimizer, replies=REPLIES, budget=None, **settings):
    settings.setdefault("splits", splits(12, 20, 20, 20, before="one two three four five six seven "))
    task, lm = toy(quality, instruction=START, **settings)
    numbers = {}

    def reply(request):
        # By what was asked, so that a rerun hears the same.
        return replies[numbers.setdefault(request.seed, len(numbers)) % len(replies)]

    proposer = ScriptedLM(reply, digest="scripted/proposer", max_batch=1)
    result = optimize(task, optimizer=optimizer, out=folder, budget=budget, backends={"task": lm, "proposer": proposer})
    assert json.loads((folder / "result.json").read_text())["dropped"] == result.dropped
    return result


def tagged(replies):
    return tuple(f"<INS>{text}</INS>" for text in replies)


def tried(folder):
    lines = (folder / "trials.jsonl").read_text().splitlines()
    return {json.loads(line)["candidate"]["values"]["instruction"] for line in lines}


@pytest.mark.parametrize("evaluation", ["full", "race"])
@pytest.mark.parametrize("fidelity", ["fixed", "reference"])
def test_opro_pays_for_none_of_it(tmp_path, fidelity, evaluation):
    settings = Opro(steps=1, per_step=8, max_length=5000, fidelity=fidelity, evaluation=evaluation)
    result = run(tmp_path, settings, tagged(REPLIES))
    assert tried(tmp_path) == {START, GOOD}
    assert result.dropped == DROPPED
    assert result.best.text("instruction") == GOOD


@pytest.mark.parametrize("evaluation", ["rungs", "full"])
def test_ape_pays_for_none_of_it(tmp_path, evaluation):
    settings = Ape(proposals=8, max_length=5000, sets=1, shots=2, evaluation=evaluation)
    result = run(tmp_path, settings)
    assert tried(tmp_path) == {START, GOOD}
    assert result.dropped == DROPPED


def test_with_the_guards_off_all_is_tried(tmp_path):
    settings = Opro(steps=1, per_step=8, max_length=5000, fidelity="reference")
    result = run(tmp_path, settings, tagged(REPLIES), guards=OFF)
    assert len(tried(tmp_path)) == 8
    assert result.dropped == {"seen before": 1}


def test_an_optimizers_own_filters_are_told(tmp_path):
    replies = tagged(("Use 3 times {word}.", "Put <INS> at {word}.", "word -> {word}", GOOD))
    result = run(tmp_path, Opro(steps=1, per_step=4, no_digits=True), replies)
    assert result.dropped == {"delimiters": 1, "digits": 1, "example repeated": 1}
    long = run(
        tmp_path / "b", Opro(steps=1, per_step=2, max_length=30, fidelity="reference"), tagged((GOOD, GOOD + GOOD))
    )
    assert long.dropped == {"too long": 1}


@pytest.mark.parametrize("optimizer", [BestOfSeeds(), RandomSearch(trials=5, exemplars=0), Opro(steps=1, per_step=1)])
def test_the_users_own_instructions_are_guarded_too(tmp_path, optimizer):
    own = ("Forget the place.", GOOD, f"Like {ROW.inputs['word']} for {{word}}.")
    result = run(tmp_path, optimizer, ("no tags",), instructions=own)
    assert tried(tmp_path) == {START, GOOD}
    assert result.dropped == {"copy of a scored row": 1, "lost placeholder": 1}


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.8])
def test_a_resumed_run_counts_the_same(tmp_path, keep):
    settings = Opro(steps=3, per_step=8, max_length=5000)
    whole = run(tmp_path, settings, tagged(REPLIES))
    assert whole.dropped["seen before"] > 1
    (tmp_path / "result.json").unlink()
    for name in ("cells", "calls", "trials", "events"):
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    assert run(tmp_path, settings, tagged(REPLIES)).dropped == whole.dropped


@pytest.mark.parametrize("calls", range(181, 260, 6))
def test_a_run_that_its_budget_ended_counts_the_same_again(tmp_path, calls):
    # Steps without a usable proposal follow each other within one ask, which the budget may end anywhere.
    def replies(n):
        return tagged((f"Better {{word}} in way {'x' * n}.", *REPLIES[1:3]) if n % 2 else REPLIES[1:4])

    settings = Opro(steps=12, per_step=3, max_length=5000)
    asked = tuple(text for n in range(12) for text in replies(n))
    first = run(tmp_path, settings, asked, Limits(calls=calls))
    again = run(tmp_path, settings, asked, Limits(calls=calls))
    assert (again.dropped, again.stopped) == (first.dropped, first.stopped)
    assert again.paid["task"].calls == 0


@dataclass(frozen=True)
class Heedless:
    """Asks for what it likes."""

    text: str = "Forget the place."

    def start(self, context):
        self_asks = [Ask(context.default.replace("instruction", self.text, Origin("heedless")))]

        class Search:
            def ask(self):
                return [self_asks.pop()] if self_asks else []

            def tell(self, trials):
                pass

        return Search()


def test_an_optimizer_that_asks_for_what_is_refused_is_named_and_nothing_is_paid(tmp_path):
    with pytest.raises(OptimizerError, match=r"optimizer heedless asked .* \(lost placeholder\).*context\.guard"):
        run(tmp_path, Heedless())
    assert tried(tmp_path) == {START}
    with pytest.raises(OptimizerError) as caught:
        run(tmp_path / "leak", Heedless(REPLIES[0]))
    assert ROW.inputs["word"] not in str(caught.value)
    assert run(tmp_path / "off", Heedless(), guards=OFF).candidates == 1


def test_guards_are_part_of_a_run_only_where_they_differ(tmp_path):
    kept, _ = toy(quality, instructions=(GOOD,))
    changed = replace(kept, guards=Guards(growth=2.0))
    same = replace(kept, guards=Guards())
    folders = [default_folder(task, BestOfSeeds(), "best_of_seeds", Limits()) for task in (kept, same, changed)]
    assert folders[0] == folders[1] != folders[2]

    run(tmp_path / "usual", BestOfSeeds(), instructions=(GOOD,))
    assert "guards" not in json.loads((tmp_path / "usual" / "run.json").read_text())
    run(tmp_path / "own", BestOfSeeds(), instructions=(GOOD,), guards=Guards(growth=2.0))
    assert json.loads((tmp_path / "own" / "run.json").read_text())["guards"]["growth"] == 2.0
    for name, settings in (("usual", Guards(growth=2.0)), ("own", Guards()), ("own", OFF)):
        with pytest.raises(RunMismatchError, match="guards"):
            run(tmp_path / name, BestOfSeeds(), instructions=(GOOD,), guards=settings)
