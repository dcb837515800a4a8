"""Studies: many runs in one config, and the config of each run."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxad.config.defaults import from_records
from jaxad.config.fields import FIELDS, STUDY_FIELDS
from jaxad.errors import UserError


def study(experiments: Mapping[str, ConfigDict], seeds: Sequence[int]) -> ConfigDict:
    """The config of a study: every experiment with every seed, on the same data.

    What all runs share (`config.data.*`, `config.num_epochs`, `config.writers`, `config.seeds`) is
    stored once, and not in `config.experiments`; `study_run` puts the config of one run together
    again.

    Args:
        experiments: name -> config of its runs.
        seeds: the seeds of the runs.

    Raises:
        UserError: the experiments differ in a field that they share.
    """
    config = from_records(STUDY_FIELDS)
    config.seeds = tuple(seeds)
    config.experiments = ConfigDict()
    shared: list[Any] | None = None
    for name, run in experiments.items():
        experiment, *parts = _split(run)
        config.experiments[name], config.lengths[name] = experiment, 1.0
        if shared is None:
            shared = parts
        elif shared != parts:
            raise UserError(
                f"study: experiment '{name}' has different data, a different number of epochs or "
                "different train.writers from the first one; set them for the whole study."
            )
    if shared is not None:
        config.data, config.num_epochs, config.writers = shared
    return config


def _split(run: ConfigDict) -> tuple[ConfigDict, ConfigDict, float, tuple[str, ...]]:
    """The parts of a run's config: the experiment's own fields; shared data, epochs and writers."""
    experiment = run.copy_and_resolve_references().unlock()
    own = {f.path.split(".")[1] for f in FIELDS if f.per_experiment}
    data = experiment.data.to_dict()
    experiment.data = ConfigDict({name: value for name, value in data.items() if name in own})
    shared = ConfigDict({name: value for name, value in data.items() if name not in own})
    num_epochs, writers = experiment.train.num_epochs, experiment.train.writers
    del experiment["seed"], experiment.train["num_epochs"], experiment.train["writers"]
    return experiment, shared, num_epochs, writers


def study_run(config: ConfigDict, experiment: str, seed: int) -> ConfigDict:
    """The complete config of one run of a study."""
    run = config.experiments[experiment].copy_and_resolve_references().unlock()
    run.seed = seed
    run.data.update(config.data.to_dict())
    if run.model.get("weights") == "":  # of an encoder; the weights of losses are numbers
        run.model.weights = config.weights
    run.train.writers = config.writers
    run.train.num_epochs = float(config.num_epochs * config.lengths[experiment])
    return run.lock()


def representatives(config: ConfigDict) -> list[ConfigDict]:
    """One run's config of each experiment of a study; its other runs differ only in their seed."""
    seed = config.seeds[0] if config.seeds else 0
    return [study_run(config, name, seed) for name in config.experiments]


def is_study(config: ConfigDict) -> bool:
    """Whether a config describes a study; see `study`."""
    return "experiments" in config
