"""Runs -> what training costs: seconds, images per second, memory, operations, and the seconds to the same accuracy."""

import dataclasses

import numpy as np

from report_lib.runs import Run, Runs, Study


def training_rate(run: Run) -> float:
    """Images per second of the training steps alone, each image counted once per epoch."""
    return run.info["data"]["train"] * len(run.epochs) / float(run.epochs["train_seconds"].sum())


def views(run: Run) -> int:
    """Of how many views of each picture features were kept."""
    config, moved = run.info["config"], run.info["config"]["flip"]
    moved |= bool(int(config["shift"] * max(run.info["data"]["stored_size"])))
    return config["views"] if moved else 1


def features_rate(run: Run) -> float | None:
    """Views per second of the frozen layers, whose features are computed once; None where none were kept."""
    spent = run.info["features_seconds"]
    return views(run) * run.info["data"]["train"] / spent if spent else None


def peak_memory(runs: Runs) -> float:
    """The most that any of the runs took, MiB."""
    return max(run.info["peak_memory_mib"] for run in runs)


def features_shared(runs: Runs) -> bool:
    """Whether several runs used the same features, so that their time was measured once and has no deviation."""
    spent = {run.info["features_seconds"] for run in runs}
    return len(runs) > 1 and len(spent) == 1 and spent != {0.0}


def others_share(runs: Runs) -> tuple[float, float] | None:
    """Least and greatest share of the machine's CPU time that other processes took while a run trained; None where
    that is not known of every run."""
    shares = [run.info["provenance"].get("others_share") for run in runs]
    return None if not shares or None in shares else (min(shares), max(shares))


def operations(run: Run, cached: bool = True) -> float | None:
    """Floating-point operations per training image of a whole run; `cached`: where the run kept its frozen features, as
    it did, with one forward pass of each view through the frozen part, otherwise with one in every epoch. A probe that
    it starts from counts alike, the steps of its head aside.

    None where dropout in the frozen part ran some frozen layers once and others in every epoch."""
    info, config = run.info, run.info["config"]
    epochs, forward, backward = config["epochs"], info["forward_flops"], info["backward_flops"]
    if not cached:
        return epochs * (forward + backward) + epochs * forward * (config["start"] == "probe")
    if not info["features_seconds"]:
        return epochs * (forward + backward) + forward * (config["start"] == "probe")
    return None if config["frozen_dropout"] else views(run) * forward + epochs * backward


def operations_ratios(a: Runs, b: Runs) -> tuple[float | None, float]:
    """(operations of b as a multiple of those of a, as both were run, None if one is not known; the same if neither
    kept frozen features)."""
    kept, anew = ([operations(runs[0], cached) for runs in (a, b)] for cached in (True, False))
    return kept[1] / kept[0] if kept[0] and kept[1] else None, anew[1] / anew[0]  # type: ignore[operator]


# --- the seconds to the same accuracy --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Reached:
    """The seconds after which each seed's validation accuracy is at `target` or above for the first time; None for one
    that never is. The best epoch is the one that is kept, so what is reached once is reached for good."""

    target: float
    seconds: tuple[float | None, ...]

    @property
    def of_those_that_do(self) -> list[float]:
        return [value for value in self.seconds if value is not None]

    @property
    def median(self) -> float | None:
        """Of all seeds, where one that never reaches it counts as later than any; None if that is the middle."""
        late = sorted(float("inf") if value is None else value for value in self.seconds)
        middle = float(np.mean([late[(len(late) - 1) // 2], late[len(late) // 2]]))
        return middle if np.isfinite(middle) else None


def reached(runs: Runs, target: float) -> Reached:
    """Training time until validation accuracy reaches `target`; features and the start are part of it."""
    return Reached(target, tuple(_seconds_to(run, target) for run in runs))


def _seconds_to(run: Run, target: float) -> float | None:
    there = np.flatnonzero(run.epochs["validation_accuracy"].to_numpy() >= target)
    if not len(there):
        return None
    spent = run.epochs["train_seconds"].to_numpy()[: there[0] + 1].sum()
    return float(run.info["start_seconds"] + run.info["features_seconds"] + spent)


def selected_accuracy(runs: Runs) -> float:
    """Validation accuracy of the selected epochs, mean over seeds."""
    return float(np.mean([run.info["validation_accuracy"] for run in runs]))


def time_to_accuracy(study: Study) -> list[tuple[Runs, dict[str, Reached]]]:
    """For every preset whose epochs validation selected: (its runs, the approach whose `corrected` sets the target ->
    when they reach it); empty where the study has no `corrected`."""
    targets = {approach: selected_accuracy(runs) for approach, runs in study.of("corrected").items()}
    return [
        (runs, {approach: reached(runs, target) for approach, target in targets.items()})
        for runs in study.of_presets
        if targets and runs[0].info["selected_on"] == "validation"
    ]
