"""How much quicker does a local model on a CPU answer with packed weights (promptopt/lm/packed.py)? Same answers?

    python tests/benchmarks/bench_packed.py [--model hf/qwen2.5-coder-0.5b-instruct] [--rounds 5]

Both ways in one run, alternating, the best of the rounds each; what is compared are ratios. Prompts are the rows of a
task of ours: short replies to 20 rows after eight exemplars, long replies to 20 rows, one long reply.
"""

import argparse
import json
import time
from pathlib import Path

from promptopt.lm.base import Request
from promptopt.lm.hf import HFBackend
from promptopt.lm.packed import pack
from promptopt.lm.spec import ModelSpec

DATA = Path(__file__).resolve().parents[2] / "tasks" / "data" / "ticket_routing" / "train.jsonl"


def requests(what, round_):
    """Other prompts each round, so that no prefix is kept from the last."""
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    (text, label), asked = list(rows[0])[:2], rows[100 * (round_ % 3) :][:20]
    if what == "exemplars, short replies":
        head = [("system", f"Which team is this ticket for? ({round_})")]
        for row in rows[-8 - round_ : -round_ or None]:
            head += [("user", row[text]), ("assistant", row[label])]
        return [Request((*head, ("user", row[text])), 8, 0.0) for row in asked]
    head = ("system", f"Answer the customer in three sentences. ({round_})")
    return [Request((head, ("user", row[text])), 32, 0.0) for row in asked[: 1 if what == "one long reply" else 20]]


def main(model, rounds):
    """Prints a table; {what: ratio of seconds, plain to packed}."""
    plain, packed = (HFBackend(ModelSpec(model, device="cpu")) for _ in range(2))
    for backend in (plain, packed):
        backend.prepare()
        backend._engine._packed = True  # nothing is packed on the way
        backend.generate(requests("one long reply", 0))
    began = time.perf_counter()
    layers = pack(packed._engine._model, packed._engine._head)
    if not layers:
        raise SystemExit("Nothing to compare: this CPU or torch packs no bfloat16, or the model would change.")
    print(f"{model}: {layers} layers packed in {time.perf_counter() - began:.1f} s")
    found = {}
    for what in ("exemplars, short replies", "long replies", "one long reply"):
        best = {"plain": float("inf"), "packed": float("inf")}
        for round_ in range(1, rounds + 1):
            texts = {}
            for name, backend in (("plain", plain), ("packed", packed)):
                asked = requests(what, round_)
                began = time.perf_counter()
                texts[name] = [reply.text for reply in backend.generate(asked)]
                best[name] = min(best[name], time.perf_counter() - began)
            assert texts["plain"] == texts["packed"]
        found[what] = best["plain"] / best["packed"]
        print(f"{what:<26}{best['plain']:>8.2f} s{best['packed']:>8.2f} s packed   ×{found[what]:.2f}")
    return found


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--model", default="hf/qwen2.5-coder-0.5b-instruct")
    given.add_argument("--rounds", type=int, default=5)
    options = given.parse_args()
    main(options.model, options.rounds)
