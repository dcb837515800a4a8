"""From a study's config to its runs, each in a folder of its own, and which of them are done."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence

import jax
from ml_collections import ConfigDict

from jaxad import config as config_lib
from jaxad.config.model import make_model
from jaxad.errors import UserError
from jaxad.evaluate.trivial import LINEAR_BASELINE, PIXEL_STATISTICS
from jaxad.storage.checkpoint import Checkpoints
from jaxad.storage.workdir import Workdir

#: Names of rows that are no experiment's.
_TAKEN = (LINEAR_BASELINE, PIXEL_STATISTICS)


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        experiment: its name in the study.
        seed: its seed.
        config: its own, complete config.
        workdir: `runs/<experiment>/seed_<seed>` in the study's folder.
    """

    experiment: str
    seed: int
    config: ConfigDict
    workdir: Workdir

    def is_finished(self, test_splits: Sequence[str], num_steps: int) -> bool:
        """Whether the run was trained to its end, evaluated on every test split and reported."""
        if not self.workdir.report.exists():
            return False
        try:
            found = [
                json.loads(
                    (self.workdir.evaluation(split) / "metrics.json").read_text(encoding="utf-8")
                )
                for split in test_splits
            ]
            steps = [metrics["checkpoint_step"] for metrics in found]
        except (OSError, ValueError, KeyError):
            return False  # missing or damaged: evaluated again
        # An older version wrote no calibration.
        return min(steps, default=0) >= num_steps and self.workdir.calibration.exists()

    def last_step(self) -> int:
        """The step of its newest checkpoint; 0 where there is none."""
        if not self.workdir.checkpoints.is_dir():
            return 0
        with Checkpoints(self.workdir.checkpoints, read_only=True) as checkpoints:
            return checkpoints.last_step or 0


def plan(config: ConfigDict, folder: Workdir) -> dict[str, list[PlannedRun]]:
    """The runs of every experiment.

    Raises:
        UserError: a value is not allowed, a seed is given twice, the name of an experiment is
            not possible for a folder, or experiments differ in `cpu_devices`.
    """
    config_lib.check(config)
    seeds = [int(seed) for seed in config.seeds]
    if len(set(seeds)) != len(seeds):
        raise UserError(f"config.seeds: {tuple(seeds)}; give each once.")
    known = (*config.experiments, LINEAR_BASELINE)
    if config.reference and config.reference not in known:
        raise UserError(
            f"config.reference: no experiment '{config.reference}'; there are {', '.join(known)}."
        )
    shares = {int(one.cpu_devices) for one in config.experiments.values()}
    if len(shares) != 1:
        raise UserError(
            f"config.experiments: cpu_devices are {sorted(shares)}; one process has one number."
        )
    for name in config.experiments:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name in _TAKEN:
            raise UserError(
                f"config.experiments: '{name}' cannot be an experiment's name; use letters, "
                f"digits, '_' and '-', and not {' or '.join(_TAKEN)}, which every table has."
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
    """How large a system is.

    Attributes:
        parameters: numbers that gradients train.
        state: further numbers that training keeps for scoring (codebooks, batch statistics).
        latents: variables (or codes) that an image becomes in between.
    """

    parameters: int
    state: int
    latents: int


def sizes(planned: Mapping[str, Sequence[PlannedRun]]) -> Mapping[str, Size]:
    """The size of every experiment's system."""
    found = {}
    for name, runs in planned.items():
        model = make_model(runs[0].config)
        variables = jax.eval_shape(model.init_variables, jax.random.key(0))
        counts = {
            collection: sum(leaf.size for leaf in jax.tree.leaves(tree))
            for collection, tree in variables.items()
        }
        parameters = counts.pop("params")
        found[name] = Size(parameters, sum(counts.values()), model.num_latents)
    return found
