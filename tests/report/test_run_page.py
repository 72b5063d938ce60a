"""report.html: one file, whole, readable by everyone, and nobody's script but ours."""

import base64
import hashlib
import itertools
import json
import os
import re
import runpy
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from promptopt.errors import ConfigError, StorageError
from promptopt.report.pages import LONGEST, clip, page
from promptopt.report.plots import Cloud, Lane, Range, Series, clouds, curves, lanes, ranges
from promptopt.report.run_page import run_page, save_page, write_report

make_run = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "bench_report.py"))["make_run"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "</td></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 7*7 }}&amp;\x1b[31m\u202e$x^2$"
VOID = {"meta", "link", "br", "img", "input", "rect", "path", "use", "hr"}


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.text, self.texts = [], [], "", {}
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> without a beginning"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)
            if self.open[-1] not in ("script", "style"):
                self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("made") / "run", trials=120, words=30)


@pytest.fixture(scope="module")
def text(made):
    return run_page(made)


@pytest.fixture
def folder(made, tmp_path):
    """A copy that may be changed."""
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change(folder, **values):
    path = folder / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_verdict_comes_first(text):
    seen = Page(text)
    body = text[text.index("<body>") :]
    assert body.index("<h1>") < body.index("<h2")
    assert len(seen.all("h1")) == 1
    assert re.search(r"Improved: \d+\.\d % → \d+\.\d %", " ".join(seen.text.split()))
    assert "The winner is recommended." in seen.text
    # The interval is there as a picture, before all else.
    assert body.index('role="img"') < body.index("<h2")


def test_everything_asked_of_it_is_there(text):
    seen = Page(text).text
    for heading in ("What changed", "Example by example", "Evidence", "The search", "The race", "Lineage", "Cost",
                    "Failures and guards", "The optimizer's model", "Setup"):  # fmt: skip
        assert heading in seen
    for told in (
        "Where the winner does better", "Where the winner does worse", "Default wrong", "Best so far", "given up",
        "Calibration", "surer than it should be", "too long", "the reply came, but is not an answer",
        "Expected the field answer.", "openai/small", "Family tree",
    ):  # fmt: skip
        assert told in seen
    for target in Page(text).all("a"):
        assert f'id="{target["href"][1:]}"' in text


def test_it_loads_nothing_and_runs_our_script_alone(text):
    seen = Page(text)
    for _, attributes in seen.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), name
            if name in ("src", "href", "xlink:href", "action", "srcset", "poster", "data"):
                assert value.startswith(("#", "data:")), value
    assert not re.search(r"url\((?!#)|@import", text)
    (policy,) = [meta["content"] for meta in seen.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    (script,) = seen.texts["script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    for forbidden in ("eval(", "innerHTML", "document.write", "fetch(", "XMLHttp"):
        assert forbidden not in script


def test_texts_of_models_and_data_are_text(tmp_path):
    hostile = make_run(tmp_path / "run", trials=60, words=10, marked=HOSTILE)
    text = run_page(hostile)
    seen = Page(text)
    assert len(seen.all("script")) == 1
    assert not seen.all("img")
    assert text.count("<script>alert(1)") == 0
    # It is all there to be read: name, instruction, exemplars, inputs, targets, outputs, failures, notes, guards.
    assert seen.text.count("<script>alert(1)</script>") > 50
    assert "{{ 7*7 }}" in seen.text
    # What would turn text around, or steer what shows it, is seen instead.
    assert not set("\x1b\u202e") & set(text)
    assert "\ufffd" in seen.text
    for kind in ("title", "h1", "td", "ins", "dd", "div", "p"):
        said = "".join(seen.texts[kind])
        assert "<script>" in said or kind == "h1", kind


def test_what_a_picture_says_is_text():
    made = [
        curves([Series(HOSTILE, [1, 2], [3, 4]), Series("b", [1, 2], [3, 4])], HOSTILE, HOSTILE, HOSTILE),
        ranges([Range(HOSTILE, 0, 1, 2)], HOSTILE, HOSTILE),
        lanes([Lane(HOSTILE, 0, 1)], HOSTILE, HOSTILE, [(HOSTILE, "o", "#0a0b01")]),
        clouds([Cloud(HOSTILE, [1], [2], "#0a0b01")], HOSTILE, HOSTILE, HOSTILE),
    ]
    for svg in made:
        seen = Page(f"<!DOCTYPE html>{svg}")
        assert not seen.all("script")
        assert not seen.all("img")
        assert "alert(1)" in seen.all("svg")[0]["aria-label"]


def test_a_reader_of_the_screen_finds_its_way(text):
    seen = Page(text)
    assert seen.all("html")[0]["lang"] == "en"
    assert seen.all("a")[0]["href"] == "#main"
    assert len(seen.all("main")) == len(seen.all("header")) == 1
    assert len(seen.all("caption")) == len(seen.all("table"))
    assert all("scope" in head for head in seen.all("th"))
    pictures = [each for each in seen.all("svg") if each.get("role") == "img"]
    assert len(pictures) >= 4
    assert all(each["aria-label"] for each in pictures)
    assert len(seen.all("figure")) == len(pictures)
    ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(each["aria-labelledby"] in ids for each in seen.all("section"))
    used = set(re.findall(r'(?:xlink:href="|url\()#([^")]+)', text))
    assert used <= set(ids)
    levels = [int(tag[1]) for tag, _ in seen.elements if re.fullmatch(r"h\d", tag)]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_it_follows_the_readers_colours_and_paper(text):
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    body = text[text.index("<main") :]
    assert "var(--c1)" in body
    # Stand-ins for colours do not get out, and no picture has a colour of its own.
    assert "#0a0b" not in text
    assert not re.search(r"(?:fill|stroke): #", body)


def test_words_that_changed_are_marked(folder):
    result = json.loads((folder / "result.json").read_text())
    result["default"]["values"]["instruction"] = "Answer the question in one word."
    result["winner"]["values"]["instruction"] = "Answer the question in one short line."
    change(folder, default=result["default"], winner=result["winner"])
    seen = Page(run_page(folder))
    assert "word" in seen.texts["del"]
    assert "short line" in seen.texts["ins"]


def test_the_same_run_gives_the_same_bytes(made, text):
    assert run_page(made) == text


def test_a_text_that_is_long_is_cut_and_says_so(folder):
    result = json.loads((folder / "result.json").read_text())
    result["winner"]["values"]["instruction"] = "long " * 20_000
    change(folder, winner=result["winner"])
    assert len(run_page(folder)) < 600_000
    assert "more characters" in run_page(folder)
    assert clip("x" * LONGEST) == "x" * LONGEST
    assert clip("x" * (LONGEST + 1)).endswith("… 1 more characters")


@pytest.mark.slow
def test_a_run_of_two_thousand_trials_stays_small(tmp_path):
    text = run_page(make_run(tmp_path / "run", trials=2000, words=150, marked="<b>&"))
    assert len(text.encode()) < 2_000_000
    seen = Page(text)
    assert len(seen.all("tr")) < 400
    assert re.search(r"the 50 that came furthest of \d{3,}", seen.text)


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        ("indistinguishable", "No improvement that can be told from noise"),
        ("worse", "the best that was found is worse"),
    ],
)
def test_no_improvement_is_no_success(folder, verdict, told):
    result = json.loads((folder / "result.json").read_text())
    result["test"]["verdict"]["kind"] = verdict
    change(folder, verdict=verdict, promoted=False, test=result["test"])
    seen = Page(run_page(folder))
    assert told in seen.text
    assert "The default program is kept." in seen.text
    assert "The best that was found, which is not recommended" in seen.text
    assert "Improved" not in seen.text


def test_likely_better_is_said_to_be_that(folder):
    change(folder, verdict="indistinguishable", promoted=True)
    assert "as likely better, which is what promote asks" in " ".join(Page(run_page(folder)).text.split())


def test_a_budget_that_ended_before_the_final(folder):
    change(folder, verdict="unconfirmed", promoted=False, confirm=None, test=None, finalists=[], gap=None)
    seen = Page(run_page(folder))
    assert "Not confirmed: the budget ended before it could be" in seen.text
    assert "Example by example" not in seen.text


def test_a_run_that_is_not_finished_says_so(folder):
    (folder / "result.json").unlink()
    text = run_page(folder)
    seen = Page(text)
    assert "Not finished" in seen.text
    assert "a search score, not confirmed" in seen.text
    assert "the phase “test”" in seen.text
    assert "Best so far" in seen.text
    assert run_page(folder) == text


def test_a_run_that_has_just_begun(folder):
    for path in folder.iterdir():
        if path.name != "run.json":
            path.unlink()
    seen = Page(run_page(folder))
    assert "Not finished" in seen.text
    assert "Nothing was begun yet" in seen.text


def test_a_run_of_an_earlier_version(folder):
    result = json.loads((folder / "result.json").read_text())
    for name in ("curve", "dropped", "saved"):
        del result[name]
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "examples.jsonl").unlink()
    seen = Page(run_page(folder))
    assert "calls of the optimizer's own are not in it" in seen.text
    assert re.search(r"example\s+test-\d{4}", seen.text)
    assert "No guard fired." in seen.text


def test_the_file_is_whole_or_as_it_was(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    assert path.read_text() == run_page(folder)
    assert not list(folder.glob("*.new"))
    with pytest.raises(StorageError, match="report"):
        save_page(folder, folder / "nowhere" / "report.html")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_told(folder):
    (folder / "report.html").write_text("before")
    (folder / "report.html.new").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left"):
        write_report(folder)
    assert (folder / "report.html").read_text() == "before"


def test_a_page_that_cannot_be_made_costs_nobody_the_run(folder):
    (folder / "trials.jsonl").write_text("<script>alert(1)</script>\n")
    with pytest.raises(ConfigError):
        run_page(folder)
    text = write_report(folder).read_text()
    assert "The report could not be made" in text
    assert "trials.jsonl" in text
    assert "<script>" not in text


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium")
def test_in_a_browser_our_script_runs_and_no_other(tmp_path):
    hostile = make_run(tmp_path / "run", trials=60, words=10, marked="<img src=x onerror=\"document.title='owned'\">")
    path = write_report(hostile)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path / 'chromium'}"]
    told = subprocess.run([CHROMIUM, *flags, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert 'class="sort"' in told.stdout
    assert 'type="search"' in told.stdout
    assert "<title>owned" not in told.stdout
    assert "Improved" in told.stdout


def test_a_value_that_a_page_lacks_is_an_error():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        page("run.html")
