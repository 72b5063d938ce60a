"""lm: how a model is called. It has never seen a program, a task or a score."""

from promptopt.registry import Registry

BACKENDS = Registry(
    "model provider",
    {
        "scripted": "promptopt.lm.scripted:open_scripted",
        "openai": "promptopt.lm.openai:OpenAIBackend",
        "llamacpp": "promptopt.lm.llamacpp:LlamaCppBackend",
        "hf": "promptopt.lm.hf:HFBackend",
        "st": "promptopt.lm.embed:SentenceTransformerBackend",
        "reward": "promptopt.lm.reward:RewardBackend",
    },
    "promptopt.lms",
)
"""Provider name → a callable that takes a ``ModelSpec`` and returns a ``Generates``, a ``Completes`` or, as ``st``, an
``Embeds``."""
