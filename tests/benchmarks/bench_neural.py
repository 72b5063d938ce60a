"""Widths of many candidates at once, beside the way of the papers' code: time, memory, and that both say the same.

    python tests/benchmarks/bench_neural.py [--candidates 10000] [--wide 100000] [--tuples 100000]

1. NeuralUCB at INSTINCT's size, d = 5120, one hidden layer of 100, P = 512,201 parameters, diagonal form in both ways.
   Theirs: the gradient of every candidate by autograd (``torch.func.vmap(grad)``), the N × P float64 matrix in chunks
   of 1,000 candidates, which is what a round of their code holds; then Σ_p λ·g_p²/U_p. Ours: two matrix products a
   layer.
   The whole N × P matrix of 10⁴ candidates is 41 GB and fits no small machine, so theirs is timed over ``--chunks`` of
   them and its time scaled up to N (each chunk costs the same), its memory is that of one chunk, and that of the whole
   matrix is arithmetic. The full form has no counterpart: it would need P × P.
2. One round over ``--wide`` candidates of 768 numbers, by every surrogate, after 165 observed points; seconds of the
   belief alone and of the fit.
3. The filter by optimal transport over ``--tuples`` tuples of 5 from a pool of 100, 20 examples; beside POT's
   ``ot.emd2``, one tuple after another, over 2,000 of them and scaled up, where POT is installed (``pip install pot``).

Every way of 1 runs in a process of its own; memory is the most that was resident, of all and above what it was before
the belief was asked for, inputs and libraries in. Do nothing else on the machine meanwhile.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

LAM = 0.1
SEEN = 165
CHUNK = 1000
AGREE = 64  # candidates that both ways are compared on


def kilobytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fitted(width, hidden, form, steps=20):
    """A network after a few steps: how long they take is not what is measured."""
    from promptopt.surrogate.neural_ucb import NeuralSettings, NeuralUCB

    rng = np.random.default_rng(0)
    x = rng.normal(size=(SEEN, width))
    model = NeuralUCB(width, NeuralSettings(hidden=hidden, start="normal", steps=steps, lam=LAM, form=form))
    model.fit(x, 1 / (1 + np.exp(-x[:, 0])))
    return model


def widths_by_gradients(model, inputs, rows=CHUNK):
    """σ the diagonal way as the papers' code has it: every gradient is made and held, a chunk at a time."""
    import torch
    from torch.func import grad, vmap

    names = [part for layer in model._layers for part in layer]
    # Their U starts at λ and grows by g∘g of each point; here of all that were observed.
    u = torch.cat([part.flatten() for layer in model._squares for part in layer]) + LAM

    def predicted(parts, x):
        for i in range(0, len(parts), 2):
            x = parts[i] @ x + parts[i + 1]
            x = torch.relu(x) if i < len(parts) - 2 else x
        return x[0]

    out = []
    for start in range(0, len(inputs), rows):
        x = (torch.tensor(inputs[start : start + rows]) - model._centre) / model._scale
        parts = vmap(grad(predicted), in_dims=(None, 0))(names, x)
        g = torch.cat([part.flatten(1) for part in parts], dim=1)
        out.append(torch.sqrt(torch.sum(LAM * g * g / u, dim=1)).numpy())
    return np.concatenate(out)


def one(way, width, hidden, candidates, rows):
    """Seconds and memory of one way, in this process."""
    model = fitted(width, (hidden,), "full" if way == "full" else "diagonal")
    inputs = np.random.default_rng(1).normal(size=(candidates, width))
    model.belief(inputs[:8])
    before, began = kilobytes(), time.perf_counter()
    sigma = widths_by_gradients(model, inputs, rows) if way == "gradients" else model.belief(inputs).sigma
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "mb": kilobytes() / 1024,
        "mb_above": (kilobytes() - before) / 1024,
        "parameters": model.parameters,
        "sigma": sigma[:AGREE].tolist(),
    }


def apart(way, width, hidden, candidates, rows):
    """The same in another process."""
    asked = json.dumps([way, width, hidden, candidates, rows])
    done = subprocess.run([sys.executable, __file__, "--one", asked], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def widths(candidates, chunks, width, hidden, rows):
    few = min(candidates, chunks * rows)
    theirs = apart("gradients", width, hidden, few, rows)
    ours, full = apart("diagonal", width, hidden, candidates, rows), apart("full", width, hidden, candidates, rows)
    whole = candidates * ours["parameters"] * 8 / 2**20
    scaled = theirs["seconds"] * candidates / few
    out = {
        "speed": scaled / ours["seconds"],
        "speed_full": scaled / full["seconds"],
        "memory_of_chunk": ours["mb"] / theirs["mb"],
        "memory_of_chunk_above": ours["mb_above"] / theirs["mb_above"],
        "memory_of_whole": ours["mb"] / whole,
        "differ": float(np.max(np.abs(np.array(ours["sigma"]) / np.array(theirs["sigma"]) - 1))),
    }
    print(f"1. widths of {candidates} candidates, d {width}, P {ours['parameters']}, float64")
    print(f"   {'way':34} {'seconds':>9} {'MB at most':>11} {'MB above':>9}")
    print(f"   {f'gradients, {few} timed, × {candidates / few:g}':34} {scaled:9.2f} {theirs['mb']:11.0f}", end="")
    print(f" {theirs['mb_above']:9.0f}   (one chunk of {rows}; the whole matrix alone: {whole:.0f} MB)")
    for name, got in (("ours, diagonal", ours), ("ours, full", full)):
        print(f"   {name:34} {got['seconds']:9.2f} {got['mb']:11.0f} {got['mb_above']:9.0f}")
    print(f"   time: ×{out['speed']:.0f} faster (full ×{out['speed_full']:.0f})")
    print(
        f"   memory: 1/{1 / out['memory_of_chunk']:.0f} of one chunk of theirs at most (above what both hold:", end=""
    )
    print(f" 1/{1 / out['memory_of_chunk_above']:.0f}), 1/{1 / out['memory_of_whole']:.0f} of the whole matrix")
    print(f"   relative difference of widths: {out['differ']:.1e}", flush=True)
    return out


def one_round(candidates, width):
    """Seconds of fit and belief of each surrogate."""
    from promptopt.surrogate.choose import make
    from promptopt.surrogate.neural_ucb import NeuralSettings, NeuralUCB

    rng = np.random.default_rng(0)
    x = rng.normal(size=(SEEN, width))
    y = 1 / (1 + np.exp(-x[:, 0]))
    asked, counts, out = rng.normal(size=(candidates, width)), np.full(SEEN, 20), {}
    print(f"2. one round over {candidates} candidates of {width} numbers, {SEEN} observed")
    for name in ("NeuralUCB, 3 × 100, full", "gp", "rbf", "last_layer", "ensemble"):
        began = time.perf_counter()
        if name.startswith("NeuralUCB"):
            model = NeuralUCB(width, NeuralSettings(hidden=(100, 100, 100), start="uniform"))
            model.fit(x, y)
        else:
            model = make(name, width)
            model.fit(x, y, counts)
        fit, began = time.perf_counter() - began, time.perf_counter()
        model.belief(asked)
        out[name] = time.perf_counter() - began
        print(f"   {name:34} {out[name]:6.2f} s   (fit {fit:.2f} s)", flush=True)
    return out


def filtered(tuples, extrapolated=2000):
    """Seconds of the filter, ours and POT's."""
    from promptopt.surrogate.transport import costs, nearest

    rng = np.random.default_rng(0)
    directions = rng.normal(size=(20, 768)) * 0.85 ** np.arange(20)[:, None]
    cost = costs(rng.normal(size=(100, 20)) @ directions, rng.normal(size=(20, 20)) @ directions)
    chosen = np.argsort(rng.random((tuples, 100)), axis=1)[:, :5]
    began = time.perf_counter()
    nearest(cost, chosen, 50, rng, free=0.0)
    out = {"ours": time.perf_counter() - began}
    print(f"3. the filter over {tuples} tuples of 5, 20 examples\n   {'ours':34} {out['ours']:6.2f} s")
    try:
        import ot
    except ModuleNotFoundError:
        print("   POT is not installed: pip install pot", flush=True)
        return out
    few = chosen[:extrapolated]
    began = time.perf_counter()
    theirs = np.array([ot.emd2(np.full(5, 0.2), np.full(20, 0.05), cost[places]) for places in few])
    out["pot"] = (time.perf_counter() - began) * tuples / len(few)
    best = np.argsort(theirs)[:50]
    out["recall"] = len(np.intersect1d(best, nearest(cost, few, 50, rng, free=0.0))) / len(best)
    print(f"   {f'POT, {len(few)} timed, × {tuples / len(few):g}':34} {out['pot']:6.2f} s")
    print(
        f"   ×{out['pot'] / out['ours']:.1f} faster; share of POT's nearest 50 of {len(few)} found: {out['recall']:.2f}"
    )
    return out


def main(candidates=10_000, wide=100_000, tuples=100_000, chunks=10, width=5120, hidden=100, rows=CHUNK):
    return {
        "widths": widths(candidates, chunks, width, hidden, rows),
        "round": one_round(wide, 768),
        "filter": filtered(tuples),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--wide", type=int, default=100_000)
    parser.add_argument("--tuples", type=int, default=100_000)
    parser.add_argument("--chunks", type=int, default=10, help="of 1,000 candidates that their way is timed over")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*json.loads(options.one))))
    else:
        main(options.candidates, options.wide, options.tuples, options.chunks)
