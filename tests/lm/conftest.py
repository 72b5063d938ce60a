"""Models with a few random weights, which know nothing: what they compute can be compared to the last digit."""

import importlib.util

import pytest

WORDS = ["<end>", "<unk>", "<s>", "system", "user", "assistant", ":", ".", *(f"w{i}" for i in range(60))]
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }} . {% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
KINDS = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {"attention_bias": True, "head_dim": 8}),
    "mistral": ("MistralConfig", "MistralForCausalLM", {"sliding_window": 8}),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {"sliding_window": 8, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "n_inner": 64},
    ),
    "mpt": ("MptConfig", "MptForCausalLM", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128}),
    "phi": ("PhiConfig", "PhiForCausalLM", {}),
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Makes the folder of a tiny model of a kind, as save_pretrained writes it."""
    if not all(importlib.util.find_spec(name) for name in ("torch", "transformers", "gguf", "accelerate")):
        pytest.skip("needs promptopt[hf]")
    import torch
    import transformers
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for sums this small, two threads spend their time waiting for each other
    made = {}

    def make(kind="llama", begins=False):
        if (kind, begins) in made:
            return made[kind, begins]
        path = tmp_path_factory.mktemp(kind)
        core = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
        core.pre_tokenizer = WhitespaceSplit()
        special = {"eos_token": "<end>", "unk_token": "<unk>"}
        if begins:
            core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
            special["bos_token"] = "<s>"
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, **special)
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(path)
        config, model, settings = KINDS[kind]
        common = {
            "vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "eos_token_id": 0,
            "bos_token_id": 2, "pad_token_id": 0, "initializer_range": 1.0,
        }  # fmt: skip
        torch.manual_seed(0)
        made[kind, begins] = path
        weights = getattr(transformers, model)(getattr(transformers, config)(**{**common, **settings}))
        for name, values in weights.named_parameters():
            if kind == "mpt" or name.endswith("bias"):  # which are made small, or 0
                torch.nn.init.normal_(values, std=0.5)
        weights.save_pretrained(path)
        return path

    yield make
    torch.set_num_threads(threads)
