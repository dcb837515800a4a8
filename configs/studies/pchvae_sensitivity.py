"""The systems of the pchVAE paper over c, the KL weights, the size and the length of training."""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment

VARIANCE = ("c_third", "c_triple")
KL_WEIGHTS = ("kl_third", "kl_triple")
CHANGES = {
    "pchvae": (*VARIANCE, *KL_WEIGHTS, "long"),
    "highvae": (*VARIANCE, *KL_WEIGHTS, "long"),
    "chvae": (*VARIANCE, *KL_WEIGHTS, "long"),
    "lowvae": VARIANCE,
    "vqvae2": ("few_codes", "long"),
}
#: How many of a system's last weights are those of KL terms.
KL_TERMS = {"pchvae": 2, "highvae": 1, "chvae": 2}


def _changed(name: str, change: str, variant: str) -> ConfigDict:
    config = experiment(f"{name}:{variant}" if variant else name)
    if name != "vqvae2":
        config.model.score_samples = 4
    factor = 3.0 if change.endswith("triple") else 1 / 3
    if change in VARIANCE:
        config.model.variance *= factor
    elif change in KL_WEIGHTS:
        terms = KL_TERMS[name]
        config.model.weights = (*config.model.weights[:-terms], *[factor] * terms)
    elif change == "few_codes":
        config.model.num_codes //= 8
    return config


def get_config(variant: str = "") -> ConfigDict:
    check_variant("studies/pchvae_sensitivity", variant)
    pairs = [(name, change) for name in CHANGES for change in ("as_is", *CHANGES[name])]
    experiments = {f"{name}_{change}": _changed(name, change, variant) for name, change in pairs}
    config = study(experiments, seeds=(0,))
    for name, change in pairs:
        if change == "long":
            config.lengths[f"{name}_long"] = 3.0
    if variant == "demo":
        config.num_epochs = 6.0
    elif variant == "smoke":
        config.bootstrap_resamples, config.num_slices = 50, 1
    return config
