"""Two hops: search, read, search again with what was read, answer. Retrieval is plain code between two predictors.

Each predictor is tuned by what it does to the final answer; nobody has to say what a good query is.

    python programs/two_hop.py                     with no model at all
    python programs/two_hop.py llamacpp/qwen2.5-coder-1.5b-instruct
"""

from __future__ import annotations

import sys

from promptopt import ModelSpec, Module, Predict, Prediction, ScriptedLM, Session, open_model
from promptopt_programs.retrieval import Retriever, read_passages, shown


class TwoHop(Module):
    """Question in; an answer out that needs two passages.

    Args:
        count: passages that each search gives.
        corpus: a jsonl file with ``title`` and ``text``; None: the one of our tasks.
    """

    def __init__(self, count: int = 3, corpus: str | None = None) -> None:
        self.count = count
        self.retriever = Retriever(read_passages(corpus))
        self.query = Predict("question -> query", instruction="Write a search query for the question.")
        self.second_query = Predict(
            "question, passages -> query", instruction="Write a search query for what the passages do not tell yet."
        )
        self.answer = Predict(
            "question, passages -> answer", instruction="Answer the question in as few words as possible."
        )

    def forward(self, question: str) -> Prediction:
        """Three calls and two searches."""
        found = self.retriever.search(self.query(question=question).query, self.count)
        second = self.second_query(question=question, passages=shown(found)).query
        found += [passage for passage in self.retriever.search(second, self.count) if passage not in found]
        return self.answer(question=question, passages=shown(found))


def main() -> None:
    """Answer one question."""
    replies = iter(["Kinko Looms based town", "Quormouth region", "Vishmoor"])
    scripted = ScriptedLM(lambda _: next(replies))
    model = open_model(ModelSpec(sys.argv[1])) if len(sys.argv) > 1 else scripted
    with Session({"task": model}):
        print("→", TwoHop()(question="In which region is the town where Kinko Looms is based?").answer)


if __name__ == "__main__":
    main()
