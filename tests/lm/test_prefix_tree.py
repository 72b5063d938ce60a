"""The tree of tokens: against sets of prefixes, which say the same slowly."""

import numpy as np
import pytest

from promptopt.lm.prefix_tree import build, shared


def sequences(rng, many, letters=3, longest=8):
    return [rng.integers(0, letters, rng.integers(1, longest)).tolist() for _ in range(many)]


def prefixes(of):
    return {tuple(s[:n]) for s in of for n in range(1, len(s) + 1)}


def along(tree, node):
    return tree.tokens[[*tree.path(node), node]].tolist()


def test_how_much_is_shared():
    assert shared([1, 2, 3], [1, 2, 4, 5]) == 2
    assert shared([1, 2], [1, 2]) == 2
    assert shared([1, 2, 3], [1, 2]) == 2
    assert shared([], [1]) == shared([1], [2]) == 0
    rng = np.random.default_rng(0)
    for _ in range(300):
        one, two = sequences(rng, 2, letters=2, longest=12)
        same = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
        assert shared(one, two) == same


@pytest.mark.parametrize("seed", range(40))
def test_every_prefix_is_one_node_and_preorder_says_what_is_below_what(seed):
    rng = np.random.default_rng(seed)
    given = sequences(rng, int(rng.integers(1, 30)))
    wanted = [int(rng.integers(0, len(s))) for s in given]
    tree = build(given, wanted)
    paths = [tuple(along(tree, node)) for node in range(len(tree))]
    assert sorted(paths) == sorted(prefixes(given)), "each once"
    for i, path in enumerate(paths):
        assert tree.depths[i] == len(path) - 1
        for j, above in enumerate(paths):
            assert (j <= i < tree.ends[j]) == (path[: len(above)] == above)
    for sequence, first, nodes in zip(given, wanted, tree.nodes, strict=True):
        assert tree.tokens[nodes].tolist() == sequence[first:]
        assert along(tree, nodes[-1]) == sequence
    assert tree.fresh.sum() == len(tree)
    alone = [sum(len(path) == n for path in paths) == 1 for n in range(1, 9)]
    assert tree.trunk == [*alone, False].index(False), "as long as there is one prefix of a length"


@pytest.mark.parametrize("seed", range(40))
def test_what_is_kept_comes_first_and_nodes_asked_for_are_read(seed):
    rng = np.random.default_rng(seed)
    given = sequences(rng, int(rng.integers(1, 20)), letters=2)
    wanted = [int(rng.integers(0, len(s))) for s in given]
    kept = sequences(rng, 1, letters=2, longest=10)[0]
    tree = build(given, wanted, kept)
    longest = max(shared(kept, s) for s in given)
    blocked = [first for s, first in zip(given, wanted, strict=True) if first < shared(kept, s)]
    assert tree.known == min([longest, *blocked])
    assert tree.tokens[: tree.known].tolist() == kept[: tree.known]
    assert tree.depths[: tree.known].tolist() == list(range(tree.known))
    assert all(node >= tree.known for nodes in tree.nodes for node in nodes)
    assert sorted(tuple(along(tree, n)) for n in range(len(tree))) == sorted(prefixes(given))
    assert tree.fresh.sum() == len(tree) - tree.known


@pytest.mark.parametrize("seed", range(20))
def test_a_run_needs_only_the_path_to_its_first_node(seed):
    rng = np.random.default_rng(seed)
    tree = build(sequences(rng, 20))
    for start in range(len(tree)):
        here = {*tree.path(start).tolist(), *range(start, len(tree))}
        assert all(tree.parents[node] in here or tree.parents[node] == -1 for node in range(start, len(tree)))
