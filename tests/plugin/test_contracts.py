"""What a package's author writes: the shipped contract classes over their own things."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from promptopt.integrations.tracking import track
from promptopt.lm.spec import ModelSpec
from promptopt.records import Example, Prediction
from promptopt.testing.backends import BackendContract
from promptopt.testing.metrics import MetricContract
from promptopt.testing.optimizers import OptimizerContract
from promptopt.testing.trackers import TrackerContract

# By its file: on sys.path its entry points would be found by all other tests of this process.
_found = importlib.util.spec_from_file_location(
    "promptopt_plugin_here", Path(__file__).parent / "promptopt_plugin" / "__init__.py"
)
plugin = sys.modules["promptopt_plugin_here"] = importlib.util.module_from_spec(_found)
_found.loader.exec_module(plugin)


class TestShout(OptimizerContract):
    def optimizer(self):
        return plugin.Shout(marks=2)


class TestLoud(MetricContract):
    example = Example("1", {"word": "river"}, "RIVER")
    right = Prediction({"answer": "RIVER"})
    wrong = Prediction({"answer": "river"})

    def metric(self):
        return plugin.Loud()


class TestParrot(BackendContract):
    def backend(self):
        return plugin.open_parrot(ModelSpec("parrot/green"))


class TestDiary(TrackerContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DIARY", str(tmp_path))

    def observer(self):
        return track(plugin.Diary(), "diary")

    def told(self, folder):
        lines = (folder.parent / f"{folder.name}.jsonl").read_text().splitlines()
        return [line["trial"] for line in map(json.loads, lines) if "trial" in line]
