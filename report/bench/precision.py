"""Does bfloat16 end where float32 does? Both precisions, paired over seeds.

python -m bench.precision, with report/ and the project on PYTHONPATH, writes precision.json. It is apart from make
bench, since hardware that does not multiply in bfloat16 takes long to imitate it.
"""

import argparse
import json

import numpy as np
from scipy import stats

from bench import show
from report_lib.config import preset
from report_lib.files import write_whole
from report_lib.runs import run
from report_lib.training import pick_device
from report_lib.training.device import device_name


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    options.add_argument("--data", default="digits")
    options.add_argument("--data-name", default="handwritten digits", help="what to call the data")
    options.add_argument("--weights", default="embedded")
    options.add_argument("--preset", default="tuned")
    options.add_argument("--image-size", type=int, default=64)
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--per-class", type=int, default=120)
    options.add_argument("--seeds", default="0,1,2,3,4")
    chosen = options.parse_args()
    names = ("weights", "image_size", "epochs", "batch_size", "per_class")
    shared = {name: getattr(chosen, name) for name in names}
    result = shared | {"data": chosen.data_name, "preset": chosen.preset, "seeds": chosen.seeds}
    result["device"] = device_name(pick_device())
    for approach in show.BENCHED:
        accuracy: dict[str, list[float]] = {}
        for precision in ("float32", "bfloat16"):
            for seed in map(int, chosen.seeds.split(",")):
                config = preset(approach, chosen.preset, data=chosen.data, seed=seed, precision=precision, **shared)
                accuracy.setdefault(precision, []).append(run(config).info["test_accuracy"])
        result[approach] = accuracy | compared(accuracy["float32"], accuracy["bfloat16"])
    write_whole(show.PRECISION, json.dumps(result, indent=1) + "\n")
    write_whole(show.GUIDE, show.guide(show.read(str(show.KEPT))))


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
