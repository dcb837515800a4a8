"""Studies: many runs in one config, and the config of one of them."""

from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from jaxad.errors import UserError

#: Fields of `config.data` that are an experiment's own; all others a study has in common.
_OWN_DATA = ("batch_size", "augment")


def study(experiments: Mapping[str, ConfigDict], seeds: Sequence[int]) -> ConfigDict:
    """A config of many runs: experiments times seeds, on the same data and of the same length.

    What all experiments share (`config.data.*`, `config.num_epochs`, seeds) stands once, and not
    in `config.experiments`; `study_run` joins it again to the config of one run.

    Args:
        experiments: name -> the config of its runs.
        seeds: of the runs.

    Raises:
        UserError: the experiments differ in what they should share.
    """
    config = ConfigDict()
    config.seeds = tuple(seeds)
    config.seeds_per_program = 1  # seeds of an experiment that train as one program (vmap)
    config.reference = ""  # the experiment that others are compared with; "" = the best one
    config.bootstrap_resamples = 2000
    config.num_slices = 4  # of each test split in the contact sheet
    config.published = ConfigDict()  # experiment -> {metric: (mean, standard deviation)}
    config.weights = ""  # of pretrained encoders, where an experiment's own model.weights is ""
    config.experiments = ConfigDict()
    # AUROC over a weight in training (rows: experiments and their values of it) and one in the
    # score (w a + (1 - w) b of two components); no rows: none. See jaxad.study.heat_map.
    config.heat_map = ConfigDict()
    config.heat_map.rows, config.heat_map.row_values = (), ()
    config.heat_map.row_name, config.heat_map.column_name = "", ""
    config.heat_map.parts = ()
    config.lengths = ConfigDict()  # of training, by experiment, in multiples of num_epochs
    for name, one in experiments.items():
        own = one.copy_and_resolve_references().unlock()
        data = own.data.to_dict()
        shared = {"data": {name: data[name] for name in data if name not in _OWN_DATA}}
        shared["num_epochs"] = own.train.num_epochs
        own.data = ConfigDict({name: data[name] for name in _OWN_DATA})
        del own["seed"], own.train["num_epochs"]
        config.experiments[name], config.lengths[name] = own, 1.0
        if "data" not in config:
            config.update(shared)
        elif shared != {"data": config.data.to_dict(), "num_epochs": config.num_epochs}:
            raise UserError(
                f"study: experiment '{name}' has other data or another number of epochs than the "
                "first one; set them for the whole study."
            )
    return config


def study_run(config: ConfigDict, experiment: str, seed: int) -> ConfigDict:
    """The complete config of one run of a study."""
    own = config.experiments[experiment].copy_and_resolve_references().unlock()
    own.seed = seed
    own.data.update(config.data.to_dict())
    if own.model.get("weights") == "":  # other systems' weights are numbers
        own.model.weights = config.weights
    own.train.num_epochs = float(config.num_epochs * config.lengths[experiment])
    return own.lock()


def representatives(config: ConfigDict) -> list[ConfigDict]:
    """One run's config of each experiment of a study; the other runs differ in their seed alone."""
    seed = config.seeds[0] if config.seeds else 0
    return [study_run(config, name, seed) for name in config.experiments]


def is_study(config: ConfigDict) -> bool:
    """Whether a config is one of many runs (see `study`)."""
    return "experiments" in config
