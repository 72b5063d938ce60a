"""Any optimizer with any fidelity: a search that proposes, and a schedule that says how many cells each proposal gets.

The search inside asks for whole candidates and is told about them once the schedule has decided: those that lost early
come with the few cells they got, so a search compares by ``adjusted_mean`` and not by the bare mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from promptopt.evaluate.cells import Trial
from promptopt.evaluate.fidelity import Fidelity, Full, Setting, Table, Want, fidelity
from promptopt.program.params import Candidate
from promptopt.search.optimizer import Ask, Context, Search, believed


def scheduled(search: Search, setting: Setting | Fidelity, context: Context) -> Search:
    """The search, with its candidates evaluated as the setting says.

    Args:
        search: asks for whole candidates (``n`` and ``places`` of its asks are not looked at).
        setting: a fidelity or the name of one; ``full`` leaves the search as it is.
        context: of the search; its baseline is the schedule's first arm.

    Raises:
        ConfigError: no such fidelity, or a setting of it is wrong.
    """
    chosen = fidelity(setting)
    return search if isinstance(chosen, Full) else _Scheduled(search, chosen, context)


class _Scheduled:
    def __init__(self, search: Search, chosen: Fidelity, context: Context) -> None:
        self._search = search
        table = Table(context.search_size)
        table.add(1)
        table.put(0, np.arange(table.size), _scores(context.baseline))
        self._table = table
        self._schedule = chosen.schedule(table, context.seeds.rng("evaluation"))
        self._arms: dict[Candidate, int] = {context.default: 0}
        self._candidates = [context.default]
        self._trials: dict[int, Trial] = {0: context.baseline}
        self._round: list[int] = []
        self._wanted: list[Want] = []

    def ask(self) -> Sequence[Ask]:
        while True:
            self._wanted = self._schedule.wants()
            if self._wanted:
                return [self._ask(want) for want in self._wanted]
            if self._round:
                told = [self._trials[arm] for arm in self._round]
                self._round = []
                self._search.tell(told)
            asks = self._search.ask()
            if not asks:
                return []
            new = list(dict.fromkeys(ask.candidate for ask in asks if ask.candidate not in self._arms))
            for candidate in new:
                self._arms[candidate] = len(self._candidates)
                self._candidates.append(candidate)
            self._round = [self._arms[ask.candidate] for ask in asks]
            if new:
                self._schedule.arrive(len(new))

    def tell(self, trials: Sequence[Trial]) -> None:
        for want, trial in zip(self._wanted, trials, strict=False):  # fewer when the budget ended
            self._trials[want.arm] = trial
            # A trial has all cells of its candidate, by place; the new ones among them are news to the schedule.
            places = _places(self._table, want)
            fresh = np.isin(places, want.places)
            by_place = dict(zip(places[fresh].tolist(), _scores(trial)[fresh].tolist(), strict=True))
            self._schedule.tell(want.arm, want.places, np.array([by_place[int(place)] for place in want.places]))

    def believed(self) -> Mapping[str, float]:
        """Of the search inside."""
        return believed(self._search)

    def _ask(self, want: Want) -> Ask:
        # All its cells, so that one trial says all that is known; those that it has are not paid for again.
        return Ask(self._candidates[want.arm], places=tuple(_places(self._table, want).tolist()))


def _places(table: Table, want: Want) -> np.typing.NDArray[np.int64]:
    return np.union1d(np.flatnonzero(table.asked[want.arm]), want.places)


def _scores(trial: Trial) -> np.typing.NDArray[np.float64]:
    return np.array([np.nan if score is None else score for score in trial.scores], dtype=np.float64)
