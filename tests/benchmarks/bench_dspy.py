"""A DSPy program under promptopt's evaluator and under ``dspy.Evaluate``, side by side, each in a process of its own.

    python tests/benchmarks/bench_dspy.py [--rounds 5] [--threads 32] [--examples 2000]

``in process``  one ``dspy.Predict`` on an engine that answers at once, so that all that is measured is what each does
                around a call. DSPy's cache is off, then on (misses, written to disk as DSPy does). Ours always records
                every completion and every cell on disk.
``http``        the same program on one OpenAI-compatible server on loopback: DSPy's LM, our LM in its place under
                ``dspy.Evaluate``, and our LM under our evaluator, on threads and without.

Rounds are interleaved; medians are reported, and ratios to ``dspy.Evaluate`` as it is used.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WARM_UP = 64


def program():
    import dspy

    class Answer(dspy.Module):
        def __init__(self):
            self.answer = dspy.Predict("question -> answer")

        def forward(self, question):
            return self.answer(question=question)

    return Answer()


def examples(first, count):
    import dspy

    texts = [f"Question number {i}: why is it so?" for i in range(first, first + count)]
    return [dspy.Example(question=text, answer=text).with_inputs("question") for text in texts]


def right(gold, pred, trace=None):
    return gold.answer == pred.answer


def engine():
    from dspy.lm15 import Message, Response, TextPart, Usage

    class AtOnce:
        def complete(self, request):
            text = request.messages[-1].text
            question = text.partition("[[ ## question ## ]]\n")[2].partition("\n\n")[0]
            parts = [TextPart(f"[[ ## answer ## ]]\n{question}\n\n[[ ## completed ## ]]")]
            used = Usage(input_tokens=50, output_tokens=20)
            return Response(id=None, model="m", message=Message.assistant(parts), finish_reason="stop", usage=used)

    return AtOnce()


def dspys(url, cache):
    import dspy

    if url is None:
        return dspy.LM("custom/m", engine=engine(), cache=cache)
    return dspy.LM("openai/m", api_base=url, api_key="none", temperature=0.0, max_tokens=64, cache=cache)


def at_once(request):
    question = request.messages[-1][1].partition("[[ ## question ## ]]\n")[2].partition("\n\n")[0]
    return f"[[ ## answer ## ]]\n{question}\n\n[[ ## completed ## ]]"


def our_lm(url, threads):
    from promptopt import ScriptedLM
    from promptopt.integrations.dspy import lm

    if url is None:
        return lm("scripted/m", backend=ScriptedLM(at_once))
    return lm("openai/m", base_url=url, concurrency=threads, temperature=0.0, max_tokens=64)


def evaluate(lm, threads, count):
    import dspy

    dspy.configure(lm=lm)
    made = program()

    def run(part):
        return dspy.Evaluate(devset=part, metric=right, num_threads=threads, display_progress=False)(made).score

    run(examples(-WARM_UP, WARM_UP))
    part = examples(0, count)
    started, cpu = time.perf_counter(), time.process_time()
    score = run(part)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    assert score == 100.0, score
    return wall, cpu


def ours(lm, threads, count, on_threads):
    import dspy

    from promptopt.api import open_doors, open_models
    from promptopt.evaluate.evaluator import Ask, Evaluator
    from promptopt.integrations.dspy import DSPyOptimizer
    from promptopt.lm.calls import Session
    from promptopt.lm.meter import Meter
    from promptopt.search.budget import Budget, Limits
    from promptopt.search.run import Run

    dspy.configure(lm=lm)
    tuned = DSPyOptimizer(
        "random_search",
        metric=right,
        splits={"demos": 0, "search": count, "confirm": WARM_UP},
        num_threads=threads,
        threads=on_threads,
        cache="run",
    )
    task, given = tuned._task(program(), examples(-WARM_UP, count + WARM_UP), None, None)
    with tempfile.TemporaryDirectory() as name, Run(Path(name) / "run", {"task": "bench"}, {}) as run:
        budget, meter = Budget(Limits(calls=10**9, tokens=10**12)), Meter()
        with open_models(task, given) as models, open_doors(task, Path(name), budget, meter, models) as doors:
            evaluator = Evaluator(
                task.program, task.metric, Session(doors), run.cells, None, doors["task"].concurrency, budget
            )
            default = task.program.default()
            evaluator.evaluate([Ask(default)], task.splits.confirm)
            started, cpu = time.perf_counter(), time.process_time()
            (trial,) = evaluator.evaluate([Ask(default)], task.splits.search).trials
            wall, cpu = time.perf_counter() - started, time.process_time() - cpu
            assert trial.mean == 1.0
            assert trial.n == count
            assert meter.paid().calls == count + WARM_UP
    return wall, cpu


IN_PROCESS = {
    "dspy.Evaluate": lambda url, t, n: evaluate(dspys(url, False), t, n),
    "dspy.Evaluate, its cache on": lambda url, t, n: evaluate(dspys(url, True), t, n),
    "dspy.Evaluate, our LM": lambda url, t, n: evaluate(our_lm(url, t), t, n),
    "ours, its LM, threads": lambda url, t, n: ours(dspys(url, False), t, n, True),
    "ours, its LM, no threads": lambda url, t, n: ours(dspys(url, False), t, n, False),
    "ours, our LM, threads": lambda url, t, n: ours(our_lm(url, t), t, n, True),
    "ours, our LM, no threads": lambda url, t, n: ours(our_lm(url, t), t, n, False),
}


def one(name, url, threads, count):
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-W", "ignore", __file__, "--arm", name, "--threads", str(threads)]
        command += ["--examples", str(count), *(["--url", url] if url else [])]
        environment = {**os.environ, "DSPY_CACHEDIR": f"{home}/dspy", "PROMPTOPT_HOME": f"{home}/ours"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(rounds, threads, count):
    sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))
    from openai_server import serving

    with serving(reply="chat_adapter") as server:
        figures = {(where, name): [] for where in ("in process", "http") for name in IN_PROCESS}
        for _ in range(rounds):
            for where, name in figures:
                url = server.base_url if where == "http" else None
                figures[where, name].append(one(name, url, threads, count))
    return figures


def table(figures, threads, rounds):
    lines = [f"{threads} threads, medians of {rounds} rounds (least to most); ratio: to dspy.Evaluate"]
    base = {
        where: statistics.median(row["examples"] / row["wall"] for row in figures[where, "dspy.Evaluate"])
        for where in ("in process", "http")
    }
    for (where, name), rows in figures.items():
        rates = [row["examples"] / row["wall"] for row in rows]
        cpu = statistics.median(1000 * row["cpu"] / row["examples"] for row in rows)
        rate = statistics.median(rates)
        lines.append(
            f"  {where:<11}{name:<28}{rate:>7.0f}/s ({min(rates):.0f} to {max(rates):.0f})  ×{rate / base[where]:.2f}"
            f"  {cpu:.2f} ms CPU"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--arm", choices=list(IN_PROCESS), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        wall, cpu = IN_PROCESS[options.arm](options.url, options.threads, options.examples)
        print(json.dumps({"wall": wall, "cpu": cpu, "examples": options.examples}))
        return
    print(table(compare(options.rounds, options.threads, options.examples), options.threads, options.rounds))


if __name__ == "__main__":
    main()
