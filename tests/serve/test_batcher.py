"""When batches start, and who gets into them: on a clock that only moves when all wait."""

import asyncio
from concurrent.futures import Future

import pytest

pytest.importorskip("fastapi", reason="needs promptopt[serve]")

from promptopt.errors import ModelUnavailableError
from promptopt.lm.base import failed
from promptopt.records import Failure
from promptopt.serve.batcher import AsyncLane, Batcher, Lane, QueueFullError, StoppedError, Worker


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes at once when nothing is to be done, and when ``busy`` says so."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        inner = self._selector.select

        def select(timeout=None):
            self.now += timeout or 0.0
            return inner(0)

        self._selector.select = select

    def time(self):
        return self.now

    def busy(self, seconds):
        self.now += seconds


class Engine:
    """A worker whose batches take ``fixed + each · size`` seconds of the clock."""

    def __init__(self, fixed, each):
        self.fixed, self.each = fixed, each
        self.sizes = []

    def submit(self, job):
        future, loop = Future(), asyncio.get_running_loop()
        try:
            done = job()
        except Exception as error:
            loop.call_later(self.fixed, future.set_exception, error)
            return future
        self.sizes.append(len(done))
        loop.call_later(self.fixed + self.each * len(done), future.set_result, done)
        return future


def on_a_clock(main):
    loop = Clock()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()


def made(engine, most=64, limit=1000, wait=0.005, run=list):
    told = []
    batcher = Batcher(engine, limit, wait, lambda *what: told.append(what))
    lane = Lane("generate", run, most)
    batcher.add(lane)
    return batcher, lane, told


async def settled():
    for _ in range(10):
        await asyncio.sleep(0)


def pace(fixed, each, clients, most=64, seconds=5.0):
    """Answers a second of clients that ask again at once; to read or to send one costs the server, and the client,
    0.3 ms. And the sizes of the last batches."""
    engine, count, free = Engine(fixed, each), 0, 0.0

    async def main(loop):
        nonlocal count, free
        batcher, lane, _ = made(engine, most)

        async def client():
            nonlocal count, free
            while True:
                loop.busy(0.0003)
                await batcher.ask(lane, [1])
                count += 1
                loop.busy(0.0003)
                free = max(free, loop.time()) + 0.0003
                await asyncio.sleep(free - loop.time())

        tasks = [asyncio.ensure_future(client()) for _ in range(clients)]
        await asyncio.sleep(3)
        before, began = count, loop.time()
        await asyncio.sleep(seconds)
        found = (count - before) / (loop.time() - began)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(10)
        return found

    return on_a_clock(main), engine.sizes[len(engine.sizes) // 2 : -2]


def test_where_a_batch_costs_the_same_whatever_its_size_all_are_waited_for():
    found, sizes = pace(0.4, 0.0005, 64)
    assert set(sizes) == {64}
    assert found >= 0.9 * 64 / (0.4 + 0.0005 * 64)


def test_where_requests_cost_the_same_in_any_batch_the_model_never_waits():
    found, sizes = pace(0.0, 0.005, 64)
    assert found >= 0.97 / 0.005
    assert min(sizes) > 8


def test_with_twice_as_many_clients_as_fit_batches_are_full():
    found, sizes = pace(0.05, 0.003, 64, most=32)
    assert set(sizes) == {32}
    assert found >= 0.98 * 32 / (0.05 + 0.003 * 32)


def test_a_single_client_waits_for_nobody():
    found, _ = pace(0.01, 0.0, 1)
    assert found >= 0.9 / (0.01 + 0.0009), "5 ms of waiting would make it 0.65"


def test_the_first_batch_gathers_for_a_moment():
    async def main(loop):
        engine = Engine(1.0, 0.0)
        batcher, lane, told = made(engine)
        first = asyncio.ensure_future(batcher.ask(lane, ["a"]))
        await asyncio.sleep(0.003)
        second = asyncio.ensure_future(batcher.ask(lane, ["b", "c"]))
        assert await asyncio.gather(first, second) == [["a"], ["b", "c"]]
        assert engine.sizes == [3]
        assert told == [("generate", 3, pytest.approx(1.0))]
        assert loop.time() == pytest.approx(0.003 + 0.005 + 1.0, abs=0.002)

    on_a_clock(main)


def test_a_full_queue_takes_no_more_and_has_room_again_when_someone_leaves():
    async def main(_):
        batcher, lane, _ = made(Engine(1.0, 0.0), most=1, limit=3)
        running = asyncio.ensure_future(batcher.ask(lane, ["running"]))
        await settled()
        waiting = [asyncio.ensure_future(batcher.ask(lane, [name])) for name in "abc"]
        await settled()
        assert batcher.waiting == 3
        with pytest.raises(QueueFullError) as full:
            await batcher.ask(lane, ["d"])
        assert full.value.limit == 3
        waiting[0].cancel()
        await settled()
        assert batcher.waiting == 2
        with pytest.raises(QueueFullError):
            await batcher.ask(lane, ["d", "e"])
        assert await batcher.ask(lane, ["d"]) == ["d"]
        await asyncio.gather(running, *waiting[1:])
        assert batcher.waiting == batcher.unanswered == 0

    on_a_clock(main)


def test_who_left_before_the_start_is_not_begun():
    async def main(_):
        seen = []
        batcher, lane, _ = made(Engine(1.0, 0.0), most=2, run=lambda items: seen.extend(items) or items)
        first = asyncio.ensure_future(batcher.ask(lane, ["a", "b"]))
        await settled()
        gone, stays = (asyncio.ensure_future(batcher.ask(lane, [name])) for name in ("gone", "stays"))
        await settled()
        gone.cancel()
        await asyncio.gather(first, stays)
        assert seen == ["a", "b", "stays"]

    on_a_clock(main)


def test_the_kind_that_waits_longest_is_next():
    async def main(_):
        seen = []
        batcher, one, _ = made(Engine(1.0, 0.0), run=lambda items: seen.append("one") or items)
        other = Lane("score", lambda items: seen.append("other") or items, 8)
        batcher.add(other)
        asking = [asyncio.ensure_future(batcher.ask(one, [0]))]
        await asyncio.sleep(0.1)
        for lane in (other, one, other):
            asking.append(asyncio.ensure_future(batcher.ask(lane, [0])))
            await asyncio.sleep(0.1)
        await asyncio.gather(*asking)
        assert seen == ["one", "other", "one"]

    on_a_clock(main)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("on fire"), "RuntimeError: on fire"),
        (ModelUnavailableError("no such file"), "The model failed: no such file"),
    ],
)
def test_what_a_model_raises_becomes_a_failure_and_the_next_batch_runs(error, says):
    async def main(_):
        def run(items):
            if items == ["bad"]:
                raise error
            return items

        batcher, lane, _ = made(Engine(0.1, 0.0), run=run)
        (answer,) = await batcher.ask(lane, ["bad"])
        assert isinstance(answer, Failure)
        assert answer.kind == "server"
        assert says in answer.message
        assert await batcher.ask(lane, ["good"]) == ["good"]

    on_a_clock(main)


def test_too_few_answers_are_nobodys():
    async def main(_):
        batcher, lane, _ = made(Engine(0.1, 0.0), run=lambda items: items[:-1])
        answers = await batcher.ask(lane, ["a", "b"])
        assert all("expected 2 answers to 2 requests, got 1" in answer.message for answer in answers)

    on_a_clock(main)


def test_stopping_fails_what_waits_and_what_runs():
    async def main(_):
        batcher, lane, _ = made(Engine(1.0, 0.0), most=1)
        asking = [asyncio.ensure_future(batcher.ask(lane, [name])) for name in "abc"]
        await asyncio.sleep(0.5)
        batcher.stop()
        assert [type(result) for result in await asyncio.gather(*asking, return_exceptions=True)] == [StoppedError] * 3
        with pytest.raises(StoppedError):
            await batcher.ask(lane, ["d"])
        await asyncio.sleep(1)

    on_a_clock(main)


def test_a_backend_with_calls_of_its_own_gets_as_many_as_it_takes():
    async def main(_):
        running = most = 0
        begun = []

        async def call(item):
            nonlocal running, most
            begun.append(item)
            running += 1
            most = max(most, running)
            try:
                await asyncio.sleep(1)
            finally:
                running -= 1
            if item == "bad":
                raise failed("request", "no")
            return item

        batcher, _, told = made(Engine(0, 0))
        lane = AsyncLane("generate", call, 2)
        batcher.add(lane)
        gone = asyncio.ensure_future(batcher.ask(lane, ["gone"]))
        asking = asyncio.ensure_future(batcher.ask(lane, ["a", "bad", "c"]))
        await asyncio.sleep(0.5)
        gone.cancel()
        await settled()
        assert running == 2, "the place of one that left goes to the next at once"
        answers = await asking
        assert answers[0] == "a"
        assert answers[1] == Failure("request", "no")
        assert most == 2
        assert begun == ["gone", "a", "bad", "c"]
        assert len(told) == 3

    on_a_clock(main)


def test_the_thread_outlives_whatever_is_raised_in_it():
    worker = Worker()

    def leave():
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        worker.submit(leave).result(10)
    assert worker.submit(lambda: 7).result(10) == 7
    assert worker.close(10)
