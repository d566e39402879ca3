"""The look around finished runs, and the losses that are drawn meanwhile, without a browser (see test_lab.py)."""

import datetime
import re

import numpy as np
import pytest
import torch
from made_up import CLASSES, IMAGES
from PIL import Image

from report_lib import data
from report_lib.config import preset
from report_lib.evidence.measures import mistakes as surest_mistakes
from report_lib.evidence.measures import probabilities
from report_lib.page import explore, live


@pytest.fixture
def looked(study):
    """(study, images, space) of made-up runs, whose pictures and features are noise."""
    main = study(0.7, seeds="0").of()
    rng = np.random.default_rng(0)
    labels = [
        torch.from_numpy(rng.integers(0, len(CLASSES), 40)),
        torch.from_numpy(main["linear_probe"][0].predictions["test_labels"]),
    ]
    pixels = [torch.from_numpy(rng.integers(0, 255, (len(some), 8, 8, 3), np.uint8)) for some in labels]
    images = data.Images(
        "noise", tuple(main["linear_probe"][0].classes), pixels[0], labels[0], pixels[1], labels[1], "f" * 64
    )
    index = np.arange(0, 40, 2)
    features = rng.random((len(index), 16), np.float32), rng.random((IMAGES, 16), np.float32)
    return main, images, explore.Space(*features, index)


def test_a_cell_holds_the_images_of_its_class_that_were_so_called_the_surest_first(looked):
    run = looked[0]["full_finetune"][0]
    probability, labels = probabilities(run)
    guess = probability.argmax(1)
    cells = [explore.chosen(run, true, said) for true in range(len(CLASSES)) for said in range(len(CLASSES))]
    assert sorted(np.concatenate(cells)) == list(range(IMAGES))
    for number, cell in enumerate(cells):
        assert all(
            (labels[cell], guess[cell])[at][i] == divmod(number, len(CLASSES))[at]
            for at in (0, 1)
            for i in range(len(cell))
        )
        assert list(probability.max(1)[cell]) == sorted(probability.max(1)[cell], reverse=True)
    mistakes = surest_mistakes(run, 3)
    assert all(guess[mistakes] != labels[mistakes])
    assert probability.max(1)[mistakes[0]] == probability.max(1)[guess != labels].max()


def test_neighbours_are_those_of_the_largest_cosine(looked):
    where = looked[2]
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (where.train, where.test)]
    cosine = unit[1][7] @ unit[0].T
    order = np.argsort(-cosine)[:3]
    found = where.nearest(7, 3)
    assert [image for image, _ in found] == list(where.index[order])
    assert [near for _, near in found] == pytest.approx(cosine[order], abs=1e-5)


def test_buttons_and_lists_show_images_and_what_both_approaches_say(looked):
    main, images, where = looked
    browser = explore.Browser(main, images, where)
    run = main["linear_probe"][0]
    for true, said in ((0, 0), (1, 2), (explore.EVERY, 0)):
        browser.choose(true, said)
        found = explore.chosen(run, true, said)
        assert f"<p>{len(found)} test images" in browser.gallery.value
        assert browser.gallery.value.count("<figure") == min(len(found), explore.SHOWN)
        assert (browser.near.value.count("<figure") == explore.NEAREST) is (len(found) > 0)
    button = browser.grid.children[1 + 1].children[1 + 2]  # after the names of columns and rows
    browser.choose(0, 0)
    button.click()
    assert (browser.true.value, browser.predicted.value) == (1, 2)
    browser.approach.value = "full_finetune"
    number = len(explore.chosen(main["full_finetune"][0], 1, 2))
    assert f"<p>{number} test images" in browser.gallery.value
    bundle = browser._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and "#fig-neighbours" in bundle["text/markdown"]


def test_strangers_names_are_text(looked):
    main, images, where = looked
    name = "<script>alert(1)</script>"
    images = data.Images(**vars(images) | {"classes": (name, *images.classes[1:])})
    browser = explore.Browser(main, images, where)
    browser.choose(0, explore.EVERY)
    shown = browser.gallery.value + browser.near.value + "".join(row.children[0].value for row in browser.grid.children)
    assert "<script" not in shown and "&lt;script" in shown
    assert set(re.findall(r"<(\w+)", shown)) <= {"p", "figure", "img", "figcaption", "br"}


def test_many_classes_are_chosen_from_lists(study):
    classes = [f"class {number}" for number in range(30)]
    main = study(0.7, classes=classes, seeds="0").of()
    labels = torch.from_numpy(main["linear_probe"][0].predictions["test_labels"])
    pixels = torch.zeros((len(labels), 8, 8, 3), dtype=torch.uint8)
    images = data.Images("none", tuple(classes), pixels, labels, pixels, labels, "f" * 64)
    features = np.eye(len(labels), 16, dtype=np.float32) + 1
    browser = explore.Browser(main, images, explore.Space(features, features, np.arange(len(labels))))
    assert browser.grid.children == () and len(browser.true.options) == 31


def test_losses_are_drawn_for_those_who_look_on(monkeypatch):
    config = preset("linear_probe", epochs=5)
    epochs = [{"epoch": n, "train_loss": 2 / n, "validation_loss": 2.5 / n, "validation_accuracy": 0.5} for n in (1, 2)]
    assert "epoch 2 of 5" in live.drawing(config, epochs).svg
    shown = []
    monkeypatch.setattr(
        live,
        "display",
        lambda drawing, display_id: shown.append(drawing) or type("Output", (), {"update": staticmethod(shown.append)}),
    )
    live.watch(config, epochs)
    assert shown == []  # no kernel, nobody looks on
    monkeypatch.setattr(live, "get_ipython", lambda: type("Shell", (), {"execution_count": 7}))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    live.watch(config, epochs)
    assert shown == []  # a kernel, as papermill's, but no notebook server
    monkeypatch.setenv("JPY_SESSION_NAME", "notebooks/01_linear_probe.ipynb")
    live.watch(config, epochs)
    live.watch(config, epochs)  # too soon to be drawn again
    assert len(shown) == 1
    live.watch(config, [*epochs, *({**epochs[1], "epoch": n} for n in (3, 4, 5))])  # the last one is always drawn
    assert len(shown) == 2 and "epoch 5 of 5" in shown[1].data


def test_a_photograph_of_ones_own_gets_an_answer_of_every_approach(looked, tmp_path, monkeypatch):
    runs, _, _ = looked
    Image.new("RGB", (30, 20), "red").save(tmp_path / "<b>photo.png")
    answers = [{"class": "<script>", "probability": 0.75}, {"class": "dog", "probability": 0.25}]
    monkeypatch.setattr(explore, "predict", lambda run, paths: [{"image": str(paths[0]), "classes": answers}])
    page = explore.photograph(runs, str(tmp_path / "<b>photo.png")).data
    assert "linear probe: &lt;script&gt; 75" in page and "full fine-tuning" in page and "<script" not in page
    upload = explore.Upload(runs)
    assert "application/vnd.jupyter.widget-view+json" in upload._repr_mimebundle_()
    upload.button.value = ({"name": "x.png", "type": "image/png", "size": 3, "last_modified": datetime.datetime.now(),
                            "content": b"no picture"},)  # fmt: skip
    assert "x.png" in upload.answer.value and "<figure" not in upload.answer.value
