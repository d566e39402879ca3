# ruff: noqa: E501  (a case is a line)
"""The HTML report in a real browser: headless Chromium, network off. Skips where playwright or Chromium is missing."""

import io
from pathlib import Path

import pytest
from export import exporter, merge, outputs, tables
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

axe = pytest.importorskip("axe_playwright_python.sync_playwright")
pytestmark = pytest.mark.long

KEPT = sorted((Path(__file__).resolve().parents[1] / "report" / "cifar10").glob("0*.ipynb"))
STRANGE = ["<script>alert(1)</script>", "[x](http://evil)", "*b* `c` $d$ @e #h", "猫", '"q" </style>']
NUMBERS = ["12.5", "−3.25", "0.75", "110", "7", "−20.5"]


def shown(kind, **content):
    return new_code_cell("shown", outputs=[new_output("display_data", data={outputs.MIME: {"kind": kind, **content}})])


def plot():
    """An SVG as matplotlib makes it, wider than a phone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3))
    figure.subplots().plot([1, 3, 2], label="a line")
    file = io.StringIO()
    figure.savefig(file, format="svg")
    return file.getvalue()


def made_up():
    """A section for each kind of thing, with strangers' words in it."""
    rows = [
        [name, str(n), "450 s", number] for n, (name, number) in enumerate(zip([*STRANGE, "cat"], NUMBERS, strict=True))
    ]
    frame = "<table class='dataframe'><thead><tr><th></th><th>n</th></tr></thead><tbody><tr><th>0</th><td>1.5</td></tr></tbody></table>"
    styled = "<style>#T_a {background-color: #ffdd00}</style><table><tr><td id='T_a'>1</td></tr></table>"
    outs = [new_output("execute_result", data={"text/html": frame}), new_output("execute_result", data={"text/html": styled}),
            new_output("stream", name="stdout", text="\x1b[31mred\x1b[0m \x1b[33;1myellow\x1b[0m \x1b[36mcyan\x1b[0m")]  # fmt: skip
    long_code = "def f(x):\n    return " + " + ".join(f"name_of_a_term_{n}(x)" for n in range(20))
    return [
        new_markdown_cell("# First\n\n$$ \\frac{1}{n}\\sum_i x_i $$ <!-- eq-mean -->\n\n- [x] done\n\n> quoted\n\nA note[^1].\n\n[^1]: Note."),
        shown("table", label="tab-made", caption="Of names.", header=["name", "n", "time", "value"], rows=rows, align="lrrr"),
        shown("figure", label="fig-made", caption="A plot.", alt="A line.", svg=plot()),
        shown("listing", label="lst-made", caption="Long code.", code=long_code),
        *(shown("figure", label=f"fig-{tab}", caption=f"Of {tab}.", alt=f"{tab}.", svg=plot(), group="g", tab=tab) for tab in ("corrected", "tuned")),
        new_markdown_cell("As [Figure](#fig-tuned), [Figure](#fig-made), [@kingma2015] and $e^{z}$ say:\n\n$$ \\frac{a}{\\sum_{k=1}^{K} e^{z_k}} $$"),
        new_code_cell("outputs = 1", outputs=outs),
        *(new_markdown_cell(f"## Section of part {letter}\n\n" + "Words. " * 200) for letter in "abcdefgh"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    cells = [*made_up(), *(merge.merge(KEPT).cells if KEPT else [])]
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(exporter.HTMLReport().from_notebook_node(new_notebook(cells=cells))[0], encoding="utf-8")
    return file


@pytest.fixture
def page_of(browser, path):
    """open(width, scheme, **options of the browser) -> (page, what it logged, what it asked for)."""
    contexts = []

    def open_page(width=1400, scheme="light", **more):
        view = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=view, color_scheme=scheme, offline=True, **more))
        contexts[-1].set_default_timeout(120_000)  # for a machine that is busy
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
    for section in ("section-of-part-c", "section-of-part-f", "section-of-part-a"):
        page.evaluate(f"document.getElementById('{section}').scrollIntoView()")
        page.wait_for_function(f"document.querySelector('#toc [aria-current]').hash === '#{section}'")
    assert page.locator("#toc [aria-current]").count() == 1


def test_tables_sort_by_a_click_or_a_key_and_go_back(page_of):
    page, logged, _ = page_of()
    table = page.locator("#tab-made")

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


def test_one_switch_shows_all_code_with_and_without_a_script(page_of):
    for scripted in (True, False):
        page, _, _ = page_of(java_script_enabled=scripted)
        folded = page.locator(".code pre").first
        assert not folded.is_visible() and page.locator("#lst-made pre").is_visible()
        page.locator("#show-code").check()
        assert folded.is_visible() and page.locator(".code pre:visible").count() == page.locator(".code pre").count()
    page.emulate_media(media="print")
    assert (
        not folded.is_visible() and not page.locator("#toc").is_visible() and page.locator("#fig-made svg").is_visible()
    )


def test_code_is_copied_as_it_was_typed(page_of):
    page, _, _ = page_of(permissions=["clipboard-read", "clipboard-write"])
    page.locator("#lst-made .copy").click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("def f(x):\n    return name_of_a_term_0(x) + ")


def test_tabs_show_one_and_all_where_there_is_no_script_or_on_paper(page_of):
    page, logged, _ = page_of()
    assert page.locator("#fig-corrected").is_visible() and not page.locator("#fig-tuned").is_visible()
    tab = page.get_by_role("tab", name="corrected").first  # those of the kept report come after
    tab.press("ArrowRight")
    assert page.locator("#fig-tuned").is_visible() and not page.locator("#fig-corrected").is_visible()
    tab.click()
    page.locator('main a[href="#fig-tuned"]').first.click()
    assert page.locator("#fig-tuned").is_visible() and logged == []
    page.emulate_media(media="print")
    assert page.locator("#fig-corrected").is_visible() and page.locator("#fig-tuned").is_visible()
    plain, _, _ = page_of(java_script_enabled=False)
    assert plain.locator("#fig-corrected").is_visible() and plain.locator("#fig-tuned").is_visible()


def test_references_show_what_they_refer_to_under_the_pointer_and_at_the_first_tap(page_of):
    page, _, _ = page_of()
    page.locator('main a[href="#ref-kingma2015"]').first.hover()
    page.wait_for_selector(".preview:visible")
    assert "Adam: A Method" in page.locator(".preview").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator(".preview").is_visible()
    phone, _, _ = page_of(390, has_touch=True)
    link = phone.locator('main a[href="#fig-made"]').first
    link.tap()
    assert phone.locator(".preview svg").is_visible() and phone.evaluate("location.hash") == ""
    box = phone.locator(".preview").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    link.tap()
    assert phone.evaluate("location.hash") == "#fig-made" and not phone.locator(".preview").is_visible()


def test_a_figure_can_be_enlarged(page_of):
    page, _, _ = page_of(390)
    small = page.locator("#fig-made svg").bounding_box()["width"]
    page.locator("#fig-made .zoom").click()
    assert page.locator("dialog svg").bounding_box()["width"] > 1.5 * small
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_a_phone_shows_whole_figures_folded_contents_and_a_tables_first_column(page_of):
    page, _, _ = page_of(390)
    assert page.locator("#toc summary").is_visible() and not page.locator("#toc a").first.is_visible()
    column = page.locator("main").bounding_box()
    picture = page.locator("#fig-made svg").bounding_box()
    assert column["width"] < picture["width"] <= 390 and picture["x"] >= 0
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page, _, _ = page_of(240)
    first = page.locator("#tab-made tbody tr").nth(1).locator("> :first-child")
    before = first.bounding_box()["x"]
    page.evaluate("document.querySelector('#tab-made .table').scrollLeft = 60")
    assert page.evaluate("document.querySelector('#tab-made .table').scrollLeft") > 0
    assert abs(first.bounding_box()["x"] - before) < 1


def test_scripts_do_not_float_and_sums_do_not_collide(page_of):
    page, _, _ = page_of()
    rects = """selector => [...document.querySelectorAll(selector)].filter(m => m.textContent.length < 9).map(m =>
        [...m.children].map(c => { const r = c.getBoundingClientRect(); return [r.top, r.bottom]; }))"""
    scripts = page.evaluate(rects, "math msup")
    assert scripts and all(top < up_bottom and up_top < top + 3 for (top, _), (up_top, up_bottom) in scripts)
    sums = page.evaluate(rects, "math :is(msubsup, munderover)")
    assert sums and all(over[1] <= under[0] + 4 for _, under, over in sums)


def test_colours_of_a_styled_cell_can_be_read():
    assert tables.hexadecimal("rgb(255, 0, 0)") == "#ff0000" and tables.hexadecimal("expression(1)") == ""
