"""instinct, ease, zopo, instructzero and evo: what they promise beyond the contract of every optimizer."""

import dataclasses
import importlib.util

import numpy as np
import pytest
import scipy.stats

from promptopt.api import optimize
from promptopt.bench.fields import TextField, TupleField, Uniform, play
from promptopt.errors import ConfigError
from promptopt.lm.scripted import ScriptedLM, ScriptedReader
from promptopt.optimizers.chain import Chain
from promptopt.optimizers.ease import Ease
from promptopt.optimizers.evo import Evo
from promptopt.optimizers.instinct import Instinct
from promptopt.optimizers.instructzero import InstructZero
from promptopt.optimizers.model_based import ModelBased, Plan
from promptopt.optimizers.zopo import Zopo
from promptopt.program.module import Module
from promptopt.program.predict import Predict
from promptopt.propose.soft_prompt import SoftSettings
from promptopt.search.budget import Limits
from promptopt.seeds import Seeds
from promptopt.task.settings import check_settings
from promptopt.testing.toy import splits, toy

SMOOTH = TextField(texts=300, smooth=1.0, examples=40)
SMOOTHER = dataclasses.replace(SMOOTH, roughness=0.3, spread=1.0)
NOISY = TupleField(wrong=0.5)
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs promptopt[bandits]")


def instinct(**changes):
    return Instinct(**{"domain": "texts", "texts": 2, "surrogate": "gp", "evaluation": "full", **changes})


def ease(**changes):
    return Ease(**{"surrogate": "gp", "look": 500, "evaluation": "full", **changes})


def games(field, optimizer, trials, seeds):
    pools = [field.draw(Seeds(seed).rng("field", field.name)) for seed in seeds]
    return [play(pool, optimizer, trials=trials, seed=seed) for pool, seed in zip(pools, seeds, strict=True)]


def missed(curves):
    """What the best candidate that was tried lacks of the best there is."""
    return np.array([curve.best - curve.found[-1] for curve in curves])


def better(ours, theirs):
    """One-sided p-value that ours misses less, on the same fields."""
    return scipy.stats.ttest_rel(missed(theirs), missed(ours), alternative="greater").pvalue


class Spy:
    """An optimizer that keeps what its search was asked and told."""

    def __init__(self, inner):
        self.inner, self.asks = inner, []

    def start(self, context):
        self.context = context
        search = self.search = self.inner.start(context)
        spy = self

        class Kept:
            def ask(self):
                asks = list(search.ask())
                spy.asks.append([ask.candidate for ask in asks])
                return asks

            def tell(self, trials):
                search.tell(trials)

        return Kept()


def spied(field, optimizer, trials, seed=0):
    spy = Spy(optimizer)
    play(field.draw(Seeds(seed).rng("field", field.name)), spy, trials=trials, seed=seed)
    return spy.asks


# Convergence ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [instinct(), Zopo(texts=2, evaluation="full")])
def test_texts_are_found_sooner_than_by_chance(optimizer):
    seeds = range(10)
    ours = games(SMOOTHER, dataclasses.replace(optimizer, trials=60, first=20), 60, seeds)
    assert better(ours, games(SMOOTHER, Uniform(60), 60, seeds)) < 0.05


@pytest.mark.slow
def test_exemplars_are_found_sooner_than_by_chance_and_by_evolution():
    seeds = range(8)
    field = dataclasses.replace(NOISY, examples=30)
    ours = games(field, ease(trials=80, first=20), 80, seeds)
    assert better(ours, games(field, Uniform(80, 5), 80, seeds)) < 0.01
    assert better(ours, games(field, Evo(trials=80, first=20, evaluation="full"), 80, seeds)) < 0.05


@pytest.mark.slow
def test_wrong_exemplars_are_left_out():
    field = dataclasses.replace(NOISY, examples=30)
    shares = []
    for seed in range(5):
        pool = field.draw(Seeds(seed).rng("field", field.name))
        curve = play(pool, ease(trials=80, first=20), trials=80, seed=seed)
        shown = [exemplar.source for exemplar in curve.winner.exemplars("exemplars")]
        places = {demo.id: place for place, demo in enumerate(pool.demos)}
        shares.append(np.mean([pool.wrong[places[source]] for source in shown]))
    assert np.mean(shares) <= 0.2, "half of the pool is wrong"


def test_a_short_search_beats_chance():
    """One seed of each, told apart by far: the long ones are slow tests."""
    seeds = (0, 1, 2)
    ours = games(SMOOTHER, instinct(trials=40, first=15), 40, seeds)
    assert missed(ours).mean() < 0.5 * missed(games(SMOOTHER, Uniform(40), 40, seeds)).mean()


@pytest.mark.slow
def test_zopo_reaches_the_top_percent_of_a_smooth_field():
    field = TextField(texts=500, smooth=1.0, examples=100)
    for seed in range(5):
        pool = field.draw(Seeds(seed).rng("field", field.name))
        curve = play(pool, Zopo(texts=2, evaluation="full"), trials=165, seed=seed)
        assert (np.asarray(pool.truths) > curve.found[-1] + 1e-12).sum() < 5


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("fidelity", ["reference", "fixed"])
def test_instinct_beats_chance_where_rewards_are_linear_in_the_features(fidelity):
    # A field so smooth that it is nearly a plane.
    optimizer = instinct(surrogate="neural", trials=60, first=20, per_step=5, fidelity=fidelity)
    seeds = range(3)
    ours, theirs = games(SMOOTHER, optimizer, 60, seeds), games(SMOOTHER, Uniform(60), 60, seeds)
    assert missed(ours).mean() < 0.6 * missed(theirs).mean()


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("surrogate", ["auto", "ensemble"])
def test_other_surrogates_search(surrogate):
    seeds = range(2)
    ours = games(SMOOTHER, instinct(surrogate=surrogate, trials=30, first=15, per_step=5), 30, seeds)
    assert missed(ours).mean() < 0.7 * missed(games(SMOOTHER, Uniform(30), 30, seeds)).mean()


@pytest.mark.slow
def test_eight_at_once_lose_little_against_one_after_the_other():
    seeds = range(6)
    one = games(SMOOTH, instinct(per_step=1, trials=60, first=20), 60, seeds)
    eight = games(SMOOTH, instinct(per_step=8, trials=60, first=20), 60, seeds)
    assert (missed(eight) - missed(one)).mean() < 0.02


# What is asked --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "optimizer"),
    [
        (SMOOTH, instinct(trials=30, first=10, per_step=5)),
        (SMOOTH, instinct(trials=30, first=10, per_step=5, acquisition="thompson")),
        (SMOOTH, Zopo(texts=2, trials=30, first=10, per_step=3, evaluation="full")),
        (NOISY, ease(trials=30, first=10, per_step=5)),
        (NOISY, ease(trials=30, first=10, features="text", look=50)),
        (NOISY, Evo(trials=30, first=10, per_step=5, evaluation="full")),
    ],
)
def test_so_many_candidates_and_none_twice(field, optimizer):
    asks = spied(field, optimizer, 1000)
    tried = [candidate.id for asked in asks for candidate in asked]
    assert len(tried) == len(set(tried)) == 30
    assert len(asks[0]) == 10
    for candidate in (candidate for asked in asks for candidate in asked):
        shown = candidate.exemplars("exemplars")
        assert len({exemplar.source for exemplar in shown}) == len(shown) == (5 if field is NOISY else 0)


def test_a_pool_that_is_used_up_ends_the_search():
    small = TextField(texts=12, clusters=3)
    for optimizer in (instinct(first=4), Zopo(texts=2, first=4, evaluation="full")):
        tried = [c.id for asked in spied(small, optimizer, 1000) for c in asked]
        assert len(tried) == len(set(tried)) == 12


def test_a_small_budget_leaves_most_of_itself_to_the_surrogate():
    asks = spied(SMOOTH, instinct(), 24)
    assert len(asks[0]) == 6, "a quarter of the 24 that can be paid for"


def test_no_more_candidates_than_trials_whatever_the_seeds():
    asks = spied(SMOOTH, instinct(trials=3, first=40), 1000)
    assert sum(map(len, asks)) == 3


def test_an_axis_without_anything_new_does_not_end_the_search(tmp_path, search):
    program = Predict("word -> answer", instruction="Say it.")
    optimizer = ease(exemplars=2, instructions=3, modules="in_turn", trials=40, first=4)
    _, result, _ = search(tmp_path, program, optimizer, reply, propose, sizes=(8, 20, 10, 0))
    assert result.candidates == 40


def test_pulls_are_few_examples_and_more_for_what_looks_best():
    spy = Spy(Instinct(domain="texts", texts=2, trials=40, first=16, pull=5))
    pool = SMOOTH.draw(Seeds(5).rng("field", SMOOTH.name))
    curve = play(pool, spy, cells=400, seed=5)
    trials = spy.search._search._trials
    sizes = {key: trial.n for key, trial in trials.items() if key != pool.program.default().id}
    assert set(sizes.values()) <= {5, 10, 15, 20, 25, 30, 35, 40}
    assert sum(sizes.values()) == curve.cells[-1] <= 400
    often = [key for key, n in sizes.items() if n > 10]
    assert often, "something was pulled again"
    truths = {candidate.id: pool.true(candidate) for asked in spy.asks for candidate in asked}
    assert np.mean([truths[key] for key in often]) > np.mean([truths[key] for key in sizes])


def test_where_no_new_candidate_may_be_tried_the_best_get_all_examples():
    spy = Spy(Instinct(domain="texts", texts=2, trials=10, first=6, pull=5))
    pool = SMOOTH.draw(Seeds(5).rng("field", SMOOTH.name))
    play(pool, spy, seed=5)
    sizes = [trial.n for trial in spy.search._search._trials.values()]
    assert sizes.count(40) >= 1 + 5


class Mixed(ScriptedReader):
    """One whose reply to a soft prompt is anybody's guess: its seed is a number out of all digits of the vectors."""

    def generate_from_soft_prompt(self, vectors, requests):
        seeds = (np.abs(np.asarray(vectors, dtype=np.float64)).sum((1, 2)) * 1e6).astype(np.int64) % 96
        return self.generate([dataclasses.replace(r, seed=int(s)) for r, s in zip(requests, seeds, strict=True)])


def test_soft_prompts_that_say_the_same_are_not_decoded_without_end(tmp_path):
    decoded = []

    def say(request):
        decoded.append(request.seed)
        return f"Use rule {request.seed % 6}."

    for number, optimizer in enumerate(
        (
            instinct(domain="soft", soft=SoftSettings(vectors=2, intrinsic=6, size=512), trials=20),
            Zopo(domain="soft", soft=SoftSettings(vectors=2, intrinsic=6, size=512), trials=20),
        )
    ):
        decoded.clear()
        task, model = toy(lambda text: 0.5, splits=splits(demos=12, search=16, confirm=8, test=0))
        backends = {"task": model, "proposer": Mixed(say, digest="scripted/reader")}
        result = optimize(task, optimizer=optimizer, out=tmp_path / str(number), backends=backends)
        assert result.candidates == 6
        assert len(decoded) < 300


def test_soft_prompts_that_mostly_say_the_same_do_not_end_the_search_at_once(tmp_path):
    def say(request):
        return f"Use rule {request.seed}." if request.seed % 8 == 0 else "Use the usual rule."

    task, model = toy(lambda text: 0.5, splits=splits(demos=12, search=16, confirm=8, test=0))
    optimizer = instinct(domain="soft", soft=SoftSettings(vectors=2, intrinsic=6, size=512), trials=20, per_step=1)
    backends = {"task": model, "proposer": Mixed(say, digest="scripted/reader")}
    assert optimize(task, optimizer=optimizer, out=tmp_path, backends=backends).candidates > 10


def test_a_repeat_is_one_observation():
    spy = Spy(ease(trials=10, first=5))
    play(NOISY.draw(Seeds(0).rng("x")), spy, trials=5, seed=0)
    search = spy.search._search
    points = np.array([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
    before = len(search._points)
    assert len(search._new(points, 3)) == len(search._points) - before == 2


@pytest.mark.parametrize("calls", range(200, 300, 10))
def test_a_run_that_its_budget_ended_repeats_itself(tmp_path, calls):
    def go():
        task, model = toy(lambda text: (sum(text.encode()) % 89) / 100, splits=splits(12, 30, 12, 12))
        proposer = ScriptedLM(propose, digest="scripted/proposer")
        optimizer = Instinct(domain="texts", texts=20, evaluation="race" if calls % 20 else "pulls")
        backends = {"task": model, "proposer": proposer}
        return optimize(task, optimizer=optimizer, out=tmp_path, budget=Limits(calls=calls), backends=backends)

    first = go()
    before = (tmp_path / "trials.jsonl").read_bytes()
    again = go()
    assert (tmp_path / "trials.jsonl").read_bytes() == before
    assert again.winner == first.winner


def test_a_chain_embeds_with_the_tasks_embedder(tmp_path):
    class Counting:
        digest = "st/counting"
        texts = 0

        def embed(self, texts):
            self.texts += len(texts)
            return np.random.default_rng(len(texts)).normal(size=(len(texts), 6)).astype(np.float32)

        def close(self):
            pass

    task, model = toy(lambda text: 0.5, splits=splits(demos=12, search=16, confirm=8, test=0))
    stages = (
        {"name": "ease", "exemplars": 2, "trials": 3, "first": 2, "look": 50},
        {"name": "random_search", "trials": 2},
    )
    embedder = Counting()
    optimize(task, optimizer=Chain(stages), out=tmp_path, backends={"task": model, "embedder": embedder})
    assert embedder.texts > 12


@pytest.mark.parametrize(
    "optimizer",
    [
        InstructZero(),
        Instinct(domain="soft"),
        Zopo(domain="soft"),
        Chain(({"name": "random_search", "trials": 2}, {"name": "instructzero"})),
    ],
)
def test_what_needs_soft_prompts_is_refused_before_anything_is_paid(tmp_path, optimizer):
    task, model = toy(lambda text: 0.5)
    backends = {"task": model, "proposer": ScriptedLM(propose)}
    with pytest.raises(ConfigError, match=r"reads soft prompts: set models\.proposer"):
        optimize(task, optimizer=optimizer, out=tmp_path / "run", backends=backends)
    assert model.calls == 0
    assert not (tmp_path / "run").exists()


def test_a_proposer_that_writes_nothing_usable_is_not_asked_for_ever(tmp_path):
    task, model = toy(lambda text: 0.5, splits=splits(demos=12, search=16, confirm=8, test=0))
    proposer = ScriptedLM(lambda _: "", digest="scripted/silent")
    optimizer = Evo(over="instructions", trials=1500, first=10, per_step=4)
    result = optimize(task, optimizer=optimizer, out=tmp_path, backends={"task": model, "proposer": proposer})
    assert result.candidates == 0
    assert proposer.calls < 40


def test_evolution_goes_on_when_the_best_has_no_new_neighbour(tmp_path, search):
    program = Predict("word -> answer", instruction="Say it.")
    optimizer = Evo(exemplars=2, trials=12, first=3, evaluation="full")
    _, result, _ = search(tmp_path, program, optimizer, reply, propose, sizes=(4, 20, 10, 0))
    assert result.candidates == 12, "all ordered pairs of four"


def test_evolution_changes_a_copy_of_the_best():
    asks = spied(NOISY, Evo(trials=60, first=10, per_step=1, evaluation="full"), 60)
    earlier = {}
    for asked in asks[:1]:
        earlier |= {candidate.id: candidate for candidate in asked}
    before = {key: candidate.to_json() for key, candidate in earlier.items()}
    assert {key: candidate.to_json() for key, candidate in earlier.items()} == before
    for (child,) in asks[1:]:
        shown = child.exemplars("exemplars")
        near = [
            mother
            for mother in earlier.values()
            if sum(a != b for a, b in zip(shown, mother.exemplars("exemplars"), strict=True)) in (1, 2)
        ]
        assert near, "one exemplar replaced or two exchanged, of one that was tried"
        earlier[child.id] = child


@needs_torch
@pytest.mark.slow
@pytest.mark.parametrize("field", [SMOOTH, NOISY])
def test_the_reference_tries_one_at_a_time_on_twenty_examples(field):
    more = {"trials": 14, "first": 10, "fidelity": "reference"}
    optimizer = ease(**more) if field is NOISY else instinct(**more)
    spy = Spy(optimizer)
    pool = dataclasses.replace(field, examples=30).draw(Seeds(0).rng("field"))
    play(pool, spy, trials=100, seed=0)
    assert [len(asked) for asked in spy.asks] == [10, 1, 1, 1, 1, 0]
    assert {ask.n for ask in spy.search.ask()} == set()
    assert optimizer.plan().examples == 20


# Several predictors ---------------------------------------------------------------------------------------------------


class Two(Module):
    def __init__(self):
        super().__init__()
        self.draft = Predict("word -> hint", instruction="Give a hint.")
        self.final = Predict("word, hint -> answer", instruction="Answer.")

    def forward(self, word):
        return self.final(word=word, hint=self.draft(word=word).hint)


def reply(request):
    text = next((text for role, text in request.messages if role == "system"), "")
    number = int("".join(c for c in request.messages[-1][1] if c.isdigit())[:2] or 0)
    if "hint" not in request.messages[-1][1].lower():
        return f"hint {number % 7}"
    return f"right {number}" if (number * 7919 % 100) / 100 < (sum(text.encode()) % 89) / 100 else "wrong"


def knowing(request):
    """As ``reply``, of a model that is always right."""
    question = request.messages[-1][1]
    if "hint" not in question.lower():
        return reply(request)
    return "right " + "".join(c for c in question.splitlines()[0] if c.isdigit())


def propose(request):
    return f"Follow rule number {request.seed % 997}."


@pytest.mark.parametrize("modules", ["together", "in_turn"])
def test_programs_with_several_predictors(tmp_path, search, modules):
    optimizer = instinct(texts=6, trials=10, first=3, per_step=1, modules=modules)
    _, result, trials = search(tmp_path, Two(), optimizer, reply, propose, sizes=(8, 20, 10, 0))
    assert result.candidates == 10
    values = [trial["candidate"]["values"] for trial in trials]
    paths = {"draft.instruction", "final.instruction"}
    assert all(len({value[path] for value in values}) > 1 for path in paths)
    if modules == "in_turn":
        steps = {}
        for trial in trials[1:]:
            steps.setdefault(trial["candidate"]["origin"]["step"], []).append(trial["candidate"]["values"])
        seen = [dict(value) for trial in trials[:1] for value in [trial["candidate"]["values"]]]
        for step, tried in sorted(steps.items()):
            if step > 1:
                assert all(
                    any(sum(value[path] != other[path] for path in paths) <= 1 for other in seen) for value in tried
                )
            seen += tried


def test_inner_predictors_show_what_the_program_itself_did(tmp_path, search):
    optimizer = ease(exemplars=2, trials=8, first=3, look=50, threshold=0.01)
    _, _, trials = search(tmp_path, Two(), optimizer, knowing, propose, sizes=(8, 20, 10, 0))
    shown = [trial["candidate"]["values"]["draft.exemplars"] for trial in trials[1:] if trial["split"] == "search"]
    inner = [exemplar for value in shown for exemplar in value]
    assert inner
    assert all(exemplar["outputs"]["hint"].startswith("hint") for exemplar in inner)


def test_instructions_and_exemplars_together(tmp_path, search):
    program = Predict("word -> answer", instruction="Say it.")
    optimizer = ease(exemplars=2, instructions=5, trials=12, first=4, look=100)
    _, _, trials = search(tmp_path, program, optimizer, reply, propose, sizes=(8, 20, 10, 0))
    values = [trial["candidate"]["values"] for trial in trials]
    assert len({value["instruction"] for value in values}) > 2
    assert {len(value["exemplars"]) for value in values} == {0, 2}


# Beliefs --------------------------------------------------------------------------------------------------------------


def test_what_is_believed_is_of_what_was_tried_and_borrows_from_its_like():
    spy = Spy(instinct(trials=40, first=20))
    pool = SMOOTH.draw(Seeds(3).rng("field", SMOOTH.name))
    play(pool, spy, trials=40, seed=3)
    beliefs = spy.search.believed()
    tried = {candidate.id: candidate for asked in spy.asks for candidate in asked}
    assert set(tried) <= set(beliefs) <= {*tried, pool.program.default().id}
    truth = np.array([pool.true(tried[key]) for key in tried])
    means = np.array([beliefs[key] for key in tried])
    scores = np.array([pool.scores(tried[key]).mean() for key in tried])
    assert np.abs(means - truth).mean() < np.abs(scores - truth).mean()


def test_a_search_that_was_told_nothing_believes_nothing():
    spy = Spy(instinct())
    play(SMOOTH.draw(Seeds(0).rng("x")), spy, trials=1, seed=0)
    assert not isinstance(spy.search, ModelBased)  # it is made when it is first asked
    assert set(spy.search.believed()) <= {spy.context.default.id}


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ease(exemplars=0), "ease's exemplars ≥ 1"),
        (lambda: Ease(first=1), "ease's first ≥ 2"),
        (lambda: Ease(filtered=1.5), r"ease's filtered in \[0, 1\]"),
        (lambda: Ease(beta=-1.0), "ease's beta ≥ 0"),
        (lambda: Ease(beta=float("nan")), "ease's beta ≥ 0"),
        (lambda: Ease(examples=5), "evaluation: full"),
        (lambda: Ease(threshold=0.0), "threshold"),
        (lambda: Ease(evaluation="hardly"), "hardly"),
        (lambda: Ease(surrogate="gpp"), "Unknown surrogate 'gpp'"),
        (lambda: Ease(acquisition="usb"), "acquisition"),
        (lambda: Ease(modules="inturn"), "modules"),
        (lambda: Ease(fidelity="refrence"), "fidelity fixed or reference"),
        (lambda: Ease(pull=0), "pull ≥ 1"),
        (lambda: Instinct(domain="text"), "domain auto, soft or texts"),
        (lambda: Zopo(over="all"), "zopo's over"),
        (lambda: InstructZero(fidelity="other"), "fidelity fixed or reference"),
        (lambda: Instinct(texts=1), "instinct's texts ≥ 2"),
        (lambda: Instinct(temperature=3.0), "temperature"),
        (lambda: Instinct(soft=SoftSettings(vectors=0)), "vectors"),
        (lambda: Zopo(closest=1), "zopo's closest ≥ 2"),
        (lambda: Zopo(texts=1), "zopo's texts ≥ 2"),
        (lambda: Zopo(pairs=0), "zopo's pairs ≥ 1"),
        (lambda: Zopo(temperature=3.0), "zopo's temperature"),
        (lambda: Zopo(sure=-1.0), "zopo's sure ≥ 0"),
        (lambda: Evo(temperature=-0.1), "temperature"),
        (lambda: Evo(per_step=0), "evo's per_step ≥ 1"),
        (lambda: InstructZero(first=1), "instructzero's first ≥ 2"),
        (lambda: InstructZero(rounds=-1), "instructzero's rounds ≥ 0"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_plan_is_what_the_settings_say():
    said = {"trials": 7, "first": 3, "per_step": 2, "surrogate": "rbf", "acquisition": "thompson", "beta": 0.5}
    said |= {"modules": "in_turn", "evaluation": "full", "examples": 6, "pull": 3}
    assert Ease(**said, look=9, pool=30).plan() == Plan(name="ease", **said, look=9)
    assert Instinct(**said).plan() == Plan(name="instinct", **said)
    assert Zopo(trials=7, evaluation="race").plan() == Plan(name="zopo", trials=7, per_step=2, evaluation="race")
    assert Evo(trials=7, evaluation="race").plan() == Plan(name="evo", trials=7, evaluation="race")


@needs_torch
def test_a_reference_is_planned_as_its_authors_did():
    own = {"trials": 7, "first": 3, "per_step": 2, "surrogate": "rbf", "acquisition": "thompson", "beta": 0.5}
    theirs = {"trials": 7, "first": 3, "per_step": 1, "surrogate": "neural", "examples": 20, "evaluation": "full"}
    assert Ease(**own, look=9, fidelity="reference", pull=8).plan() == Plan(name="ease", **theirs, look=50)
    assert Instinct(**own, modules="in_turn", fidelity="reference").plan() == Plan(name="instinct", **theirs)


@pytest.mark.parametrize(
    ("soft", "message"),
    [
        ({"vektors": 3}, "soft: Unknown setting 'vektors' of SoftSettings. Did you mean 'vectors'"),
        ({"vectors": 0}, "soft: Expected soft prompts' vectors ≥ 1, got 0"),
        ({"vectors": "3"}, "soft: vectors: Expected"),
        (7, "soft: Expected a mapping, got the number 7"),
    ],
)
def test_settings_within_settings_are_checked_too(soft, message):
    with pytest.raises(ConfigError) as told:
        check_settings(Instinct, {"soft": soft}, None)
    assert message in str(told.value)
    assert check_settings(Instinct, {"soft": {"vectors": 3}}, None).soft == SoftSettings(vectors=3)


def test_programs_without_what_is_searched_are_refused(tmp_path, search):
    program = Predict("word -> answer", instruction="Say it.")
    with pytest.raises(ConfigError, match=r"splits\.demos"):
        search(tmp_path / "a", program, ease(), reply, propose, sizes=(0, 20, 10, 0))
    with pytest.raises(ConfigError, match="hf/ model"):
        search(tmp_path / "b", program, instinct(domain="soft"), reply, propose)
