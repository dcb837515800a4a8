"""What each part of AE-FLOW's recommended setting adds.

    python launch.py --mode=study --config=studies/aeflow_recommended:demo --workdir=runs/parts

`:paper` is the same on the paper's OCT.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment

CHANGES = {
    "recommended": {},
    "mean_score": {"flow_score": "feature_nll"},
    "papers_score": {"flow_score": "exp_mean"},
    "stride_16": {"strides": (16,)},
    "stride_32": {"strides": (32,), "decoder_widths": (128, 64, 32, 16)},
    "no_whitening": {"whitening": "none"},
    "resnet": {"subnet": "resnet"},
}


def get_config(variant: str = "") -> ConfigDict:
    check_variant("studies/aeflow_recommended", variant)
    experiments = {}
    for name, changes in CHANGES.items():
        own = f":{variant}" if variant in ("demo", "smoke") else ""
        experiments[name] = experiment(f"aeflow{own}")
        experiments[name].model.update(changes)
        if variant == "paper":
            experiments[name].data = experiment("aeflow:paper").data
    config = study(experiments, seeds=range(3))
    config.reference = "recommended"
    if variant == "smoke":
        config.seeds, config.bootstrap_resamples, config.num_slices = (0,), 50, 1
    return config
