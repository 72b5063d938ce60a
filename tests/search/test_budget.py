"""Reserved before, never exceeded, and the same end whatever the timing."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptopt.errors import BudgetExhaustedError
from promptopt.lm.loop import run
from promptopt.records import Usage
from promptopt.search.budget import Budget, Limits


def spend(budget, costs, bounds, seed):
    """Every call in flight at once, finishing in random order; returns which were admitted."""
    rng = random.Random(seed)

    async def one(i):
        try:
            await budget.reserve("task", bounds[i])
        except BudgetExhaustedError:
            return False
        for _ in range(rng.randrange(5)):
            await asyncio.sleep(0)
        budget.settle("task", bounds[i], costs[i])
        return True

    async def everyone():
        return await asyncio.gather(*(one(i) for i in range(len(costs))))

    return run(everyone())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30),
    st.integers(0, 600),
    st.integers(0, 1000),
)
def test_tokens_are_never_exceeded_and_timing_does_not_matter(calls, limit, seed):
    costs = [Usage(1, cost, 0) for cost, _ in calls]
    bounds = [Usage(1, cost + slack, 0) for cost, slack in calls]
    ends = []
    for timing in (seed, seed + 1):
        budget = Budget(Limits(tokens=limit))
        admitted = spend(budget, costs, bounds, timing)
        assert budget.used.tokens <= limit
        assert budget.used.tokens == sum(c.tokens for c, ok in zip(costs, admitted, strict=True) if ok)
        ends.append(admitted)
    assert ends[0] == ends[1]
    assert ends[0] == sorted(ends[0], reverse=True)  # a prefix: nothing slips through after the end


@pytest.mark.parametrize("limit", [0, 1, 7])
def test_calls_are_counted_exactly(limit):
    budget = Budget(Limits(calls=limit))
    admitted = spend(budget, [Usage(1)] * 20, [Usage(1)] * 20, 0)
    assert sum(admitted) == limit
    assert budget.used.calls == limit


def test_what_is_held_for_later_is_not_spent_now():
    budget = Budget(Limits(calls=10))
    budget.hold(Usage(calls=4))
    assert sum(spend(budget, [Usage(1)] * 10, [Usage(1)] * 10, 0)) == 6
    budget.hold(Usage())
    assert sum(spend(budget, [Usage(1)] * 10, [Usage(1)] * 10, 0)) == 4


def test_dollars_and_minutes_end_it_too():
    budget = Budget(Limits(usd=0.10))
    assert sum(spend(budget, [Usage(1, usd=0.03)] * 5, [Usage(1, usd=0.03)] * 5, 0)) == 3
    now = [0.0]
    timed = Budget(Limits(minutes=1), clock=lambda: now[0])
    assert sum(spend(timed, [Usage(1)], [Usage(1)], 0)) == 1
    now[0] = 61.0
    assert sum(spend(timed, [Usage(1)], [Usage(1)], 0)) == 0


def test_minutes_of_earlier_sittings_count():
    now = [0.0]
    budget = Budget(Limits(minutes=1), clock=lambda: now[0], spent_before=59.5)
    now[0] = 1.0
    with pytest.raises(BudgetExhaustedError, match="1 minutes"):
        run(budget.reserve("task", Usage(1)))


def test_a_cancelled_waiter_does_not_block_the_queue():
    async def main():
        budget = Budget(Limits(tokens=10))
        await budget.reserve("task", Usage(1, 8))
        waiting = asyncio.create_task(budget.reserve("task", Usage(1, 8)))
        behind = asyncio.create_task(budget.reserve("task", Usage(1, 2)))
        await asyncio.sleep(0)
        waiting.cancel()
        budget.settle("task", Usage(1, 8), Usage(1, 8))
        await behind
        return budget.used.tokens

    assert run(main()) == 8


def test_recorded_cells_are_charged_at_once():
    budget = Budget(Limits(calls=3))
    budget.take({"task": Usage(2), "judge": Usage(1)})
    assert (budget.used.calls, budget.by_role["judge"].calls) == (3, 1)
    with pytest.raises(BudgetExhaustedError, match="3 calls"):
        budget.take({"task": Usage(1)})


def test_left_says_what_this_phase_may_still_spend():
    budget = Budget(Limits(calls=10, tokens=100))
    budget.take({"task": Usage(2, 30)})
    budget.hold(Usage(3, 20))
    assert budget.left() == {"calls": 5, "tokens": 50}
