"""Whole lines or nothing."""

import os
import resource
import subprocess
import sys

import pytest

from promptopt.errors import RunError, RunLockedError, StorageError
from promptopt.evaluate.cells import Cell, Key
from promptopt.records import Failure, Usage
from promptopt.search.journal import Cells, JsonLines
from promptopt.search.lock import FolderLock

CELLS = [
    Cell(Key("c", "e1"), 1.0, {"answer": "ä\n"}, usage={"task": Usage(1, 2, 3)}),
    Cell(Key("c", "e2"), None, failure=Failure("parse", "no number", "dunno"), usage={"task": Usage(2)}),
    Cell(Key("c", "e1", 1), 0.5, {"answer": 3}, feedback="close", constrained=True),
]


_open = []


@pytest.fixture(autouse=True)
def _closed():
    yield
    while _open:
        _open.pop().close()


def lines(path):
    _open.append(JsonLines(path))
    return _open[-1]


def written(path):
    cells = Cells(lines(path))
    for cell in CELLS:
        cells._waiting.append(cell)  # put() needs a running loop; what is tested here is flush()
    cells.flush()
    return cells


def test_cells_come_back_as_they_were(tmp_path):
    written(tmp_path / "cells.jsonl")
    again = Cells(lines(tmp_path / "cells.jsonl"))
    assert [again.get(cell.key) for cell in CELLS] == CELLS
    assert again.count == 3
    assert again.get(Key("c", "nowhere")) is None


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_broken_tail_is_cut_and_the_rest_is_kept(tmp_path, cut):
    path = tmp_path / "cells.jsonl"
    written(path)
    os.truncate(path, path.stat().st_size - cut)
    again = Cells(lines(path))
    assert again.count == 2
    assert path.read_bytes().endswith(b"\n")


def test_a_tail_of_garbage_without_newline_is_cut(tmp_path):
    path = tmp_path / "cells.jsonl"
    written(path)
    with path.open("ab") as file:
        file.write(b"\x00" * 200_000)
    assert Cells(lines(path)).count == 3


def test_damage_in_the_middle_is_refused_with_its_line(tmp_path):
    path = tmp_path / "cells.jsonl"
    written(path)
    parts = path.read_bytes().split(b"\n")
    parts[1] = parts[1][:10]
    path.write_bytes(b"\n".join(parts))
    with pytest.raises(RunError, match=r"cells\.jsonl:2"):
        Cells(lines(path))


def test_the_newest_line_of_a_cell_counts(tmp_path):
    path = tmp_path / "cells.jsonl"
    cells = written(path)
    cells.forget(CELLS[0].key)
    assert cells.get(CELLS[0].key) is None
    cells._waiting.append(Cell(CELLS[0].key, 0.25))
    cells.flush()
    assert Cells(lines(path)).get(CELLS[0].key).score == 0.25


def test_a_full_disk_leaves_whole_lines(tmp_path):
    program = (
        "import sys, resource, signal, pathlib\n"
        "from promptopt.search.journal import JsonLines\n"
        "from promptopt.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "file = JsonLines(pathlib.Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    for i in range(100): file.append(b'{\"line\": 123456789012345678901234567890}\\n')\n"
        "except StorageError as error: print(error)\n"
    )
    path = tmp_path / "x.jsonl"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert "Everything before is on disk" in done.stdout
    data = path.read_bytes()
    assert data.endswith(b"}\n")
    assert 900 < len(data) <= 1000
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_folder_that_is_a_file_is_reported(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(StorageError, match="Nothing was changed"):
        JsonLines(tmp_path / "f" / "cells.jsonl")


def test_a_second_writer_is_told_who_the_first_is(tmp_path):
    with FolderLock(tmp_path), pytest.raises(RunLockedError, match=f"pid {os.getpid()}"), FolderLock(tmp_path):
        pass
    with FolderLock(tmp_path):
        pass  # free again


def test_a_lock_dies_with_its_process(tmp_path):
    program = (
        "import sys, os, pathlib\n"
        "from promptopt.search.lock import FolderLock\n"
        "FolderLock(pathlib.Path(sys.argv[1])).__enter__()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    with FolderLock(tmp_path):
        pass
