"""What every model backend promises, as a test class: inherit it, say how to open one, and run pytest."""

from __future__ import annotations

from promptopt.lm.base import Completes, Completion, Constraint, Generates, Request
from promptopt.lm.calls import Session, complete_many
from promptopt.lm.door import Door
from promptopt.records import Failure


class BackendContract:
    """Inherit and override ``backend``.

    The questions are for any instruction-following model, however small; what is checked is the plumbing.
    """

    max_tokens = 8

    def backend(self) -> Generates | Completes:
        """An open backend; closed by whoever made it."""
        raise NotImplementedError

    def ask(self, *requests: Request) -> list[Completion | Failure]:
        """Answers through a door with no cache."""
        with Session({"task": Door.plain(self.backend())}):
            return complete_many(requests)

    def request(self, text: str, **settings: object) -> Request:
        """A short question."""
        return Request((("user", text),), self.max_tokens, 0.0, **settings)  # type: ignore[arg-type]

    def test_one_answer_for_each_request_in_order(self) -> None:
        texts = [f"Repeat this word: {word}" for word in ("apple", "river", "stone", "cloud", "apple")]
        alone = [self.ask(self.request(text))[0] for text in texts[:1]]
        together = self.ask(*(self.request(text) for text in texts))
        assert len(together) == len(texts)
        assert all(isinstance(answer, Completion) for answer in together)
        assert isinstance(alone[0], Completion)

    def test_usage_is_counted(self) -> None:
        (answer,) = self.ask(self.request("Say yes."))
        assert isinstance(answer, Completion)
        assert answer.usage.calls == 1
        assert answer.usage.prompt_tokens > 0
        assert 0 < answer.usage.completion_tokens <= self.max_tokens

    def test_an_answer_cut_short_says_so(self) -> None:
        (answer,) = self.ask(Request((("user", "Count from 1 to 50."),), 2, 0.0))
        assert isinstance(answer, Completion)
        assert answer.finish in ("length", "stop")
        assert answer.usage.completion_tokens <= 2

    def test_the_same_seed_gives_the_same_text(self) -> None:
        request = Request((("user", "Write a word."),), self.max_tokens, 1.0, seed=7)
        first, second = (self.ask(request)[0] for _ in range(2))
        assert isinstance(first, Completion)
        assert isinstance(second, Completion)
        assert first.text == second.text

    def test_a_constraint_is_kept_where_it_is_claimed(self) -> None:
        choices = ("cats and dogs", 'a "quoted" one', "[x]")
        (answer,) = self.ask(self.request("Say hello.", constraint=Constraint(choices=choices)))
        assert isinstance(answer, Completion)
        if self.backend().constrains:
            assert answer.constrained
            assert answer.text.strip() in choices

    def test_the_digest_names_the_model(self) -> None:
        backend = self.backend()
        assert backend.digest
        assert backend.digest == self.backend().digest
        assert backend.max_batch >= 1
