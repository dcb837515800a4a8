"""One record per config field: its default, help, allowed values and what it applies to.

Defaults, `--help`, range checks and the checks for fields without effect all follow from these
records. Fields of `config.model` other than `name` are those of the model's own dataclass.
"""

from collections.abc import Mapping

from jaxad.config.field import Field

_SEED = "[0, 4294967295]"
_STEPS = "[1, 2147483647]"
_SCANS = ("volumes",)
_PREPARED = ("files", "published", "tfds")
_INTENSITY = "data.preprocess.intensity"
_WRITERS = ("tensorboard", "wandb", "mlflow")
_WRITERS_HELP = "Where metrics go besides metrics.jsonl, as ('tensorboard', 'wandb')."

_RUN = (
    Field(
        "seed", 0, "Seed of initial parameters, noise and the order of batches.", _SEED,
        aliases=("random_seed",),
    ),
    Field(
        "parallel", "jit", "How one program runs on all devices.", ("jit", "pmap"), role="execution"
    ),
    Field(
        "cpu_devices", 1, "On a CPU: devices that share each batch.", "[1, 1024]", role="execution"
    ),
    Field(
        "precision", "float32", "Compute precision; parameters are float32.",
        ("float32", "bfloat16"), aliases=("dtype", "amp"),
    ),
    Field(
        "init_from", "",
        "Run or exported file whose weights the run starts from; empty: random weights.",
        trained_only=True, aliases=("pretrained",),
    ),
)  # fmt: skip

_DATA = (
    Field("data.name", "icbm_synth", "Data set; docs/data.md lists them.", aliases=("dataset",)),
    Field(
        "data.root", "", "Folder or table of the data; empty for icbm_synth: TFDS's folder.",
        role="path", aliases=("data_dir", "path"),
    ),
    Field(
        "data.image_size", 64, "Height and width of images, in pixels.", "[4, 16384]",
        aliases=("img_size", "imgsz", "resolution"),
    ),
    Field("data.channels", 0, "Channels of images; 0: 3 for isic2018, else 1.", "[0, 1024]"),
    Field(
        "data.batch_size", 64, "Images per update, over all devices and processes.",
        "[1, 1048576]", per_experiment=True, aliases=("bs", "batch"),
    ),
    Field("data.seed", 0, "Seed of generated data and of drawn splits.", _SEED),
    Field(
        "data.num_subjects", (240, 120, 60, 60),
        "icbm_synth: subjects in train, val, test_objects and test_lesions.", "[1, inf)",
    ),
    Field(
        "data.natural_objects", "",
        "Test split of normal images to render objects into; becomes test_objects.",
    ),
    Field(
        "data.test.name", "", "Another data set to test on; its splits become test_<name>."
    ),
    Field("data.test.root", "", "Folder or table of that data set.", role="path"),
    Field(
        "data.modality", "", "Modality of the scans, as t2, or t1,t2 for two channels.",
        data=("hcp", "brats2017", "brats2021", "external"),
    ),
    Field(
        "data.val_share", 0.1, "Share of training patients for val, if the data have no val.",
        "(0, 1)", data=(*_PREPARED, "external"), selects_only=True, aliases=("val_split",),
    ),
    Field(
        "data.test_share", 0.2, "Share of normal patients for test, if the data have no test.",
        "(0, 1)", data=("files", "brats2017", "brats2021", "external"),
        selects_only=True, aliases=("test_split",),
    ),
    Field(
        "data.group_pattern", "",
        "Regular expression that finds the patient in a file's path; empty: one per file.",
        data=("files", "miic", "external"), selects_only=True, aliases=("patient_pattern",),
    ),
    Field(
        "data.normal_classes", (), "Folders or labels that are normal; empty: the usual words.",
        data=("files", "miic", "tfds", "external"), selects_only=True,
    ),
    Field(
        "data.anomalous_classes", (), "Labels that are anomalous; all others are then normal.",
        data=("tfds", "external"), selects_only=True,
    ),
    Field(
        "data.allow_outside_root", False,
        "Let a table name files outside its folder, by absolute paths.",
        data=("files", "published"), role="path",
    ),
    Field(
        "data.regroup", False, "Leave training images of patients in the published test split out.",
        data=("oct2017", "chestxray"), selects_only=True,
    ),
    Field(
        "data.check_sizes", True, "Check the number of files against the published one.",
        data=("published",), selects_only=True,
    ),
    Field(
        "data.duplicates", "keep", "Images of train and val that repeat another one: keep or omit.",
        ("keep", "leave_out"), data=(*_PREPARED, "npz", "external"), selects_only=True,
    ),
    Field(
        "data.on_error", "raise", "What to do with a bad file: stop, or leave it out and name it.",
        ("raise", "skip"), role="execution",
    ),
    Field(
        "data.in_memory", 0.0,
        "GiB of images in memory; larger data are read from disk; 0: half of free memory.",
        "[0, 1e9]", role="execution",
    ),
    Field(
        _INTENSITY, "auto",
        "How intensities become [0, 1]; auto: range for images, zscore for scans.",
        ("auto", "range", "zscore", "percentile"), data=_PREPARED,
    ),
    Field(
        "data.preprocess.foreground", "auto",
        "Pixels to normalise over; auto: nonzero, or otsu where the background is noise.",
        ("auto", "nonzero", "all", "otsu"), data=_PREPARED,
        requires=(_INTENSITY, ("zscore", "percentile")),
    ),
    Field(
        "data.preprocess.clip", 3.0, "Standard deviations at which zscore clips.", "(0, inf)",
        data=_PREPARED, requires=(_INTENSITY, ("zscore",)),
    ),
    Field(
        "data.preprocess.percentiles", (1.0, 99.0), "Percentiles that become 0 and 1.",
        "[0, 100]", data=_PREPARED, requires=(_INTENSITY, ("percentile",)),
    ),
    Field(
        "data.preprocess.square", "pad", "How images become square.", ("pad", "crop", "stretch"),
        data=_PREPARED,
    ),
    Field(
        "data.volume.plane", "axial", "Plane of the slices.", ("axial", "coronal", "sagittal"),
        data=_SCANS,
    ),
    Field(
        "data.volume.slices", (),
        "Slices as (start, stop[, step]) in Python; empty: all, or as published.", items=int,
        data=_SCANS,
    ),
    Field(
        "data.volume.spacing", 0.0, "Distance of slices, mm; 0: the scan's, or as published.",
        "[0, 1e6)", data=_SCANS,
    ),
    Field(
        "data.volume.field_of_view", 0.0, "Side of a slice, mm; 0: all of it, or as published.",
        "[0, 1e6)", data=_SCANS,
    ),
    Field(
        "data.volume.min_foreground", 0.02, "Share of foreground below which a slice is left out.",
        "[0, 1)", data=_SCANS,
    ),
    Field(
        "data.volume.min_lesion_pixels", 10,
        "A slice with more marked pixels is anomalous, with none normal.", "[0, 1e6)", data=_SCANS,
    ),
    Field(
        "data.augment.mirror", True, "Flip half of the training images left-right.",
        per_experiment=True, aliases=("flip",),
    ),
    Field(
        "data.augment.rotation", 0.0, "Standard deviation of the rotation, degrees.", "[0, 180]",
        per_experiment=True, trained_only=True, aliases=("rotate",),
    ),
    Field(
        "data.augment.scale", 0.0, "Standard deviation of the logarithm of the magnification.",
        "[0, 1]", per_experiment=True, trained_only=True,
    ),
    Field(
        "data.augment.brightness", 0.0, "Standard deviation of the logarithm of the brightness.",
        "[0, 1]", per_experiment=True, trained_only=True,
    ),
    Field(
        "data.augment.noise", 0.0, "Standard deviation of noise added inside the foreground.",
        "[0, 1]", per_experiment=True, trained_only=True,
    ),
)  # fmt: skip

_OPTIM = (
    Field(
        "optim.name", "adam", "Optimiser.", ("adam", "adamw", "sgd"), trained_only=True,
        aliases=("optimizer",),
    ),
    Field(
        "optim.learning_rate", 1e-4, "Learning rate, after warm-up.", "[0, inf)", trained_only=True,
        aliases=("lr",),
    ),
    Field(
        "optim.b1", 0.9, "Decay of the gradients' mean; sgd: momentum.", "[0, 1]",
        trained_only=True, aliases=("momentum",),
    ),
    Field("optim.b2", 0.999, "Decay of the gradients' variance.", "[0, 1]", trained_only=True),
    Field(
        "optim.epsilon", 1e-8, "Adam: added to the root of the gradients' variance.", "(0, inf)",
        trained_only=True, aliases=("eps",),
    ),
    Field(
        "optim.schedule", "constant", "Learning rate after warm-up; cosine ends at zero.",
        ("constant", "cosine"), trained_only=True, aliases=("scheduler",),
    ),
    Field(
        "optim.warmup_steps", 0, "Updates over which the learning rate rises from zero.",
        "[0, 2147483647]", trained_only=True,
    ),
    Field(
        "optim.clip_norm", 0.0, "Largest norm of the gradient; 0: not clipped.", "[0, inf)",
        trained_only=True, aliases=("grad_clip",),
    ),
    Field(
        "optim.weight_decay", 0.0, "adam: L2 in the gradient; adamw: decoupled.", "[0, inf)",
        trained_only=True, aliases=("wd", "l2"),
    ),
    Field(
        "optim.networks", {}, "Network -> the fields of config.optim that differ for it.",
        trained_only=True,
    ),
    Field(
        "optim.frozen", (), "Regular expressions over the paths of parameters that stay fixed.",
        trained_only=True,
    ),
)  # fmt: skip

_TRAIN = (
    Field(
        "train.num_epochs", 10.0, "Length of training, in epochs.", "(0, 1e9]", trained_only=True,
        aliases=("epochs",),
    ),
    Field(
        "train.log_every_steps", 25, "Updates between logs.", _STEPS, trained_only=True,
        aliases=("log_every",),
    ),
    Field("train.writers", ("tensorboard",), _WRITERS_HELP, _WRITERS, role="execution"),
    Field(
        "train.checkpoint_every_steps", 250,
        "Updates between validations and checkpoints; at most an epoch in a shorter run.", _STEPS,
        trained_only=True, aliases=("save_every",),
    ),
    Field(
        "train.early_stopping", 0,
        "Validations in a row without a lower loss after which training stops; 0: never.",
        "[0, 2147483647]", trained_only=True, aliases=("patience",),
    ),
    Field(
        "train.steps_per_dispatch", 1, "Updates sent to the devices at once; helps if short.",
        "[1, 10000]", role="execution", trained_only=True,
    ),
    Field(
        "train.accumulate_steps", 1,
        "Parts that a device takes its batch in, to save memory; batch norm sees one part.",
        "[1, 1048576]", trained_only=True, aliases=("grad_accum",),
    ),
    Field(
        "train.rematerialise", False, "Save memory by computing activations twice.",
        trained_only=True,
    ),
    Field(
        "train.keep_last", 2, "Checkpoints kept besides the best one.", _STEPS, trained_only=True
    ),
    Field(
        "train.updates", {},
        "Network -> (start, end, every): shares of the run, and every how many updates.",
        trained_only=True,
    ),
    Field(
        "train.feature_cache", "",
        "Folder of a frozen encoder's features; empty: ~/.cache/jaxad/features; or off.",
        role="path",
    ),
    Field(
        "train.feature_cache_dtype", "float16", "Type of cached features.", ("float16", "bfloat16")
    ),
)  # fmt: skip

_EVALUATE = (
    Field("evaluate.batch_size", 64, "Images per device and batch.", "[1, 1048576]"),
    Field(
        "evaluate.bootstrap_resamples", 1000, "Resamples of patients for intervals.",
        "[1, 1000000]", role="evaluation",
    ),
    Field(
        "evaluate.false_positive_rate", 0.05, "False-positive rate of decisions, by patient.",
        "(0, 1)", role="evaluation", aliases=("fpr", "rate"),
    ),
    Field(
        "evaluate.feature_references", True,
        "Compare with reference scores on the features of a frozen encoder.", role="evaluation",
    ),
    Field(
        "evaluate.position_correction", True,
        "Also report AUROCs corrected for slice position, if slices have one.", role="evaluation",
    ),
    Field(
        "evaluate.num_examples", 6, "Slices of each kind kept for the report.", "[0, 1000]",
        role="evaluation",
    ),
    Field(
        "evaluate.metrics", (), "Metrics of other packages, as my_package.my_metrics:name.",
        role="evaluation",
    ),
)  # fmt: skip

#: Every field of a run's config.
FIELDS = (
    *_RUN,
    *_DATA,
    Field("model.name", "", "System: a name of docs/, or package.module:Class."),
    *_OPTIM,
    *_TRAIN,
    *_EVALUATE,
)

#: The fields of a study's config besides the shared `data` and the fields of its experiments.
STUDY_FIELDS = (
    Field("seeds", (0,), "Seeds that every experiment is trained with.", _SEED),
    Field("writers", ("tensorboard",), _WRITERS_HELP, _WRITERS, role="execution"),
    Field("seeds_per_program", 1, "Seeds trained together as one program (vmap).", "[1, inf)"),
    Field("reference", "", "Experiment to compare the others with; empty: the best one."),
    Field("bootstrap_resamples", 2000, "Resamples of patients for differences.", "[1, 1000000]"),
    Field("num_slices", 4, "Slices of each test split in the contact sheet.", "[0, 1000]"),
    Field("published", {}, "Experiment -> {metric: (mean, standard deviation)} of the paper."),
    Field("weights", "", "Encoder weights where an experiment's own model.weights is empty."),
    Field("heat_map.rows", (), "Experiments that are the rows of a heat map; empty: no heat map."),
    Field("heat_map.row_values", (), "Weight that each row was trained with.", items=float),
    Field("heat_map.row_name", "", "Name of the rows' weight."),
    Field("heat_map.column_name", "", "Name of the weight that mixes the two components."),
    Field("heat_map.parts", (), "The two score components that the columns mix."),
    Field("lengths", {}, "Experiment -> length of training, in num_epochs.", "(0, inf)"),
    Field("num_epochs", 10.0, "Length of training of every experiment, in epochs.", "(0, 1e9]"),
)  # fmt: skip

_BY_PATH: Mapping[str, Field] = {field.path: field for field in (*FIELDS, *STUDY_FIELDS)}


def find(path: str) -> Field | None:
    """The record of a field; None for a model's own fields.

    Args:
        path: dotted path, with or without `config.`; also below `config.experiments.<name>`,
            `config.optim.networks.<network>` or another open group.
    """
    path = _in_run(path)
    parts = path.split(".")
    if parts[:2] == ["optim", "networks"] and len(parts) == 4:
        path = f"optim.{parts[3]}"
    return _BY_PATH.get(path) or open_group(path)


def open_group(path: str) -> Field | None:
    """The open group that holds a path; None for any other path."""
    groups = (field for field in _BY_PATH.values() if field.is_open_group)
    return next((group for group in groups if _in_run(path).startswith(f"{group.path}.")), None)


def _in_run(path: str) -> str:
    """Converts a path in a config, or in an experiment of a study, to a path in the records."""
    parts = path.removeprefix("config.").split(".")
    return ".".join(parts[2:] if parts[0] == "experiments" else parts)
