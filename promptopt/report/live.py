"""A page made live: our reports as a local server shows them, with a way back and a script that looks for changes.

The report itself allows no connection at all; only what the server sends may ask that server, and nobody else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from functools import cache
from importlib.resources import files

_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">\n?')
_PARTS = (("/", "All runs"), ("/leaderboard", "Leaderboard"))


def live_page(page: str, version: str, here: str) -> tuple[str, str]:
    """A page of ours, live.

    Args:
        page: as ``pages.page`` makes it.
        version: of what it shows; it is loaded again when the server names another one.
        here: which of the parts at its top it is: ``/`` or ``/leaderboard``; anything else is neither.

    Returns:
        The page, and the policy that it is to be sent with.

    Raises:
        ValueError: it is no page of ours.
    """
    # The first of each is ours: what follows is the page's content, where every sign of HTML is escaped.
    found = _POLICY.search(page)
    top, end = page.find('<header class="top">'), page.rfind("<script>")
    if found is None or not found.end() <= top < end:
        raise ValueError("Expected a page made by promptopt.report.pages.")
    script, style = _own("view.js"), _own("view.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = html.unescape(found[1]).replace("script-src ", f"script-src 'sha256-{digest}' ")
    # Before the page's own script: what it does to tables is no change of theirs.
    made = "".join(
        (
            page[: found.start()],
            f"<style>{style}</style>\n",
            page[found.end() : top],
            _nav(version, here),
            page[top:end],
            f"<script>{script}</script>\n",
            page[end:],
        )
    )
    return made, f"{policy}; connect-src 'self'; frame-ancestors 'none'"


def _nav(version: str, here: str) -> str:
    links = "".join(
        f'<a href="{path}"{" aria-current=page" if path == here else ""}>{name}</a>' for path, name in _PARTS
    )
    told = f'<span id="view-live" role="status" data-version="{html.escape(version)}"></span>'
    changed = '<span id="view-changed"></span>'
    return f'<nav class="view" aria-label="promptopt view"><div class="wide">{links}{told}{changed}</div></nav>\n'


@cache
def _own(name: str) -> str:
    return (files("promptopt.report") / "templates" / name).read_text(encoding="utf-8").strip()
