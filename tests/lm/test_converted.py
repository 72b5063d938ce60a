"""The quick form of a model: whole or not there, of its source or made anew."""

import os
import shutil
import time

import pytest

from promptopt.errors import StorageError
from promptopt.lm.converted import Converted

SOURCE = "ab" * 32


def save(folder):
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")


def made(tmp_path, sha256=SOURCE, variant="bfloat16", maker="maker 1"):
    return Converted(tmp_path, sha256, variant, maker)


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "converted").iterdir())


def test_it_is_there_once_it_is_made_and_nothing_else(tmp_path):
    one = made(tmp_path)
    assert not one.whole
    one.make(10, save)
    assert made(tmp_path).whole
    assert (one.path / "model.safetensors").read_bytes() == b"weights"
    assert left(tmp_path) == [f"{SOURCE[:16]}-bfloat16"]
    one.remove()
    assert not one.whole
    assert left(tmp_path) == []


def test_another_source_version_or_format_does_not_use_it(tmp_path):
    made(tmp_path).make(10, save)
    assert not made(tmp_path, sha256=SOURCE[:16] + "0" * 48).whole, "the whole digest is compared"
    assert not made(tmp_path, variant="float32").whole
    newer = made(tmp_path, maker="maker 2")
    assert not newer.whole
    newer.make(10, save)
    assert newer.whole
    assert len(left(tmp_path)) == 1


@pytest.mark.parametrize("harm", ["cut", "gone", "more", "note"])
def test_a_damaged_one_is_not_used_and_made_anew(tmp_path, harm):
    one = made(tmp_path)
    one.make(10, save)
    if harm == "cut":
        (one.path / "model.safetensors").write_bytes(b"weigh")
    elif harm == "gone":
        (one.path / "config.json").unlink()
    elif harm == "more":
        (one.path / "pytorch_model.bin").write_bytes(b"x")
    else:
        (one.path / "source.json").write_text("{")
    assert not one.whole
    one.make(10, save)
    assert one.whole


def test_one_that_fails_half_way_leaves_nothing(tmp_path):
    def full(folder):
        save(folder)
        raise OSError(28, "No space left on device")

    one = made(tmp_path)
    with pytest.raises(StorageError, match=r"No space left on device.*PROMPTOPT_MODELS"):
        one.make(10, full)
    assert not one.whole
    assert left(tmp_path) == []


def test_no_room_is_told_before_anything_is_written(tmp_path):
    room = shutil.disk_usage(tmp_path).free
    with pytest.raises(StorageError, match=r"MB of free disk in .*converted, got .* MB.*PROMPTOPT_MODELS"):
        made(tmp_path).make(2 * room, lambda folder: pytest.fail("asked to write"))
    assert left(tmp_path) == []


def test_another_process_that_was_faster_wins(tmp_path):
    other = made(tmp_path)

    def slow(folder):
        other.make(10, save)
        raise OSError("the folder is gone")

    one = made(tmp_path)
    one.make(10, slow)
    assert one.whole


def test_what_killed_processes_left_goes_when_it_is_old(tmp_path):
    one = made(tmp_path)
    folder = tmp_path / "converted"
    (folder / f".{one.path.name}.0000").mkdir(parents=True)
    (folder / f".{one.path.name}.1111").mkdir()
    old = time.time() - 2 * 24 * 3600
    os.utime(folder / f".{one.path.name}.0000", (old, old))
    one.make(10, save)
    assert left(tmp_path) == [f".{one.path.name}.1111", one.path.name], "a young one may be another process at work"


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "converted").write_text("a file stands where the folder should be")
    with pytest.raises(StorageError, match="Cannot write"):
        made(tmp_path).make(10, save)
