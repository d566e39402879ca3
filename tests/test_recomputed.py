"""Numbers of results.json, computed again from the files of the records with numpy and scipy alone.

Nothing of report_lib takes part but what makes up the records and names their folders: formulas stand here a second
time, written from their definitions.
"""

import csv
import itertools
import json
import math

import made_up
import numpy as np
import pytest
from scipy import optimize, stats

from report_lib.evidence import report_numbers
from report_lib.files import PROJECT, read_yaml
from report_lib.runs import store

PUBLISHED = read_yaml("report/published.yaml")
KEPT = sorted((PROJECT / "report" / "cifar10" / "records").iterdir())
PAIR = "full_finetune minus linear_probe"
A, B = "linear_probe", "full_finetune"


def share(approach, kind, value):
    base = {"published": 0.62, "corrected": 0.6, "tuned": 0.66}.get(value, 0.55)
    return base + 0.1 * (approach == B) - 0.2 * (kind == "control")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return made_up.study(
        tmp_path_factory.mktemp("recomputed"), share, presets="published,corrected,tuned", seeds="0,1",
        probe_seeds="0,1,2", budgets="10", defects="full_finetune", ladder=True, controls=True, weights="embedded",
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(study):
    return json.loads(json.dumps(report_numbers(study, PUBLISHED), allow_nan=False))


class Record:
    """The three files of a run."""

    def __init__(self, path):
        self.info = json.loads((path / "run.json").read_text())
        with (path / "epochs.csv").open() as file:
            self.epochs = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        with np.load(path / "predictions.npz") as arrays:
            self.logits, self.labels = arrays["test_logits"].astype(float), arrays["test_labels"]
            self.held_logits, self.held_labels = arrays["validation_logits"].astype(float), arrays["validation_labels"]
        self.seed = self.info["config"]["seed"]
        self.answer = self.logits.argmax(1)
        self.right = (self.answer == self.labels).astype(float)

    def loss(self, logits=None):
        logits = self.logits if logits is None else logits
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        return -np.log(chances[np.arange(len(logits)), self.labels])

    def confidence(self):
        chances = np.exp(self.logits - self.logits.max(1, keepdims=True))
        return (chances / chances.sum(1, keepdims=True)).max(1)


@pytest.fixture(scope="module")
def records(study):
    """records(names of folders) -> what those folders hold."""
    return lambda names: [Record(study.store / name) for name in names]


def crossed(table):
    """(mean, low, high) for new seeds and new images, from the sums of squares of a two-way table."""
    seeds, images = len(table), len(table[0])
    mean = sum(map(sum, table)) / (seeds * images)
    rows, columns = [sum(row) / images for row in table], [sum(column) / seeds for column in zip(*table, strict=True)]
    of_rows = sum((row - mean) ** 2 for row in rows) / (seeds - 1)
    of_columns = sum((column - mean) ** 2 for column in columns) / (images - 1)
    rest = sum((table[i][j] - rows[i] - columns[j] + mean) ** 2 for i in range(seeds) for j in range(images))
    rest /= (seeds - 1) * (images - 1)
    square = stats.t.isf(0.025, seeds - 1) ** 2 * of_rows / seeds
    square += stats.t.isf(0.025, images - 1) ** 2 * max(0, of_columns / images - rest / (seeds * images))
    square = max(square, stats.t.isf(0.025, images - 1) ** 2 * of_columns / images)  # never less than images alone
    return mean, mean - math.sqrt(square), mean + math.sqrt(square)


def wilson(right, of):
    z, p = stats.norm.isf(0.025), right / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return middle - half, middle + half


def flat(difference):
    return [difference["mean"], *difference["ci95"]]


def both(a, b, values):
    """Values of b minus those of a, of the seeds that both have."""
    shared = sorted({record.seed for record in a} & {record.seed for record in b})
    of = [{record.seed: values(record) for record in side} for side in (a, b)]
    return [list(of[1][seed] - of[0][seed]) for seed in shared]


def same(found, expected):
    assert len(found) == len(expected)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    return len(found)


def preset(results, records, approach, name):
    return records([run["run"] for run in results["approaches"][approach][name]["runs"]])


def test_the_records_that_came_with_the_project_are_whole_and_of_one_clean_commit():
    for path in KEPT:
        assert {file.name for file in path.iterdir()} == {"run.json", "epochs.csv", "predictions.npz"}
        record, info = Record(path), store.load(path).info
        assert info["test_accuracy"] == pytest.approx(record.right.mean(), abs=1e-12)
        assert info["test_loss"] == pytest.approx(record.loss().mean(), rel=1e-6)
        curve = [epoch["validation_accuracy"] for epoch in record.epochs]
        assert info["validation_accuracy"] == max(curve) == curve[info["selected_epoch"] - 1]
        assert info["modified"] is None and info["provenance"]["dirty"] is False
        assert path.name.startswith(f"{info['config']['approach']}-{info['config']['preset']}-seed{record.seed}-")
    facts = [store.load(path).info for path in KEPT]
    for fact in ("commit", "code", "device", "precision", "threads"):
        assert len({info["provenance"][fact] for info in facts}) == 1, fact
    assert len({(info["data"]["fingerprint"], len(info["data"]["classes"])) for info in facts}) == 1


@pytest.mark.parametrize("name", ["published", "corrected", "tuned"])
def test_what_each_approach_reaches(results, records, name):
    checked = 0
    for approach, seeds in ((A, 3), (B, 2)):
        said, runs = results["approaches"][approach][name], preset(results, records, approach, name)
        assert len(runs) == seeds == said["test_accuracy"]["n"]
        accuracies = [record.right.mean() for record in runs]
        checked += same(flat(said["test_accuracy"]), crossed([list(record.right) for record in runs]))
        checked += same([said["test_accuracy"]["sd"]], [np.std(accuracies, ddof=1)])
        checked += same([run["test_accuracy"] for run in said["runs"]], accuracies)
        checked += same([run["test_loss"] for run in said["runs"]], [record.loss().mean() for record in runs])
        for run, record in zip(said["runs"], runs, strict=True):
            checked += same(run["test_accuracy_ci95"], wilson(record.right.sum(), len(record.right)))
        labels = runs[0].labels
        of_class = [np.mean([record.right[labels == c].mean() for record in runs]) for c in range(5)]
        checked += same(list(said["class_accuracy"].values()), of_class)
        counts = [[sum(((r.labels == t) & (r.answer == p)).sum() for r in runs) for p in range(5)] for t in range(5)]
        checked += same(sum(said["confusion"], []), sum(counts, []))
    assert checked >= 50


def test_validation_against_test(results, records):
    every = {}
    for approach in (A, B):
        assert results["approaches"][approach]["published"]["test_minus_validation"] is None
        for name in ("corrected", "tuned"):
            runs = every[approach, name] = preset(results, records, approach, name)
            held = [np.mean(record.held_logits.argmax(1) == record.held_labels) for record in runs]
            table = [list(record.right - part) for record, part in zip(runs, held, strict=True)]
            same(flat(results["approaches"][approach][name]["test_minus_validation"]), crossed(table))
    gaps = {seed: [] for seed in (0, 1)}
    for record in itertools.chain(*every.values()):
        if record.seed in gaps:
            gaps[record.seed].append(np.mean(record.held_logits.argmax(1) == record.held_labels) - record.right)
    same(
        flat(results["selection"]["validation_minus_test"]), crossed([list(np.mean(rows, 0)) for rows in gaps.values()])
    )
    above = [
        np.mean(r.held_logits.argmax(1) == r.held_labels) > r.right.mean() for r in itertools.chain(*every.values())
    ]
    assert (results["selection"]["validation_above_test"], results["selection"]["runs"]) == (sum(above), len(above))


def test_calibration(results, records):
    for approach in (A, B):
        said, runs = results["approaches"][approach]["corrected"], preset(results, records, approach, "corrected")
        over = [list(record.confidence() - record.right) for record in runs]
        same(flat(said["calibration"]["overconfidence"]), crossed(over))
        errors = []
        for record in runs:
            sure, wide = record.confidence(), np.linspace(0, 1, 16)
            inside = [(sure >= low) & (sure < high) for low, high in itertools.pairwise(wide)]
            errors.append(sum(abs(record.right[i].sum() - sure[i].sum()) for i in inside) / len(sure))
        same([said["calibration"]["ece"]], [np.mean(errors)])
        for record, found in zip(runs, said["calibration"]["temperatures"], strict=True):

            def held_loss(t, record=record):
                scaled = record.held_logits / t
                scaled = scaled - scaled.max(1, keepdims=True)
                picked = scaled[np.arange(len(scaled)), record.held_labels]
                return float((np.log(np.exp(scaled).sum(1)) - picked).mean())

            best = optimize.brute(lambda t: held_loss(t[0]), [(0.05, 5)], Ns=200)[0]
            assert found == pytest.approx(best, rel=1e-3)
        scaled = [record.loss(record.logits / t).mean() for record, t in
                  zip(runs, said["calibration"]["temperatures"], strict=True)]  # fmt: skip
        same([said["calibration"]["test_loss_scaled"]], [np.mean(scaled)])


@pytest.mark.parametrize("name", ["published", "corrected", "tuned"])
def test_one_approach_against_the_other(results, records, name):
    said = results["comparisons"][name][PAIR]
    a, b = preset(results, records, A, name), preset(results, records, B, name)
    same(flat(said["accuracy"]), crossed(both(a, b, lambda record: record.right)))
    same(flat(said["loss"]), crossed(both(a, b, lambda record: record.loss())))
    labels = a[0].labels
    for c, found in enumerate(said["classes"].values()):
        same(flat(found), crossed(both(a, b, lambda record, c=c: record.right[labels == c])))
    of_a, of_b = ({record.seed: record for record in side} for side in (a, b))
    for counts in said["images"]:
        x, y = of_a[counts["seed"]].right, of_b[counts["seed"]].right
        only = [int((x * (1 - y)).sum()), int((y * (1 - x)).sum())]
        assert [counts["only_a"], counts["only_b"]] == only and counts["both"] == int((x * y).sum())
        same([counts["p"]], [min(1.0, 2 * stats.binom.cdf(min(only), sum(only), 0.5))])
    gains = [of_b[record.seed].right.sum() - record.right.sum() for record in a if record.seed in of_b]
    assert [said["seeds_won"], said["seeds_level"]] == [sum(g > 0 for g in gains), sum(g == 0 for g in gains)]
    spent = [sum(e["train_seconds"] for e in r.epochs) + r.info["features_seconds"] for r in (a[0], b[0])]
    same([said["train_seconds_ratio"]["mean"]], [spent[1] / spent[0]])
    fewer = {name: found for name, found in said["operations_ratio"].items()}
    flops = [[r.info["forward_flops"], r.info["backward_flops"]] for r in (a[0], b[0])]
    views = 5 if a[0].info["config"]["flip"] else 1
    epochs = [r.info["config"]["epochs"] for r in (a[0], b[0])]
    start = flops[1][0] * (b[0].info["config"]["start"] == "probe")  # of the probe that fine-tuning starts from
    once = [views * flops[0][0] + epochs[0] * flops[0][1], epochs[1] * sum(flops[1]) + start]
    whole = [of * sum(each) for of, each in zip(epochs, flops, strict=True)]
    same([fewer["nothing_kept"]], [(whole[1] + epochs[1] * start) / whole[0]])
    if a[0].info["config"]["frozen_dropout"]:  # of its frozen layers, some ran once and some in every epoch
        assert fewer["as_run"] is None
    else:
        same([fewer["as_run"]], [once[1] / once[0]])


def test_when_the_second_approach_is_as_good_as_the_first(results, records):
    a, b = (preset(results, records, approach, "tuned") for approach in (A, B))
    shared = {record.seed for record in b}
    best = [max(e["validation_accuracy"] for e in record.epochs) for record in a if record.seed in shared]
    said = results["overtaken"][PAIR]
    same([said["validation_accuracy"]], [np.mean(best)])
    for seconds, record in zip(said["seconds"], b, strict=True):
        at = next(n for n, e in enumerate(record.epochs, 1) if e["validation_accuracy"] >= np.mean(best))
        spent = sum(e["train_seconds"] for e in record.epochs[:at])
        same([seconds], [spent + record.info["features_seconds"] + record.info["start_seconds"]])


def test_agreement(results, records):
    for name, said in results["agreement"].items():
        of = {approach: preset(results, records, approach, name) for approach in (A, B)}
        for (a, b), pairs in {
            (A, A): itertools.combinations(of[A], 2),
            (A, B): itertools.product(of[A], of[B]),
        }.items():
            shares = [np.mean(x.answer == y.answer) for x, y in pairs if x.seed != y.seed]
            found = said[f"{a} and {b}"]
            same([found["mean"], found["least"], found["greatest"]], [np.mean(shares), min(shares), max(shares)])


def test_the_seconds_to_the_same_accuracy(results, records):
    corrected = {approach: preset(results, records, approach, "corrected") for approach in (A, B)}
    best = {a: [max(e["validation_accuracy"] for e in record.epochs) for record in corrected[a]] for a in corrected}
    targets = {approach: np.mean(values) for approach, values in best.items()}
    for said in results["time_to_accuracy"]:
        runs = preset(results, records, said["approach"], said["preset"])
        for target, level in targets.items():
            expected = []
            for record in runs:
                clock, kept = record.info["features_seconds"] + record.info["start_seconds"], None
                for epoch in record.epochs:
                    clock += epoch["train_seconds"]
                    if kept is None and epoch["validation_accuracy"] >= level:
                        kept = clock
                expected.append(kept)
            found = said["targets"][target]
            assert [s is None for s in found["seconds"]] == [s is None for s in expected]
            same([s for s in found["seconds"] if s], [s for s in expected if s])
            assert found["validation_accuracy"] == pytest.approx(level) and found["n"] == len(runs)
    assert {(said["approach"], said["preset"]) for said in results["time_to_accuracy"]} == {
        (a, p) for a in (A, B) for p in ("corrected", "tuned")
    }


def test_ladder_controls_budgets_and_defects(results, records):
    for approach in (A, B):
        rungs = results["ladder"][approach]
        held = [records(rung["runs"]) for rung in rungs]
        assert rungs[0]["rung"] == "corrected" and rungs[0]["change"] is None and len(rungs) > 2
        assert rungs[-1]["runs"] == [run["run"] for run in results["approaches"][approach]["tuned"]["runs"]]
        for rung, before, after in zip(rungs[1:], held, held[1:], strict=False):
            same(flat(rung["change"]), crossed(both(before, after, lambda record: record.right)))
            assert rung["train_seconds"] == pytest.approx(np.mean([run.info["train_seconds"] for run in after]))
    assert {(c["approach"], c["control"]) for c in results["controls"]} == {
        (A, "random trunk"), (B, "random trunk"), (B, "last block")}  # fmt: skip
    for control in results["controls"]:
        corrected = preset(results, records, control["approach"], "corrected")
        same(flat(control["difference"]), crossed(both(corrected, records(control["runs"]), lambda r: r.right)))
    few = results["label_budgets"][0]
    a, b = (records(few["approaches"][approach]["runs"]) for approach in (A, B))
    same(flat(few["comparisons"][PAIR]["accuracy"]), crossed(both(a, b, lambda record: record.right)))
    corrected = preset(results, records, B, "corrected")
    by_name = {each["defect"]: each for each in results["defects"]}
    for name in ("normalisation", "dropout_ends"):
        runs = records(by_name[name]["runs"])
        same(flat(by_name[name]["effect"]), crossed(both(corrected, runs, lambda record: record.right)))
    gains = []
    for honest, flattered in zip(corrected, records(by_name["select_on_test"]["runs"]), strict=True):
        on_test = [epoch["validation_accuracy"] for epoch in flattered.epochs]
        gains.append(max(on_test) - on_test[honest.info["selected_epoch"] - 1])
    same(flat(by_name["select_on_test"]["effect"]), [np.mean(gains), min(gains), max(gains)])


def test_costs_and_what_was_published(results, records):
    for approach in (A, B):
        said, runs = results["approaches"][approach]["tuned"], preset(results, records, approach, "tuned")
        images = runs[0].info["data"]["train"]
        rates = [images * len(r.epochs) / sum(e["train_seconds"] for e in r.epochs) for r in runs]
        same([run["images_per_second"] for run in said["runs"]], rates)
        same([said["cost"]["images_per_second"]], [np.mean(rates)])
        assert said["cost"]["peak_memory_mib"] == max(record.info["peak_memory_mib"] for record in runs)
        if approach == A:
            same([said["cost"]["features_images_per_second"]], [5 * images / runs[0].info["features_seconds"]])
        low, high = wilson(PUBLISHED[approach]["test_accuracy"] * 10_000, 10_000)
        same(results["published"][approach]["test_accuracy_ci95"], [low, high])
    p, q = (PUBLISHED[approach]["test_accuracy"] for approach in (A, B))
    (l1, u1), (l2, u2) = (wilson(value * 10_000, 10_000) for value in (p, q))
    below, above = math.hypot(q - l2, u1 - p), math.hypot(u2 - q, p - l1)
    same(flat(results["published"][PAIR]), [q - p, q - p - below, q - p + above])
