"""A study: which runs it is made of, trained where the store lacks them, and read back."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from report_lib import data, models, training
from report_lib.config import APPROACHES, NETWORKS, Config, Planned, plan, resolve
from report_lib.config import preset as config_of
from report_lib.config.plan import best, given
from report_lib.config.plan import seeds as seeds_of
from report_lib.config.registries import Network
from report_lib.files import STORE, InputError, folder
from report_lib.runs import store as records
from report_lib.runs import train
from report_lib.runs.store import Run

Runs = tuple[Run, ...]


@dataclasses.dataclass(frozen=True)
class Study:
    """The runs that `settings` ask for, on data and weights with these sha256; see config.parameters and config.plan.

    Runs are read once, in milliseconds, without a look at images or weights.
    """

    settings: dict
    data_sha: str
    weights_sha: str | None

    @classmethod
    def load(cls, profile: str = "demo", cache: str = "", **overrides: object) -> "Study":
        """The study of a profile (a name, or the path of a parameters file); `overrides` that are None count as not
        given. Raises InputError for a wrong name or value, or where data or weights cannot be used."""
        return cls.of_settings(resolve(profile, overrides), cache)

    @classmethod
    def of_settings(cls, settings: dict, cache: str = "") -> "Study":
        """The study of settings that are resolved already."""
        config = plan(settings)[0].configs[0]
        weights_sha = models.weights_sha256(config.weights, config.network)
        return cls(settings, data.fingerprint(config, cache=cache), weights_sha)

    # --- what it is made of ---

    @functools.cached_property
    def planned(self) -> tuple[Planned, ...]:
        return plan(self.settings)

    @functools.cached_property
    def store(self) -> Path:
        return folder(self.settings["runs"], *STORE)

    @property
    def approaches(self) -> tuple[str, ...]:
        return tuple(APPROACHES)

    @property
    def presets(self) -> tuple[str, ...]:
        return self.settings["presets"]

    @property
    def presented(self) -> str:
        return self.settings["present"]

    @property
    def is_homework(self) -> bool:
        """Whether the homework's own listings are among what is run; only then does a report speak of it."""
        return "published" in self.presets

    @property
    def network(self) -> Network:
        return NETWORKS[self.settings["network"] or Config.network]

    def config(self, approach: str, preset: str | None = None, seed: int | None = None, **fields: object) -> Config:
        """A config of the study: the presented preset and first seed unless others are named; `fields` override."""
        shared = given(self.settings, approach) if approach in APPROACHES else {}
        if seed is None:
            seed = seeds_of(self.settings, approach)[0] if approach in APPROACHES else 0
        return config_of(approach, preset or self.presented, **(shared | {"seed": seed} | fields))

    def configs(self) -> Iterator[tuple[Planned, Config]]:
        """Every run that is planned."""
        for planned in self.planned:
            for config in planned.configs:
                yield planned, config

    def name(self, config: Config) -> str:
        """The folder of a run in the store."""
        return train.run_name(config, self.data_sha, self.weights_of(config))

    def weights_of(self, config: Config) -> str | None:
        """sha256 of the weights that a run of the study starts from: a control may start from none."""
        return None if config.weights == "none" else self.weights_sha

    def missing(self) -> list[str]:
        """The runs that the store lacks."""
        return [self.name(c) for _, c in self.configs() if not records.exists(self.store, self.name(c))]

    def disk_needed(self, images: data.Images, weights: models.Weights) -> str:
        """A sentence on the runs, and on the disk that those which the store lacks will take, about.

        `weights` are those that they start from, as many as a trained network has: to build one takes seconds.
        """
        missing, configs = set(self.missing()), {self.name(config): config for _, config in self.configs()}
        lacking = [config for name, config in configs.items() if name in missing]
        said = f"{len(configs)} runs, {len(configs) - len(lacking)} of them finished"
        if not lacking:
            return f"{said}; nothing is left to train"
        state = weights.state or models.build(lacking[0], len(images.classes), weights).state_dict()
        kept = sum(self.keeps(config) and config.trains != "head" for config in lacking)
        predictions = len(images.classes) * (len(images.test) + len(images.train) // 5)
        floats = len(lacking) * predictions + kept * sum(value.numel() for value in state.values())
        size = f"{4 * floats / 2**20:,.0f} MiB"
        return f"{said}; the others take about {size} in {self.store}, {kept} trained networks included"

    # --- trained ---

    def train(
        self,
        config: Config,
        net: nn.Module | None = None,
        step: training.Step = training.step,
        watch: training.Watch | None = None,
        cache: str = "",
    ) -> list[Run]:
        """The runs of `config`, one per seed of the study: read from the store, or trained now.

        `net` and `step` are what the notebook shows. Where they do something else than the library's, what they do is
        trained, and stored under another name. `net` itself stays as it is. `watch` is called after each epoch.
        """
        seeds = seeds_of(self.settings, config.approach)
        seeds = seeds if config.seed in seeds else (config.seed,)
        return [self.run(dataclasses.replace(config, seed=seed), net, step, watch, cache) for seed in seeds]

    def run(
        self,
        config: Config,
        net: nn.Module | None = None,
        step: training.Step = training.step,
        watch: training.Watch | None = None,
        cache: str = "",
    ) -> Run:
        """The run of `config` alone, read or trained; see `train`."""
        first = self.planned[0].configs[0]
        same = all(getattr(config, n) == getattr(first, n) for n in ("data", "image_size", "network"))
        known = same and config.weights in (first.weights, "none")
        shas = (self.data_sha, self.weights_of(config)) if known else None
        device = self.settings["device"]
        return train.run(config, str(self.store), cache, device, watch, net, step, self.keeps(config), shas)

    def train_all(self, approach: str, watch: training.Watch | None = None) -> int:
        """Trains what the store lacks of all that the study plans for an approach; returns how many runs there are."""
        configs = [config for planned, config in self.configs() if planned.approach == approach]
        for config in configs:
            self.run(config, watch=watch)
        return len(configs)

    def keeps(self, config: Config) -> bool:
        """Whether the trained weights of a run are kept whole."""
        if self.settings["keep_weights"] != "first":
            return self.settings["keep_weights"] == "all"
        shown = {self.presented, best(self.settings, config.approach)}
        plain = [c for p, c in self.configs() if p.kind == "preset" and p.value in shown]
        return config.seed == seeds_of(self.settings, config.approach)[0] and config in plain

    # --- read back ---

    @functools.cached_property
    def _runs(self) -> dict[tuple[str, str, str | int], Runs]:
        """(approach, kind, value) -> the finished runs."""
        return {(p.approach, p.kind, p.value): tuple(map(self._read, p.configs)) for p in self.planned}

    def _read(self, config: Config) -> Run:
        name = self.name(config)
        if not records.exists(self.store, name):
            raise InputError(
                f"the store {self.store} has no finished run of {config.approach}, preset {config.preset}, seed "
                f"{config.seed} with these parameters, data, weights and code; run that approach's notebook "
                "first, with the same parameters"
            )
        return train.recorded(self.store / name, config, self.data_sha, self.weights_of(config))

    def runs(self, approach: str, preset: str | None = None) -> Runs:
        """The runs of an approach, one per seed, of the presented preset or of another; none if it lacks that."""
        return self._runs.get((approach, "preset", preset or self.presented), ())

    def of(self, preset: str | None = None) -> dict[str, Runs]:
        """Approach -> runs, of the approaches that have the preset."""
        return {approach: runs for approach in self.approaches if (runs := self.runs(approach, preset))}

    @property
    def of_presets(self) -> list[Runs]:
        """The runs of every preset of every approach, preset by preset."""
        return [runs for preset in self.presets for runs in self.of(preset).values()]

    @property
    def by_preset(self) -> dict[str, dict[str, Runs]]:
        """Preset -> its runs of every approach that has it: the presented one, then the tuned one, then others."""
        order = sorted(self.presets, key=lambda name: (name != self.presented, name != "tuned"))
        return {name: self.of(name) for name in order}

    @property
    def best(self) -> dict[str, Runs]:
        """Approach -> the runs of `tuned`, if there are any, or else of the presented preset."""
        return {approach: self.runs(approach, best(self.settings, approach)) for approach in self.approaches}

    def side(self, approach: str, kind: str) -> dict[Any, Runs]:
        """What stands beside the presets: each "defect", "step", "control" or "budget" (see Planned) -> its runs."""
        return {value: runs for (name, of, value), runs in self._runs.items() if (name, of) == (approach, kind)}

    @property
    def all_runs(self) -> Runs:
        return tuple(run for runs in self._runs.values() for run in runs)

    @property
    def first(self) -> Run:
        return self.runs(self.approaches[0])[0]
