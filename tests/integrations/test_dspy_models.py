"""Models and programs both ways: ours inside DSPy, DSPy's among ours, and what is written for each other."""

import asyncio
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("dspy")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

import dspy  # noqa: E402
import dspy_world as world  # noqa: E402
from dspy.lm15 import Config, InvalidRequestError, Message, Request  # noqa: E402
from openai_server import serving  # noqa: E402

from promptopt import Limits, ScriptedLM, Session, api  # noqa: E402
from promptopt.errors import CallError, ConfigError  # noqa: E402
from promptopt.integrations.dspy import DSPyModel, PromptoptEngine, lm, to_dspy  # noqa: E402
from promptopt.integrations.dspy.models import digest_of, request_of  # noqa: E402
from promptopt.integrations.dspy.modules import dspy_signature  # noqa: E402
from promptopt.integrations.exports import export, read_program, write  # noqa: E402
from promptopt.lm.base import Request as Ours  # noqa: E402
from promptopt.lm.door import Door  # noqa: E402
from promptopt.lm.loop import run  # noqa: E402
from promptopt.lm.spec import Generate, ModelSpec, Price  # noqa: E402
from promptopt.program.module import Module  # noqa: E402
from promptopt.program.params import Candidate, Exemplar  # noqa: E402
from promptopt.program.predict import Predict  # noqa: E402
from promptopt.program.save import save  # noqa: E402
from promptopt.records import Failure, Usage  # noqa: E402
from promptopt.task.load import load_task  # noqa: E402


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROMPTOPT_HOME", str(tmp_path / "home"))


# Ours inside DSPy -----------------------------------------------------------------------------------------------------


class Batches(ScriptedLM):
    """Remembers how many requests came together."""

    def __init__(self, reply):
        super().__init__(reply, delay=0.02)
        self.sizes = []

    def generate(self, requests):
        self.sizes.append(len(requests))
        return super().generate(requests)


def test_concurrent_calls_are_answered_together_cached_and_metered():
    model = Batches(world.reply)
    ours = lm("scripted/x", backend=model)
    devset = world.examples(40)
    with dspy.context(lm=ours):
        evaluate = dspy.Evaluate(devset=devset, metric=world.right, num_threads=16, display_progress=False)
        first = evaluate(world.Single())
        asked = model.calls
        assert evaluate(world.Single()).score == first.score
    assert asked == 40 == model.calls  # the second time from promptopt's cache
    assert max(model.sizes) > 4
    meter = ours.engine.meter.of("task")
    assert (meter.answers, meter.hits, meter.paid.calls, meter.charged.calls) == (80, 40, 40, 80)


def test_coroutines_too():
    model = Batches(world.reply)

    async def both():
        program = dspy.Predict("question -> answer")
        return await asyncio.gather(*(program.acall(question=e.question) for e in world.examples(20)))

    with dspy.context(lm=lm("scripted/x", backend=model)):
        answers = asyncio.run(both())
    assert len(answers) == 20
    assert max(model.sizes) > 4


def test_settings_reach_the_model():
    seen = []

    def reply(request):
        seen.append(request)
        return "[[ ## answer ## ]]\n1\n\n[[ ## completed ## ]]"

    ours = lm("scripted/x", backend=ScriptedLM(reply), temperature=0.5, max_tokens=7)
    with dspy.context(lm=ours):
        dspy.Predict("question -> answer")(question="1+1", config={"temperature": 0.7, "stop": ["\n\n\n"], "seed": 3})
    assert (seen[0].temperature, seen[0].max_tokens, seen[0].stop, seen[0].seed) == (0.7, 7, ("\n\n\n",), 3)


def test_several_completions_are_several_answers():
    answers = iter("abc")
    ours = lm("scripted/x", backend=ScriptedLM(lambda request: next(answers)), temperature=1.0)
    assert ours("hello", n=3) == ["a", "b", "c"]
    assert ours("hello", n=3) == ["a", "b", "c"]  # from the cache
    rollouts = [lm("scripted/x", backend=ScriptedLM(lambda r: str(r.replicate)))("x", rollout_id=i)[0] for i in (0, 7)]
    assert rollouts == ["0", "7"]


def test_a_schema_holds_the_reply():
    seen = []

    def reply(request):
        seen.append(request.constraint)
        return json.dumps({"total": 3})

    ours = lm("scripted/x", backend=ScriptedLM(reply, constrains=True))
    with dspy.context(lm=ours, adapter=dspy.JSONAdapter()):
        assert dspy.Predict("question -> total: int")(question="1+2").total == 3
    assert seen[0].schema["properties"]["total"]["type"] == "integer"


def test_a_budget_is_a_limit():
    from dspy.utils.exceptions import LMError

    ours = lm("scripted/x", backend=ScriptedLM(lambda request: "x"), budget=Limits(calls=2))
    assert ours("a") == ours("b") == ["x"]
    with pytest.raises(LMError, match="2 calls is used up"):
        ours("c")
    assert ours.engine.meter.of("task").paid.calls == 2


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("rate_limit", "LMRateLimitError"),
        ("server", "LMServerError"),
        ("timeout", "LMTimeoutError"),
        ("connection", "LMTransportError"),
        ("auth", "LMAuthError"),
        ("request", "LMInvalidRequestError"),
    ],
)
def test_failures_are_dspys_errors(kind, error):
    ours = lm("scripted/x", backend=ScriptedLM(lambda request: Failure(kind, "no")), retries=0)
    with pytest.raises(getattr(dspy.utils.exceptions, error)):
        ours("a")


def test_what_our_models_cannot_read_is_told():
    from dspy.lm15 import FunctionTool, ImagePart

    hello = (Message.user("hello"),)
    pictures = Request("m", (Message.user([ImagePart(url="https://x/y.png", media_type="image/png")]),))
    tools = Request("m", hello, tools=(FunctionTool(name="f", description="", parameters={"type": "object"}),))
    for request, said in [
        (pictures, "text alone"),
        (tools, "tools"),
        (Request("m", hello, config=Config(top_p=0.5)), "top_p"),
    ]:
        with pytest.raises(InvalidRequestError, match=said):
            request_of(request)


def test_saved_and_loaded_without_its_key():
    with serving(reply="chat_adapter", key="sk-very-secret") as server:
        spec = ModelSpec("openai/m", base_url=server.base_url, key="sk-very-secret", generate=Generate(max_tokens=99))
        program = world.Single()
        program.set_lm(lm(spec))
        assert program(question="why?").answer == "why?"
        program.save("p.json")
        assert "sk-very-secret" not in Path("p.json").read_text()
        loaded = world.Single()
        loaded.load("p.json", allow_unsafe_lm_state=True)
        engine = loaded.solve.lm.engine
        assert isinstance(engine, PromptoptEngine)
        assert engine.spec == ModelSpec("openai/m", base_url=server.base_url, generate=Generate(max_tokens=99))
        engine.close()
        program.solve.lm.engine.close()


def test_an_open_model_is_not_saved():
    program = world.Single()
    program.set_lm(world.model())
    with pytest.raises(TypeError, match="Name the model"):
        program.save("p.json")


# DSPy's among ours ----------------------------------------------------------------------------------------------------


def test_any_lm_of_dspys_answers_our_programs():
    with serving(reply="upper") as server:
        theirs = dspy.LM("openai/m", api_base=server.base_url, api_key="none", max_tokens=9)
        with Session({"task": DSPyModel(theirs)}):
            assert Predict("word -> shout")(word="hello").shout == "HELLO"
        sent = server.last()
        assert 256 in (sent["body"].get("max_tokens"), sent["body"].get("max_completion_tokens"))  # as with any model
        assert theirs.history == []
        assert theirs.cache


def test_costs_and_cuts_are_what_dspy_says():
    class Priced(dspy.BaseLM):
        def forward(self, prompt=None, messages=None, **kwargs):
            from dspy.clients.call_result import attributes

            message = {"role": "assistant", "content": "half an ans"}
            made = attributes(
                {
                    "model": "m",
                    "choices": [{"message": message, "finish_reason": "length", "index": 0}],
                    "usage": {
                        "prompt_tokens": 5,
                        "completion_tokens": 3,
                        "prompt_tokens_details": {"cached_tokens": 2},
                    },
                }
            )
            made._hidden_params = {"response_cost": 0.25}
            return made

    made = run(Door.plain(DSPyModel(Priced("m"))).complete(Ours((("user", "hello"),))))
    assert (made.text, made.finish) == ("half an ans", "length")
    assert made.usage == Usage(1, 5, 3, 2, 0.25)


def test_failures_of_dspys_are_ours():
    from dspy.lm15 import AuthError, RateLimitError

    class Refusing(world.Engine):
        def __init__(self, error):
            self.error = error

        def complete(self, request):
            raise self.error

    for error, kind in [(RateLimitError("slow"), "rate_limit"), (AuthError("no"), "auth")]:
        model = DSPyModel(dspy.LM("x/m", engine=Refusing(error)))
        with pytest.raises(CallError) as caught:  # one attempt: retries are the door's
            run(model.complete(Ours((("user", "x"),))))
        assert caught.value.failure.kind == kind


def test_keys_are_in_no_digest_and_servers_are():
    base = {"model": "openai/m", "cache": False}
    one = digest_of(dspy.LM(**base, api_key="sk-1", api_base="http://a/v1"))
    assert one == digest_of(dspy.LM(**base, api_key="sk-2", api_base="http://a/v1"))
    assert one != digest_of(dspy.LM(**base, api_key="sk-1", api_base="http://b/v1"))
    assert one != digest_of(dspy.LM(**base, api_base="http://a/v1", temperature=0.3))


# Programs -------------------------------------------------------------------------------------------------------------


class Two(Module):
    """A program of ours."""

    def __init__(self):
        self.draft = Predict("question -> draft", instruction="Guess.")
        self.solve = Predict("question, draft -> answer", instruction="Say it.")

    def forward(self, question):
        return self.solve(question=question, draft=self.draft(question=question).draft)


SHOWN = Exemplar({"question": "1+1", "draft": "3"}, {"answer": "2"}, "e1")


def tuned():
    values = dict(Two().default().values)
    return Candidate({**values, "draft.instruction": "Add \"'''\\{x} carefully.", "solve.exemplars": (SHOWN,)})


def test_ours_as_a_dspy_module_and_back():
    module = to_dspy(Two().bind(tuned()))
    assert [name for name, _ in module.named_predictors()] == ["steps['draft']", "steps['solve']"]
    with dspy.context(lm=world.model()):
        assert module(question="4+9").answer == "13"
        compiled = dspy.LabeledFewShot(k=2).compile(
            module, trainset=[dspy.Example(question="2+2", draft="4", answer="4").with_inputs("question")]
        )
    made = compiled.candidate()
    assert made.text("draft.instruction") == tuned().text("draft.instruction")
    assert made.exemplars("solve.exemplars")[0].inputs == {"question": "2+2", "draft": "4"}
    Two().bind(made)
    module.save("m.json")
    again = to_dspy(Two())
    again.load("m.json")
    assert again.candidate() == module.candidate()


def test_ours_through_an_optimizer_of_dspys():
    devset = world.examples(30)
    with dspy.context(lm=world.model()):
        compiled = dspy.BootstrapFewShot(metric=world.right, max_bootstrapped_demos=2).compile(
            to_dspy(Two()), trainset=devset
        )
        assert world.predicted(compiled, world.QUESTIONS) == ["13", "81", "101", "16"]
    with Session({"task": ScriptedLM(lambda request: "13" if len(request.messages) > 2 else "4")}):
        assert Two().bind(compiled.candidate())(question="4+9").answer == "13"


def test_exported_for_dspy():
    save(Two(), tuned(), "best.json")
    write(export(read_program("best.json"), "dspy"), "out")
    made = runpy.run_path("out/program.py")["Program"]()
    theirs, ours = dict(made.named_predictors()), dict(to_dspy(Two().bind(tuned())).named_predictors())
    assert set(theirs) == set(ours)
    adapter = dspy.ChatAdapter()
    for name, predictor in theirs.items():
        inputs = dict.fromkeys(predictor.signature.input_fields, "x")
        sent = [adapter.format(p.signature, p.demos, inputs) for p in (predictor, ours[name])]
        assert sent[0] == sent[1]
    again = to_dspy(Two())
    again.load("out/program.json")
    shown = Exemplar(SHOWN.inputs, SHOWN.outputs, "demo 0")
    assert again.candidate() == Candidate({**tuned().values, "solve.exemplars": (shown,)})


class Kept(world.Engine):
    """Keeps the request, and gives no answer."""

    def complete(self, request):
        self.request = request
        raise RuntimeError("seen")


def test_exported_single_predictors_of_every_kind_run():
    for text in ("question -> answer", "a, b -> label: yes|no", "text -> total: int, parts: list, note"):
        predict = Predict(text, instruction="Do it.\n'''\\N{DASH} \"\"\"")
        save(predict, predict.default(), "one.json")
        write(export(read_program("one.json"), "dspy"), "one", force=True)
        program = runpy.run_path("one/program.py")["Program"]()
        assert program.steps["predict"].signature.equals(dspy_signature(predict.signature, predict.instruction))
        engine = Kept()
        with dspy.context(lm=dspy.LM("x/y", engine=engine, num_retries=0)), pytest.raises(Exception, match="seen"):
            program(**{field.name: "x" for field in predict.signature.inputs})
        assert predict.instruction.splitlines()[0] in str(engine.request.system)


# A task file ----------------------------------------------------------------------------------------------------------

APP = '''
import dspy

class Program(dspy.Module):
    """Adds."""

    def __init__(self, thinking=False):
        self.solve = (dspy.ChainOfThought if thinking else dspy.Predict)("question -> answer")

    def forward(self, question):
        return self.solve(question=question)

class Sum(dspy.Signature):
    """Add."""
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()

program = Program()

def right(gold, pred, trace=None):
    assert isinstance(gold, dspy.Example) and isinstance(pred, dspy.Prediction)
    return dspy.Prediction(score=float(gold.sum == pred.answer), feedback=f"It is {gold.sum}.")
'''
TASK = """
program: {program}
data: {{train: train.jsonl, input: {{question: text}}, target: sum}}
splits: {{demos: 20, search: 20, confirm: 20, test: 20}}
metric: {metric}
models: {{task: openai/m}}
optimizer: bootstrap_random_search
budget: {{calls: 600}}
"""


def task_file(program="app.py:Program", metric="app.py:right"):
    Path("app.py").write_text(APP)
    rows = [{"text": e.question, "sum": e.answer} for e in world.examples(80)]
    Path("train.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    Path("task.yaml").write_text(TASK.format(program=program, metric=metric))
    return Path("task.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["app.py:right", "exact_match"])
@pytest.mark.parametrize(
    "program", ["app.py:Program", "app.py:program", "app.py:Sum", "{code: app.py:Program, args: {thinking: true}}"]
)
def test_a_dspy_program_named_in_a_task_file(program, metric):
    task = load_task(task_file(program, metric))
    result = api.optimize(task, out="run", backends={"task": ScriptedLM(world.reply)})
    assert result.verdict == "improved"
    about = json.loads(Path("run/run.json").read_text())
    assert about["library"] == "dspy"
    again = api.optimize(load_task("task.yaml"), out="run", backends={"task": ScriptedLM(lambda request: 1 / 0)})
    assert sum(usage.calls for usage in again.paid.values()) == 0
    (request, *_) = api.render(task, result.best)
    assert request.messages[0][1].startswith("Your input fields are")
    assert len(request.messages) > 2


def test_what_a_task_file_says_wrong_of_a_dspy_program():
    for program, said in [
        ("{code: app.py:Program, args: {thinkin: true}}", "thinking"),
        ("app.py:Progra", "Program"),
        ("{code: app.py:program, args: {thinking: true}}", "no arguments"),
    ]:
        with pytest.raises(ConfigError, match=said):
            load_task(task_file(program))
    with pytest.raises(ConfigError, match="nothing to tune"):
        load_task(_with_empty())


def _with_empty():
    path = task_file("app.py:Empty")
    Path("app.py").write_text(APP + "\nclass Empty(dspy.Module):\n    def forward(self, question):\n        return 1\n")
    return path


@pytest.mark.slow
def test_the_command_line(tmp_path):
    task_file()
    with serving(reply="chat_adapter") as server:
        text = Path("task.yaml").read_text().replace("openai/m", f"{{id: openai/m, base_url: {server.base_url}}}")
        Path("task.yaml").write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "promptopt_cli.main", "optimize", "task.yaml", "--out", "run", "-q"],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 3, done.stderr  # a server that repeats the question adds nothing
    assert "in DSPy" in done.stdout
    state = json.loads(Path("run/best.json").read_text())
    assert state["solve"]["lm"] is None
    program = runpy.run_path("app.py")["Program"]()
    program.load("run/best.json")


def test_dspy_is_loaded_only_where_it_is_met():
    code = "import sys, promptopt, promptopt.api, promptopt.task.load; sys.exit('dspy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_prices_of_the_users_own():
    class Counted(world.Engine):
        pass

    from promptopt.integrations.dspy import DSPyOptimizer

    with dspy.context(lm=dspy.LM("world/x", engine=Counted(), cache=False, max_tokens=9)):
        tuned = DSPyOptimizer(
            "evo",
            metric=world.right,
            budget={"usd": 0.05},
            price=Price(1.0, 100.0),
            splits={"search": 20, "confirm": 20},
        )
        tuned.compile(world.Single(), trainset=world.examples(80))
    spent = sum(usage.usd for usage in tuned.result.charged.values())
    assert 0.01 < spent <= 0.05
