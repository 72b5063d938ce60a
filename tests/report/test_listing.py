"""The runs below a folder: what each is, however damaged, and what is read again."""

import fcntl
import json
import os
import shutil
import time

import pytest

from promptopt.errors import ConfigError
from promptopt.report.listing import Listing
from promptopt.report.rows import ROWS


def states(folder):
    return {each.path: each.state for each in Listing(folder).runs()}


def old(path, seconds=3600):
    for each in path.rglob("*"):
        os.utime(each, (time.time() - seconds, time.time() - seconds))


def test_a_finished_run_has_its_figures(folder):
    (found,) = Listing(folder).runs()
    result = json.loads((folder / "one" / "result.json").read_text())
    compared = result["test"] or result["confirm"] or {"default": result["test_default"]}
    assert (found.path, found.state, found.verdict) == ("one", "finished", result["verdict"])
    assert found.default == compared["default"]["mean"]
    assert found.calls == sum(usage[0] for usage in result["charged"].values()) > 0
    assert found.seconds == result["seconds"]


def test_newest_first_and_below_one_another(folder):
    shutil.copytree(folder / "one", folder / "group" / "deep" / "two")
    old(folder / "one")
    assert [each.path for each in Listing(folder).runs()] == ["group/deep/two", "one"]


def test_a_run_that_is_the_folder_itself(folder):
    (found,) = Listing(folder / "one").runs()
    assert (found.path, found.name, found.state) == ("", ".", "finished")


def test_without_a_result_it_goes_on_as_long_as_it_is_written_to(folder):
    (folder / "one" / "result.json").unlink()
    assert states(folder) == {"one": "going on"}
    old(folder)
    assert states(folder) == {"one": "stopped"}


def test_one_that_was_interrupted_has_stopped_at_once(folder):
    (folder / "one" / "result.json").unlink()
    with (folder / "one" / "events.jsonl").open("a") as file:
        file.write('{"event": "Interrupted", "seconds": 1.0, "why": "Ctrl-C"}\n')
    assert states(folder) == {"one": "stopped"}


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="needs a system that tells who holds a lock")
def test_one_that_is_held_goes_on_however_long_it_is_quiet(folder):
    (folder / "one" / "result.json").unlink()
    old(folder)
    with (folder / "one" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        old(folder)
        assert states(folder) == {"one": "going on"}
    assert states(folder) == {"one": "stopped"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", ""),
        ("run.json", "[]"),
        ("run.json", '{"task": 1, "optimizer": 2}'),
        ("result.json", "{"),
        ("result.json", '{"verdict": "improved"}'),
    ],
)
def test_damage_is_listed_with_its_place_and_stops_nobody(folder, name, text):
    shutil.copytree(folder / "one", folder / "two")
    (folder / "two" / name).write_text(text)
    found = {each.path: each for each in Listing(folder).runs()}
    assert found["one"].state == "finished"
    assert found["two"].state == "damaged"
    assert found["two"].note
    assert str(folder) not in found["two"].note


def test_a_result_of_other_types_is_damage(folder):
    path = folder / "one" / "result.json"
    for key, value in (("charged", []), ("charged", {"task": 1}), ("test", 1), ("seconds", None), ("confirm", [])):
        result = json.loads(path.read_text())
        path.write_text(json.dumps({**result, "test": result["test"] if key == "charged" else None, key: value}))
        assert states(folder)["one"] in ("damaged", "finished")
        path.write_text(json.dumps(result))


def test_folders_that_are_no_runs_are_told_apart(folder):
    (folder / "notes").mkdir()
    (folder / "refined").mkdir()
    (folder / "refined" / "run.json").write_text('{"refine": {}, "task": ""}')
    (folder / "sweep" / "cells").mkdir(parents=True)
    (folder / "sweep" / ROWS).write_text("")
    shutil.copytree(folder / "one", folder / "sweep" / "cells" / "a")
    found = {each.path: each for each in Listing(folder).runs()}
    assert {path: each.state for path, each in found.items()} == {
        "one": "finished",
        "notes": "other",
        "refined": "other",
        "sweep": "sweep",
        "sweep/cells/a": "finished",
    }
    assert "refine" in found["refined"].note
    listing = Listing(folder)
    assert listing.sources(listing.runs()) == [folder / "sweep" / ROWS, folder / "one"]


def test_links_are_not_followed(folder, tmp_path):
    outside = tmp_path / "outside"
    shutil.copytree(folder / "one", outside)
    (folder / "linked").symlink_to(outside, target_is_directory=True)
    shutil.copytree(folder / "one", folder / "two")
    (folder / "two" / "trials.jsonl").unlink()
    (folder / "two" / "trials.jsonl").symlink_to(outside / "trials.jsonl")
    (folder / "three").mkdir()
    (folder / "three" / "run.json").symlink_to(outside / "run.json")
    found = {each.path: each for each in Listing(folder).runs()}
    assert {path: each.state for path, each in found.items()} == {
        "one": "finished",
        "two": "damaged",
        "three": "damaged",
    }
    assert "trials.jsonl is a link" in found["two"].note


def test_what_did_not_change_is_not_read_again_and_what_did_is(folder):
    listing = Listing(folder)
    (first,) = listing.runs()
    assert listing.runs()[0] is first
    result = json.loads((folder / "one" / "result.json").read_text())
    (folder / "one" / "result.json").write_text(json.dumps({**result, "seconds": 4711.0}))
    assert listing.runs()[0].seconds == 4711.0
    shutil.rmtree(folder / "one")
    assert listing.runs() == []


def test_names_that_are_no_text(folder):
    try:
        (folder / "one").rename(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe"))
    except OSError:
        pytest.skip("this file system takes names of text alone")
    (found,) = Listing(folder).runs()
    assert found.state == "finished"
    assert found.name == "\ufffd\ufffd"


def test_no_such_folder(tmp_path):
    with pytest.raises(ConfigError, match="Expected a folder of runs"):
        Listing(tmp_path / "nope")


def test_a_thousand_runs_are_listed_quickly(folder):
    for number in range(1000):
        made = folder / f"r{number}"
        made.mkdir()
        for name in ("run.json", "result.json"):
            os.link(folder / "one" / name, made / name)
    listing = Listing(folder)
    start = time.process_time()
    assert len(listing.runs()) == 1001
    assert time.process_time() - start < 5
    start = time.process_time()
    listing.runs()
    assert time.process_time() - start < 1
