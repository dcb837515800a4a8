"""Every system on one data set, with reference scores that need no training.

    python launch.py --mode=study --config=studies/all_systems --workdir=runs/all \
      --config.data.name=chestxray --config.data.root=<folder>

docs/results.md has its tables on real data. `:encoders` has only the systems on the features of a
frozen encoder, at 256 px.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment

ENCODERS = ("aeflow", "fastflow", "differnet", "padim", "patchcore")
OTHERS = ("pchvae", "chvae", "highvae", "lowvae", "vqvae2", "ae", "fanogan", "ganomaly")
#: Epochs of real data; flows on an encoder's features need fewer.
EPOCHS = {"aeflow": 12.0, "fastflow": 5.0}


def get_config(variant: str = "") -> ConfigDict:
    check_variant("studies/all_systems", variant, more=("encoders",))
    is_real = variant in ("", "encoders")
    names = ENCODERS if variant == "encoders" else (*ENCODERS, *OTHERS)
    experiments = {n: experiment(n if is_real else f"{n}:{variant}") for n in names}
    data = experiments["aeflow"].data
    size = {"encoders": 256, "smoke": 64}.get(variant, data.image_size)
    epochs = {}
    for name, one in experiments.items():
        epochs[name] = EPOCHS.get(name, 20.0) if is_real else one.train.num_epochs
        one.train.num_epochs = 20.0  # `lengths` below gives each system its own
        one.data.name, one.data.num_subjects = data.name, data.num_subjects
        one.data.image_size, one.data.preprocess.square = size, "stretch"
        one.cpu_devices = 2  # one process runs all; most are faster on two
    config = study(experiments, seeds=range(3))
    for name in names:
        config.lengths[name] = epochs[name] / 20
    config.reference = "aeflow"
    if variant == "smoke":
        config.seeds, config.bootstrap_resamples, config.num_slices = (0,), 50, 1
    return config
