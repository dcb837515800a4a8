"""The runs of a study: their configs and folders, and which of them are finished."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence

import jax
from ml_collections import ConfigDict

from jaxad import config as config_lib
from jaxad.config.model import make_model
from jaxad.errors import UserError
from jaxad.evaluate.references import TITLES
from jaxad.storage.checkpoint import Checkpoints
from jaxad.storage.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a study, in `runs/<experiment>/seed_<seed>` of the study's folder."""

    experiment: str
    seed: int
    config: ConfigDict
    workdir: Workdir

    def is_finished(self, test_splits: Sequence[str], num_steps: int) -> bool:
        """Whether the run is trained, calibrated, evaluated on every test split and reported."""
        if not (self.workdir.report.exists() and self.workdir.calibration.exists()):
            return False
        paths = [self.workdir.evaluation(split) / "metrics.json" for split in test_splits]
        try:
            steps = [json.loads(path.read_text("utf-8"))["checkpoint_step"] for path in paths]
        except (OSError, ValueError, KeyError):
            return False  # missing or damaged: evaluated again
        return min(steps, default=0) >= num_steps

    def last_step(self) -> int:
        """The step of the newest checkpoint; 0 if there is none."""
        if not self.workdir.checkpoints.is_dir():
            return 0
        with Checkpoints(self.workdir.checkpoints, read_only=True) as checkpoints:
            return checkpoints.last_step or 0


#: Experiment -> its runs, one per seed.
Runs = Mapping[str, Sequence[PlannedRun]]


def plan(config: ConfigDict, folder: Workdir) -> dict[str, list[PlannedRun]]:
    """Plans the runs of every experiment.

    Raises:
        UserError: a value is not allowed, a seed is listed twice, the reference is unknown, or the
            experiments have invalid names or differ in `cpu_devices` or in
            `evaluate.false_positive_rate`.
    """
    config_lib.check(config)
    seeds = [int(seed) for seed in config.seeds]
    if len(set(seeds)) != len(seeds):
        raise UserError(f"config.seeds: {tuple(seeds)}; list each seed once.")
    references = (*config.experiments, *TITLES)
    if config.reference and config.reference not in references:
        raise UserError(
            f"config.reference: unknown experiment '{config.reference}'; choose from "
            f"{', '.join(references)}."
        )
    experiments = config.experiments.values()
    cpu_devices = {int(experiment.cpu_devices) for experiment in experiments}
    rates = {float(experiment.evaluate.false_positive_rate) for experiment in experiments}
    for values, problem, remedy in (
        (cpu_devices, "cpu_devices differ", "number for all, because they run in one process"),
        (rates, "evaluate.false_positive_rate differs",
         "rate for all, because the audit compares them"),
    ):  # fmt: skip
        if len(values) != 1:
            raise UserError(
                f"config.experiments: {problem} ({sorted(values)}); use the same {remedy}."
            )
    for name in config.experiments:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name in TITLES:
            raise UserError(
                f"config.experiments: '{name}' is not a valid name; use letters, digits, '_' and "
                f"'-'; {', '.join(TITLES)} are reserved."
            )
    return {
        name: [
            PlannedRun(
                name,
                seed,
                config_lib.study_run(config, name, seed),
                Workdir(folder.path / "runs" / name / f"seed_{seed}"),
            )
            for seed in seeds
        ]
        for name in config.experiments
    }


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a system.

    Attributes:
        parameters: the number of trainable parameters.
        state: the number of other values kept for scoring (codebooks, batch statistics).
        latents: the number of latent variables (or codes) per image.
    """

    parameters: int
    state: int
    latents: int


def sizes(runs: Runs) -> dict[str, Size]:
    """The size of the system of every experiment."""
    result = {}
    for name, (run, *_) in runs.items():
        model = make_model(run.config)
        variables = jax.eval_shape(model.init_variables, jax.random.key(0))
        total, parameters = (
            sum(leaf.size for leaf in jax.tree.leaves(tree))
            for tree in (variables, variables["params"])
        )
        result[name] = Size(parameters, total - parameters, model.num_latents)
    return result
