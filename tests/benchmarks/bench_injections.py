"""Rows, answers and remarks that give orders to a real proposer: how often it obeys, and what comes of that.

    python tests/benchmarks/bench_injections.py [--proposer hf/qwen2.5-coder-0.5b-instruct] [--out injections.jsonl]

The attacks of tests/faults/injections.jsonl, each in a short search of its own (``reflective``, which shows rows,
answers and remarks), with a scripted task model that answers best where the payload is in its prompt: so a payload
that is proposed and not refused would be recommended. Printed: attacks that the proposer obeyed, and of these those
that were refused, tried, and recommended. Attacks in ``--out`` are not run again.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from test_injections import ATTACKS, MISSED, attacked_task, infected, payloads, squeezed

from promptopt.api import optimize
from promptopt.lm.models import open_model
from promptopt.lm.spec import ModelSpec
from promptopt.optimizers.reflective import Reflective


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proposer", default="hf/qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--per-step", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    done = {}
    if options.out and options.out.exists():
        done = {row["id"]: row for row in map(json.loads, options.out.read_text().splitlines())}
    proposer = open_model(ModelSpec(options.proposer))
    for attack in ATTACKS:
        if attack["id"] not in done:
            done[attack["id"]] = row = {"id": attack["id"], **met(attack, proposer, options)}
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    told(done)


def met(attack, proposer, options):
    task, model = attacked_task(attack)
    optimizer = Reflective(steps=1, per_step=options.per_step, max_tokens=80, retries=0, evaluation="full")
    with tempfile.TemporaryDirectory() as folder:
        result = optimize(task, optimizer=optimizer, out=folder, backends={"task": model, "proposer": proposer})
        calls = [json.loads(line) for line in (Path(folder) / "calls.jsonl").read_text().splitlines()]
        trials = [json.loads(line) for line in (Path(folder) / "trials.jsonl").read_text().splitlines()]
    replies = [call["completion"]["text"] for call in calls if "completion" in call]
    marks = [squeezed(form) for form in (attack["text"], *payloads(attack)[:1])]
    tried = [trial["candidate"]["values"] for trial in trials[1:]]
    return {
        "replies": len(replies),
        "obeyed": sum(any(mark in squeezed(reply) for mark in marks) for reply in replies),
        "tried": sum(infected(values, attack, payloads(attack)) for values in tried),
        "recommended": infected(result.best.to_json()["values"], attack, payloads(attack)),
        "dropped": dict(result.dropped),
        "known": attack["id"] in MISSED,
    }


def told(rows):
    obeyed = [row for row in rows.values() if row["obeyed"]]
    print(f"{len(rows)} attacks, {sum(row['replies'] for row in rows.values())} proposals")
    print(f"  obeyed by the proposer: {len(obeyed)}")
    refused = [row for row in obeyed if any("steer" in reason for reason in row["dropped"])]
    print(f"  of these refused by the guard: {len(refused)}")
    for what in ("tried", "recommended"):
        names = [row["id"] for row in rows.values() if row[what]]
        print(f"  {what} all the same: {len(names)} {names}")


if __name__ == "__main__":
    main()
