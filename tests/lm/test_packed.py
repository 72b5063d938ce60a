"""Packed weights: the same bits, one copy, and a model that cannot do without its own weights keeps them."""

import pytest

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import torch  # noqa: E402

from promptopt.lm.packed import pack  # noqa: E402
from promptopt.lm.torch_engine import Draft, Engine  # noqa: E402


def supported():
    try:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except (AttributeError, RuntimeError):
        return False


needs_bf16 = pytest.mark.skipif(not supported(), reason="needs a CPU that multiplies bfloat16")


def model_of(path, dtype=torch.bfloat16):
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()


def linear(model):
    """Layers that are packed: those that do not narrow."""
    return [
        module
        for module in model.modules()
        if type(module) is torch.nn.Linear and module.in_features <= module.out_features
    ]


def logits(model, rows, tokens):
    ids = torch.arange(rows * tokens).reshape(rows, tokens) * 7 % 60
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits


@needs_bf16
@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma3", "gpt2"])
def test_the_same_bits_from_one_copy(tiny, kind):
    model = model_of(tiny(kind))
    shapes = [(1, 1), (1, 5), (2, 3), (20, 1), (7, 30), (64, 17)]
    before = [logits(model, *shape) for shape in shapes]
    head = model.get_output_embeddings()
    assert pack(model, head) == len(linear(model)) > 0
    for shape, wanted in zip(shapes, before, strict=True):
        assert torch.equal(logits(model, *shape), wanted)
    assert head.weight.shape[0] > 0
    assert all(module.weight.numel() == 0 for module in linear(model) if module is not head)
    others = [each for each in model.modules() if type(each) is torch.nn.Linear and each not in linear(model)]
    assert all(each.weight.numel() and "forward" not in vars(each) for each in others)


@needs_bf16
def test_a_weight_that_others_share_stays(tiny):
    model = model_of(tiny())
    head, words = model.get_output_embeddings(), model.get_input_embeddings()
    head.weight = words.weight
    before = logits(model, 3, 4)
    assert pack(model) == len(linear(model))
    assert head.weight is words.weight
    assert words.weight.numel() > 0
    assert torch.equal(logits(model, 3, 4), before)


@needs_bf16
def test_a_model_that_reads_its_weights_itself_keeps_them(tiny):
    model = model_of(tiny())
    layer = linear(model)[2]
    plain, kept = layer.forward, layer.weight.clone()
    before = logits(model, 3, 4)
    model.register_forward_pre_hook(lambda *_: print(layer.weight[0, 0]))
    assert pack(model, model.get_output_embeddings()) == 0
    assert torch.equal(layer.weight, kept)
    assert layer.forward == plain
    assert torch.equal(logits(model, 3, 4), before)


@needs_bf16
def test_a_last_layer_with_a_bias_stays(tiny):
    model = model_of(tiny("phi"))
    head = model.get_output_embeddings()
    assert head.bias is not None
    ids = torch.arange(30).reshape(5, 6)

    def last():
        with torch.inference_mode():
            return model(input_ids=ids, use_cache=False, logits_to_keep=1).logits

    before = last()
    assert pack(model, head) == len(linear(model)) - 1
    assert "forward" not in vars(head)
    assert torch.equal(last(), before)


@needs_bf16
def test_where_there_is_no_memory_to_unpack_a_layer_it_stays_packed_and_works(tiny, monkeypatch):
    model = model_of(tiny())
    before = logits(model, 3, 4)
    real, packed = torch.ops.mkldnn._reorder_linear_weight, []

    class Blocks:
        """Packed weights that cannot be unpacked; the fifth cannot even be packed."""

        def __init__(self, values):
            self.values = values

        def to_dense(self):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    def full(weight, rows):
        if len(packed) == 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        packed.append(Blocks(real(weight, rows)))
        return packed[-1]

    multiply = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", full)
    monkeypatch.setattr(
        torch.ops.mkldnn, "_linear_pointwise", lambda rows, blocks, *more: multiply(rows, blocks.values, *more)
    )
    assert pack(model) == 4
    assert torch.equal(logits(model, 3, 4), before)


@needs_bf16
def test_one_whose_numbers_would_change_stays_as_it_was(tiny, monkeypatch):
    model = model_of(tiny())
    before = logits(model, 3, 4)
    real = torch.ops.mkldnn._linear_pointwise
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda *given: real(*given) + 0.5)
    assert pack(model) == 0
    assert torch.equal(logits(model, 3, 4), before)
    assert all(module.weight.numel() for module in linear(model))


@needs_bf16
def test_one_that_breaks_off_half_way_stays_as_it_was(tiny, monkeypatch):
    model = model_of(tiny())
    before = logits(model, 3, 4)
    real, calls = torch.ops.mkldnn._reorder_linear_weight, []

    def third(*given):
        calls.append(given)
        if len(calls) == 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(*given)

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", third)
    assert pack(model) == 0
    assert len(calls) == 3
    assert torch.equal(logits(model, 3, 4), before)


def test_what_a_torch_lacks_is_done_without(tiny, monkeypatch):
    model = model_of(tiny())
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False, raising=False)
    assert pack(model) == 0
    assert all(module.weight.numel() for module in linear(model))


def test_exact_numbers_are_left_alone(tiny):
    model = model_of(tiny(), torch.float32)
    assert pack(model) == 0
    assert all("forward" not in vars(module) for module in linear(model))


@needs_bf16
def test_an_engine_packs_once_it_has_worked_for_a_while(tiny, monkeypatch):
    engine = Engine(tiny(), "cpu")
    prompt = list(range(8, 20))

    def written():
        drafts = [Draft(6, 0.0, 0, ()) for _ in range(3)]
        engine.write(drafts, prompt, [[20], [21, 22], [23]])
        return [draft.written for draft in drafts]

    before = written()
    assert all(module.weight.numel() for module in linear(engine._model))
    monkeypatch.setattr("promptopt.lm.torch_engine._PACKED_AFTER", 0.0)
    assert written() == before
    assert not linear(engine._model)[0].weight.numel()
    assert written() == before
