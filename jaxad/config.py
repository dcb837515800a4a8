"""Configs: the shared base, one resolver for every way of naming them, and their files.

`pchvae`, `pchvae:demo`, `configs/pchvae.py:demo` and a path to your own file all resolve
through `get_config`. A config file defines `get_config(variant: str)` and starts from `base()`.
"""

import difflib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxad.errors import UserError

#: The variants that every shipped config knows; the empty one is our recommended setting.
VARIANTS = ("", "demo", "smoke", "paper")


def base() -> ConfigDict:
    """The fields that all experiments share, at their defaults."""
    config = ConfigDict()
    config.seed = 0
    config.parallel = "jit"  # or "pmap"
    config.cpu_devices = 1  # on a CPU: devices to share each batch; see jaxad.parallel.split_cpu
    config.precision = "float32"  # or "bfloat16": compute only, parameters stay float32

    config.data = ConfigDict()
    config.data.name = "icbm_synth"  # see docs/data.md
    config.data.root = ""  # where its files are; icbm_synth: "" = ~/tensorflow_datasets
    config.data.image_size = 64
    config.data.channels = 1
    config.data.batch_size = 64  # over all devices and processes
    config.data.seed = 0  # of generated data
    config.data.num_subjects = (240, 120, 60, 60)  # train, val, test_objects, test_lesions
    # A test split of normal images to render objects into; it becomes test_objects.
    config.data.natural_objects = ""
    # Another data set, of which all is tested: its test splits, as test_<name>.
    config.data.test = ConfigDict({"name": "", "root": ""})
    config.data.modality = ""  # hcp, brats: such as "t2", or "t1,t2" for two channels
    config.data.val_share = 0.1  # of the patients to learn from, where there is no val
    config.data.test_share = 0.2  # of normal patients, where there is no test
    config.data.group_pattern = ""  # finds the patient in a file's path; "": each is one
    config.data.normal_classes = ()  # names of folders or labels
    config.data.anomalous_classes = ()  # of tfds:<name>: the others are normal
    config.data.regroup = False  # leave out what a published split shares with its test
    config.data.check_sizes = True  # against the published ones
    config.data.on_error = "raise"  # or "skip": leave out bad files, count and name them
    config.data.preprocess = ConfigDict()
    config.data.preprocess.intensity = "auto"  # range (images), zscore (volumes), percentile
    config.data.preprocess.foreground = "nonzero"  # what is normalised; or "all", "otsu"
    config.data.preprocess.clip = 3.0  # of zscore, in standard deviations
    config.data.preprocess.percentiles = (1.0, 99.0)
    config.data.preprocess.square = "pad"  # or "crop", "stretch"
    config.data.volume = ConfigDict()
    config.data.volume.plane = "axial"  # or "coronal", "sagittal"
    config.data.volume.slices = ()  # (start, stop[, step]) as in Python; (): all, or as published
    config.data.volume.spacing = 0.0  # of slices, mm; 0: the scan's, or as published
    config.data.volume.field_of_view = 0.0  # side of a slice, mm; 0: all, or as published
    config.data.volume.min_foreground = 0.02  # slices with a smaller part are left out
    config.data.volume.min_lesion_pixels = 10  # anomalous with more, normal with none
    config.data.augment = ConfigDict()
    config.data.augment.mirror = True  # left-right, with probability one half
    config.data.augment.rotation = 0.0  # degrees, standard deviation
    config.data.augment.scale = 0.0  # relative, standard deviation
    config.data.augment.brightness = 0.0  # relative to the image, standard deviation
    config.data.augment.noise = 0.0  # additive, standard deviation, inside the foreground

    config.model = ConfigDict()
    config.model.name = ""

    config.optim = ConfigDict()
    config.optim.name = "adam"  # or "adamw", "sgd"
    config.optim.learning_rate = 1e-4
    config.optim.b1 = 0.9
    config.optim.b2 = 0.999
    config.optim.schedule = "constant"  # or "cosine", to zero at the end
    config.optim.warmup_steps = 0
    config.optim.clip_norm = 0.0  # global gradient norm; 0 = off
    config.optim.weight_decay = 0.0  # adam: L2 in the gradient; adamw: decoupled
    # What is a network's own: network -> some of the fields above.
    config.optim.networks = ConfigDict()
    config.optim.frozen = ()  # regular expressions over parameter paths that do not train

    config.train = ConfigDict()
    config.train.num_epochs = 10.0
    config.train.log_every_steps = 25
    config.train.checkpoint_every_steps = 250  # validation loss, then a checkpoint
    # Updates that are sent to the devices at once; worth it where one takes little time.
    config.train.steps_per_dispatch = 1
    # Parts in which each device takes its batch, one after another: less memory, the same gradient
    # but for batch norm, which sees one part at a time.
    config.train.accumulate_steps = 1
    # Less memory for more time: of the forward pass only products and convolutions are kept.
    config.train.rematerialise = False
    config.train.keep_last = 2  # checkpoints kept beside the best one
    # Network -> (start, end, every): the part of the run in which it trains, at every so many-th
    # update; without: in all of it. See jaxad.train.phases.
    config.train.updates = ConfigDict()
    # Where a frozen encoder's features are kept: a folder, "" for ~/.cache/jaxad/features, "off".
    config.train.feature_cache = ""
    config.train.feature_cache_dtype = "float16"  # or "bfloat16"

    config.evaluate = ConfigDict()
    config.evaluate.batch_size = 64  # of each device
    config.evaluate.bootstrap_resamples = 1000
    config.evaluate.false_positive_rate = 0.05  # of decisions from normal images alone
    config.evaluate.num_examples = 6  # slices of each kind that are kept for the report
    return config


def smoke(config: ConfigDict) -> ConfigDict:
    """Shrinks a config so that a fit takes seconds; for tests. Model widths are the caller's."""
    config.data.num_subjects = (4, 2, 3, 4)
    config.data.batch_size = 16
    config.train.num_epochs = 2.0
    config.train.log_every_steps = 2
    config.train.checkpoint_every_steps = 5
    config.evaluate.bootstrap_resamples = 50
    config.evaluate.num_examples = 2
    return config


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


def is_study(config: ConfigDict) -> bool:
    """Whether a config is one of many runs (see `study`)."""
    return "experiments" in config


def check_variant(name: str, variant: str, more: Sequence[str] = ()) -> None:
    """Checks that a config knows a variant: one of `VARIANTS`, or of `more` of its own.

    Raises:
        UserError: it does not.
    """
    if variant not in (*VARIANTS, *more):
        known = ", ".join(f"'{name}:{known}'" for known in (*VARIANTS, *more) if known)
        raise UserError(f"config '{name}:{variant}': no such variant; known: '{name}', {known}.")


def _shipped_folder() -> Path:
    """configs/ inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _find(name: str) -> Path:
    """The file that the part of a config string before its colon names."""
    if name.endswith(".py"):
        path = Path(name)
        if path.is_file():
            return path
        # `configs/pchvae.py` also from outside a checkout.
        relative = Path(*path.parts[1:]) if path.parts[0] == "configs" else path
        shipped = _shipped_folder() / relative
        if shipped.is_file():
            return shipped
        raise UserError(f"config '{name}': no such file; {_known()}")
    shipped = _shipped_folder() / f"{name}.py"
    if not shipped.is_file():
        close = difflib.get_close_matches(name, _shipped_names(), n=1)
        hint = f" did you mean '{close[0]}'?" if close else ""
        raise UserError(f"config '{name}': no such config;{hint} {_known()}")
    return shipped


def _shipped_names() -> list[str]:
    folder = _shipped_folder()
    paths = sorted(folder.rglob("*.py"))
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    return [name for name in names if not name.endswith("__init__")]


def _known() -> str:
    return f"known: {', '.join(_shipped_names())}."


def get_config(name: str) -> ConfigDict:
    """The config that a string such as `pchvae:demo` or `configs/pchvae.py:demo` names.

    Args:
        name: a shipped config's name or a path to a `.py` file, then optionally a colon and the
            variant.

    Returns:
        A config whose fields can be changed and to which none can be added by mistake.

    Raises:
        UserError: there is no such config, or it has no such variant.
    """
    file_name, _, variant = name.partition(":")
    if not file_name:
        raise UserError(f"config '{name}': no name before the colon; {_known()}")
    path = _find(file_name)
    spec = importlib.util.spec_from_file_location(f"jaxad_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"config '{file_name}': not a Python file; name a .py file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"config '{file_name}': defines no get_config(variant); see {_known()}")
    return module.get_config(variant).lock()


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON, one field a line, in a fixed order."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """The config that `to_json` wrote; lists come back as tuples.

    Raises:
        ValueError: the text is not a JSON object.
    """

    def tuples(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: tuples(item) for key, item in value.items()}
        return tuple(tuples(item) for item in value) if isinstance(value, list) else value

    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError(f"a config is a JSON object, not {type(fields).__name__}")
    return ConfigDict(tuples(fields)).lock()


def with_defaults(config: ConfigDict) -> ConfigDict:
    """The config with the fields of `base()` that it lacks: an older version may have written it.

    New fields get a default that does what was done before them.
    """
    filled = config.copy_and_resolve_references().unlock()
    _fill(filled, base())
    return filled.lock()


def _fill(config: ConfigDict, defaults: ConfigDict) -> None:
    for key, value in defaults.items():
        if key not in config:
            config[key] = value
        elif isinstance(value, ConfigDict):
            _fill(config[key], value)


def flatten(config: ConfigDict, prefix: str = "config") -> dict[str, Any]:
    """All fields by their dotted path, as the command line names them."""
    flat: dict[str, Any] = {}
    for key in sorted(config):
        path = f"{prefix}.{key}"
        value = config[key]
        flat.update(flatten(value, path) if isinstance(value, ConfigDict) else {path: value})
    return flat


#: Fields that say where something lies.
PATHS = ("config.data.root", "config.data.test.root", "config.train.feature_cache")
_PLACES = (*PATHS, "config.data.on_error")  # splits.json tells who is learnt from
#: Fields that say on which machine a run is trained, and not what it computes.
_LAYOUT = ("config.cpu_devices", "config.parallel", "config.train.steps_per_dispatch")


def without_places(config: ConfigDict) -> ConfigDict:
    """The config without paths of the machine, which may name people: of what leaves it."""
    found = config.copy_and_resolve_references().unlock()
    # Of an encoder; elsewhere weights are numbers.
    for path in (*PATHS, "config.model.weights"):
        *groups, field = path.removeprefix("config.").split(".")
        group: Any = found
        for name in groups:
            group = group.get(name, ConfigDict())
        if isinstance(group.get(field), str):
            group[field] = ""
    return found.lock()


def difference(ours: ConfigDict, theirs: ConfigDict) -> list[str]:
    """The fields in which two configs differ, each as `path: theirs -> ours`.

    Where data and features lie does not count, nor what is done with bad files or how the run is
    spread over devices.
    """
    left, right = flatten(from_json(to_json(ours))), flatten(theirs)
    absent = "(absent)"
    return [
        f"{path}: {right.get(path, absent)!r} -> {left.get(path, absent)!r}"
        for path in sorted(left.keys() | right.keys())
        if path not in (*_PLACES, *_LAYOUT) and left.get(path, absent) != right.get(path, absent)
    ]
