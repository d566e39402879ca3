"""The HTML report in a real browser: headless Chromium, network off. Skips where playwright or Chromium is missing."""

import exporter
import numpy as np
import pytest
from made_up import IMAGES
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from report_lib import figures, pictures, prose, tables
from report_lib.document import Prose, listing, text
from report_lib.train import train_epoch

axe = pytest.importorskip("axe_playwright_python.sync_playwright")


@pytest.fixture
def page_of(browser, study, tmp_path):
    """open(width, scheme) -> (page, what it logged, what it asked for) of a report on classes with strange names."""
    evidence = study(lambda approach, what: 0.8 if approach == "full_finetune" else 0.6, seeds="0,1",
                     recipes="published,corrected,tuned", budgets="10,50", defects="linear_probe")  # fmt: skip
    main = evidence.main
    names = " ".join(text(name) for name in main["linear_probe"][0].classes)
    parts = [
        Prose(f"Of {names}."), prose.abstract(evidence, ""),
        tables.epochs(main["linear_probe"]), figures.curves(main["linear_probe"]),
        figures.confusion(main["linear_probe"]), listing("lst-loop", "One epoch.", train_epoch),
        tables.published(evidence, ""), tables.defects(evidence), figures.accuracy_against_time(evidence),
        figures.budgets(evidence), pictures.mistakes(main, np.zeros((IMAGES, 8, 8, 3), np.uint8)),
        prose.conclusion(main["linear_probe"]), tables.provenance(evidence),
    ]  # fmt: skip
    cells = [new_markdown_cell("# First\n\n$$ \\frac{1}{n}\\sum_i x_i $$ <!-- eq-mean -->")]
    for number, part in enumerate(parts):
        cells.append(new_markdown_cell(f"## Section of part {chr(97 + number)}\n\n" + "Words. " * 60))
        cells.append(new_code_cell("shown", outputs=[new_output("display_data", data=part._repr_mimebundle_())]))
    path = tmp_path / "report.html"
    path.write_text(exporter.HTMLReport().from_notebook_node(new_notebook(cells=cells))[0], encoding="utf-8")
    contexts = []

    def open_page(width=1400, scheme="light"):
        contexts.append(
            browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        )
        page, logged, asked = contexts[-1].new_page(), [], []
        page.on("console", lambda message: logged.append(message.text))
        page.on("pageerror", lambda error: logged.append(str(error)))
        page.on("dialog", lambda dialog: (logged.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: request.url.startswith("data:") or asked.append(request.url))
        page.goto(path.as_uri())
        return page, logged, asked

    yield open_page
    for context in contexts:
        context.close()


def test_quiet_and_accessible_on_phone_and_desk_by_day_and_night(page_of):
    papers = set()
    for width in (390, 1400):
        for scheme in ("light", "dark"):
            page, logged, asked = page_of(width, scheme)
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{width} px: {wide} px too wide"
            found = axe.Axe().run(page).response["violations"]
            assert not found, [(one["id"], one["impact"], one["nodes"][0]["target"]) for one in found]
            assert len(asked) == 1 and logged == []
            papers.add(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert len(papers) == 2  # day and night have papers of their own


def test_the_contents_follow_the_reader(page_of):
    page, _, _ = page_of()
    for section in ("section-of-part-c", "section-of-part-i", "section-of-part-a"):
        page.evaluate(f"document.getElementById('{section}').scrollIntoView()")
        page.wait_for_function(f"document.querySelector('#toc [aria-current]').hash === '#{section}'")
    assert page.locator("#toc [aria-current]").count() == 1


def test_tables_sort_by_a_click_or_a_key_and_go_back(page_of):
    page, logged, _ = page_of()
    table = page.locator("#tab-defects")

    def column():
        return [t.replace("\u2212", "-") for t in table.locator("tbody tr td:nth-child(4)").all_inner_texts()]

    before = column()
    button = table.locator("thead th:nth-child(4) button")
    button.click()
    assert [float(t) for t in column()] == sorted(map(float, before))
    assert table.locator("th:nth-child(4)").get_attribute("aria-sort") == "ascending"
    button.press("Enter")
    assert [float(t) for t in column()] == sorted(map(float, before), reverse=True)
    button.click()
    assert column() == before and table.locator("th[aria-sort]").count() == 0 and logged == []


def test_times_of_all_units_and_texts_sort_as_meant(page_of):
    page, _, _ = page_of()
    texts = ["450\N{NO-BREAK SPACE}s", "2.5\N{NO-BREAK SPACE}h", "\N{MINUS SIGN}1.5 to +2", "12,345", "55.0 ± 7.1"]
    found = page.evaluate("texts => texts.map(number)", [*texts, "9e22016abc", "2026-11-23", ""])
    assert found[:5] == [450, 9000, -1.5, 12345, 55] and all(value != value for value in found[5:])


def test_long_code_wraps_and_formulas_have_their_font(page_of):
    page, _, _ = page_of(390)
    overflowing = page.evaluate(
        "[...document.querySelectorAll('pre')].filter(p => p.scrollWidth > p.clientWidth).length"
    )
    heights = page.evaluate(
        "[...document.querySelectorAll('pre.python .line')].map(l => l.getBoundingClientRect().height)"
    )
    assert overflowing == 0 and max(heights) > 1.5 * min(heights)
    assert page.evaluate("document.fonts.check('16px \"Report Math\"') && document.fonts.size") == 4


def test_on_paper_there_is_no_navigation_and_folded_code_opens_with_a_click(page_of):
    page, _, _ = page_of()
    folded = page.locator("details.code").first
    assert not folded.locator("pre").is_visible()
    folded.locator("summary").click()
    assert folded.locator("pre").is_visible()
    page.emulate_media(media="print")
    assert not page.locator("#toc").is_visible() and page.locator("#fig-curves-linear-probe svg").is_visible()
