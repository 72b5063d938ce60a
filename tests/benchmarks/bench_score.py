"""Candidate scoring: how fast against the two usual ways, and how right against writing the answer.

    python tests/benchmarks/bench_score.py [--examples 48] [--shots 5] [--model qwen2.5-coder-0.5b-instruct]
        [--speed sentiment] [--tasks sentiment ticket_routing …] [--device cpu] [--dtype bfloat16]

Speed. The labels of a classification task are scored after a prompt with exemplars, three ways on the same weights and
tokens, one after the other:

    loop     transformers, one (example, label) after the other
    padded   transformers, 16 (example, label) pairs at once, by length, padded
    ours     ``HFBackend.score``: what prompts begin with is read once

All three compute logits for the labels' positions alone. Nothing is kept from one to the next, and each is warm when
its clock starts. ``loop`` and ``padded`` take a part of the examples: their rate does not depend on how many there are.
By token counts alone, the ratio would be that of tokens read; printed is which share of it is reached, and the share of
prefill tokens that is avoided, beside that of the ideal: the common prefix once, and each query once.

Accuracy. The same prompts, answered by writing and by the label of the highest score: plain, by length, by contextual
calibration (Zhao et al. 2021) and by domain-conditional PMI (Holtzman et al. 2021). In larger_animal and
older_invention the labels are the two that the input names.

Do nothing else on the machine meanwhile.
"""

import argparse
import time

import numpy as np

import promptopt_tasks
from promptopt import api
from promptopt.lm.calibrate import CONTENT_FREE, by_length, contextual, domain_pmi
from promptopt.lm.capabilities import ScoreRequest
from promptopt.lm.hf import HFBackend
from promptopt.lm.prefix_tree import build
from promptopt.lm.spec import ModelSpec
from promptopt.metrics.exact import normalise
from promptopt.program.params import Exemplars, Instruction
from promptopt.propose.exemplars import labelled
from promptopt.task.load import load_task

TASKS = ("sentiment", "ticket_routing", "larger_animal", "older_invention")
PADDED = 16
# As optimizers write them, and long enough for a common prefix of 200 tokens and more.
INSTRUCTION = (
    "You will read one short review written by a customer or a visitor. Decide whether the review is positive or "
    "negative about the thing itself. Look at what the writer says last, beware of denials and of praise that others "
    "gave, and answer with the label only."
)


def asked(name, examples, shots, instruction=None):
    """The task, its requests with so many exemplars, and the labels of each."""
    task = load_task(promptopt_tasks.path(name), overrides={"splits.search": examples, "splits.confirm": 10})
    (shelf,) = [p for p in task.program.parameters() if isinstance(p, Exemplars)]
    pool = labelled(task.program, shelf.predictor, task.splits.demos.examples)
    default = task.program.default()
    candidate = default.replace(shelf.path, tuple(pool[:shots]), default.origin)
    if instruction is not None:
        (told,) = [p for p in task.program.parameters() if isinstance(p, Instruction)]
        candidate = candidate.replace(told.path, instruction, default.origin)
    requests = [request for i in range(examples) for request in api.render(task, candidate, i)]
    labels = [
        request.constraint.choices if request.constraint else tuple(next(iter(example.inputs.values())).split(", "))
        for request, example in zip(requests, task.splits.search.examples, strict=True)
    ]
    return task, requests, labels


# Speed ----------------------------------------------------------------------------------------------------------------


def loop(engine, pairs):
    """transformers, one pair after the other."""
    import torch

    scores = []
    with torch.inference_mode():
        for context, label in pairs:
            ids = torch.tensor([context + label], device=engine.device)
            logits = engine._model(ids, use_cache=False, logits_to_keep=len(label) + 1).logits[0, :-1].float()
            scores.append(float(logits.log_softmax(-1)[range(len(label)), label].sum()))
    return scores


def padded(engine, pairs):
    """transformers, batches of pairs by length, padded on the left."""
    import torch

    scores = [0.0] * len(pairs)
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    with torch.inference_mode():
        for start in range(0, len(order), PADDED):
            batch = order[start : start + PADDED]
            rows = [pairs[i][0] + pairs[i][1] for i in batch]
            width, last = max(map(len, rows)), max(len(pairs[i][1]) for i in batch)
            ids = torch.zeros((len(rows), width), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, tokens in enumerate(rows):
                ids[row, width - len(tokens) :] = torch.tensor(tokens)
                mask[row, width - len(tokens) :] = 1
            places = (mask.cumsum(1) - 1).clamp(min=0)
            ids, mask, places = (values.to(engine.device) for values in (ids, mask, places))
            out = engine._model(ids, attention_mask=mask, position_ids=places, use_cache=False, logits_to_keep=last + 1)
            steps = out.logits[:, :-1].float().log_softmax(-1)
            for row, i in enumerate(batch):
                label = pairs[i][1]
                scores[i] = float(steps[row, range(last - len(label), last), label].sum())
    return scores


def clocked(do, *given):
    began = time.perf_counter()
    return do(*given), time.perf_counter() - began


def speed(backend, name, examples, shots):
    """Examples a second the three ways."""
    _, requests, labels = asked(name, examples, shots, INSTRUCTION if name == "sentiment" else None)
    scored = [ScoreRequest(r.messages, choices) for r, choices in zip(requests, labels, strict=True)]
    backend.prepare()
    engine = backend._engine
    pairs = []
    for request in scored:
        text = engine.tokens.rendered(request.messages)
        ids = engine.tokens.of(text)
        pairs.append([(ids, engine.tokens.after(text, label)) for label in request.continuations])
    # The first example in every list is for warming up.
    few = {"loop": max(4, examples // 8), "padded": max(8, examples // 4)}
    found, rates = {}, {}
    for way, do in (("loop", loop), ("padded", padded)):
        given = [pair for example in pairs[: few[way]] for pair in example]
        do(engine, given[:2])
        found[way], seconds = clocked(do, engine, given)
        rates[way] = few[way] / seconds
    backend.score(scored[:2])
    backend.score([ScoreRequest(text="Something else.", continuations=("x",))])  # so that no prefix is kept
    answers, seconds = clocked(backend.score, scored)
    rates["ours"] = examples / seconds
    found["ours"] = [score for answer in answers for score in answer.logprobs]

    sequences = [context + label[:-1] for example in pairs for context, label in example]
    tree = build(sequences)
    contexts = build([example[0][0] for example in pairs])
    prefix = contexts.trunk
    naive = sum(map(len, sequences))
    ideal = prefix + sum(len(example[0][0]) - prefix for example in pairs)
    by_tokens = naive / len(tree)
    print(f"{name}: {examples} examples, {shots} exemplars, common prefix {prefix} tokens, {len(labels[0])} labels")
    print("  " + "  ".join(f"{way} {rate:.2f}/s" for way, rate in rates.items()))
    for way in ("loop", "padded"):
        ratio = rates["ours"] / rates[way]
        apart = max(abs(a - b) for a, b in zip(found["ours"], found[way], strict=False))
        print(
            f"  against {way}: ×{ratio:.1f}, {ratio / by_tokens:.0%} of the ratio by tokens alone (×{by_tokens:.1f}); "
            f"log-probabilities at most {apart:.1e} apart"
        )
    print(
        f"  prefill tokens avoided: {1 - len(tree) / naive:.1%} of {naive:,}; ideal (common prefix once, each query "
        f"once): {1 - ideal / naive:.1%}",
        flush=True,
    )
    return rates


# Accuracy -------------------------------------------------------------------------------------------------------------


def emptied(request, example, text):
    """The same prompt with another input."""
    role, query = request.messages[-1]
    return (*request.messages[:-1], (role, query.replace(next(iter(example.inputs.values())), text)))


def accuracy(backend, name, examples, shots):
    """Share of right answers and examples a second, by writing and by scoring."""
    task, requests, labels = asked(name, examples, shots)
    rows = task.splits.search.examples
    own = task.models["task"].generate
    backend.generate(requests[:2])
    written, seconds = clocked(backend.generate, [type(r)(r.messages, own.max_tokens, 0.0) for r in requests])
    right = [normalise(a.text) in map(normalise, e.targets) for a, e in zip(written, rows, strict=True)]
    print(f"{name}: {examples} examples, {shots} exemplars")
    print(f"  written     {np.mean(right):.3f}   {examples / seconds:6.2f}/s")

    plain = [ScoreRequest(r.messages, choices) for r, choices in zip(requests, labels, strict=True)]
    backend.score([ScoreRequest(text="Something else.", continuations=("x",))])
    scored, seconds = clocked(backend.score, plain)
    every = tuple(dict.fromkeys(label for choices in labels for label in choices))
    place = {label: i for i, label in enumerate(every)}
    free = [ScoreRequest(emptied(requests[0], rows[0], text), every) for text in CONTENT_FREE]
    field = list(task.program.predictors().values())[-1].signature.outputs[-1].name
    premise = ScoreRequest((("user", f"Name the {field}."),), every)
    (*empty, domain), more = clocked(backend.score, [*free, premise])
    chosen = {"plain": [], "by length": [], "contextual": [], "domain PMI": []}
    for answer, choices in zip(scored, labels, strict=True):
        mine = [place[label] for label in choices]
        logprobs = [answer.logprobs]
        tables = {
            "plain": np.array(logprobs),
            "by length": by_length(logprobs, answer.tokens),
            "contextual": contextual(logprobs, [[e.logprobs[i] for i in mine] for e in empty]),
            "domain PMI": domain_pmi(logprobs, [domain.logprobs[i] for i in mine]),
        }
        for way, table in tables.items():
            chosen[way].append(choices[int(table[0].argmax())])
    shares = {"written": float(np.mean(right))}
    for way, picks in chosen.items():
        took = seconds + (more if way in ("contextual", "domain PMI") else 0.0)
        right = [normalise(p) in map(normalise, e.targets) for p, e in zip(picks, rows, strict=True)]
        shares[way] = float(np.mean(right))
        print(f"  {way:10}  {shares[way]:.3f}   {examples / took:6.2f}/s", flush=True)
    return shares


def main(names, fast, examples, shots, spec):
    """Both parts; gives the rates of the first."""
    backend = HFBackend(spec)
    rates = speed(backend, fast, examples, shots)
    for name in names:
        accuracy(backend, name, examples, shots)
    return rates


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=48)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--speed", default="sentiment")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    o = parser.parse_args()
    main(o.tasks, o.speed, o.examples, o.shots, ModelSpec(f"hf/{o.model}", device=o.device, dtype=o.dtype))
