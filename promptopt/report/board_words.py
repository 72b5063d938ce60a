"""What a leaderboard says in sentences, the same in the terminal, in Markdown and on the page."""

from __future__ import annotations

from promptopt.report.board import Board, Estimate, Level, Line
from promptopt.report.pages import count, percent, points


def headline(level: Level) -> str:
    """Who leads, and who cannot be told from it.

    A leader that is tied with the default program leads nothing.
    """
    if all_same(level):
        return "All score the same"
    if level.unit == "none":
        return "Nothing can be told apart: too few runs"
    leader = level.lines[0]
    if leader.is_default:
        return "No optimizer is better than the default program"
    # By pairs: of too many optimizers there are no letters.
    parted = {pair.other for pair in level.pairs if pair.one == leader.name and pair.beyond}
    tied = [line for line in level.lines[1:] if line.name not in parted]
    if not tied:
        return f"{short_name(leader.name)} wins"
    if any(line.is_default for line in tied):
        return "No optimizer can be told from the default program" if not _beaten(level) else "No single winner"
    if len(tied) == 1:
        return f"{short_name(leader.name)} leads; {short_name(tied[0].name)} cannot be told from it"
    return f"{short_name(leader.name)} leads; {len(tied)} others cannot be told from it"


def all_same(level: Level) -> bool:
    """Whether every optimizer scores on every task as the default program does."""
    return all(abs(score - task.default) < 1e-9 for task in level.matrix for score in task.scores)


def _beaten(level: Level) -> bool:
    return any(line.beyond > 0 for line in level.lines)


def lead(board: Board, level: Level) -> str:
    """What it rests on, in one or two sentences."""
    best = next(line for line in level.lines if not line.is_default)
    default = next(line for line in level.lines if line.is_default)
    what = "recommended prompts" if board.score == "recommended" else "best prompts found"
    if all_same(level):
        return (
            f"Every optimizer scores as the default program does on every task, {percent(default.score.mean)} in the "
            f"mean: {what}, measured on {level.split} examples, at {level.budget}."
        )
    if level.unit == "none":
        return (
            f"{short_name(best.name)} has the highest mean of all optimizers, {points(best.gain.mean)} points against "
            f"the default program, which scores {percent(default.score.mean)}; this may be chance."
        )
    return (
        f"{short_name(best.name)} gains {interval_points(best.gain)} points over the default program, which scores "
        f"{percent(default.score.mean)}: {what}, measured on {level.split} examples, at {level.budget}."
    )


def basis(level: Level) -> str:
    """What the noise is measured over, and so what the ranks speak of."""
    n = count(len(level.tasks), "task")
    if level.unit == "tasks":
        return (
            f"Intervals are over {n} (each the mean of its seeds): they speak of tasks like these. With few tasks they "
            "are wide, as they should be."
        )
    if level.unit == "seeds":
        return (
            f"Intervals are over the seeds of {n}: they speak of these tasks and their examples alone. From five tasks "
            "on a leaderboard speaks of tasks like its own."
        )
    return (
        f"No interval can be made of {count(level.blocks, 'run')} an optimizer on {n}: any order may be chance. Run "
        "more seeds, or more tasks."
    )


def short_name(name: str, most: int = 60) -> str:
    """A name as a headline or a head of a column has room for it."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def interval_points(value: Estimate) -> str:
    """A difference in points with its interval."""
    if value.low is None or value.high is None:
        return points(value.mean)
    return f"{points(value.mean)} [{points(value.low)}, {points(value.high)}]"


def interval_percent(value: Estimate) -> str:
    """A score in percent with its interval."""
    if value.low is None or value.high is None:
        return percent(value.mean)
    return f"{percent(value.mean)} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def against_default(line: Line, tasks: int) -> str:
    """On how many tasks it is better, cannot be told, is worse."""
    return "–" if line.is_default else f"{line.wins} / {tasks - line.wins - line.losses} / {line.losses}"


READING = (
    (
        "Rank",
        "The ranks that the optimizer may have. “1–4” says: nobody is surely better, and all others but three are "
        "surely worse. All rank intervals of a table hold at once in 95 % of leaderboards.",
    ),
    (
        "Ties",
        "Optimizers that share a letter cannot be told apart. Sharing none, they can. A tie is no proof that two are "
        "equal: more tasks may part them.",
    ),
    (
        "Score",
        "Mean over tasks on examples that no search has seen. Its interval is wide because tasks are of different "
        "difficulty; that difficulty is the same for all, so it does not blur who is better.",
    ),
    (
        "Gain",
        "Difference to the default program on the same tasks and seeds, with a 95 % interval by itself. The ranks look "
        "at all pairs at once and are more careful: a gain may lie above 0 by itself and yet be tied with the default.",
    ),
    (
        "Recommended",
        "Runs that recommend what they found instead of the default program: their own comparison with it, on their "
        "own examples, was as `promote` asks, which is better beyond noise unless the task says otherwise.",
    ),
    (
        "Better / unclear / worse",
        "Tasks on which the optimizer is better or worse than the default program beyond the noise of its seeds; of "
        "what is marked, at most 5 % is expected to be chance.",
    ),
    (
        "Calls, tokens, USD",
        "What a run was charged, over all roles, cache hits included: what it would cost anyone else.",
    ),
    (
        "Search scores flatter",
        "Curves and costs to reach a target are of search scores: the best of many on the examples it was chosen by. "
        "They show how fast a search finds something, not how good that is; the point with the bar is what was left of "
        "it on examples that the search did not see.",
    ),
)
"""How to read it, in plain words."""
