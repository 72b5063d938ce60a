"""The leaderboard's page can be drawn of few runs, too."""

from dataclasses import replace

import pytest

from promptopt.report.board_page import _Axis, board_page
from promptopt.report.leaderboard import leaderboard


def test_of_two_tasks_with_very_different_gains(simulated):
    rows = simulated({"opro": 0.1, "ape": 0.1}, tasks=2, seeds=1, budgets=(600,))
    rows = [
        replace(row, curve=((60, 1, 0.0, 0.1, 60), (99, 2, 0.0, 0.1 + 0.9 * int(row.task[-1]), 60))) for row in rows
    ]
    board = leaderboard(rows)
    assert board_page(board).count("<h1>") == 1
    for curves in board.levels[0].curves:
        for line in curves.lines:
            assert -1 <= min(line.low) <= max(line.high) <= 1


@pytest.mark.parametrize("widest", [0.0, 0.004, 0.3, 1.0, 9.0, 25.4])
def test_an_axis_has_a_few_ticks_whatever_is_on_it(widest):
    axis = _Axis.of([-widest, 0.0, widest])
    assert len(axis.ticks) <= 6
    assert all(0 <= axis.at(tick) <= 200 for tick in axis.ticks)
