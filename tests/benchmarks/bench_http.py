"""Calls a second and CPU a call over HTTP, side by side with others, against one local server in its own process.

    python tests/benchmarks/bench_http.py [--rounds 5] [--concurrency 64] [--dspy-python PATH]

Each client runs in a process of its own, warms up, then makes its calls; rounds are interleaved and medians reported.
``--dspy-python`` names an interpreter that has dspy (it need not have promptopt); a client whose package is missing is
left out, and said to be. Ratios and CPU compare across machines; calls a second do not.

What is measured:
    AsyncOpenAI, AsyncOpenAI/aiohttp    the official client, default transport and DefaultAioHttpClient
    dspy.LM threads, dspy.LM acall      no Predict, no adapter, cache off
    aiohttp + orjson                    the floor: no errors handled, nothing kept
    promptopt backend                   OpenAIBackend alone
    promptopt door                      cache (all misses, written to disk), budget, meter, retries, limits
    promptopt run                       the evaluator over the door: rendered, parsed, judged, journalled
"""

import argparse
import asyncio
import concurrent.futures
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SYSTEM = "You are a careful assistant. Answer with one short line and nothing else."
WARM_UP = 64
LIGHT, HEAVY = 6400, 640  # calls of one measurement at no latency: both last long enough to measure
SLOW = 1920  # at some latency


def messages(i):
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Question number {i}: why is it so?"}]


class Measured:
    """Wall and CPU seconds of a block, all threads of this process."""

    def __enter__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_):
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu


async def gathered(call, numbers, concurrency):
    """All calls, ``concurrency`` at once."""
    queue = iter(numbers)

    async def worker():
        for i in queue:
            text = await call(i)
            assert text == messages(i)[1]["content"], text

    await asyncio.gather(*(worker() for _ in range(concurrency)))


async def measured(call, calls, concurrency):
    await gathered(call, range(-WARM_UP, 0), concurrency)
    with Measured() as it:
        await gathered(call, range(calls), concurrency)
    return it


def async_openai(url, calls, concurrency, http_client=None):
    import openai

    async def main():
        async with openai.AsyncOpenAI(
            base_url=url, api_key="none", http_client=http_client and http_client()
        ) as client:

            async def call(i):
                made = await client.chat.completions.create(
                    model="m", messages=messages(i), temperature=0.0, max_tokens=64
                )
                return made.choices[0].message.content

            return await measured(call, calls, concurrency)

    return asyncio.run(main())


def async_openai_aiohttp(url, calls, concurrency):
    import openai

    return async_openai(url, calls, concurrency, openai.DefaultAioHttpClient)


def dspy_lm(url):
    import dspy

    return dspy.LM("openai/m", api_base=url, api_key="none", temperature=0.0, max_tokens=64, cache=False)


def text_of(answer):
    return answer[0] if isinstance(answer[0], str) else answer[0]["text"]


def dspy_threads(url, calls, concurrency):
    lm = dspy_lm(url)

    def call(i):
        assert text_of(lm(messages=messages(i))) == messages(i)[1]["content"]

    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        list(pool.map(call, range(-WARM_UP, 0)))
        with Measured() as it:
            list(pool.map(call, range(calls)))
    return it


def dspy_acall(url, calls, concurrency):
    lm = dspy_lm(url)

    async def call(i):
        return text_of(await lm.acall(messages=messages(i)))

    return asyncio.run(measured(call, calls, concurrency))


def bare_aiohttp(url, calls, concurrency):
    import aiohttp
    import orjson

    async def main():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def call(i):
                body = {"model": "m", "messages": messages(i), "temperature": 0.0, "max_tokens": 64}
                async with session.post(f"{url}/chat/completions", data=orjson.dumps(body)) as response:
                    return orjson.loads(await response.read())["choices"][0]["message"]["content"]

            return await measured(call, calls, concurrency)

    return asyncio.run(main())


def request(i):
    from promptopt.lm.base import Request

    return Request(tuple((m["role"], m["content"]) for m in messages(i)), max_tokens=64, temperature=0.0)


def spec(url, concurrency):
    from promptopt.lm.spec import ModelSpec

    return ModelSpec("openai/m", base_url=url, concurrency=concurrency)


def backend(url, calls, concurrency):
    from promptopt.lm.openai import OpenAIBackend

    async def main():
        opened = OpenAIBackend(spec(url, concurrency))

        async def call(i):
            return (await opened.complete(request(i))).text

        it = await measured(call, calls, concurrency)
        await opened.aclose()
        return it

    return asyncio.run(main())


def door(url, calls, concurrency):
    from promptopt.lm.cache import CompletionStore
    from promptopt.lm.door import Door, close
    from promptopt.lm.loop import run
    from promptopt.lm.meter import Meter
    from promptopt.lm.models import open_model
    from promptopt.search.budget import Budget, Limits

    with tempfile.TemporaryDirectory() as folder:
        store, model = CompletionStore(Path(folder) / "c.sqlite"), spec(url, concurrency)
        budget, meter = Budget(Limits(calls=10**9, tokens=10**12)), Meter()
        opened = Door(open_model(model), model, store=store, gate=budget, meter=meter)

        async def call(i):
            return (await opened.complete(request(i))).text

        it = run(measured(call, calls, concurrency))
        assert len(store) == budget.used.calls == meter.paid().calls == calls + WARM_UP
        close(opened.backend)
        store.close()
    return it


def whole_run(url, calls, concurrency):
    from promptopt.api import open_doors, open_models
    from promptopt.evaluate.evaluator import Ask, Evaluator
    from promptopt.lm.calls import Session
    from promptopt.lm.meter import Meter
    from promptopt.metrics.exact import ExactMatch
    from promptopt.program.params import Origin
    from promptopt.program.predict import Predict
    from promptopt.records import Example
    from promptopt.search.budget import Budget, Limits
    from promptopt.search.run import Run
    from promptopt.task.dataset import ConfirmSplit, DemoSplit, SearchSplit, Splits
    from promptopt.task.task import Task

    texts = [messages(i)[1]["content"] for i in range(calls)]
    examples = tuple(Example(f"e{i}", {"question": text}, text) for i, text in enumerate(texts))
    task = Task(
        "bench",
        Predict("question -> answer", instruction=SYSTEM),
        Splits(DemoSplit(()), SearchSplit(examples), ConfirmSplit(()), None),
        ExactMatch(),
        {"task": spec(url, concurrency)},
        cache="run",
    )
    with tempfile.TemporaryDirectory() as name, Run(Path(name) / "run", {"task": "bench"}, {}) as run:
        budget, meter = Budget(Limits(calls=10**9, tokens=10**12)), Meter()
        with open_models(task) as models, open_doors(task, Path(name), budget, meter, models) as doors:
            evaluator = Evaluator(
                task.program, task.metric, Session(doors), run.cells, None, doors["task"].concurrency, budget
            )
            default = task.program.default()
            warm = default.replace("instruction", "Warm up.", Origin("bench"))
            evaluator.evaluate([Ask(warm, WARM_UP)], task.splits.search)
            with Measured() as it:
                (trial,) = evaluator.evaluate([Ask(default)], task.splits.search).trials
            run.trial(trial)
        assert trial.mean == 1.0
        assert run.cells.count == meter.paid().calls == calls + WARM_UP
    return it


CLIENTS = {
    "AsyncOpenAI": (async_openai, "openai", HEAVY),
    "AsyncOpenAI/aiohttp": (async_openai_aiohttp, "openai", HEAVY),
    "dspy.LM threads": (dspy_threads, "dspy", HEAVY),
    "dspy.LM acall": (dspy_acall, "dspy", HEAVY),
    "aiohttp + orjson": (bare_aiohttp, "aiohttp", LIGHT),
    "promptopt backend": (backend, "aiohttp", LIGHT),
    "promptopt door": (door, "aiohttp", LIGHT),
    "promptopt run": (whole_run, "aiohttp", LIGHT),
}
BASE = "AsyncOpenAI"


def one(python, name, url, calls, concurrency):
    command = [python, __file__, "--client", name, "--url", url]
    command += ["--calls", str(calls), "--concurrency", str(concurrency)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def has(python, package):
    check = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", check]).returncode == 0


def compare(rounds=5, concurrency=64, latencies=(0.0, 100.0), dspy_python=None, share=1.0, log=None):
    """Every client at every latency: ``{"latency 0 ms": {client: {...}}}``; ``share`` of the usual number of calls."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))
    from openai_server import serving

    pythons = {
        name: dspy_python if dspy_python and package == "dspy" else sys.executable
        for name, (_, package, _) in CLIENTS.items()
    }
    missing = [name for name, (_, package, _) in CLIENTS.items() if not has(pythons[name], package)]
    out = {"concurrency": concurrency, "rounds": rounds, "left out, package missing": missing}
    for latency in latencies:
        figures = {name: [] for name in CLIENTS if name not in missing}
        with serving(latency_ms=latency) as server:
            for number in range(rounds):
                for name in figures:
                    calls = int((SLOW if latency else CLIENTS[name][2]) * share) // concurrency * concurrency
                    figures[name].append(one(pythons[name], name, server.base_url, calls, concurrency))
                    if log is not None:
                        print(f"latency {latency:g} ms, round {number + 1}: {name}", file=log)
        out[f"latency {latency:g} ms"] = summary(figures, latency, concurrency)
    return out


def summary(figures, latency, concurrency):
    def median(name, what):
        return statistics.median(row[what] for row in figures[name])

    rows = {}
    for name in figures:
        rate = median(name, "calls_per_s")
        rows[name] = {
            "calls_per_s": round(rate, 1),
            "least": round(min(row["calls_per_s"] for row in figures[name]), 1),
            "most": round(max(row["calls_per_s"] for row in figures[name]), 1),
            "cpu_ms_per_call": round(median(name, "cpu_ms_per_call"), 3),
        }
        if BASE in figures:
            rows[name][f"ratio to {BASE}"] = round(rate / median(BASE, "calls_per_s"), 2)
        if latency:
            rows[name]["share of ideal"] = round(rate / (concurrency / latency * 1000), 3)
    return rows


def table(result):
    lines = []
    for title, rows in result.items():
        if not isinstance(rows, dict):
            continue
        lines += [
            f"{title}, concurrency {result['concurrency']}, medians of {result['rounds']}",
            f"  {'':<22}{'calls/s':>9}{'least':>9}{'most':>9}{'ratio':>8}{'CPU ms':>9}{'of ideal':>10}",
        ]
        for name, row in rows.items():
            ideal = f"{row['share of ideal']:.1%}" if "share of ideal" in row else ""
            lines.append(
                f"  {name:<22}{row['calls_per_s']:>9.0f}{row['least']:>9.0f}{row['most']:>9.0f}"
                f"{row.get(f'ratio to {BASE}', float('nan')):>8.2f}{row['cpu_ms_per_call']:>9.3f}{ideal:>10}"
            )
    if left := result["left out, package missing"]:
        lines.append(f"left out, package missing: {', '.join(left)}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency-ms", type=float, action="append", help="may be given several times; default 0, 100")
    parser.add_argument("--dspy-python", help="an interpreter that has dspy")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of calls")
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--calls", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        it = CLIENTS[given.client][0](given.url, given.calls, given.concurrency)
        print(json.dumps({"calls_per_s": given.calls / it.wall, "cpu_ms_per_call": it.cpu / given.calls * 1e3}))
        return
    latencies = given.latency_ms or (0.0, 100.0)
    result = compare(given.rounds, given.concurrency, latencies, given.dspy_python, given.share, sys.stderr)
    print(table(result), file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
