"""Scores, hidden states and soft prompts: against transformers itself, one unpadded sequence after the other."""

import contextlib
import functools
import re
import shutil
import warnings

import numpy as np
import pytest

from promptopt.errors import CallError, ConfigError, ModelUnavailableError
from promptopt.lm.base import Completion, Request
from promptopt.lm.capabilities import (
    SOFT_PROMPT,
    HiddenStates,
    Scored,
    ScoreRequest,
    Scores,
    reads_soft_prompts,
)
from promptopt.lm.hf import HFBackend
from promptopt.lm.scripted import ScriptedLM
from promptopt.lm.spec import ModelSpec
from promptopt.records import Failure

HEADS = ["w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11 w12", "w1 w2 w3 w4 w50 w6", "w30"]


def opened(path, **settings):
    return HFBackend(ModelSpec(f"hf/{path}", dtype="float32", **settings))


@pytest.fixture(scope="module")
def open_tiny(tiny):
    made = {}

    def open_one(kind="llama", begins=False):
        if (kind, begins) not in made:
            made[kind, begins] = opened(tiny(kind, begins))
        return made[kind, begins]

    return open_one


def plain(path):
    """transformers' own model, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def one_by_one(path, pairs):
    """log p(continuation | context) of token lists, each pair alone and unpadded."""
    import torch

    model = plain(path)
    found = []
    for context, continuation in pairs:
        with torch.no_grad():
            logits = model(torch.tensor([[*context, *continuation]])).logits[0].float()
        steps = logits[len(context) - 1 : -1].log_softmax(-1)
        found.append(float(steps[range(len(continuation)), continuation].sum()))
    return found


def random_requests(rng, many):
    """Contexts of ragged lengths under few heads, as conversations, texts and empty ones."""

    def words(most):
        return " ".join(f"w{i}" for i in rng.integers(0, 8, rng.integers(1, most)))

    asked = []
    for _ in range(many):
        head = HEADS[rng.integers(len(HEADS))]
        ends = tuple(words(5) for _ in range(rng.integers(1, 5)))
        kind = rng.integers(4)
        if kind == 0:
            asked.append(ScoreRequest(text=f"{head} {words(9)}", continuations=ends))
        elif kind == 1 and rng.integers(4) == 0:
            asked.append(ScoreRequest(text="", continuations=ends))
        else:
            asked.append(ScoreRequest((("system", head), ("user", words(9))), ends))
    return asked


def tokenised(path, request):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    if request.text is None:
        turns = [{"role": role, "content": text} for role, text in request.messages]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        context = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        context = tokenizer(request.text)["input_ids"] or [tokenizer.eos_token_id]
    return [(context, tokenizer(text, add_special_tokens=False)["input_ids"]) for text in request.continuations]


@functools.cache
def expected(path, pairs):
    return np.array(one_by_one(path, [(list(context), list(continuation)) for context, continuation in pairs]))


def furthest(path, requests, answers):
    """How many pairs, and how far their scores are from those of each alone."""
    pairs, scores = [], []
    for request, answer in zip(requests, answers, strict=True):
        assert isinstance(answer, Scored), answer
        mine = tokenised(path, request)
        assert answer.tokens == tuple(len(continuation) for _, continuation in mine)
        assert answer.usage.prompt_tokens == len(mine[0][0]) + sum(answer.tokens)
        pairs += mine
        scores += answer.logprobs
    known = expected(path, tuple((tuple(context), tuple(continuation)) for context, continuation in pairs))
    return len(pairs), np.abs(np.array(scores) - known).max()


@pytest.mark.slow
@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma3", "gpt2"])
def test_scores_are_those_of_each_pair_alone(open_tiny, tiny, kind, begins):
    """Of five architectures: grouped queries, biases, sliding windows in all layers or some, learned positions."""
    model, path = open_tiny(kind, begins), tiny(kind, begins)
    requests = random_requests(np.random.default_rng(int(begins)), 25)
    for run in (512, 32):  # in one run; in many, whose paths are carried on
        model.prepare()
        model._engine.run = run
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it reads trees, and need not be told that it cannot
            answers = model.score(requests)
        many, apart = furthest(path, requests, answers)
        assert many >= 50  # 500 and more over all kinds
        assert apart <= 1e-3
    assert sum(answer.usage.cached_tokens for answer in answers) > 0


def test_labels_do_not_tie_in_short_numbers(tiny):
    """bfloat16 logits have 8 bits; differences between labels have those of float32 over the same last states."""
    import torch
    from transformers import AutoModelForCausalLM

    path = tiny("qwen3")
    labels = tuple(f"w{i}" for i in range(60))
    requests = [ScoreRequest(text=f"w{i} w{i + 1}", continuations=labels) for i in range(20)]
    answers = HFBackend(ModelSpec(f"hf/{path}", device="cpu")).score(requests)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).eval()
    ties = 0
    for request, answer in zip(requests, answers, strict=True):
        pairs = tokenised(path, request)
        ids = [continuation[0] for _, continuation in pairs]
        with torch.no_grad():
            out = model(torch.tensor([pairs[0][0]]), output_hidden_states=True)
            sharp = (model.lm_head.weight.float() @ out.hidden_states[-1][0, -1].float())[ids].numpy()
        found = np.array(answer.logprobs)
        ties += len(ids) - len(set(out.logits[0, -1][ids].tolist()))
        assert len(set(found.tolist())) == len(ids)
        assert np.corrcoef(found, sharp)[0, 1] > 0.999
    assert ties > 10, "what it mends"


def test_a_model_that_takes_no_trees_scores_all_the_same(tiny):
    """MPT knows positions by distance in the row: in a tree they would be wrong."""
    path = tiny("mpt")
    model = opened(path)
    requests = random_requests(np.random.default_rng(5), 20)
    with pytest.warns(RuntimeWarning, match="each is read by itself"):
        answers = model.score(requests)
    assert furthest(path, requests, answers)[1] <= 1e-3
    assert model.score(requests[:3]) is not None, "told once"


def test_what_was_read_before_is_used_again_and_changes_nothing(open_tiny, monkeypatch):
    model = open_tiny()
    head = ("system", HEADS[0])
    first = [ScoreRequest((head, ("user", f"w{i}")), ("w1 w2", "w3")) for i in range(6)]
    second = [ScoreRequest((head, ("user", f"w{i} w9")), ("w1 w2", "w3")) for i in range(6, 9)]
    fresh = opened(model._spec.name).score(second)
    model.score([ScoreRequest(text="w59", continuations=("w1",))])
    model.score(first)
    read = []
    inner = model._engine._model

    def counted(**given):
        read.append(given["input_ids"].shape[1])
        return inner(**given)

    monkeypatch.setattr(model._engine, "_model", Stand(inner, counted))
    again = model.score(second)
    assert sum(read) < 3 * 8, "the head of 15 tokens is not among them"
    for one, other in zip(again, fresh, strict=True):
        assert np.allclose(one.logprobs, other.logprobs, atol=1e-5)
        assert one.usage.cached_tokens >= 15


class Stand:
    """In the place of a model: called another way, otherwise it."""

    def __init__(self, inner, call):
        self.inner, self.call = inner, call

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, *args, **given):
        return self.call(*args, **given)


def test_the_tokens_that_are_read_are_counted(open_tiny, monkeypatch):
    """Cached and fresh tokens add up to what the model was given; labels of one token cost nothing."""
    model = open_tiny("qwen3")
    model.score([ScoreRequest(text="w59", continuations=("w1",))])
    read = []
    inner = model._engine._model

    def counted(**given):
        read.append(given["input_ids"].numel())
        return inner(**given)

    monkeypatch.setattr(model._engine, "_model", Stand(inner, counted))
    asked = [ScoreRequest((("system", HEADS[0]), ("user", f"w{i}")), ("w1", "w2", "w3")) for i in range(10, 30)]
    answers = model.score(asked)
    context = len(HEADS[0].split()) + 3 + 4 + 2
    assert {answer.usage.prompt_tokens for answer in answers} == {context + 3}
    assert sum(context - answer.usage.cached_tokens for answer in answers) == sum(read)
    shared = len(HEADS[0].split()) + 3 + 2
    assert sum(read) == shared + 20 * (context - shared)


def test_bad_requests_harm_no_other(open_tiny):
    model = open_tiny()
    good = ScoreRequest((("user", "w1"),), ("w2", "w3 w4"))
    bad = [
        ScoreRequest((("user", "w1 " * 130),), ("w2",)),
        ScoreRequest(text="w1 " * 126, continuations=("w2", "w3 w4 w5")),
        ScoreRequest((("user", "w1"),), ()),
        ScoreRequest((("user", "w1"),), ("w2", "")),
        ScoreRequest((("user", "w1"),), ("w2", " ")),
        ScoreRequest((), ("w2",)),
        ScoreRequest((("user", "w1"),), ("w2",), text="w1"),
    ]
    says = [
        "context has 135 tokens and the longest continuation 1; the model takes 128",
        "context has 126 tokens and the longest continuation 3; the model takes 128",
        "none at all", "empty one", "' ' has no tokens", "both or neither", "both or neither",
    ]  # fmt: skip
    answers = model.score([good, *bad, good])
    (alone,) = model.score([good])
    assert np.allclose(answers[0].logprobs, alone.logprobs, atol=1e-5)
    assert answers[0].logprobs == answers[-1].logprobs
    for answer, message in zip(answers[1:-1], says, strict=True):
        assert isinstance(answer, Failure)
        assert answer.kind == "request"
        assert message in answer.message
    assert model.score([]) == []
    fits = ScoreRequest(text="w1 " * 126, continuations=("w2 w3",))
    assert isinstance(model.score([fits])[0], Scored), "to the last token of the window"


def test_continuations_have_the_tokens_of_running_text(tiny, tmp_path):
    """Where a tokenizer glues pieces, the seam is where the context's own tokens end."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    from promptopt.lm.tokens import Tokens

    letters = ["<end>", *"abc ", "ab", "bc", " a"]
    pieces = Tokenizer(BPE({piece: i for i, piece in enumerate(letters)}, [("a", "b"), ("b", "c"), (" ", "a")]))
    tokens = Tokens(PreTrainedTokenizerFast(tokenizer_object=pieces, eos_token="<end>"))
    a, b, c, space, ab, bc, space_a = range(1, 8)
    assert tokens.after("c", " a") == [space_a]
    assert tokens.after("a", "b") == [b], "'ab' is one token in running text; the context stays as it is"
    assert tokens.after("x" * 500 + "c", "bc") == [bc]
    assert tokens.opened("") == ([0], 1), "no beginning-of-text token: the end-of-text token"
    assert tokens.opened("ab c") == ([ab, space, c], 0)
    assert a


# Hidden states and soft prompts ---------------------------------------------------------------------------------------


def vectors(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("kind", ["llama", "gemma3", "mpt"])
@pytest.mark.parametrize("begins", [False, True])
def test_hidden_states_are_those_of_transformers(open_tiny, tiny, kind, begins):
    import torch
    from transformers import AutoTokenizer

    model, path = open_tiny(kind, begins), tiny(kind, begins)
    tokenizer, reference = AutoTokenizer.from_pretrained(path), plain(path)
    texts = [f"{head} w{i} w{i + 1}" for i in range(4) for head in HEADS] + ["w7", "", "w7"]
    soft = vectors(0, len(texts), 3, 32)
    with contextlib.ExitStack() as stack:
        if kind == "mpt":
            stack.enter_context(pytest.warns(RuntimeWarning, match="by itself"))
            if "warned" in vars(model):
                warnings.warn("each is read by itself", RuntimeWarning, stacklevel=1)
            model.warned = True
        found = {
            (layer, pool): model.hidden(texts, layer=layer, pool=pool)
            for layer in (-1, 0, 1, 2)
            for pool in ("last", "mean")
        }
    if kind != "mpt":
        found |= {("soft", pool): model.hidden(texts, pool=pool, soft=soft) for pool in ("last", "mean")}
    for i, text in enumerate(texts):
        ids = tokenizer(text)["input_ids"] or [0]
        start = len(ids) - len(tokenizer(text, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            states = reference(torch.tensor([ids]), output_hidden_states=True).hidden_states
            own = ids if text else []
            given = torch.cat([torch.tensor(soft[i]), reference.get_input_embeddings()(torch.tensor(own).long())])
            softly = reference(inputs_embeds=given[None], output_hidden_states=True).hidden_states[-1][0]
        for (layer, pool), rows in found.items():
            if layer == "soft":
                expected = softly[-1] if pool == "last" else softly[3 + (start if text else 0) :].mean(0)
                if not text and pool == "mean":
                    expected = softly.mean(0)
            else:
                mine = states[layer][0]
                expected = mine[-1] if pool == "last" else mine[start if text else 0 :].mean(0)
            assert np.allclose(rows[i], expected.numpy(), rtol=1e-4, atol=1e-3), (text, layer, pool)
    assert model.width == 32
    assert rows.dtype == np.float32
    assert rows.shape == (len(texts), 32)


def test_hidden_says_what_it_cannot(open_tiny):
    model = open_tiny()
    assert model.hidden([]).shape == (0, 32)
    with pytest.raises(ConfigError, match="a layer from -3 to 2, got 3"):
        model.hidden(["w1"], layer=3)
    with pytest.raises(ConfigError, match="last or mean, got 'first'"):
        model.hidden(["w1"], pool="first")
    with pytest.raises(ConfigError, match=r"\(1, k, 32\), got \(2, 4, 32\)"):
        model.hidden(["w1"], soft=vectors(0, 2, 4, 32))
    with pytest.raises(ConfigError, match="at most 128 tokens, got 130 in text 1"):
        model.hidden(["w1", "w1 " * 130])
    with pytest.raises(ConfigError, match="finite"):
        model.generate_from_soft_prompt(np.full((1, 2, 32), np.nan), [Request((("user", "w1"),), 3, 0.0)])


def ask(text, **settings):
    return Request((("user", text),), **{"max_tokens": 6, "temperature": 0.0, **settings})


def test_soft_prompts_write_what_transformers_writes(open_tiny, tiny):
    import torch
    from transformers import AutoTokenizer

    model, path = open_tiny(), tiny()
    tokenizer, reference = AutoTokenizer.from_pretrained(path), plain(path)
    asked = [ask(" ".join(f"w{j}" for j in range(i + 1))) for i in range(7)] + [ask("w1 " * 120)]
    soft = vectors(1, len(asked), 4, 32)
    *answers, long = model.generate_from_soft_prompt(soft, asked)
    assert isinstance(long, Failure)
    assert "The prompt has 129 tokens and the reply up to 6" in long.message
    for request, vector, answer in zip(asked, soft, answers, strict=False):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": request.messages[0][1]}], add_generation_prompt=True, tokenize=False
        )
        ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
        with torch.no_grad():
            given = torch.cat([torch.tensor(vector), reference.get_input_embeddings()(ids)])[None]
            done = reference.generate(
                inputs_embeds=given, attention_mask=torch.ones(given.shape[:2]), max_new_tokens=6, do_sample=False,
                pad_token_id=0,
            )  # fmt: skip
        assert isinstance(answer, Completion)
        assert answer.text == tokenizer.decode(done[0], skip_special_tokens=True)
        assert answer.usage.prompt_tokens == 4 + len(ids)
    assert len({answer.text for answer in answers}) > 3
    (none,) = model.generate_from_soft_prompt(soft[:1, :0], asked[:1])
    assert none.text == model.generate(asked[:1])[0].text, "no vectors: as if there were no soft prompt"


@pytest.mark.parametrize("place", ["before", "within"])
def test_soft_prompts_stand_where_they_are_put(open_tiny, tiny, place):
    import torch
    from transformers import AutoTokenizer

    model, path = open_tiny(), tiny()
    tokenizer, reference = AutoTokenizer.from_pretrained(path), plain(path)
    tails = ["w5 w6", "w7", "w5 w6 w8 w9"]
    asked = [ask(f"w1 w2 w3 {SOFT_PROMPT} {tail}" if place == "within" else tail) for tail in tails]
    soft = vectors(2, len(asked), 4, 32)
    answers = model.generate_from_soft_prompt(soft, asked)
    states = model.soft_states(soft, asked)
    for request, vector, answer, state in zip(asked, soft, answers, states, strict=True):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": request.messages[0][1]}], add_generation_prompt=True, tokenize=False
        )
        before, here, after = text.partition(SOFT_PROMPT)
        assert bool(here) == (place == "within")
        ids = [torch.tensor(tokenizer(t, add_special_tokens=False)["input_ids"]).long() for t in (before, after)]
        words = [reference.get_input_embeddings()(part) for part in ids]
        parts = [words[0], torch.tensor(vector), words[1]] if here else [torch.tensor(vector), words[0]]
        with torch.no_grad():
            given = torch.cat(parts)[None]
            expected = reference(inputs_embeds=given, output_hidden_states=True).hidden_states[-1][0, -1]
            done = reference.generate(
                inputs_embeds=given, attention_mask=torch.ones(given.shape[:2]), max_new_tokens=6, do_sample=False,
                pad_token_id=0,
            )  # fmt: skip
        assert answer.text == tokenizer.decode(done[0], skip_special_tokens=True)
        assert answer.usage.prompt_tokens == given.shape[1]
        assert np.allclose(state, expected.numpy(), atol=1e-4)
    cached = [answer.usage.cached_tokens for answer in answers]
    if place == "within":
        # Of the first, some may be known from what other tests asked this model.
        assert sorted(cached)[0] < sorted(cached)[1] == sorted(cached)[2], "what stands before is read once"
    else:
        assert cached == [0, 0, 0]


def test_two_places_for_a_soft_prompt_are_refused(open_tiny):
    model = open_tiny()
    twice = ask(f"w1 {SOFT_PROMPT} w2 {SOFT_PROMPT}")
    (failure,) = model.generate_from_soft_prompt(vectors(2, 1, 4, 32), [twice])
    assert "one place for a soft prompt" in failure.message
    with pytest.raises(CallError, match="one place for a soft prompt"):
        model.soft_states(vectors(2, 1, 4, 32), [twice])
    (failure,) = model.generate([ask(f"w1 {SOFT_PROMPT} w2")])
    assert "vectors to stand there" in failure.message


def test_the_protocols_are_kept(open_tiny):
    model = open_tiny()
    for protocol in (Scores, HiddenStates):
        assert isinstance(model, protocol)
    assert reads_soft_prompts(model)
    assert not reads_soft_prompts(ScriptedLM(lambda _: ""))


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"device": "gpu"}, ConfigError, "a device such as cpu, cuda or cuda:1, got 'gpu'"),
        ({"device": "cuda:x"}, ConfigError, "got 'cuda:x'"),
        ({"device": "cpu:0"}, ConfigError, "got 'cpu:0'"),
        ({"dtype": "int4"}, ConfigError, "one of bfloat16, float32, float16, got 'int4'"),
        ({"device": "cpu", "dtype": "float16"}, ConfigError, "float16 is for GPUs"),
        ({"device": "cuda:99"}, ModelUnavailableError, "expected the device cuda:99, got .*Fix: .*device: cpu"),
    ],
)
def test_settings_that_cannot_be_are_told_before_anything_is_loaded(tiny, settings, error, words):
    with pytest.raises(error, match=words):
        HFBackend(ModelSpec(f"hf/{tiny()}", **settings))


def test_the_number_format_is_part_of_the_digest_and_the_device_is_not(tiny):
    def digest(**settings):
        return HFBackend(ModelSpec(f"hf/{tiny()}", **settings)).digest

    assert digest() == digest(dtype="bfloat16") == digest(device="cpu")
    assert digest() != digest(dtype="float32")


def test_a_base_model_scores_texts_and_shows_states(tiny, tmp_path):
    path = tmp_path / "base"
    shutil.copytree(tiny(), path)
    (path / "chat_template.jinja").unlink()
    model = opened(path)
    text, chat = model.score([ScoreRequest(text="w1", continuations=("w2",)), ScoreRequest((("user", "w1"),), ("w2",))])
    assert isinstance(text, Scored)
    assert isinstance(chat, Failure)
    assert "no chat template: it is a base model. Give a text" in chat.message
    assert model.hidden(["w1"]).shape == (1, 32)
    with pytest.raises(ModelUnavailableError, match="no chat template: it is a base model"):
        model.generate([ask("w1")])


# Batches and memory ---------------------------------------------------------------------------------------------------


def test_the_text_is_the_same_whatever_the_batch(tiny):
    """In float32 on the CPU: greedy and by seed, in batches of 1, 3 and 8."""
    tails = [" ".join(f"w{(7 * i + j) % 60}" for j in range(i % 5 + 1)) for i in range(16)]
    asked = [ask(t, temperature=1.3 * (i % 2), seed=i, max_tokens=9) for i, t in enumerate(tails)]
    texts = [
        [answer.text for answer in opened(tiny("qwen3"), concurrency=most, device="cpu").generate(asked)]
        for most in (1, 3, 8)
    ]
    assert texts[0] == texts[1] == texts[2]
    assert len(set(texts[0])) > 5


def short_of_memory(model, most, error):
    """The device has room for so many tokens in a pass, those in the cache included."""
    model.prepare()
    inner = model._engine._model

    def call(*args, **given):
        rows = next(v for v in (given.get("input_ids"), given.get("inputs_embeds")) if v is not None)
        if rows.shape[0] * rows.shape[1] > most:
            raise error
        return inner(*args, **given)

    model._engine._model = Stand(inner, call)


@pytest.mark.parametrize(
    "says",
    [
        "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8",
        "not enough memory: you tried to allocate 8 bytes.",
        "CUDA out of memory. Tried to allocate 20.00 MiB.",
        None,
    ],
)
def test_where_memory_is_short_batches_are_halved(tiny, says):
    import torch

    error = torch.cuda.OutOfMemoryError("CUDA out of memory.") if says is None else RuntimeError(says)
    asked = [ask("w1 w2 w3" if i else "w1 " * 60, temperature=float(i % 2), seed=i) for i in range(10)]
    right = opened(tiny()).generate(asked)
    model = opened(tiny())
    short_of_memory(model, 30, error)
    with pytest.warns(RuntimeWarning, match="Out of memory on cpu: going on with 5 at once") as told:
        answers = model.generate(asked)
    assert len(told) == 1
    assert [a.text for a in answers[1:]] == [a.text for a in right[1:]]
    assert isinstance(answers[0], Failure)
    assert answers[0].passing, "it says nothing about the candidate"
    assert "Out of memory on cpu even alone" in answers[0].message


def test_where_memory_is_short_trees_are_read_in_smaller_runs(tiny):
    path = tiny()
    requests = random_requests(np.random.default_rng(3), 30)
    texts = [request.text or "w1" for request in requests]
    states = opened(path).hidden(texts)
    for most in (100, 20):
        model = opened(path)
        short_of_memory(model, most, RuntimeError("not enough memory"))
        with pytest.warns(RuntimeWarning, match="tokens at once") as told:
            answers = model.score(requests)
        assert len(told) == 1
        assert furthest(path, requests, answers)[1] <= 1e-3
        assert np.allclose(model.hidden(texts), states, atol=1e-4)


def test_what_does_not_fit_alone_is_its_own_failure(tiny):
    """Memory ends at so many keys: a long context never fits, the others do."""
    model = opened(tiny())
    model.prepare()
    inner = model._engine._model

    def call(*args, **given):
        mask = given["attention_mask"]
        if mask.shape[-1] > 60:
            raise RuntimeError("not enough memory")
        return inner(*args, **given)

    asked = [ScoreRequest(text=f"w{i} w1", continuations=("w2", "w3 w4")) for i in range(5)]
    asked.insert(2, ScoreRequest(text="w1 " * 100, continuations=("w2",)))
    right = model.score(asked)
    model._engine._model = Stand(inner, call)
    with pytest.warns(RuntimeWarning, match="Out of memory"):
        answers = model.score(asked)
    assert isinstance(answers[2], Failure)
    assert answers[2].kind == "server"
    for i in (0, 1, 3, 4, 5):
        assert np.allclose(answers[i].logprobs, right[i].logprobs, atol=1e-4)
    with pytest.raises(CallError, match="Text 1 of 100 tokens: Out of memory"):
        model.hidden(["w1", "w1 " * 100])
    model._engine._model = inner
    assert np.allclose(model.score(asked)[2].logprobs, right[2].logprobs, atol=1e-4)


# A real one -----------------------------------------------------------------------------------------------------------


@pytest.mark.model
def test_the_smallest_real_model_scores_as_it_does_pair_by_pair():
    """500 pairs, float32: prompts with exemplars, ragged, several continuations."""
    import torch

    model = HFBackend(ModelSpec("hf/smollm2-135m-instruct", dtype="float32", device="cpu"))
    rng = np.random.default_rng(0)
    words = re.findall(r"\w+", "the a cat river stone blue slow runs over under seven bright old window song")

    def some(most):
        return " ".join(rng.choice(words, rng.integers(1, most)))

    heads = [some(20) for _ in range(3)]
    requests = []
    for i in range(125):
        if i % 8:
            text = f"{heads[i % 3]} {some(9)}" if i % 9 else ""
            requests.append(ScoreRequest(text=text, continuations=tuple(f" {some(6)}" for _ in range(4))))
        else:
            requests.append(ScoreRequest((("user", heads[i % 3]),), tuple(some(6) for _ in range(4))))
    answers = model.score(requests)
    engine, worst = model._engine, 0.0
    for request, answer in zip(requests, answers, strict=True):
        text = engine.tokens.rendered(request.messages) if request.text is None else request.text
        ids = engine.tokens.of(text) if request.text is None else engine.tokens.opened(text)[0]
        for continuation, logprob in zip(request.continuations, answer.logprobs, strict=True):
            own = engine.tokens.after(text, continuation)
            assert engine.tokens.text(own) == continuation
            with torch.inference_mode():
                logits = engine._model(torch.tensor([ids + own])).logits[0, len(ids) - 1 : -1]
            worst = max(worst, abs(logprob - float(logits.log_softmax(-1)[range(len(own)), own].sum())))
    print(f"500 pairs, furthest {worst:.1e}")
    assert worst <= 1e-3


@pytest.mark.model
def test_a_gguf_file_is_read_once_and_then_its_quick_form(tmp_path):
    """The same weights to the last bit, the same tokens, the same digest; a full disk is told and harms nothing."""
    import torch

    from promptopt.lm.store import Store

    here = Store().resolve("smollm2-135m-instruct")
    store = Store(tmp_path)
    file = tmp_path / here.name
    file.symlink_to(here)
    spec = ModelSpec(f"hf/{file}", device="cpu")
    slow = HFBackend(spec, store)
    digest = slow.digest
    slow.prepare()
    (kept,) = (tmp_path / "converted").iterdir()
    quick = HFBackend(spec, store)
    quick.prepare()
    assert quick._engine._model.config._name_or_path == str(kept), "loaded from there"
    assert quick.digest == digest
    weights, again = (m._engine._model.state_dict() for m in (slow, quick))
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    text = "<|im_start|>user\n  Ça va? 12 345<|im_end|>\n\tdef f(x):"
    assert slow._engine.tokens.of(text) == quick._engine.tokens.of(text)
    assert slow._engine.tokens.rendered((("user", text),)) == quick._engine.tokens.rendered((("user", text),))
    assert slow._engine._ends == quick._engine._ends
    shutil.rmtree(kept)
    kept.parent.rmdir()
    kept.parent.write_text("in the way")
    with pytest.warns(RuntimeWarning, match="read slowly at every start.*PROMPTOPT_MODELS"):
        HFBackend(spec, store).prepare()
