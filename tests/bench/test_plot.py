"""Plots are drawn where they are asked for, or refused before anything is computed."""

import pytest

from promptopt.bench.landscape import LANDSCAPES
from promptopt.bench.plot import KINDS, check_plot, plot
from promptopt.bench.replay import replay
from promptopt.errors import ConfigError, StorageError

HEADS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.fixture(scope="module")
def outcomes():
    return {name: replay(LANDSCAPES[name], {"full": "full", "race": "race"}, seeds=3) for name in ("wide", "close")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_plot_is_drawn(tmp_path, outcomes, kind):
    path = tmp_path / f"plot{kind}"
    plot(outcomes, path)
    content = path.read_bytes()
    assert content.startswith(HEADS[kind])
    assert len(content) > 3000


def test_every_strategy_has_its_line_and_every_landscape_its_panel(tmp_path, outcomes):
    path = tmp_path / "plot.svg"
    plot(outcomes, path)
    text = path.read_text()
    for word in ("wide", "close", "full", "race", "cells paid"):
        assert f"<!-- {word} -->" in text


def test_what_cannot_be_drawn_is_refused_first(tmp_path, outcomes):
    with pytest.raises(ConfigError, match=r"ends in \.png, \.svg, \.pdf"):
        check_plot(tmp_path / "plot.gif")
    with pytest.raises(StorageError, match="Cannot write"):
        plot(outcomes, tmp_path / "none" / "plot.png")
