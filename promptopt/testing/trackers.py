"""What every tracker promises, as a test class: inherit it, say which tracker, and run pytest.

class TestMine(TrackerContract):
    def observer(self):
        return track(Mine())

    def told(self, folder):
        return [...]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from promptopt.api import optimize
from promptopt.optimizers.random_search import RandomSearch
from promptopt.search.events import Event, Observer, TrialDone, all_of
from promptopt.search.result import Result
from promptopt.testing.toy import splits, toy

_INSTRUCTIONS = tuple(f"Say the right thing, way {number}." for number in range(6))


class TrackerContract:
    """Inherit and override ``observer`` and ``told``."""

    def observer(self) -> Observer:
        """A new observer that tells the tracker; the store is the same all through a test."""
        raise NotImplementedError

    def told(self, folder: Path) -> Sequence[int]:
        """Numbers of the trials that the tracker holds of the run in this folder, one as often as it is there."""
        raise NotImplementedError

    def run(self, folder: Path, stop_at: int | None = None, seed: int = 0) -> Result:
        """One run on the toy task, interrupted after trial ``stop_at``."""

        def stop(event: Event) -> None:
            if isinstance(event, TrialDone) and event.number == stop_at:
                raise KeyboardInterrupt

        task, model = toy(
            lambda text: (sum(text.encode()) % 89) / 100,
            splits=splits(demos=0, search=8, confirm=4, test=4),
            instructions=_INSTRUCTIONS,
            seed=seed,
        )
        observer = all_of(self.observer(), stop)
        return optimize(task, optimizer=RandomSearch(), out=folder, observer=observer, backends={"task": model})

    def test_every_trial_is_told_once(self, tmp_path: Path) -> None:
        result = self.run(tmp_path / "run")
        assert result.trials > 3
        assert list(self.told(tmp_path / "run")) == list(range(result.trials))

    def test_the_same_command_again_tells_nothing_more(self, tmp_path: Path) -> None:
        result = self.run(tmp_path / "run")
        self.run(tmp_path / "run")
        assert list(self.told(tmp_path / "run")) == list(range(result.trials))

    @pytest.mark.parametrize("stop_at", [0, 3])
    def test_an_interrupted_run_goes_on_where_it_was(self, tmp_path: Path, stop_at: int) -> None:
        with pytest.raises(KeyboardInterrupt):
            self.run(tmp_path / "run", stop_at)
        assert list(self.told(tmp_path / "run")) == list(range(stop_at + 1))
        result = self.run(tmp_path / "run")
        assert list(self.told(tmp_path / "run")) == list(range(result.trials))

    def test_two_runs_are_kept_apart(self, tmp_path: Path) -> None:
        first, second = self.run(tmp_path / "a"), self.run(tmp_path / "b", seed=1)
        assert list(self.told(tmp_path / "a")) == list(range(first.trials))
        assert list(self.told(tmp_path / "b")) == list(range(second.trials))

    def test_standard_output_is_left_alone(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.run(tmp_path / "run")
        assert capfd.readouterr().out == ""
