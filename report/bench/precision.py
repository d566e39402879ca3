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

# What is trained, in both precisions.
CONFIG = {"weights": "embedded", "image_size": 64, "epochs": 5, "batch_size": 32, "per_class": 120}
PRESET, SEEDS = "tuned", range(5)


def main() -> None:
    argparse.ArgumentParser(prog="bench.precision", description=__doc__).parse_args()  # for those who ask for help
    result = CONFIG | {"data": "handwritten digits", "preset": PRESET, "seeds": ",".join(map(str, SEEDS))}
    result["device"] = device_name(pick_device())
    for approach in show.BENCHED:
        accuracy: dict[str, list[float]] = {"float32": [], "bfloat16": []}
        for precision, reached in accuracy.items():
            for seed in SEEDS:
                config = preset(approach, PRESET, data="digits", seed=seed, precision=precision, **CONFIG)
                reached.append(run(config).info["test_accuracy"])
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
