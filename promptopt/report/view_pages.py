"""The pages of ``promptopt view``: the list of runs, a run, a leaderboard; made anew only when something changed."""

from __future__ import annotations

import os
import shlex
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from promptopt import jsonio
from promptopt.errors import PromptOptError
from promptopt.report.listing import Listed, Listing
from promptopt.report.live import live_page
from promptopt.report.pages import page

_KEPT = 32
"""Pages kept in memory."""
_POLL = 2.0
_SHARE = 5
"""A page that takes so long to make is asked for so many times less often."""
_OTHERS = 200
_TONES = {"finished": "", "going on": "good", "stopped": "unsure", "damaged": "bad"}
_VERDICTS = {
    "improved": ("improved", "good"),
    "indistinguishable": ("no clear difference", "unsure"),
    "worse": ("worse", "bad"),
    "unconfirmed": ("not confirmed", "unsure"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """What the server shows at an address.

    Args:
        version: changes whenever what is shown does.
        told: its state in a word or two.
        here: which part of the top it is.
        make: makes the page.
    """

    version: str
    told: str
    here: str
    make: Callable[[], str]


class Views:
    """All pages over a folder.

    Args:
        folder: of runs, or one run.

    Raises:
        ConfigError: it is no folder.
    """

    def __init__(self, folder: Path) -> None:
        self._listing = Listing(folder)
        self._name = os.fsencode(folder).decode(errors="replace")
        self._pages: OrderedDict[tuple[str, str], tuple[str, str]] = OrderedDict()
        self._took: dict[str, float] = {}
        self._making = threading.Lock()

    def page(self, address: str) -> tuple[str, str] | None:
        """The page at an address (path and query) and its policy; None: there is none."""
        found = self._find(address)
        if found is None:
            return None
        key = (address, found.version)
        with self._making:
            made = self._pages.get(key)
            if made is None:
                start = time.monotonic()
                made = self._pages[key] = live_page(found.make(), found.version, found.here)
                self._took[address] = time.monotonic() - start
                while len(self._pages) > _KEPT:
                    self._pages.popitem(last=False)
            self._pages.move_to_end(key)
        return made

    def state(self, address: str) -> dict[str, str | float] | None:
        """Of the page at an address: its version, its state in words, and in how many seconds to ask again."""
        found = self._find(address)
        if found is None:
            return None
        wait = max(_POLL, _SHARE * self._took.get(address, 0.0))
        return {"version": found.version, "told": found.told, "wait": round(wait, 1)}

    def _find(self, address: str) -> Found | None:
        split = urlsplit(address)
        runs = self._listing.runs()
        if split.path == "/":
            version = jsonio.digest([[each.name, each.state, each.stamp] for each in runs])
            return Found(version, "Live", "/", lambda: self._list(runs))
        if split.path == "/leaderboard":
            mixed = parse_qs(split.query).get("mixed") == ["1"]
            done = [each for each in runs if each.state in ("finished", "sweep")]
            version = jsonio.digest([[each.name, each.stamp] for each in done])
            return Found(version, "Live", "/leaderboard", lambda: self._leaderboard(runs, mixed))
        if split.path == "/run" or split.path.startswith("/run/"):
            # Looked up, not opened: no address leads to a file that the listing did not find.
            name = unquote(split.path.removeprefix("/run").removeprefix("/"), errors="surrogateescape")
            run = next((each for each in runs if each.path == name), None)
            if run is not None:
                told = f"Live: {run.state}" if run.state in _TONES else "Live"
                return Found(jsonio.digest([run.state, run.stamp]), told, "", lambda: self._run(run))
        return None

    def _list(self, runs: Sequence[Listed]) -> str:
        shown = [each for each in runs if each.state in _TONES]
        others = [each for each in runs if each.state not in _TONES]
        counts = Counter(each.state for each in shown)
        return page(
            "view.html",
            folder=self._name,
            runs=shown,
            others=others[:_OTHERS],
            more=max(0, len(others) - _OTHERS),
            states=[(state, counts[state]) for state in _TONES if counts[state]],
            tones=_TONES,
            verdicts=_VERDICTS,
            priced=any(each.usd for each in shown),
            address=address_of,
            written=_written,
        )

    def _run(self, run: Listed) -> str:
        from promptopt.report.run_page import run_page

        if run.note:
            return _message(f"{run.name}: {run.state if run.state in _TONES else 'not a run of a search'}", run.note)
        try:
            return run_page(self._listing.folder / run.path)
        except PromptOptError as error:
            return _message(f"{run.name} cannot be shown", str(error))
        except Exception as error:
            # Whatever a changed file did to the report: the other runs can still be looked at.
            return _message(f"{run.name} cannot be shown", f"{type(error).__name__}: {error}")

    def _leaderboard(self, runs: list[Listed], mixed: bool) -> str:
        from promptopt.report.board_page import board_page
        from promptopt.report.comparison import Options
        from promptopt.report.leaderboard import leaderboard
        from promptopt.report.rows import read_rows

        sources = self._listing.sources(runs)
        if not sources:
            return _message("No leaderboard yet", "No run is finished. It appears here by itself when there are some.")
        try:
            command = shlex.join(["promptopt", "leaderboard", self._name, *(["--mixed"] if mixed else [])])
            return board_page(leaderboard(*read_rows(sources), Options(mixed=mixed), command))
        except PromptOptError as error:
            links = [] if mixed else [("/leaderboard?mixed=1", "Compare them all the same, with a warning")]
            return _message("These runs make no leaderboard", str(error), links)
        except Exception as error:
            # As above: one changed file must not take the list of the others along.
            return _message("The leaderboard could not be made", f"{type(error).__name__}: {error}")


def address_of(run: Listed) -> str:
    """Where a run is shown."""
    return "/run/" + quote(os.fsencode(run.path))


def _message(title: str, text: str, links: Sequence[tuple[str, str]] = ()) -> str:
    return page("view_message.html", title=title, text=text, links=links)


def _written(run: Listed) -> tuple[str, str]:
    if not run.when:
        return "–", ""
    when = time.localtime(run.when)
    return time.strftime("%Y-%m-%d", when), time.strftime("%H:%M", when)
