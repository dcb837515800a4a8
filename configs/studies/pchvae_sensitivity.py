"""The VAEs over c, the weight of the KL terms and the length of training."""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment

#: Systems, and how many of their last weights are those of KL terms.
KL_TERMS = {"pchvae": 2, "chvae": 2, "highvae": 1}


def get_config(variant: str = "") -> ConfigDict:
    check_variant("studies/pchvae_sensitivity", variant)
    experiments = {}
    for name, terms in KL_TERMS.items():
        for change in ("as_is", "c_third", "c_triple", "kl_third", "kl_triple", "long"):
            one = experiment(f"{name}:{variant}" if variant else name)
            one.model.score_samples = 4
            factor = 3.0 if change.endswith("triple") else 1 / 3
            if change.startswith("c_"):
                one.model.variance *= factor
            elif change.startswith("kl_"):
                one.model.weights = (*one.model.weights[:-terms], *[factor] * terms)
            experiments[f"{name}_{change}"] = one
    config = study(experiments, seeds=(0,))
    for name in KL_TERMS:
        config.lengths[f"{name}_long"] = 3.0
    if variant == "demo":
        config.num_epochs = 6.0
    elif variant == "smoke":
        config.bootstrap_resamples, config.num_slices = 50, 1
    return config
