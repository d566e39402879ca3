"""Does bfloat16 end where float32 does? Both precisions, paired over seeds, on the demo's data.

python -m bench.precision, with report/ and the project on PYTHONPATH, writes precision.json. It is apart from make
bench, since hardware that does not multiply in bfloat16 takes long to imitate it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import stats

from report_lib.config import APPROACHES, preset
from report_lib.files import write_whole
from report_lib.runs import run
from report_lib.training import pick_device
from report_lib.training.device import device_name


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    options.add_argument("--data", default="digits")
    options.add_argument("--weights", default="embedded")
    options.add_argument("--image-size", type=int, default=64)
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--per-class", type=int, default=20, help="of fine-tuning; the probe takes all")
    options.add_argument("--seeds", default="0,1,2,3,4")
    options.add_argument("--output", type=Path, default=Path(__file__).with_name("precision.json"))
    chosen = options.parse_args()
    result = {name: getattr(chosen, name) for name in ("data", "weights", "image_size", "epochs", "per_class", "seeds")}
    result["device"] = device_name(pick_device())
    for approach in APPROACHES:
        accuracy = {}
        for precision in ("float32", "bfloat16"):
            # Few images in small batches for fine-tuning, which is what takes long.
            less = {} if APPROACHES[approach].trains == "head" else {"per_class": chosen.per_class, "batch_size": 32}
            shared = {"data": chosen.data, "weights": chosen.weights, "image_size": chosen.image_size,
                      "epochs": chosen.epochs, "precision": precision, **less}  # fmt: skip
            seeds = map(int, chosen.seeds.split(","))
            accuracy[precision] = [run(preset(approach, seed=s, **shared)).info["test_accuracy"] for s in seeds]
        result[approach] = accuracy | compared(accuracy["float32"], accuracy["bfloat16"])
        write_whole(chosen.output, json.dumps(result, indent=1) + "\n")


def compared(exact: list[float], mixed: list[float]) -> dict:
    """bfloat16 minus float32, paired by seed: its mean, Student's 95 % interval, and the spread between seeds."""
    difference = np.subtract(mixed, exact)
    interval = stats.ttest_1samp(difference, 0).confidence_interval(0.95)
    return {
        "difference": float(difference.mean()),
        "difference_ci95": [float(interval.low), float(interval.high)],
        "sd_between_seeds_float32": float(np.std(exact, ddof=1)),
    }


if __name__ == "__main__":
    main()
