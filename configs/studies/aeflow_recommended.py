"""What each part of AE-FLOW's recommended setting adds.

    python launch.py --mode=study --config=studies/aeflow_recommended:demo --workdir=runs/parts

docs/results.md has its table.
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
        experiments[name] = experiment(f"aeflow:{variant}" if variant else "aeflow")
        experiments[name].model.update(changes)
    config = study(experiments, seeds=range(3))
    config.reference = "recommended"
    if variant == "smoke":
        config.seeds, config.bootstrap_resamples, config.num_slices = (0,), 50, 1
    return config
