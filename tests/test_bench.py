"""The benchmark measures both sides and says on what; no test asserts on a clock."""

import argparse
import json

from bench import __main__ as bench
from bench import growth, precision

from report_lib import speed


def test_the_benchmark_writes_what_a_report_can_show(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "FEW", 60)
    monkeypatch.setattr(growth, "SCALING", {"images": [60, 120], "epochs": [1], "seeds": [1, 2]})
    options = argparse.Namespace(
        data="digits", weights="embedded", image_size=63, images=120, budget=0.0, device="cpu"
    )  # fmt: skip
    path = tmp_path / "speed.json"
    path.write_text(json.dumps(bench.bench(options)))
    measured = speed.read(str(path))
    assert {"device", "cpu_capability", "images", "linear_probe", "full_finetune", "scaling"} <= measured.keys()
    for approach in ("linear_probe", "full_finetune"):
        one = measured[approach]
        assert one["ratio"]["min"] <= one["ratio"]["median"] <= one["ratio"]["max"]
        assert one["published_images_per_second"] > 0 and one["ours_images_per_second"] > 0
    assert len(measured["scaling"]) == 10 and all(row["peak_memory_mib"] > 100 for row in measured["scaling"])
    shown = [speed.summary(measured), speed.ratios(measured), speed.trend(measured), speed.growth(measured)]
    text = " ".join(part.looks()["text/plain"] for part in [*shown, speed.operators(measured)])
    assert "120 images" in text and "convolution" in text and "nan" not in text


def test_precisions_are_compared_seed_by_seed():
    result = precision.compared([0.5, 0.6, 0.7], [0.51, 0.61, 0.7101])
    assert abs(result["difference"] - 0.01) < 1e-4 and result["sd_between_seeds_float32"] > 0.09
