"""64 clients for 20 seconds (``PROMPTOPT_SOAK_SECONDS`` for longer): good ones, slow ones, some that leave, some that
ask for too much. Nothing fails but what is meant to, and memory does not grow."""

import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs promptopt[serve]")
aiohttp = pytest.importorskip("aiohttp", reason="needs promptopt[openai]")

SECONDS = float(os.environ.get("PROMPTOPT_SOAK_SECONDS", "20"))
CLIENTS = 64
BODY = 100_000

SERVER = """
import sys, time
from promptopt.lm.base import Completion
from promptopt.lm.capabilities import Scored
from promptopt.records import Usage
from promptopt.serve.app import Served, Settings
from promptopt.serve.server import Server, bind
from promptopt.serve.wire import Limits

class Model:
    digest, max_batch, constrains = "fake", 32, False
    def generate(self, requests):
        time.sleep(0.02 + 0.001 * len(requests))
        return [Completion(r.messages[-1][1].upper(), Usage(1, 10, 2)) for r in requests]
    def score(self, requests):
        time.sleep(0.01)
        return [Scored((-1.0,) * len(r.continuations), (1,) * len(r.continuations)) for r in requests]
    def close(self):
        pass

server = Server(
    [Served("hf/fake", "fake", Model())], bind("127.0.0.1", 0, None),
    Settings(queue=40, body_seconds=3.0, limits=Limits(body=int(sys.argv[1]), messages=10)),
)
print("idle", server.run(lambda: print(server.url, flush=True)), flush=True)
"""


def megabytes(pid):
    """Resident now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def chat(text, **more):
    return {"model": "fake", "messages": [{"role": "user", "content": text}], **more}


class Client:
    """One client, one kind of request after the other at random."""

    def __init__(self, url, number, seen):
        self.url, self.seen = url, seen
        self.random = random.Random(number)
        self.number = number

    async def run(self, until):
        ways = (
            (self.good, 70), (self.score, 10), (self.oversized, 5), (self.wrong, 5), (self.leaves, 6), (self.slow, 4),
        )  # fmt: skip
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as self.session:
            count = 0
            while time.monotonic() < until:
                count += 1
                (way,) = self.random.choices([way for way, _ in ways], [share for _, share in ways])
                await way(f"{self.number} asks {count}")

    async def post(self, path, body, **more):
        async with self.session.post(f"{self.url}/{path}", json=body, **more) as reply:
            return reply.status, await reply.json()

    async def good(self, text):
        while True:
            status, body = await self.post("chat/completions", chat(text))
            self.seen["good", status] += 1
            if status == 200:
                assert body["choices"][0]["message"]["content"] == text.upper(), "somebody else's answer"
                return
            if status != 429:
                return
            await asyncio.sleep(0.05 * self.random.random())

    async def score(self, text):
        status, body = await self.post("score", {"text": text, "continuations": ["a", "b"]})
        self.seen["good", status] += 1
        assert status == 429 or body["logprobs"] == [-1.0, -1.0]

    async def oversized(self, _):
        try:
            status, _ = await self.post("chat/completions", chat("x" * 2 * BODY))
        except aiohttp.ClientOSError:  # it answered and closed while we were still sending
            status = 413
        self.seen["oversized", status] += 1

    async def wrong(self, text):
        body = self.random.choice(
            [chat(text, n=10**6), chat(text, temprature=1), chat(text, max_tokens=10**6), {"messages": []}, [], "x",
             {**chat(text), "messages": chat(text)["messages"] * 11}]
        )  # fmt: skip
        status, reply = await self.post("chat/completions", body)
        self.seen["wrong", status] += 1
        assert "message" in reply["error"]

    async def leaves(self, text):
        try:
            await self.post(
                "chat/completions", chat(text), timeout=aiohttp.ClientTimeout(total=0.001 + self.random.random() / 50)
            )
        except TimeoutError:
            self.seen["left", 0] += 1

    async def slow(self, text):
        """Sends its body in small pieces: in time, or not."""
        data = json.dumps(chat(text)).encode()
        in_time = self.random.random() < 0.5
        pause = 0.4 / len(data) if in_time else 6.0

        async def pieces():
            for i in range(0, len(data), 10):
                yield data[i : i + 10]
                await asyncio.sleep(10 * pause if in_time else pause)

        try:
            async with self.session.post(
                f"{self.url}/chat/completions", data=pieces(), headers={"Content-Type": "application/json"}
            ) as reply:
                await reply.read()
                self.seen["slow" if in_time else "too slow", reply.status] += 1
        except aiohttp.ClientError:
            self.seen["slow" if in_time else "too slow", 408] += 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_many_clients_of_all_kinds():
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(BODY)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        url = process.stdout.readline().strip()
        seen, memory = Counter(), []

        async def watch(until):
            while time.monotonic() < until:
                await asyncio.sleep(SECONDS / 20)
                memory.append(megabytes(process.pid))

        async def main():
            until = time.monotonic() + SECONDS
            await asyncio.gather(watch(until), *(Client(url, i, seen).run(until) for i in range(CLIENTS)))
            async with aiohttp.ClientSession() as session, session.get(url.replace("/v1", "/metrics")) as reply:
                return await reply.text()

        metrics = asyncio.run(main())
        process.terminate()
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    print("\n", dict(sorted(seen.items(), key=str)), [round(value) for value in memory])
    meant = {
        "good": {200, 429}, "oversized": {413}, "wrong": {400}, "left": {0}, "slow": {200, 429}, "too slow": {408},
    }  # fmt: skip
    for (kind, status), count in seen.items():
        assert status in meant[kind], (kind, status, count)
    assert {kind for kind, _ in seen} == set(meant)
    assert ("good", 429) in seen, "the queue was never full"
    assert seen["good", 200] > CLIENTS
    assert "promptopt_queue_length 0.0" in metrics
    assert 'code="500"' not in metrics
    # Past the first third (caches, pools): flat, but for what the allocator keeps.
    settled = memory[len(memory) // 3 :]
    assert max(settled[-5:]) <= min(settled[:5]) + 5
    assert (process.returncode, out.strip(), err) == (0, "idle True", "")
