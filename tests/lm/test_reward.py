"""Reward models: sequence classifiers with random weights, against transformers itself, one reply after the other."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from promptopt.errors import BudgetExhaustedError, ConfigError, ModelUnavailableError
from promptopt.lm.base import Completion, Generates, Request
from promptopt.lm.cache import CompletionStore
from promptopt.lm.calls import Session, complete_many
from promptopt.lm.door import Door
from promptopt.lm.models import open_model
from promptopt.lm.reward import RewardBackend
from promptopt.lm.spec import Generate, ModelSpec
from promptopt.records import Failure
from promptopt.search.budget import Budget, Limits

pytestmark = pytest.mark.model

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "<cls>", "<sep>", "system", "user", "assistant", ":", "."]
WORDS += [f"w{i}" for i in range(60)] + ["user:", "assistant:", "system:"]
TEMPLATE = "<s> {% for m in messages %}{{ m.role }} : {{ m.content }} </s> {% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
ENCODER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODER = {**ENCODER, "num_key_value_heads": 2, "bos_token_id": 2, "eos_token_id": 3, "initializer_range": 1.0}
KINDS = {
    "Llama": {**DECODER, "max_position_embeddings": 128, "pad_token_id": 0},
    "Mistral": {**DECODER, "max_position_embeddings": 128, "pad_token_id": 3, "sliding_window": 8},
    "Qwen3": {**DECODER, "max_position_embeddings": 128, "pad_token_id": None, "head_dim": 8},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "pad_token_id": None},
    "Bert": {**ENCODER, "max_position_embeddings": 128, "pad_token_id": 0},
    "Roberta": {**ENCODER, "max_position_embeddings": 130, "pad_token_id": 1},
    "DebertaV2": {**ENCODER, "max_position_embeddings": 128, "pad_token_id": 0, "relative_attention": True},
    "ModernBert": {**ENCODER, "max_position_embeddings": 128, "pad_token_id": 0, "local_attention": 8},
    "XLNet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "pad_token_id": 0},
}
PAIRS = {"Bert", "Roberta", "DebertaV2", "ModernBert", "XLNet"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Makes the folder of a classifier of a kind, as save_pretrained writes it."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = {}

    def make(kind="Llama", labels=1, template=TEMPLATE):
        template = None if kind in PAIRS else template
        if (kind, labels, template) in made:
            return made[kind, labels, template]
        path = tmp_path_factory.mktemp(kind)
        core = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
        core.pre_tokenizer = WhitespaceSplit()
        special = {"pad_token": "<pad>", "unk_token": "<unk>"}
        if kind in PAIRS:
            special |= {"cls_token": "<cls>", "sep_token": "<sep>"}
            core.post_processor = TemplateProcessing(
                single="<cls> $A <sep>", pair="<cls> $A <sep> $B:1 <sep>:1", special_tokens=[("<cls>", 4), ("<sep>", 5)]
            )
        else:
            special |= {"bos_token": "<s>", "eos_token": "</s>"}
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if kind == "Bert" else [])]
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, model_input_names=names, **special)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(path)
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(vocab_size=len(WORDS), num_labels=labels, **KINDS[kind])
        model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
        for values in model.parameters():
            torch.nn.init.normal_(values, std=0.4)
        model.save_pretrained(path)
        made[kind, labels, template] = path
        return path

    yield make
    torch.set_num_threads(threads)


def changed(folder, to, name, change):
    """A copy of the model with one JSON file changed."""
    shutil.copytree(folder, to)
    data = json.loads((to / name).read_text())
    change(data)
    (to / name).write_text(json.dumps(data))
    return to


def opened(folder, dtype="float32", **settings):
    extra = settings.pop("extra", {})
    return RewardBackend(ModelSpec(f"reward/{folder}", dtype=dtype, generate=Generate(extra=extra), **settings))


def asked(question, answer, system=None):
    head = (("system", system),) if system else ()
    return Request((*head, ("user", question), ("assistant", answer)))


def some(many, seed=0, longest=20):
    rng = np.random.default_rng(seed)

    def words():
        return " ".join(f"w{i}" for i in rng.integers(0, 60, rng.integers(1, longest)))

    return [asked(words(), words()) for _ in range(many)]


def reference(folder, requests, label=0):
    """The same logits by transformers, each conversation alone and unpadded."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for request in requests:
        if tokenizer.chat_template:
            turns = [{"role": role, "content": text} for role, text in request.messages]
            text = tokenizer.apply_chat_template(turns, tokenize=False)
            inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        else:
            (_, question), (_, answer) = request.messages
            inputs = tokenizer(question, answer, return_tensors="pt")
        with torch.no_grad():
            found.append(float(model(**inputs).logits[0, label]))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_each_reply_the_logit_that_transformers_gives_it_alone(tiny, kind):
    requests = some(20)
    answers = opened(tiny(kind), concurrency=7).generate(requests)
    expected = reference(tiny(kind), requests)
    assert np.ptp(expected) > 0.05, "random weights tell replies apart"
    for answer, value in zip(answers, expected, strict=True):
        assert isinstance(answer, Completion)
        assert answer.scores == pytest.approx((value,), abs=1e-4)
        assert float(answer.text) == pytest.approx(value, abs=1e-3)
        assert answer.finish == "stop"


@pytest.mark.parametrize("kind", ["Llama", "Qwen3", "Bert"])
def test_the_company_of_a_reply_changes_nothing(tiny, kind):
    model, requests = opened(tiny(kind)), some(12)
    alone = [model.generate([request])[0].scores[0] for request in requests]
    backwards = [answer.scores[0] for answer in reversed(model.generate(requests[::-1]))]
    beside_long_ones = [answer.scores[0] for answer in model.generate([*requests, *some(4, 1, 40)])][:12]
    assert backwards == pytest.approx(alone, abs=1e-5)
    assert beside_long_ones == pytest.approx(alone, abs=1e-5)


def test_a_model_that_padding_disturbs_reads_each_reply_by_itself(tiny):
    """XLNet takes the last place of a row, whatever is there."""
    for kind, pads in {"XLNet": False, "Llama": True, "Qwen3": True, "Bert": True}.items():
        model = opened(tiny(kind))
        model.prepare()
        assert model._model._pads is pads, kind


@pytest.mark.parametrize("kind", ["Llama", "Roberta", "ModernBert"])
def test_in_bfloat16_the_order_of_replies_stays(tiny, kind):
    requests = some(20)
    exact = np.array(reference(tiny(kind), requests))
    answers = opened(tiny(kind), dtype="bfloat16").generate(requests)
    rough = np.array([answer.scores[0] for answer in answers])
    assert np.corrcoef(exact, rough)[0, 1] > 0.99
    assert len(set(rough)) == len(set(exact)), "the last layer has float32's digits: no two replies tie"


def test_usage_and_bad_requests_among_good_ones(tiny):
    model = opened(tiny())
    assert isinstance(model, Generates)
    assert not hasattr(model, "score"), "it cannot say how likely texts are"
    good, bad, empty = asked("w1 w2", "w3"), Request((("user", "w1"),)), Request(())
    first, second, third, fourth = model.generate([good, bad, empty, good])
    assert first == fourth
    assert (first.usage.calls, first.usage.prompt_tokens, first.usage.completion_tokens) == (1, 10, 0)
    for failure, got in ((second, "got user"), (third, "got none")):
        assert isinstance(failure, Failure)
        assert failure.kind == "request"
        assert failure.message.endswith(got + ".")
    assert model.generate([]) == []


def test_a_template_without_a_system_role_gets_it_at_the_head_of_the_question(tiny):
    model = opened(tiny(template=NO_SYSTEM))
    merged, apart = model.generate([asked("w1", "w2", system="w5 w6"), asked("w5 w6 w1", "w2")])
    assert merged.scores == pytest.approx(apart.scores, abs=1e-5)
    (refused,) = opened(tiny(template="{{ raise_exception('not today') }}")).generate([asked("w1", "w2")])
    assert "not today" in refused.message


def test_without_a_template_and_pairs_a_conversation_is_lines(tiny):
    model = opened(tiny(template=None))
    model.prepare()
    tokens = model._model.tokens
    ids, kinds, gone = tokens.replied(asked("w1", "w2", system="w3").messages, 99)
    assert [WORDS[i] for i in ids] == ["system:", "w3", "user:", "w1", "assistant:", "w2"]
    assert (kinds, gone) == ([], 0)


def test_pairs_are_told_apart(tiny):
    model = opened(tiny("Bert"))
    model.prepare()
    ids, kinds, _ = model._model.tokens.replied(asked("w1 w2", "w3").messages, 99)
    assert [WORDS[i] for i in ids] == ["<cls>", "w1", "w2", "<sep>", "w3", "<sep>"]
    assert kinds == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # 16 tokens are read: what the tokenizer or the template puts first stays, then as much of the end as fits.
        ("Llama", "<s> w18 w19 </s> assistant : w50 w51 w52 w53 w54 w55 w56 w57 w58 </s>"),
        ("Bert", "<cls> w16 w17 w18 w19 <sep> w50 w51 w52 w53 w54 w55 w56 w57 w58 <sep>"),
    ],
)
def test_what_is_too_long_loses_its_beginning_and_says_so(tiny, kind, expected):
    long = asked(" ".join(f"w{i}" for i in range(20)), " ".join(f"w{i}" for i in range(50, 59)))
    model = opened(tiny(kind), extra={"max_length": 16})
    model.prepare()
    ids, _, gone = model._model.tokens.replied(long.messages, 16)
    assert " ".join(WORDS[i] for i in ids) == expected
    whole = model._model.tokens.replied(long.messages, 999)[0]
    assert (gone, len(ids)) == (len(whole) - 16, 16)
    answer, short = model.generate([long, asked("w1", "w2")])
    assert (answer.finish, answer.usage.prompt_tokens) == ("length", 16)
    assert short.finish == "stop"


def test_the_model_s_own_maximum_is_the_limit(tiny):
    for kind, most in {"Llama": 128, "GPT2": 128, "Roberta": 128, "Bert": 128, "XLNet": 4096}.items():
        model = opened(tiny(kind))
        (answer,) = model.generate([asked("w1 " * 300, "w2 " * 200)])
        assert model._model.longest == most
        assert answer.usage.prompt_tokens == min(most, 503)
    with pytest.raises(ConfigError, match="expected max_length up to 128, which is what the model takes, got 200"):
        opened(tiny(), extra={"max_length": 200}).generate(some(1))


def test_of_several_labels_one_is_chosen(tiny):
    folder = tiny(labels=3)
    requests = some(5)
    for label in (0, 2, "LABEL_1"):
        number = int(str(label)[-1])
        answers = opened(folder, extra={"label": label}).generate(requests)
        found = [answer.scores[0] for answer in answers]
        assert found == pytest.approx(reference(folder, requests, number), abs=1e-4)
    for label in (None, 3, "good"):
        with pytest.raises(ConfigError, match=r"The model has 0 \(LABEL_0\), 1 \(LABEL_1\), 2 \(LABEL_2\)"):
            opened(folder, extra={} if label is None else {"label": label}).generate(requests)


def test_settings_are_checked_before_torch_is_needed(tiny):
    folder = tiny()
    for extra, told in {
        "labels": "Unknown setting 'labels'.*Did you mean 'label'",
        "label": "label to be a number from 0 or a name, got -1",
        "max_length": "max_length to be a whole number from 16, got -1",
    }.items():
        with pytest.raises(ConfigError, match=told):
            opened(folder, extra={extra: -1})
    with pytest.raises(ConfigError, match="expected a dtype"):
        opened(folder, dtype="int8")


def test_what_is_no_reward_model_is_refused(tiny, tmp_path):
    writes = changed(
        tiny(), tmp_path / "writes", "config.json", lambda data: data.update(architectures=["LlamaForCausalLM"])
    )
    with pytest.raises(
        ModelUnavailableError, match=r"is no sequence classifier: its config\.json says LlamaForCausalLM"
    ):
        opened(writes)
    # The config says nothing, and the files have no trained last layer: transformers would draw one at random.
    from transformers import LlamaConfig, LlamaModel

    silent = tmp_path / "silent"
    shutil.copytree(tiny(), silent)
    LlamaModel(LlamaConfig(vocab_size=len(WORDS), **KINDS["Llama"])).save_pretrained(silent)
    data = json.loads((silent / "config.json").read_text())
    (silent / "config.json").write_text(json.dumps({key: data[key] for key in data if key != "architectures"}))
    with pytest.raises(ModelUnavailableError, match=r"no weights for score\.weight"):
        opened(silent).prepare()
    with pytest.raises(ModelUnavailableError, match="which is neither"):
        opened(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelUnavailableError, match=r"no config\.json that can be read"):
        opened(tmp_path / "empty")


def test_pickles_and_code_are_not_loaded(tiny, tmp_path):
    import torch

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    pickled = tmp_path / "pickled"
    shutil.copytree(tiny(), pickled)
    (pickled / "model.safetensors").unlink()
    torch.save({"score.weight": Bomb()}, pickled / "pytorch_model.bin")
    with pytest.raises(ModelUnavailableError, match="safetensors"):
        opened(pickled).prepare()
    own = changed(
        tiny(),
        tmp_path / "own",
        "config.json",
        lambda data: data.update(
            model_type="mine",
            architectures=["MineForSequenceClassification"],
            auto_map={"AutoConfig": "mine.Config", "AutoModelForSequenceClassification": "mine.Model"},
        ),
    )
    (own / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelUnavailableError, match="without code of its own"):
        opened(own).prepare()
    assert not (tmp_path / "ran").exists()


def test_the_digest_says_what_the_logit_depends_on(tiny, tmp_path):
    folder = tiny()
    one = opened(folder).digest
    assert one.startswith("reward/")
    assert one == opened(folder, concurrency=3, device="cpu").digest
    others = [
        opened(folder, dtype="bfloat16").digest,
        opened(folder, extra={"label": 0}).digest,
        opened(folder, extra={"max_length": 64}).digest,
        opened(tiny(labels=3)).digest,
        opened(changed(folder, tmp_path / "x", "config.json", lambda data: data.update(rms_norm_eps=0.1))).digest,
    ]
    assert len({one, *others}) == 6


def test_memory_that_runs_out_makes_smaller_batches(tiny):
    model = opened(tiny(), concurrency=8)
    model.prepare()
    expected = [answer.scores[0] for answer in model.generate(some(8))]
    inner, sizes = model._model._model, []

    def short_of_memory(input_ids, **given):
        sizes.append(len(input_ids))
        if len(input_ids) > 3 or input_ids.shape[1] > 60:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return inner(input_ids=input_ids, **given)

    model._model._model = short_of_memory
    with pytest.warns(RuntimeWarning, match="out of memory; going on with 4 replies at once"):
        answers = model.generate([*some(8), asked("w1 " * 40, "w2 " * 30)])
    assert [answer.scores[0] for answer in answers[:8]] == pytest.approx(expected, abs=1e-5)
    assert sizes[:3] == [8, 4, 2]
    assert isinstance(answers[8], Failure)
    assert "even alone" in answers[8].message


def test_it_stands_behind_the_door_with_a_cache_and_a_budget(tiny, tmp_path):
    spec = ModelSpec(f"reward/{tiny()}", dtype="float32")
    model, requests = open_model(spec), some(6)
    served = []

    class Counted:
        digest, max_batch, constrains = model.digest, model.max_batch, False

        def generate(self, requests):
            served.append(len(requests))
            return model.generate(requests)

        def close(self):
            model.close()

    store, purse = CompletionStore(tmp_path / "cache.sqlite"), Budget(Limits(calls=10))
    with Session({"reward": Door(Counted(), spec, "reward", store, purse)}):
        first = complete_many([*requests, requests[0]], "reward")
        again = complete_many(requests[:3], "reward")
        with pytest.raises(BudgetExhaustedError):
            complete_many(some(1, 7), "reward")
    assert served == [6], "all at once, equal ones once"
    assert first[0].scores == first[6].scores
    assert [a.scores for a in again] == [a.scores for a in first[:3]]
    assert all(a.cached for a in again)
    assert dataclasses.replace(again[0], cached=False).lengths == ()
    store.close()
