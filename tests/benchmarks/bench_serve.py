"""Requests a second of a served engine against the same engine in this process, with 64 clients, as a ratio.

    python tests/benchmarks/bench_serve.py [--seconds 20] [--clients 64] [--model hf/smollm2-135m-instruct]

The engine is a fake one by default: a batch takes some seconds and some more for each request, and leaves the processor
free, as a GPU does. In process, its clients ask through the door that runs use; served, they are the backend
``openai/`` in a process of its own. The two are measured in turns, and medians reported. Ratios compare across
machines, unless others keep this one busy: then what passes between two processes waits for a turn.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import threading
import time

from promptopt.lm.base import Completion, Request
from promptopt.lm.door import Door
from promptopt.lm.models import open_model
from promptopt.lm.openai import OpenAIBackend
from promptopt.lm.spec import ModelSpec
from promptopt.records import Usage
from promptopt.serve.app import Served, Settings
from promptopt.serve.server import Server, bind

WARM_UP = 2.0
# Seconds of a batch, of a request, and the largest batch: a CPU, a GPU, more clients than fit, and two hard cases, in
# which a batch costs about what 64 HTTP requests do.
ENGINES = ((0.5, 0.02, 64), (0.4, 0.0005, 64), (0.05, 0.003, 32), (0.05, 0.003, 64), (0.0, 0.005, 64))


class Engine:
    """A model that takes its time."""

    digest = "fake"
    constrains = False

    def __init__(self, fixed=0.05, each=0.003, max_batch=64):
        self.fixed, self.each, self.max_batch = fixed, each, max_batch
        self.sizes = []

    def generate(self, requests):
        self.sizes.append(len(requests))
        time.sleep(self.fixed + self.each * len(requests))
        return [Completion(request.messages[-1][1].upper(), Usage(1, 20, 5)) for request in requests]

    def close(self):
        """Nothing to free."""


def request(worker, number):
    return Request((("system", "Answer with one short line."), ("user", f"question {worker} of {number}")), 16, 0.0)


async def loaded(ask, clients, seconds):
    """Requests a second, each client asking again as soon as it is answered; after a warm-up."""
    counts, over = [0] * clients, False

    async def client(worker):
        number = 0
        while not over:
            await ask(request(worker, number))
            counts[worker] += 1
            number += 1

    tasks = [asyncio.ensure_future(client(worker)) for worker in range(clients)]
    await asyncio.sleep(WARM_UP)
    before, began = sum(counts), time.perf_counter()
    await asyncio.sleep(seconds)
    pace = (sum(counts) - before) / (time.perf_counter() - began)
    over = True
    await asyncio.gather(*tasks)
    return pace


def in_process(model, clients, seconds):
    return asyncio.run(loaded(Door.plain(model).complete, clients, seconds))


def served(model, clients, seconds, **settings):
    """The same through a server in this process and clients in another."""
    server = Server([Served("hf/fake", "fake", model)], bind("127.0.0.1", 0, None), Settings(**settings))
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(ready.set,))
    thread.start()
    assert ready.wait(600)
    try:
        command = [sys.executable, __file__, "--client", server.url, "--clients", clients, "--seconds", seconds]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
        return float(done.stdout)
    finally:
        server.stop()
        thread.join()


def client(url, clients, seconds):
    async def main():
        backend = OpenAIBackend(ModelSpec("openai/fake", base_url=url, concurrency=clients, timeout=600))
        try:
            return await loaded(backend.complete, clients, seconds)
        finally:
            await backend.aclose()

    return asyncio.run(main())


def compare(make, clients=64, seconds=20.0, rounds=3, **settings):
    """Medians over rounds that alternate."""
    here, there = [], []
    for _ in range(rounds):
        here.append(in_process(make(), clients, seconds / rounds))
        there.append(served(make(), clients, seconds / rounds, **settings))
    ratio = statistics.median(there) / statistics.median(here)
    return {
        "clients": clients,
        "seconds": seconds,
        "in process: requests/s": round(statistics.median(here), 1),
        "served: requests/s": round(statistics.median(there), 1),
        "ratio": round(ratio, 3),
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the two; 120 for the long run")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", help="a real one instead of the fake engines")
    parser.add_argument("--client", metavar="URL", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.client:
        print(client(chosen.client, chosen.clients, chosen.seconds))
        return None
    made = {}
    if chosen.model:
        made[chosen.model] = lambda: open_model(ModelSpec(chosen.model))
    else:
        for fixed, each, most in ENGINES:
            name = f"fake: {fixed * 1e3:g} ms a batch + {each * 1e3:g} ms a request, batches of {most}"
            made[name] = lambda fixed=fixed, each=each, most=most: Engine(fixed, each, most)
    out = {name: compare(make, chosen.clients, chosen.seconds, chosen.rounds) for name, make in made.items()}
    print(json.dumps(out, indent=1))
    return out


if __name__ == "__main__":
    main()
