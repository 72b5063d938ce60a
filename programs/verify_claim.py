"""Verify a claim: look it up, sum up what was found, and judge. The judge sees the summary alone.

A summary that leaves out the one fact that matters costs the verdict, so the two instructions must fit each other.

    python programs/verify_claim.py                with no model at all
    python programs/verify_claim.py llamacpp/qwen2.5-coder-1.5b-instruct
"""

from __future__ import annotations

import sys

from promptopt import ModelSpec, Module, Predict, Prediction, ScriptedLM, Session, open_model
from promptopt_programs.retrieval import Retriever, read_passages, shown


class VerifyClaim(Module):
    """Claim in; ``supported``, ``refuted`` or ``not enough`` out.

    Args:
        count: passages that are looked up.
        corpus: a jsonl file with ``title`` and ``text``; None: the one of our tasks.
    """

    def __init__(self, count: int = 4, corpus: str | None = None) -> None:
        self.count = count
        self.retriever = Retriever(read_passages(corpus))
        self.summarise = Predict(
            "claim, passages -> summary", instruction="Summarise what the passages say about the claim."
        )
        self.judge = Predict(
            "claim, summary -> verdict: supported|refuted|not enough",
            instruction="Is the claim supported or refuted, or is there not enough to decide?",
        )

    def forward(self, claim: str) -> Prediction:
        """A search and two calls."""
        found = self.retriever.search(claim, self.count)
        summary = self.summarise(claim=claim, passages=shown(found)).summary
        return self.judge(claim=claim, summary=summary)


def main() -> None:
    """Judge one claim."""
    replies = iter(["Kinko Looms is based in Quormouth.", "refuted"])
    scripted = ScriptedLM(lambda _: next(replies))
    model = open_model(ModelSpec(sys.argv[1])) if len(sys.argv) > 1 else scripted
    with Session({"task": model}):
        print("→", VerifyClaim()(claim="Kinko Looms has its seat in Kalwick.").verdict)


if __name__ == "__main__":
    main()
