"""What a person does on a page, with a mouse and with a keyboard alone."""

import pytest


def column(page, table, number):
    return page.eval_on_selector_all(
        f"{table} > tbody > tr:not([hidden])",
        "(rows, i) => rows.map(row => row.cells[i].dataset.value ?? row.cells[i].textContent.trim())",
        number,
    )


def numbers(values):
    return [float(value) for value in values if value not in ("", "–")]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_it_is_changed(open_page, files, scheme):
    page = open_page(files["finished"], color_scheme=scheme).page
    back = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(back)
    button = page.locator("#theme")
    assert button.inner_text() == ("Dark" if scheme == "light" else "Light")
    button.click()
    after = page.evaluate(back)
    assert after != before
    assert button.inner_text() == ("Light" if scheme == "light" else "Dark")
    page.reload()
    assert page.evaluate(back) == after
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(back) == before


def test_the_first_tab_skips_to_the_content(open_page, files):
    page = open_page(files["finished"]).page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_table_is_sorted_by_click_and_by_keyboard(open_page, files):
    opened = open_page(files["long"])
    page = opened.page
    table = page.locator("table.sortable.filterable").first
    table.evaluate("table => table.id = 'race'")
    heads = table.locator("thead th")
    place = [text.rstrip(" ↕↑↓\u00a0") for text in heads.all_inner_texts()].index("Score")
    sort = heads.nth(place).locator("button.sort")
    sort.click()
    rising = numbers(column(page, "#race", place))
    assert len(rising) > 5
    assert rising == sorted(rising)
    assert heads.nth(place).get_attribute("aria-sort") == "ascending"
    assert page.evaluate("document.activeElement.className") == "sort"
    page.keyboard.press("Enter")
    assert numbers(column(page, "#race", place)) == sorted(rising, reverse=True)
    assert heads.nth(place).get_attribute("aria-sort") == "descending"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert heads.nth(place).get_attribute("aria-sort") == "none"
    assert heads.nth(place - 1).get_attribute("aria-sort") == "ascending"
    opened.check()


def test_rows_are_filtered_as_one_types(open_page, files):
    opened = open_page(files["long"])
    page = opened.page
    page.locator("table.sortable.filterable").first.evaluate("table => table.id = 'race'")
    everything = len(column(page, "#race", 0))
    box = page.get_by_label("Show rows with").first
    box.fill("FINALIST")
    shown = page.locator("#race > tbody > tr:visible")
    assert 0 < shown.count() < everything
    assert all("finalist" in text.lower() for text in shown.all_text_contents())
    assert page.locator("label.filter [role=status]").first.inner_text() == f"{shown.count()} of {everything}"
    box.fill("nothing has this")
    assert shown.count() == 0
    box.fill("")
    assert shown.count() == everything
    opened.check()


def test_what_is_folded_opens_by_click_and_by_keyboard(open_page, files):
    opened = open_page(files["long"])
    page = opened.page
    first = page.locator("details").first
    summary = first.locator("summary").first
    summary.click()
    assert first.evaluate("part => part.open")
    summary.focus()
    page.keyboard.press("Enter")
    assert not first.evaluate("part => part.open")
    page.keyboard.press("Space")
    assert first.evaluate("part => part.open")
    opened.check()


def test_everything_that_can_be_pressed_can_be_reached_by_tab_and_is_seen_to_be(open_page, files):
    page = open_page(files["finished"]).page
    wanted = page.locator("a[href]:visible, button:visible, summary:visible, input:visible").count()
    reached = 0
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        reached += page.evaluate("document.activeElement.matches('a, button, summary, input')")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
    assert reached >= wanted


def test_the_leaderboard_is_sorted_and_its_own_order_comes_back(open_page, files):
    opened = open_page(files["leaderboard"])
    page = opened.page
    table = page.locator("table.ranking").first
    table.evaluate("table => table.id = 'ranking'")
    heads = [text.rstrip(" ↕↑↓\u00a0") for text in table.locator("thead tr").last.locator("th, td").all_inner_texts()]
    gain = next(i for i, head in enumerate(heads) if head.startswith("Gain"))
    before = column(page, "#ranking", gain)
    assert numbers(before) == sorted(numbers(before), reverse=True)
    name = next(i for i, head in enumerate(heads) if head.startswith("Optimizer"))
    table.locator("thead tr").last.locator("th, td").nth(name).locator("button.sort").click()
    names = column(page, "#ranking", name)
    assert names == sorted(names)
    assert column(page, "#ranking", gain) != before
    sort = table.locator("thead tr").last.locator("th, td").nth(gain).locator("button.sort")
    sort.click()
    sort.click()
    assert column(page, "#ranking", gain) == before
    opened.check()


def test_the_list_of_runs_is_sorted_and_filtered_and_leads_to_them(open_page, served):
    opened = open_page(served)
    page = opened.page
    written = numbers(column(page, "table.runs", 10))
    assert written == sorted(written, reverse=True)
    page.get_by_role("button", name="Calls").click()
    calls = column(page, "table.runs", 8)
    known = numbers(calls)
    assert known == sorted(known)
    assert calls[len(known) :] == [""] * (len(calls) - len(known))  # what is not known comes last
    page.get_by_label("Show rows with").fill("damaged")
    assert page.locator("table.runs > tbody > tr:visible").count() == 1
    page.get_by_label("Show rows with").fill("")
    page.get_by_role("link", name="finished", exact=True).click()
    assert page.url == f"{served}run/finished"
    assert "Improved" in page.locator("h1").inner_text()
    page.get_by_role("link", name="Leaderboard").click()
    assert page.locator("nav.view a[aria-current=page]").inner_text() == "Leaderboard"
    assert page.locator("table.ranking").count() or "make no leaderboard" in page.locator("h1").inner_text()
    page.get_by_role("link", name="All runs").click()
    assert page.url == served
    opened.check()
