"""The benchmark measures both sides and says on what; no test asserts on a clock."""

import json

import pytest
import torch
from bench import __main__ as bench
from bench import answer, growth, limit, precision, show

from report_lib import data, models
from report_lib.config import Config


@pytest.mark.long
def test_the_benchmark_writes_what_a_report_can_show(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "FEW", 60)
    monkeypatch.setattr(bench, "PER_CLASS", 5)
    monkeypatch.setattr(limit, "SIDES", (256,))
    scaling = {"images": [60, 120], "epochs": [1], "seeds": [1, 2], "network": ["mobilenet_v3_small"]}
    monkeypatch.setattr(growth, "SCALING", scaling)
    monkeypatch.setattr(growth, "SEEDS_SIZE", 63)
    for usual in growth.USUAL.values():
        monkeypatch.setitem(usual, "images", 160)
    shorter = {"epochs": 2}  # of both sides, where a whole run has ten
    monkeypatch.setattr(bench, "answers", lambda images, weights, shared, *rest: answer.answers(
        images, weights, shared | shorter, *rest))  # fmt: skip
    path = tmp_path / "speed.json"
    path.write_text(json.dumps(bench.bench(Config(image_size=63), "cpu", 0.0, 120)))
    measured = show.read(str(path))
    assert measured["best_flops_per_second"].keys() == {"float32", measured["precision"]}
    assert {"device", "cpu_capability", "images", "linear_probe", "full_finetune", "scaling"} <= measured.keys()
    for approach in ("linear_probe", "full_finetune"):
        one = measured[approach]
        assert one["ratio"]["min"] <= one["ratio"]["median"] <= one["ratio"]["max"]
        assert one["published_images_per_second"] > 0 and one["ours_images_per_second"] > 0
        assert 0 < one["share_of_best_rate"] < 1 and 0 <= one["share_of_features"] < 1
        (row,) = measured["answer"][approach]
        assert row["corrected"]["best_accuracy"] == row["target"] and row["published loop"]["seconds"] > 0
    assert len(measured["scaling"]) == 12 and all(row["peak_memory_mib"] > 100 for row in measured["scaling"])
    shown = [show.summary(measured), show.ratios(measured), show.trend(measured), show.growth(measured)]
    shown += [show.bounds(measured), show.rates(measured), show.answer(measured)]
    text = " ".join(part.looks()["text/plain"] for part in [*shown, show.operators(measured)])
    assert "120 images" in text and "convolution" in text and "nan" not in text
    told = show.told(measured)
    assert "120 images" in " ".join(told.split()) and "published loop, 1/s" in told and "\\" not in told
    assert all(len(line) <= show.WIDTH for line in told.splitlines())


@pytest.mark.parametrize(("curve", "epoch"), [([0.5, 0.7, 0.6, 0.8], 2), ([0.7, 0.7], 1), ([0.5, 0.65], None)])
def test_an_accuracy_is_reached_at_the_first_epoch_that_has_it(curve, epoch):
    assert answer.reached(curve, 0.7) == epoch


@pytest.mark.parametrize(
    ("theirs", "ours", "ratio"), [(4, 2, "3.5"), (None, 2, "more than 3.5"), (4, None, ""), (None, None, "")]
)
def test_no_time_is_compared_that_was_not_reached(theirs, ours, ratio):
    one = {"best_accuracy": 0.5, "seconds": 2.0, "epoch": ours}
    row = {"seed": 0, "corrected": one, "tuned": one, "published loop": one | {"seconds": 7.0, "epoch": theirs}}
    made = show.answer({"answer": dict.fromkeys(show.BENCHED, [row]), "answer_labels": 5})
    assert [cells[-1] for cells in made.rows] == 2 * ["", ratio, ratio]


def test_no_share_of_the_best_rate_exceeds_one_where_convolutions_outrun_matrix_products():
    """The best is taken over all kinds of work, the network's own layers among them."""
    net = models.bare("alexnet")
    found = limit.layers(net, 63, torch.device("cpu"))
    assert [type(layer).__name__ for layer, _ in found] == ["Conv2d"] * 5 + ["Linear"] * 3
    flops = []
    limit_rate = lambda work, flops_of, device: flops.append(flops_of) or 1.0  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limit, "rate", limit_rate)
        patch.setattr(limit, "BATCH", 2)
        limit.best(net, 63, torch.device("cpu"), torch.float32)
    of_layers = flops[len(limit.SIDES) :: 2]
    assert sum(of_layers) == pytest.approx(2 * models.flops(net, 63)[0], rel=0.02)  # of two pictures


def test_what_is_measured_here_is_shown_before_what_came_with_the_project(tmp_path, monkeypatch):
    monkeypatch.setattr(show, "MEASURED", tmp_path / "measured.json")
    assert show.read() == json.loads(show.KEPT.read_text())
    show.MEASURED.write_text('{"mine": 1}')
    assert show.read() == {"mine": 1}


def test_precisions_are_compared_seed_by_seed():
    result = precision.compared([0.5, 0.6, 0.7], [0.51, 0.61, 0.7101])
    assert abs(result["difference"] - 0.01) < 1e-4 and result["sd_between_seeds_float32"] > 0.09


def test_the_guides_page_on_speed_is_what_was_measured():
    assert show.GUIDE.read_text() == show.guide(show.read(str(show.KEPT)))


def test_the_time_to_an_answer_is_measured_on_as_many_images_of_each_class():
    few = answer.labelled(data.load("digits", 63), 7)
    assert torch.bincount(few.train_labels).tolist() == [7] * 10 and len(few.test) == 0 and len(few.train) == 70
