"""Our pages in a headless Chromium: its errors, what runs there that is not ours, and what a person does.

    pip install playwright; apt-get install chromium; npm pack axe-core

``PROMPTOPT_CHROMIUM`` names another Chromium than the one of the path, ``PROMPTOPT_AXE`` the file ``axe.min.js``
(without it, accessibility is not checked), ``PROMPTOPT_SCREENSHOTS`` a folder for pictures to look at.
"""

import functools
import json
import os
import runpy
import shutil
import threading
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HOSTILE = (
    "</script><script>window.ran=1</script>",
    "<img src=x onerror='window.ran=2'>",
    "<svg onload=window.ran=3></svg>",
    "<a href='javascript:window.ran=4'>click</a>",
    "\"'><iframe srcdoc='<script>parent.ran=5</script>'></iframe>",
    "--><meta http-equiv=refresh content='0;url=http://evil.invalid/'>",
    "<base href=http://evil.invalid/><link rel=stylesheet href=http://evil.invalid/x.css>",
    "<form action=http://evil.invalid/><button>send</button></form><style>*{display:none}</style>",
    "</textarea></title></style><script src=http://evil.invalid/x.js></script>",
    "{{ 7*7 }}<!--\u2028\u202e",
)
TASK = """\
name: NAME
program: {input: word, output: shouted, instruction: say it}
data: {train: rows.jsonl, input: word, target: shouted}
splits: {demos: 10, search: 30, confirm: 40, test: 60}
metric: {name: exact_match, ignore_case: false}
models: {task: scripted/obedient, proposer: scripted/echo}
optimizer: {name: random_search, trials: 8}
instructions: INSTRUCTIONS
cache: none
"""
AXE = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = os.environ.get("PROMPTOPT_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("needs a Chromium: apt-get install chromium, or PROMPTOPT_CHROMIUM")
    with playwright.sync_playwright() as started:
        made = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


class Opened:
    """A page in a window of its own, and what went wrong in it."""

    def __init__(self, context, url):
        self.url, self.wrong, self.asked = url, [], []
        self.page = context.new_page()
        self.page.on(
            "console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self.page.add_init_script(
            "window.violations = []; document.addEventListener('securitypolicyviolation', "
            "event => window.violations.push(event.violatedDirective + ' ' + event.blockedURI));"
        )
        self.page.goto(url)

    def check(self):
        """Nothing failed, nothing that is not ours ran, and nobody else was asked."""
        assert self.page.evaluate("window.ran === undefined")
        assert self.page.evaluate("window.violations") == []
        assert self.wrong == []
        own = self.url.split("/", 3)[:3]
        assert [url for url in self.asked if url != "data:," and url.split("/", 3)[:3] != own] == []
        assert self.page.frames == [self.page.main_frame]
        assert self.page.evaluate("document.styleSheets.length") <= 3
        assert "evil" not in self.page.url

    def axe(self):
        """What axe finds wrong, in words."""
        self.page.evaluate(_axe())
        found = self.page.evaluate("options => axe.run(document, options)", AXE)
        return [
            f"{each['id']} ({each['impact']}): {node['target']} {node['failureSummary']}"
            for each in found["violations"]
            for node in each["nodes"]
        ]


@functools.cache
def _axe():
    path = os.environ.get("PROMPTOPT_AXE")
    if not path:
        pytest.skip("needs axe: npm pack axe-core, and PROMPTOPT_AXE with the path of its axe.min.js")
    return Path(path).read_text()


@pytest.fixture
def open_page(browser):
    """Open an address; keyword arguments are those of a Playwright context."""
    contexts = []

    def opened(url, **options):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}))
        contexts[-1].set_default_timeout(15_000)
        return Opened(contexts[-1], url)

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def picture(request):
    """Take a screenshot of a page, if anybody wants to look."""
    folder = os.environ.get("PROMPTOPT_SCREENSHOTS")

    def take(opened, name, whole=True):
        if folder:
            high = opened.page.evaluate("document.documentElement.scrollHeight")
            # Of a very long page, its beginning: no picture is higher than what a card can hold.
            opened.page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=whole and high < 16_000)

    return take


def write_task(folder, name="shout", marks=("",), instructions=None):
    """A task file on which a scripted model obeys; ``marks`` go into every text of data, model and task."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [f"{a}{b}{c}" for a in "bcdfgh" for b in "aeiou" for c in "lmnrst"]
    rows = [f"{word} {marks[i % len(marks)]}".strip() for i, word in enumerate(words)]
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps({"word": row, "shouted": row.upper()}) + "\n" for row in rows)
    )
    said = instructions or ["Write it in upper case letters.", "Write it in lower case.", "Title case, please."]
    said = [f"{text} {mark}".strip() for text in said for mark in marks]
    text = TASK.replace("NAME", json.dumps(name)).replace("INSTRUCTIONS", json.dumps(said))
    (folder / "task.yaml").write_text(text)
    return folder / "task.yaml"


def _optimize(task, out, **options):
    import promptopt

    promptopt.optimize(task, out=out, **options)
    return out


@pytest.fixture(scope="session")
def runs(tmp_path_factory, browser):
    """A folder of runs of every kind: finished, unfinished, hostile, long, damaged, and no run."""
    from promptopt.optimizers import OPTIMIZERS

    place = tmp_path_factory.mktemp("browser")
    folder = place / "runs"
    task = write_task(place / "plain")
    _optimize(task, folder / "finished")
    for name in ("best_of_seeds", "ape"):
        _optimize(task, folder / name, optimizer=OPTIMIZERS.load(name)())
    shutil.copytree(folder / "finished", folder / "unfinished")
    (folder / "unfinished" / "result.json").unlink()
    hostile = folder / HOSTILE[1].replace("/", "")
    _optimize(write_task(place / "hostile", marks=HOSTILE), hostile)
    about = json.loads((hostile / "run.json").read_text())
    about["name"] = about["description"] = "".join(HOSTILE)
    (hostile / "run.json").write_text(json.dumps(about))
    make_run = runpy.run_path(str(HERE.parent / "benchmarks" / "bench_report.py"))["make_run"]
    make_run(folder / "sweep" / "long", trials=150, words=60)
    make_run(folder / "sweep" / "long hostile", trials=60, words=20, marked="".join(HOSTILE))
    (folder / "damaged").mkdir()
    (folder / "damaged" / "run.json").write_text(f"{{{HOSTILE[0]}")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.json").write_text("{}")
    return folder


@pytest.fixture
def served(runs):
    """The address of ``promptopt view`` over these runs."""
    with serving(runs) as server:
        yield server.url


class serving:  # noqa: N801 - read as a verb
    """A server of ``promptopt view`` in a thread, for a while."""

    def __init__(self, folder):
        from promptopt.report.view import Server

        self.server = Server(folder)
        self._thread = threading.Thread(target=self.server.run)

    def __enter__(self):
        self._thread.start()
        return self.server

    def __exit__(self, *_):
        if self._thread.is_alive():
            self.server.stop()
            self._thread.join()


@pytest.fixture(scope="session")
def files(runs, tmp_path_factory):
    """Pages as files, by name."""
    from promptopt.report.board_page import board_page
    from promptopt.report.leaderboard import leaderboard
    from promptopt.report.run_page import run_page

    made_up = runpy.run_path(str(HERE.parent / "report" / "conftest.py"))
    simulate, skills = made_up["simulate"], dict(list(made_up["SKILLS"].items())[:8])
    hostile = {f"o{i} ({mark})": 0.02 * i for i, mark in enumerate(HOSTILE[:4])}
    texts = {
        "finished": run_page(runs / "finished"),
        "unfinished": run_page(runs / "unfinished"),
        "long": run_page(runs / "sweep" / "long"),
        "hostile": run_page(runs / HOSTILE[1].replace("/", "")),
        "long_hostile": run_page(runs / "sweep" / "long hostile"),
        "leaderboard": board_page(
            leaderboard(simulate(skills, tasks=4, seeds=2), command="promptopt leaderboard runs --html board.html")
        ),
        "leaderboard_hostile": board_page(leaderboard(simulate(hostile, tasks=3, budgets=(600,)), command=HOSTILE[0])),
    }
    place = tmp_path_factory.mktemp("pages")
    for name, text in texts.items():
        (place / f"{name}.html").write_text(text, encoding="utf-8", errors="replace")
    return {name: (place / f"{name}.html").as_uri() for name in texts}
