"""``promptopt view`` while runs go on: what changes appears by itself, and what a person did to the page stays."""

import shutil
import threading
import time

import pytest

from .conftest import serving, write_task


@pytest.fixture
def folder(runs, tmp_path):
    """A folder of its own, with an unfinished run that can be finished."""
    shutil.copytree(runs / "sweep" / "long", tmp_path / "runs" / "one")
    (tmp_path / "runs" / "one" / "result.json").rename(tmp_path / "result.json")
    return tmp_path / "runs"


def finish(folder):
    shutil.copy(folder.parent / "result.json", folder / "one" / "result.json")


def until_changed(page):
    page.locator("#view-changed", has_text="changed").wait_for()


def test_a_run_that_finishes_is_shown_without_leaving_the_page(folder, open_page):
    with serving(folder) as server:
        opened = open_page(f"{server.url}run/one")
        page = opened.page
        page.evaluate("window.stayed = true")
        assert page.locator("h1").inner_text() == "Not finished"
        page.locator("#view-live.on").wait_for()
        assert page.locator("#view-live").get_attribute("role") == "status"
        finish(folder)
        page.get_by_role("heading", level=1, name="Improved").wait_for()
        assert page.evaluate("window.stayed")
        assert page.title().endswith("Improved")
        assert page.locator("#theme").is_visible()
        page.get_by_role("button", name="Score", exact=False).first.click()  # new tables can be sorted, too
        opened.check()
        assert opened.axe() == []


def test_scroll_focus_folds_order_and_filter_stay(folder, open_page):
    with serving(folder) as server:
        opened = open_page(f"{server.url}run/one", viewport={"width": 1000, "height": 700})
        page = opened.page
        tag = "document.querySelector('table.sortable.filterable')"
        page.evaluate(f"{tag}.closest('section').querySelector('details').open = true")
        sort = page.locator("table.sortable.filterable thead button.sort").nth(2)
        sort.click()
        sort.click()
        box = page.get_by_label("Show rows with").first
        box.fill("evo")
        box.evaluate("box => box.setSelectionRange(1, 2)")
        box.scroll_into_view_if_needed()
        scrolled = page.evaluate("window.scrollY")
        assert scrolled > 200
        rows = (
            f"Array.from({tag}.tBodies[0].rows).filter(row => !row.hidden).map(row => row.cells[0].textContent.trim())"
        )
        before = page.evaluate(rows)
        # Another candidate is evaluated, at the end of what is recorded.
        lines = (folder / "one" / "trials.jsonl").read_text().splitlines()
        last = next(line for line in reversed(lines) if '"split":"search"' in line)
        with (folder / "one" / "trials.jsonl").open("a") as file:
            file.write(last + "\n")
        until_changed(page)
        assert page.evaluate(f"{tag}.querySelectorAll('th')[2].getAttribute('aria-sort')") == "descending"
        assert page.evaluate(f"{tag}.closest('section').querySelector('details').open")
        box = page.get_by_label("Show rows with").first
        assert box.input_value() == "evo"
        assert page.evaluate("document.activeElement.type") == "search"
        assert page.evaluate("[document.activeElement.selectionStart, document.activeElement.selectionEnd]") == [1, 2]
        # As before, but for the one that was evaluated: some rows, by score, are not shown for it or shown now.
        assert len(set(before) & set(page.evaluate(rows))) >= len(before) - 2 > 0
        assert abs(page.evaluate("window.scrollY") - scrolled) < 120
        opened.check()


def test_the_theme_button_works_once_after_a_change(folder, open_page):
    with serving(folder) as server:
        page = open_page(f"{server.url}run/one", color_scheme="light").page
        finish(folder)
        until_changed(page)
        back = "getComputedStyle(document.body).backgroundColor"
        before = page.evaluate(back)
        page.locator("#theme").click()
        assert page.evaluate(back) != before


def test_a_new_run_appears_in_the_list(folder, runs, open_page):
    with serving(folder) as server:
        opened = open_page(server.url)
        page = opened.page
        page.evaluate("window.stayed = true")
        assert page.locator("table.runs tbody tr").count() == 1
        page.get_by_role("link", name="one").focus()
        shutil.copytree(runs / "finished", folder / "two")
        page.get_by_role("link", name="two").wait_for()
        assert page.evaluate("window.stayed")
        assert page.evaluate("document.activeElement.textContent") == "one"
        assert page.locator("h1").inner_text() == "2 runs"
        shutil.rmtree(folder / "two")
        page.get_by_role("heading", name="1 run").wait_for()
        opened.check()


def test_an_empty_folder_says_how_to_begin_and_fills(runs, tmp_path, open_page):
    (tmp_path / "runs").mkdir()
    with serving(tmp_path / "runs") as server:
        page = open_page(server.url).page
        assert page.locator("h1").inner_text() == "No runs yet"
        shutil.copytree(runs / "finished", tmp_path / "runs" / "two")
        page.get_by_role("link", name="two").wait_for()


def test_it_says_so_when_the_server_is_gone_and_asks_no_more(folder, open_page):
    with serving(folder) as server:
        opened = open_page(f"{server.url}run/one")
        page = opened.page
        page.locator("#view-live.on").wait_for()
        server.stop()
    page.locator("#view-live.off").wait_for()
    assert "server has stopped" in page.locator("#view-live").inner_text()
    assert page.locator("h1").inner_text() == "Not finished"
    asked = len(opened.asked)
    time.sleep(3)  # it would have asked once more: it asks every two seconds
    assert len(opened.asked) == asked


def test_it_says_so_when_a_run_is_removed(folder, open_page):
    with serving(folder) as server:
        page = open_page(f"{server.url}run/one").page
        shutil.rmtree(folder / "one")
        page.locator("#view-live.off").wait_for()
        assert "no longer there" in page.locator("#view-live").inner_text()


def test_a_search_is_watched_from_its_first_trial_to_its_verdict(tmp_path, open_page, picture):
    import promptopt
    from promptopt.lm.scripted import SCRIPTS, ScriptedLM

    task = write_task(tmp_path / "task")
    slow = ScriptedLM(SCRIPTS["obedient"], delay=0.25, max_batch=8)
    (tmp_path / "runs").mkdir()
    run = threading.Thread(
        target=promptopt.optimize, args=(task,), kwargs={"out": tmp_path / "runs" / "now", "backends": {"task": slow}}
    )
    with serving(tmp_path / "runs") as server:
        opened = open_page(server.url)
        page = opened.page
        run.start()
        page.locator("td .badge", has_text="going on").wait_for()
        picture(opened, "live-list")
        page.get_by_role("link", name="now").click()
        page.get_by_role("heading", level=1, name="Not finished").wait_for()
        seen = {page.locator("header.top .lead").inner_text()}
        while run.is_alive():
            page.wait_for_timeout(500)
            seen.add(page.locator("header.top .lead").inner_text())
        picture(opened, "live-run")
        page.get_by_role("heading", level=1, name="Improved").wait_for()
        assert len(seen) > 1  # how far it had got was told anew
        assert page.locator("#view-live").inner_text() == "Live: finished"
        opened.check()
    run.join()
