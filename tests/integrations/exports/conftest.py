"""Programs of every shape, texts that mean something to one tool or another, and what promptopt sends."""

import runpy

import pytest
from hypothesis import strategies as st

from promptopt.integrations import exports
from promptopt.program.params import Exemplar
from promptopt.program.predict import Predict
from promptopt.program.save import save
from promptopt.program.signature import Field, Signature

NASTY = (
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "{",
    "}",
    "{question}",
    "{{ question }}",
    "{% raw %}",
    "{% endraw %}",
    "{{ env.HOME }}",
    "{{ 7 * 7 }}",
    "file:///etc/hostname",
    "package:x:y",
    "'",
    '"',
    '"""',
    "'''",
    "\\",
    "\\n",
    "\\u0041",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "\t",
    "\x00",
    "\x1b[31m",
    "\x85",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\ue000",
    "é",
    "日本",
    "😀",
    "\U000e0041",
    "</script><script>alert(1)</script>",
    "${HOME}",
    "$(id)",
    "`id`",
    "```",
    "~~~~",
    "---",
    "!!python/object/apply:os.system [id]",
    "# coding: utf-7",
    "+AGEAYg-",
    "__import__('os').system('id')",
    "&amp;",
    "<b>",
    "*a* _b_ [c](d)",
    " ",
    "text",
)


ONE = Predict("word -> antonym", instruction="Write the opposite.")
SEVERAL = Predict("question, context -> reasoning, answer", instruction="Answer it.")
TYPED = Predict("n: int, items: list -> total: float, tags: list, about: dict", instruction="Add up.", max_tokens=9)
CHOICES = Predict("review -> label: good|bad", temperature=0.5)
JSON = Predict("text, note -> label: good|bad, n: int", instruction="Read it.", format="json")
DESCRIBED = Predict(
    Signature((Field("text", desc="a {review}"), Field("by")), (Field("label", choices=("{{a}}", "b, c")),), "Say.")
)
SCORED = Predict("review -> label: good|bad", mode="score")
TAKEN = Predict("stop, env, true, none -> answer", instruction="Names that tools keep for themselves.")
UNICODE = Predict("größe, 名 -> answer")
EMPTY = Predict("question -> answer", instruction="")


def shown(predict, *pairs):
    """The predictor with exemplars."""
    return predict.with_values(predict.instruction, tuple(Exemplar(*pair) for pair in pairs), "")


SHAPES = {
    "one": shown(ONE, ({"word": "hot"}, {"antonym": "cold"}), ({"word": "a\nb"}, {"antonym": "{c}"})),
    "several": shown(
        SEVERAL, ({"question": "1?", "context": "a\nb"}, {"answer": "2"}), ({"question": "x"}, {"answer": ""})
    ),
    "typed": shown(TYPED, ({"n": 3, "items": [1, {"k": 2.0}]}, {"total": 3.0, "tags": ["é"], "about": {}})),
    "choices": shown(CHOICES, ({"review": "fine"}, {"label": "good"})),
    "json": shown(JSON, ({"text": "x", "note": "y"}, {"label": "bad", "n": 1})),
    "described": DESCRIBED,
    "scored": SCORED,
    "taken": TAKEN,
    "unicode": UNICODE,
    "empty": EMPTY,
}


class Kit:
    """What tests of exports share.

    Args:
        folder: to write into.
    """

    shapes = SHAPES

    def __init__(self, folder):
        self.folder = folder
        self._count = 0

    def texts(self, lines=True):
        """Hostile texts; without ``lines``: of one line."""
        fragment = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=["Cs"]), max_size=4))
        made = st.lists(fragment, max_size=8).map("".join)
        return made if lines else made.map(lambda text: text.replace("\n", " "))

    def predictors(self):
        """Predictors of hostile texts."""
        text, answer = self.texts(), self.texts().filter(bool)

        def made(parts):
            instruction, question, context, reply, choice = parts
            choices = (choice.strip() or "x", "other choice")
            signature = Signature(
                (Field("question", desc=choice), Field("context")), (Field("answer", choices=choices),)
            )
            exemplar = Exemplar({"question": question, "context": context}, {"answer": reply}, "d1")
            return Predict(signature, instruction=instruction, exemplars=[exemplar])

        return st.tuples(text, answer, text, answer, text).map(made)

    def read(self, program, candidate=None):
        """A program as an export gets it."""
        self._count += 1
        file = self.folder / f"{self._count}.json"
        save(program, candidate or program.default(), file)
        return exports.read_program(file)

    def written(self, program, to):
        """The folder with the files of an export."""
        read = self.read(program)
        folder = self.folder / f"{self._count}-{to}"
        exports.write(exports.export(read, to), folder)
        return folder

    def inputs(self, predict, value="a text"):
        """The same text for every input."""
        return {field.name: value for field in predict.signature.inputs}

    def sent(self, predict, inputs):
        """What promptopt sends, as (role, text)."""
        return [tuple(message) for message in predict.request(**inputs).messages]

    def run_file(self, path):
        """The names that a Python file defines."""
        return runpy.run_path(str(path), run_name="exported")


@pytest.fixture(scope="session")
def kit(tmp_path_factory):
    return Kit(tmp_path_factory.mktemp("exports"))


@pytest.fixture(params=sorted(SHAPES))
def shape(request):
    """Every shape of a predictor in turn."""
    return SHAPES[request.param]


def _shipped():
    from promptopt_programs import classify, extract, triage, two_stage

    made = [classify.Classify(), extract.ExtractOrder(), triage.Triage(), two_stage.PlanThenSolve()]
    return {type(program).__name__: program for program in made}


@pytest.fixture(params=["Classify", "ExtractOrder", "Triage", "PlanThenSolve"])
def shipped(request):
    """Some programs that come along."""
    return _shipped()[request.param]
