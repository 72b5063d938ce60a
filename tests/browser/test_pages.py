"""Every page: no error, nothing foreign runs, axe is content in light and dark, it fits a phone and a sheet."""

import re
from urllib.parse import quote

import pytest

from .conftest import HOSTILE

FILES = ("finished", "unfinished", "long", "hostile", "long_hostile", "leaderboard", "leaderboard_hostile")
SERVED = {
    "view": "",
    "view_run": "run/finished",
    "view_unfinished": "run/unfinished",
    "view_hostile": "run/" + quote(HOSTILE[1].replace("/", "")),
    "view_damaged": "run/damaged",
    "view_leaderboard": "leaderboard",
}
NAMES = (*FILES, *SERVED)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def url(name, files, request):
    return files[name] if name in files else request.getfixturevalue("served") + SERVED[name]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_error_and_axe_is_content(open_page, url, name, scheme, picture):
    opened = open_page(url, color_scheme=scheme)
    assert opened.page.locator("h1").count() == 1
    picture(opened, f"{name}-{scheme}")
    opened.check()
    assert opened.axe() == []


def test_everything_unfolded_axe_is_still_content(open_page, url, name):
    opened = open_page(url)
    opened.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    opened.check()
    assert opened.axe() == []


def test_a_phone_needs_no_scrolling_sideways(open_page, url, name, picture):
    opened = open_page(url, viewport={"width": 400, "height": 800})
    picture(opened, f"{name}-narrow")
    wide = """() => Array.from(document.querySelectorAll('main *, header *, nav *')).filter(node => {
        if (node.closest('.scroll, svg') || !node.getClientRects().length) return false;
        return node.getBoundingClientRect().right > document.documentElement.clientWidth + 1;
    }).map(node => node.outerHTML.slice(0, 120))"""
    assert opened.page.evaluate(wide) == []
    assert opened.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    opened.check()


def test_on_paper_it_is_black_on_white_and_unfolded(open_page, url, name, picture):
    opened = open_page(url, color_scheme="dark", viewport={"width": 794, "height": 1123})
    page = opened.page
    page.evaluate(
        """() => window.addEventListener('beforeprint', () => {
            window.folded = document.querySelectorAll('details:not([open]):not(.screen)').length })"""
    )
    page.emulate_media(media="print")
    picture(opened, f"{name}-print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    for hidden in ("#theme", "nav.parts", "nav.view", "label.filter"):
        assert all(not found.is_visible() for found in page.locator(hidden).all())
    assert len(page.pdf(format="A4")) > 5000
    assert page.evaluate("window.folded") == 0
    opened.check()


def test_without_script_it_can_be_read(open_page, url, name):
    page = open_page(url, java_script_enabled=False).page
    assert page.locator("h1").inner_text().strip()
    assert page.locator("#main").inner_text().strip()
    assert not page.locator("#theme").is_visible()


def test_ids_are_unique_and_links_within_the_page_lead_somewhere(open_page, url, name):
    page = open_page(url).page
    ids = page.eval_on_selector_all("[id]", "nodes => nodes.map(node => node.id)")
    assert len(ids) == len(set(ids))
    within = page.eval_on_selector_all("a[href^='#']", "links => links.map(link => link.getAttribute('href').slice(1))")
    assert set(within) <= set(ids)


@pytest.mark.parametrize("name", ["hostile", "long_hostile", "leaderboard_hostile", "view_hostile", "view"])
def test_what_a_model_wrote_is_shown_and_does_nothing(open_page, url, name):
    opened = open_page(url)
    page = opened.page
    shown = page.evaluate("document.body.textContent")
    assert "onerror" in shown
    assert (
        page.locator("iframe, img, form, base, embed, object, link[rel=stylesheet], meta[http-equiv=refresh]").count()
        == 0
    )
    handlers = "nodes => nodes.flatMap(node => node.getAttributeNames().filter(name => name.startsWith('on')))"
    assert page.eval_on_selector_all("*", handlers) == []
    hrefs = page.eval_on_selector_all("[href]", "nodes => nodes.map(node => node.getAttribute('href'))")
    assert [href for href in hrefs if not re.match(r"#|/|data:,", href)] == []
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    for each in page.locator("summary:visible").all()[:5]:
        each.click()
    opened.check()


def test_the_policy_stops_what_escaping_would_have_let_through(open_page, files):
    opened = open_page(files["finished"])
    opened.page.evaluate(
        """() => { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.ran=1">');
            const made = document.createElement('script'); made.textContent = 'window.ran=2';
            document.body.append(made);
            return fetch('http://127.0.0.1:9/').catch(() => null) }"""
    )
    opened.page.wait_for_timeout(500)
    assert len(opened.page.evaluate("window.violations")) >= 3
    assert opened.page.evaluate("window.ran === undefined")
