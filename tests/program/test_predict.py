import time

import pytest

from promptopt.errors import CallError, ConfigError
from promptopt.lm.base import Completion, Constraint
from promptopt.lm.calls import Session
from promptopt.lm.scripted import ScriptedLM, ScriptedScorer
from promptopt.program.params import Exemplar
from promptopt.program.predict import Predict
from promptopt.program.trace import record
from promptopt.records import Failure


def answering(text, constrains=False):
    seen = []

    def reply(request):
        seen.append(request)
        return text

    return Session({"task": ScriptedLM(reply, constrains=constrains)}), seen


def test_a_call_sends_the_rendered_messages_and_reads_the_reply():
    shown = [Exemplar({"word": "hot"}, {"antonym": "cold"})]
    predict = Predict(
        "word -> antonym", instruction="Write the opposite.", exemplars=shown, max_tokens=7, temperature=0.5
    )
    session, seen = answering("Antonym: small")
    with session:
        assert predict(word="big").antonym == "small"
    (request,) = seen
    assert request.messages == (
        ("system", "Write the opposite."),
        ("user", "hot"),
        ("assistant", "cold"),
        ("user", "big"),
    )
    assert (request.max_tokens, request.temperature, request.constraint) == (7, 0.5, None)
    assert request == predict.request(word="big")


def test_a_single_choice_is_constrained():
    predict = Predict("text -> label: good|bad")
    session, seen = answering("bad", constrains=True)
    with session:
        assert predict(text="meh")["label"] == "bad"
    assert seen[0].constraint == Constraint(choices=("good", "bad"))


@pytest.mark.parametrize(
    ("signature", "constrains", "schema"),
    [
        ("q -> reasoning, n: int", True, True),
        ("q -> reasoning, n: int", False, False),
        ("q -> reasoning, answer: yes|no", True, True),
        ("q -> reasoning, answer", True, False),
    ],
)
def test_several_outputs_are_json_only_where_a_model_is_held_to_it_and_types_need_it(signature, constrains, schema):
    predict = Predict(signature)
    last = predict.signature.outputs[-1]
    value = last.choices[0] if last.choices else "7"
    reply = f'{{"reasoning": "r", "{last.name}": "{value}"}}' if schema else f"Reasoning: r\n{last.name}: {value}"
    session, seen = answering(reply, constrains)
    with session:
        made = predict(q="?")
    assert made.reasoning == "r"
    assert str(made[last.name]) == value
    assert (seen[0].constraint is not None) is schema


def test_the_format_can_be_chosen():
    session, _ = answering('{"answer": "x"}')
    with session:
        assert Predict("q -> answer", format="json")(q="?").answer == "x"
        assert Predict("q -> answer")(q="?").answer == '{"answer": "x"}'
    with pytest.raises(ConfigError, match="holds one output"):
        Predict("q -> a, b", format="plain")


def test_the_role_says_which_model_is_asked():
    models = {
        "task": ScriptedLM(lambda request: "task"),
        "judge": ScriptedLM(lambda request: "judge", digest="scripted/j"),
    }
    with Session(models):
        assert Predict("q -> a", role="judge")(q="?").a == "judge"
        assert Predict("q -> a")(q="?").a == "task"


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "missing: question, context"),
        ({"question": "x"}, "missing: context"),
        ({"question": "x", "contxt": "y"}, "missing: context; unknown: contxt"),
        ({"question": "x", "context": "y", "self": 1}, "unknown: self"),
    ],
)
def test_wrong_inputs_are_named(inputs, says):
    predict = Predict("question, context -> answer")
    with pytest.raises(ConfigError) as caught:
        predict(**inputs)
    assert says in str(caught.value)
    assert "Call it with (question=…, context=…)" in str(caught.value)


def test_replies_that_are_no_answer_are_failures_with_the_reply():
    session, _ = answering("hm")
    with session, pytest.raises(CallError) as caught:
        Predict("q -> n: int")(q="?")
    assert caught.value.failure == Failure("parse", "Expected a whole number for 'n', got 'hm'.", "hm")
    with (
        Session({"task": ScriptedLM(lambda request: Completion("hm", finish="length"))}),
        pytest.raises(CallError) as cut,
    ):
        Predict("q -> n: int")(q="?")
    assert cut.value.failure.kind == "truncated"


def test_failed_calls_keep_their_cause():
    with (
        Session({"task": ScriptedLM(lambda request: Failure("request", "too long"))}),
        pytest.raises(CallError) as caught,
    ):
        Predict("q -> a")(q="?")
    assert caught.value.failure.kind == "request"


def test_without_a_session_it_says_what_to_do():
    with pytest.raises(ConfigError, match="Session"):
        Predict("q -> a")(q="?")


def test_it_does_not_change():
    predict = Predict("q -> a")
    with pytest.raises(AttributeError, match="bind a candidate"):
        predict.instruction = "other"


def test_exemplars_are_checked_when_they_are_given():
    with pytest.raises(ConfigError, match="unknown output field 'b'"):
        Predict("q -> a", exemplars=[Exemplar({"q": "x"}, {"b": "y"})])


def test_it_is_a_program_of_one():
    predict = Predict("q -> a", instruction="Do it.")
    assert list(predict.predictors()) == [""]
    assert [parameter.path for parameter in predict.parameters()] == ["instruction", "exemplars"]
    other = predict.bind(predict.default().replace("instruction", "Do it well."))
    assert other.request(q="?").messages == (("system", "Do it well."), ("user", "?"))
    assert predict.request(q="?").messages == (("system", "Do it."), ("user", "?"))
    assert predict.digest() == other.digest() != Predict("q -> b").digest()


@pytest.mark.benchmark
def test_what_a_call_costs_beside_the_model():
    exemplars = [Exemplar({"question": f"q{i}"}, {"reasoning": "because", "answer": str(i)}) for i in range(8)]
    predict = Predict("question -> reasoning, answer: int", exemplars=exemplars)
    way = predict._way()
    n = 20_000
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(n):
            predict.request(question="What is 2 + 2?")
            way.reader.read("Reasoning: two and two\nAnswer: 4")
        best = min(best, (time.perf_counter() - began) / n)
    print(f"\nrender + request + parse: {best * 1e6:.1f} µs a call")
    assert best < 40e-6


# Answers by scoring ---------------------------------------------------------------------------------------------------


class Bias:
    """Says how likely texts are: by a table of the last message, ``blank`` for inputs that say nothing."""

    def __init__(self, tables, blank=()):
        self.tables = tables
        self.blank = blank
        self.asked = []

    def __call__(self, request):
        text = request.messages[-1][1]
        self.asked.append(text)
        return self.blank if text in ("N/A", "[MASK]", "") else self.tables[text]


def scoring(likelihood):
    def never(_):
        raise AssertionError("nothing is written")

    return Session({"task": ScriptedScorer(never, likelihood)})


def test_the_likeliest_choice_is_the_answer():
    predict = Predict("text -> label: good|so so|bad", mode="score")
    with scoring(Bias({"meh": [-3.0, -1.5, -2.0]})), record() as steps:
        assert predict(text="meh").label == "so so"
    (step,) = steps
    assert (step.outputs, step.reply, step.usage.calls) == ({"label": "so so"}, "so so", 1)
    assert predict.request(text="meh").choose == ("good", "so so", "bad")


def test_by_length_a_long_choice_does_not_lose_for_being_long():
    predict = Predict("text -> label: good|so so|bad", mode="score_by_length")
    with scoring(Bias({"meh": [-1.75, -2.0, -1.5]})):
        assert predict(text="meh").label == "so so"


def test_calibrated_what_is_likely_anyway_does_not_count():
    likely = Bias({"meh": [-1.0, -2.0]}, blank=[-0.1, -3.0])
    predict = Predict(
        "text -> label: good|bad", mode="score_calibrated", exemplars=[Exemplar({"text": "x"}, {"label": "bad"})]
    )
    with scoring(likely), record() as steps:
        assert predict(text="meh").label == "bad"
    assert sorted(likely.asked) == ["", "N/A", "[MASK]", "meh"]
    assert steps[0].usage.calls == 4
    with scoring(Bias({"meh": [-1.0, -2.0]}, blank=[-1.0, -1.0])):
        assert predict(text="meh").label == "good"


def test_what_a_server_does_not_show_cannot_be_calibrated():
    never = float("-inf")
    with scoring(Bias({"meh": [-1.0, never]}, blank=[-1.0, -1.0])):
        assert Predict("text -> label: good|bad", mode="score")(text="meh").label == "good"
        for mode in ("score_by_length", "score_calibrated"):
            with pytest.raises(CallError, match=f"mode: {mode} needs the log-probabilities of whole choices"):
                Predict("text -> label: good|bad", mode=mode)(text="meh")


def test_a_failure_of_a_blank_prompt_is_the_calls_failure():
    def likelihood(request):
        return Failure("request", "empty input") if request.messages[-1][1] == "" else [-1.0, -2.0]

    with scoring(likelihood), pytest.raises(CallError, match="empty input"):
        Predict("text -> label: good|bad", mode="score_calibrated")(text="meh")


@pytest.mark.parametrize(
    ("signature", "settings", "says"),
    [
        ("text -> label", {"mode": "score"}, "mode: score needs one output with choices, got label"),
        ("text -> why, label: a|b", {"mode": "score"}, r"got why, label: a\|b"),
        ("n -> rating: 1|2|10", {"mode": "score"}, "cannot choose '10' beside '1', which it begins with"),
        ("text -> label: a|b", {"mode": "scores"}, "one of generate, score, score_by_length, score_calibrated"),
        ("text -> label: a|b", {"mode": "score", "max_tokens": 3}, "max_tokens would change nothing"),
        ("text -> label: a|b", {"mode": "score", "temperature": 0.0, "format": "json"}, "temperature and format would"),
    ],
)
def test_modes_that_cannot_be(signature, settings, says):
    with pytest.raises(ConfigError, match=says):
        Predict(signature, **settings)


def test_the_mode_is_part_of_what_a_program_is():
    modes = ("generate", "score", "score_by_length", "score_calibrated")
    digests = {Predict("text -> label: a|b", mode=mode).digest() for mode in modes}
    assert len(digests) == 4
    assert "mode" not in Predict("text -> label: a|b").identity()
    bound = Predict("text -> label: a|b", mode="score").with_values("Say.", (), "x")
    assert bound.mode == "score"
