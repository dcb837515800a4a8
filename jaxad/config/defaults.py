"""The fields that all experiments share, at their defaults, and the variants of a config."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from jaxad.errors import UserError

#: The variants that every shipped config knows; the empty one is our recommended setting.
VARIANTS = ("", "demo", "smoke", "paper")


def base() -> ConfigDict:
    """The fields that all experiments share, at their defaults."""
    config = ConfigDict()
    config.seed = 0
    config.parallel = "jit"  # or "pmap"
    config.cpu_devices = 1  # on a CPU: devices that share each batch
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
    config.evaluate.metrics = ()  # of other packages: "my_package.my_metrics:name"; docs/metrics.md
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


def check_variant(name: str, variant: str, more: Sequence[str] = ()) -> None:
    """Checks that a config knows a variant: one of `VARIANTS`, or of `more` of its own.

    Raises:
        UserError: it does not.
    """
    if variant not in (*VARIANTS, *more):
        known = ", ".join(f"'{name}:{known}'" for known in (*VARIANTS, *more) if known)
        raise UserError(f"config '{name}:{variant}': no such variant; known: '{name}', {known}.")
