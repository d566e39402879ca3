"""The notebooks in a real JupyterLab, driven by a headless Chromium. Skips where playwright or Chromium is missing."""

import os
import re
import signal
import socket
import time
import urllib.request

import pytest
from project import Project

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.long

QUICK = "data: digits\nimage_size: 63\nepochs: 3\nbatch_size: 32\nper_class: 20\n"


@pytest.fixture(scope="module")
def lab(tmp_path_factory, trained):
    """The address of a JupyterLab that `make lab` has started on a copy of the project, whose notebooks are quick."""
    folder = tmp_path_factory.mktemp("lab")
    project = Project(folder / "project", trained=trained)
    (project.folder / "report" / "profiles" / "demo.yaml").write_text(QUICK)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = f"--no-browser --port={port} --IdentityProvider.token= --allow-root --LabApp.expose_app_in_browser=True"
    os.environ |= {"JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTER_RUNTIME_DIR": str(folder / "runtime")}
    child = project.start("lab", f"LAB={asked}")
    address = f"http://127.0.0.1:{port}/lab"
    try:
        for _ in range(300):
            assert child.poll() is None, child.stdout.read()
            try:
                urllib.request.urlopen(f"{address}/../api/status").close()
                break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail(f"no JupyterLab answers at {address}")
        yield address
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        child.communicate()
        del os.environ["JUPYTER_CONFIG_DIR"], os.environ["JUPYTER_RUNTIME_DIR"]


def run_all(browser, lab, name):
    """(the page, outputs of each code cell) of a notebook that was opened, and run from top to bottom."""
    page = browser.new_page(viewport={"width": 1400, "height": 1200})
    page.set_default_timeout(60_000)
    page.goto(f"{lab}/tree/notebooks/{name}.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_function("jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
    kernel = page.evaluate("jupyterapp.shell.currentWidget.sessionContext.session.kernel.name")
    assert kernel == "python3"
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    cells = page.evaluate(
        "jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code')"
        ".map(c => [c.model.executionCount, c.model.outputs.toJSON()])"
    )
    assert [count for count, _ in cells] == list(range(1, len(cells) + 1)), "not every cell was run"
    for _, outputs in cells:
        assert not [out for out in outputs if out["output_type"] == "error"], outputs
    return page, [outputs for _, outputs in cells]


def kinds(outputs):
    return {kind for out in outputs for kind in out.get("data", {})}


@pytest.mark.parametrize("name", ["01_linear_probe", "02_full_finetune"])
def test_training_draws_its_losses_and_a_second_run_trains_nothing(browser, lab, name):
    page, cells = run_all(browser, lab, name)
    pages = ["".join(out.get("data", {}).get("text/html", "")) for outputs in cells for out in outputs]
    assert any("<svg" in shown and "epoch 3 of 3" in shown for shown in pages)
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
    again = page.evaluate(
        "jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code')"
        ".flatMap(c => c.model.outputs.toJSON())"
        ".filter(o => o.data && String(o.data['text/html']).includes('epoch 3 of 3')).length"
    )
    assert again == 0  # what is in the store is not trained again
    page.close()


def test_the_analysis_runs(browser, lab):
    page, cells = run_all(browser, lab, "03_analysis")
    assert sum("application/vnd.report+json" in kinds(outputs) for outputs in cells) > 15
    page.close()


def test_a_click_on_the_confusion_matrix_shows_its_images(browser, lab):
    page, cells = run_all(browser, lab, "04_explore")
    widget = next(outputs for outputs in cells if "application/vnd.jupyter.widget-view+json" in kinds(outputs))
    assert "text/markdown" in kinds(widget)  # what shows where there is no kernel
    page.evaluate("(n => n.scrollToItem(n.widgets.length - 1))(jupyterapp.shell.currentWidget.content)")
    cell = page.locator(".jp-OutputArea .widget-button[title^='three taken for three']")
    cell.scroll_into_view_if_needed()
    number = int(re.search(r"\d+$", cell.get_attribute("title"))[0])
    cell.click()
    gallery = page.locator(".widget-html", has_text="test images").first
    playwright.expect(gallery).to_contain_text(f"{number} test images")
    playwright.expect(gallery.locator("figure")).to_have_count(min(number, 24))
    near = page.locator(".widget-html", has_text="nearest to #")
    playwright.expect(near.locator("figure")).to_have_count(8)
    before = near.inner_text()
    page.get_by_label("near image").select_option(index=1)
    page.wait_for_function(f"!document.body.innerText.includes({before.splitlines()[0]!r})")
    assert "full fine-tuning" in gallery.inner_text()
    page.close()
