"""Models by transformers: a tiny one made here, which knows nothing, and the smallest real one."""

import contextlib
import functools
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from promptopt.errors import ConfigError, ModelUnavailableError, UnknownNameError
from promptopt.lm.base import Completion, Generates, Request
from promptopt.lm.calls import Session, complete_many
from promptopt.lm.capabilities import ScoreRequest
from promptopt.lm.hf import HFBackend, _shared
from promptopt.lm.spec import Generate, ModelSpec
from promptopt.records import Failure
from promptopt.testing.backends import BackendContract

WORDS = ["<end>", "<unk>", "system", "user", "assistant", ":", ".", "yes", "no", "cat", "dog", "river", "stone"]
WORDS += ["one", "two", "three", "four", "five"]
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }} . {% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
INSTALLED = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "gguf", "accelerate"))
needs_torch = pytest.mark.skipif(not INSTALLED, reason="needs promptopt[hf]")


def ask(text, system=None, **settings):
    messages = (("system", system), ("user", text)) if system else (("user", text),)
    return Request(messages, **{"max_tokens": 6, "temperature": 0.0, **settings})


def test_how_many_tokens_are_shared():
    assert _shared([[1, 2, 3], [1, 2, 4, 5]]) == 2
    assert _shared([[1, 2, 3]]) == 2, "one token at least is read for each"
    assert _shared([[1, 2, 3], [1, 2]]) == 1
    assert _shared([[1], [2]]) == 0


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("torch", "gguf") else object())
    with pytest.raises(ModelUnavailableError, match=r"needs torch and gguf, not installed.*promptopt\[hf\]"):
        HFBackend(ModelSpec("hf/smollm2-135m-instruct"))


@needs_torch
@pytest.mark.model
def test_wrong_models_are_told_before_any_call(tmp_path):
    with pytest.raises(UnknownNameError, match="smollm2-135m-instruct"):
        HFBackend(ModelSpec("hf/smollm-135m-instruct"))
    with pytest.raises(ModelUnavailableError, match="does not exist"):
        HFBackend(ModelSpec(f"hf/{tmp_path}/none"))
    with pytest.raises(ModelUnavailableError, match="not a model that writes text"):
        HFBackend(ModelSpec("hf/all-minilm-l6-v2"))
    with pytest.raises(ConfigError, match=r"generate\.extra: top_p"):
        HFBackend(ModelSpec("hf/smollm2-135m-instruct", generate=Generate(extra={"top_p": 0.5})))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with random weights, as save_pretrained writes it."""
    if not INSTALLED:
        pytest.skip("needs promptopt[hf]")
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("tiny")
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", unk_token="<unk>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, eos_token_id=0, bos_token_id=0, initializer_range=1.0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def changed(folder, tmp_path, name, change):
    """A copy of the model with one JSON file changed."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    data = json.loads((copy / name).read_text())
    change(data)
    (copy / name).write_text(json.dumps(data))
    return copy


@pytest.fixture(scope="module")
def model(folder):
    made = HFBackend(ModelSpec(f"hf/{folder}"))
    yield made
    made.close()


def reference(folder, requests):
    """The same replies by transformers' own loop, each alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    weights = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    out = []
    for request in requests:
        turns = [{"role": role, "content": text} for role, text in request.messages]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        done = weights.generate(ids, max_new_tokens=request.max_tokens, do_sample=False, pad_token_id=0)
        out.append(tokenizer.decode(done[0, ids.shape[1] :], skip_special_tokens=True))
    return out


@pytest.mark.model
def test_batches_write_what_each_request_alone_would(folder):
    """Groups that share a prefix, of other lengths, mixed, in the order of the requests; in float32, to the letter."""
    model = HFBackend(ModelSpec(f"hf/{folder}", dtype="float32"))
    tails = ["cat", "dog river", "one two three four", "stone stone", "yes no yes no yes", "five", "four one"]
    requests = [ask(tail, system) for tail in tails for system in (None, "cat dog .", "one two three four five river")]
    answers = model.generate(requests)
    assert all(isinstance(answer, Completion) for answer in answers)
    expected = reference(folder, requests)
    assert [answer.text for answer in answers] == expected
    assert len(set(expected)) > 5, "random weights say different things"
    for request, answer in zip(requests, answers, strict=True):
        assert answer.usage.calls == 1
        assert answer.usage.completion_tokens <= 6
        assert answer.usage.prompt_tokens == sum(len(text.split()) + 3 for _, text in request.messages) + 2
        assert 0 <= answer.usage.cached_tokens < answer.usage.prompt_tokens


@pytest.mark.model
def test_what_prompts_begin_with_alike_is_read_once_over_many_calls(folder):
    """In float32, to the letter, whichever prompts came before and in whatever order."""
    system = "one two three four five six cat dog"
    rounds = [ask(f"{word} {more}", system) for more in ("river", "yes", "stone no") for word in ("cat", "dog", "five")]
    others = [ask(word, "yes no yes no") for word in ("cat", "dog")]
    mixed = [rounds[0], others[0], *rounds[1:], others[1], rounds[0]]
    model = HFBackend(ModelSpec(f"hf/{folder}", dtype="float32"))
    answers = [model.generate([request])[0] for request in mixed]
    assert [answer.text for answer in answers] == reference(folder, mixed)
    system_tokens = len(system.split())
    assert answers[0].usage.cached_tokens == 0
    assert all(answer.usage.cached_tokens >= system_tokens for answer in answers[2:-2])
    assert answers[-1].usage.cached_tokens > answers[2].usage.cached_tokens  # the very prompt was there


@pytest.mark.model
def test_few_prefixes_are_kept(folder):
    from promptopt.lm.torch_engine import _KEPT_PREFIXES

    model = HFBackend(ModelSpec(f"hf/{folder}"))
    words = ("cat", "dog", "river", "stone", "yes", "no", "one", "two", "three", "four", "five", "six")
    for first in words:
        for second in words[:3]:
            model.generate([ask("cat", f"{first} {second} {first}")])
    kept = model._engine._read
    assert len(kept) == _KEPT_PREFIXES
    # What another one begins with has no place of its own.
    model.generate([ask("cat dog river stone", "six river six")])
    assert len({tuple(ids) for ids, _ in model._engine._read}) == len(model._engine._read)


@pytest.mark.model
def test_a_prefix_that_could_not_be_read_is_read_again(folder, monkeypatch):
    model = HFBackend(ModelSpec(f"hf/{folder}"))
    model.prepare()
    asked = [ask("cat", "one two three"), ask("dog", "one two three")]
    right = [answer.text for answer in model.generate(asked)]
    model._engine._read = []
    inner = model._engine._model
    broken = iter([True])

    def once(*args, **settings):
        if next(broken, False):
            raise RuntimeError("a wire is loose")
        return inner(*args, **settings)

    monkeypatch.setattr(model._engine, "_model", once)
    with pytest.raises(RuntimeError, match="a wire is loose"):
        model.generate(asked)
    assert [answer.text for answer in model.generate(asked)] == right


@pytest.mark.model
def test_sliding_windows_shorter_than_the_shared_prefix(tmp_path, folder):
    import shutil

    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    path = tmp_path / "sliding"
    shutil.copytree(folder, path)
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=128, sliding_window=8, eos_token_id=0,
        bos_token_id=0, pad_token_id=0, initializer_range=1.0, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    Gemma3ForCausalLM(config).save_pretrained(path)
    model = HFBackend(ModelSpec(f"hf/{path}", dtype="float32"))
    asked = [ask(tail, "one two three four five " * 4) for tail in ("cat", "dog river", "stone")]
    assert [answer.text for answer in model.generate(asked)] == reference(path, asked)


@pytest.mark.model
def test_it_ends_where_it_should(model):
    (whole,) = model.generate([ask("cat", max_tokens=5)])
    assert whole.finish == "length"
    words = whole.text.split()
    assert len(words) == 5
    (cut,) = model.generate([ask("cat", max_tokens=5, stop=(words[1],))])
    assert cut.finish == "stop"
    assert cut.text == whole.text.partition(words[1])[0]
    (short,) = model.generate([ask("cat", max_tokens=2)])
    assert short.text.split() == words[:2]


@pytest.mark.model
def test_sampling_is_by_seed_whatever_else_is_in_the_batch(model):
    def wild(seed, text="dog"):
        return ask(text, temperature=1.5, seed=seed)

    one, two, again = model.generate([wild(1), wild(2), wild(1)])
    assert one.text == again.text
    (alone,) = model.generate([wild(1)])
    others = model.generate([wild(3, "cat"), wild(1), ask("river stone one")])
    assert alone.text == one.text == others[1].text
    texts = {answer.text for answer in model.generate([wild(seed) for seed in range(20)])}
    assert len(texts) > 5
    assert two.text in texts
    free = [ask("dog", temperature=1.5, replicate=n) for n in range(8)]
    assert len({answer.text for answer in model.generate(free)}) > 2, "without a seed: by the request and its number"


@pytest.mark.model
def test_what_does_not_fit_harms_no_other(model):
    long, good = model.generate([ask("cat " * 70), ask("cat")])
    assert isinstance(long, Failure)
    assert long.kind == "request"
    assert "the model takes 64" in long.message
    assert isinstance(good, Completion)


@pytest.mark.model
def test_a_template_without_a_system_role_gets_it_in_the_question(folder, tmp_path):
    def refuse(data):
        data["chat_template"] = NO_SYSTEM

    if (folder / "chat_template.jinja").exists():
        import shutil

        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        (copy / "chat_template.jinja").write_text(NO_SYSTEM)
    else:
        copy = changed(folder, tmp_path, "tokenizer_config.json", refuse)
    model = HFBackend(ModelSpec(f"hf/{copy}"))
    (answer,) = model.generate([ask("cat", "one two")])
    (same,) = model.generate([ask("one two\n\ncat")])
    assert answer.text == same.text
    assert answer.usage.prompt_tokens == same.usage.prompt_tokens


@pytest.mark.model
def test_a_base_model_and_a_broken_one_are_told(folder, tmp_path):
    import shutil

    base = tmp_path / "base"
    shutil.copytree(folder, base)
    (base / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((base / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelUnavailableError, match="has no chat template: it is a base model"):
        HFBackend(ModelSpec(f"hf/{base}")).prepare()
    (base / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelUnavailableError, match=r"transformers cannot load .*base"):
        HFBackend(ModelSpec(f"hf/{base}")).prepare()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelUnavailableError, match="cannot load"):
        HFBackend(ModelSpec(f"hf/{tmp_path}/empty")).prepare()


@pytest.mark.model
def test_pickled_weights_are_not_loaded(folder, tmp_path):
    """Loading a pickle runs its code: safetensors or nothing."""
    import shutil

    import torch

    copy = tmp_path / "pickled"
    shutil.copytree(folder, copy)
    (copy / "model.safetensors").unlink()
    torch.save({"lm_head.weight": torch.zeros(3)}, copy / "pytorch_model.bin")
    with pytest.raises(ModelUnavailableError, match="safetensors"):
        HFBackend(ModelSpec(f"hf/{copy}")).prepare()


@pytest.mark.model
def test_the_digest_is_of_the_content(folder, tmp_path):
    same = changed(folder, tmp_path, "config.json", lambda _: None)
    (same / "config.json").write_bytes((folder / "config.json").read_bytes())
    digest = HFBackend(ModelSpec(f"hf/{folder}")).digest
    assert HFBackend(ModelSpec(f"hf/{same}", concurrency=3)).digest == digest
    (same / "config.json").write_text((same / "config.json").read_text() + " ")
    assert HFBackend(ModelSpec(f"hf/{same}")).digest != digest


@needs_torch
@pytest.mark.model
def test_the_smallest_real_model_answers_and_says_nothing_on_the_terminal():
    program = """
from promptopt.lm.hf import HFBackend
from promptopt.lm.base import Request
from promptopt.lm.spec import ModelSpec
model = HFBackend(ModelSpec("hf/smollm2-135m-instruct"))
questions = [f"What is the capital of {country}?" for country in ("France", "Italy")]
for answer in model.generate([Request((("user", question),), 12, 0.0) for question in questions]):
    print(answer.text.replace(chr(10), " "))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    paris, rome = done.stdout.splitlines()
    assert "Paris" in paris
    assert "Rome" in rome
    assert done.stderr == "", "no progress bars, no warnings"


@functools.cache
def smallest():
    return HFBackend(ModelSpec("hf/smollm2-135m-instruct"))


@needs_torch
@pytest.mark.model
class TestContract(BackendContract):
    def backend(self):
        made = smallest()
        assert isinstance(made, Generates)
        return made


@needs_torch
@pytest.mark.model
def test_log_probabilities_of_what_is_written(folder):
    model = HFBackend(ModelSpec(f"hf/{folder}", dtype="float32"))
    plain, one, three = model.generate([ask("cat dog", top_logprobs=top) for top in (None, 0, 3)])
    assert plain.tokens == ()
    assert [token.text for token in one.tokens] == [token.text for token in three.tokens] == three.text.split()
    assert all(token.top == () for token in one.tokens)
    # What was written, given all before it, is what scoring says of it.
    request = ScoreRequest(ask("cat dog").messages, tuple(" ".join(three.text.split()[: n + 1]) for n in range(6)))
    (scored,) = model.score([request])
    assert np.cumsum([token.logprob for token in three.tokens]) == pytest.approx(scored.logprobs, abs=1e-4)
    for token in three.tokens:
        assert len(token.top) == 3
        assert (token.text, token.logprob) == token.top[0], "greedy: the token is the likeliest"
        assert sorted(token.top, key=lambda pair: -pair[1]) == list(token.top)
    model.close()


@needs_torch
@pytest.mark.model
def test_log_probabilities_end_where_the_reply_ends(model):
    (whole,) = model.generate([ask("cat dog", top_logprobs=0)])
    words = whole.text.split()
    stop = next(word for word in words if words.index(word) > 0)
    (cut,) = model.generate([ask("cat dog", top_logprobs=0, stop=(stop,))])
    assert len(cut.tokens) == len(cut.text.split()) < len(whole.tokens)


@needs_torch
@pytest.mark.model
def test_choosing_through_the_door(model):
    request = Request(ask("cat dog").messages, choose=("yes", "river stone", "no"))
    with Session({"task": model}):
        first, again = complete_many([request, replace(request, choose=request.choose[::-1])])
    assert first.text == again.text
    assert first.scores == pytest.approx(again.scores[::-1])
    (scored,) = model.score([ScoreRequest(request.messages, request.choose)])
    assert first.scores == pytest.approx(scored.logprobs, abs=1e-4)
    assert first.lengths == (1, 2, 1)


@needs_torch
@pytest.mark.model
def test_code_that_a_config_names_is_not_run_nor_asked_about(folder, tmp_path):
    copy = changed(folder, tmp_path, "config.json", lambda c: c.update(auto_map={"AutoModelForCausalLM": "own.Own"}))
    (copy / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    with contextlib.suppress(ModelUnavailableError):  # newer versions load the class that they know
        HFBackend(ModelSpec(f"hf/{copy}")).prepare()
    assert not (tmp_path / "ran").exists()
