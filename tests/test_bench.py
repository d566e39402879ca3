"""The benchmark measures both sides and says on what; no test asserts on a clock."""

import json

import pytest
from bench import __main__ as bench
from bench import growth, precision, show

from report_lib.config import Config
from report_lib.files import PROJECT


@pytest.mark.long
def test_the_benchmark_writes_what_a_report_can_show(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "FEW", 60)
    monkeypatch.setattr(growth, "SCALING", {"images": [60, 120], "epochs": [1], "seeds": [1, 2]})
    path = tmp_path / "speed.json"
    path.write_text(json.dumps(bench.bench(Config(image_size=63), "cpu", 0.0, 120)))
    measured = show.read(str(path))
    assert {"device", "cpu_capability", "images", "linear_probe", "full_finetune", "scaling"} <= measured.keys()
    for approach in ("linear_probe", "full_finetune"):
        one = measured[approach]
        assert one["ratio"]["min"] <= one["ratio"]["median"] <= one["ratio"]["max"]
        assert one["published_images_per_second"] > 0 and one["ours_images_per_second"] > 0
    assert len(measured["scaling"]) == 10 and all(row["peak_memory_mib"] > 100 for row in measured["scaling"])
    shown = [show.summary(measured), show.ratios(measured), show.trend(measured), show.growth(measured)]
    text = " ".join(part.looks()["text/plain"] for part in [*shown, show.operators(measured)])
    assert "120 images" in text and "convolution" in text and "nan" not in text


def test_precisions_are_compared_seed_by_seed():
    result = precision.compared([0.5, 0.6, 0.7], [0.51, 0.61, 0.7101])
    assert abs(result["difference"] - 0.01) < 1e-4 and result["sd_between_seeds_float32"] > 0.09


def test_the_guide_says_what_the_committed_benchmark_measured():
    measured = json.loads((PROJECT / "report" / "bench" / "speed.json").read_text())
    said = " ".join((PROJECT / "report" / "guide" / "speed.md").read_text().split())
    probe, tuned = measured["linear_probe"], measured["full_finetune"]
    assert f"the linear probe is about {probe['ratio']['median']:.0f} times as fast as published" in said
    assert f"and about {probe['ratio_of_five_seeds']['median']:.0f} times over five seeds" in said
    assert f"full fine-tuning is {tuned['ratio']['median']:.1f} times as fast" in said
    assert f"runs at {100 * tuned['share_of_matrix_rate']:.0f} % of the rate of a bare matrix product" in said
