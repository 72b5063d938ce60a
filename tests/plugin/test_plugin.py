"""A package that promptopt has never heard of adds an optimizer, a metric and a backend."""

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, sys
from promptopt.api import optimize
result = optimize(sys.argv[1], out=sys.argv[2])
print(json.dumps([result.verdict, result.best.text("instruction")]))
"""


def run(tmp_path, optimizer):
    words = [{"word": f"word{chr(97 + i // 26)}{chr(97 + i % 26)}", "answer": "x"} for i in range(200)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in words))
    (tmp_path / "task.yaml").write_text(
        "program: {input: word, output: answer, instruction: say it}\n"
        "data: {train: data.jsonl, input: word, target: answer}\n"
        "splits: {demos: 10, search: 40, confirm: 40, test: 40}\n"
        "metric: loud\nmodels: {task: parrot/green}\ncache: run\n"
        f"optimizer: {optimizer}\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "task.yaml"), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_entry_points_are_enough(tmp_path):
    done = run(tmp_path, "{name: shout, marks: 3}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["improved", "SAY IT!!!"]


def test_its_settings_are_checked_like_ours(tmp_path):
    done = run(tmp_path, "{name: shout, mark: 3}")
    assert "mark" in done.stderr.splitlines()[-1] or "marks" in done.stderr
    assert "task.yaml:7" in done.stderr
