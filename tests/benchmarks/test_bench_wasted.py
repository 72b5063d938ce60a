"""Shares of wasted proposals, from made-up runs."""

import json
import runpy
from pathlib import Path

import pytest

main = runpy.run_path(str(Path(__file__).with_name("bench_wasted.py")))["main"]


def run(folder, name, notes=(), origins=(), dropped=None):
    folder.mkdir(parents=True)
    about = {"optimizer": {"name": name}, "limits": {"calls": 250}}
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "result.json").write_text(json.dumps({"candidates": len(origins), "dropped": dropped or {}}))
    trials = [{"candidate": {"id": str(i), "origin": {"note": note}}} for i, note in enumerate(origins)]
    lines = {"search": [{"kind": "proposals", **note} for note in notes], "trials": trials}
    for file, rows in lines.items():
        (folder / f"{file}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_what_was_made_and_never_tried_is_wasted_and_unreadable_critiques_are_told_apart(tmp_path, capsys):
    runs = tmp_path / "runs"
    half = {"asked": 8, "unusable": 2, "proposed": 4, "kept": 2}
    run(runs / "a", "abo", [half, half])
    run(runs / "b", "abo", [{"asked": 4, "unusable": 1, "proposed": 4, "kept": 4}])
    run(runs / "c", "opro", origins=["seed", "step 0", "step 1", "step 12"], dropped={"seen before": 1})
    run(runs / "d", "abo", origins=["seed"])  # no proposal: no share
    run(runs / "e", "random_search", origins=["drawn"], dropped={"seen before": 3})
    found = main([tmp_path])
    assert set(found) == {(250, "abo"), (250, "opro")}
    mean, _, many, unread = found[250, "abo"]
    assert (mean, many, unread) == (0.25, 2, 0.25)
    assert found[250, "opro"][::2] == (0.25, 1)
    assert "25" in capsys.readouterr().out


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="Expected folders of sweeps"):
        main([str(tmp_path)])
