"""pchVAE, High VAE and chVAE over c, the weight of the KL terms and the length of training."""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment

SYSTEMS = ("pchvae", "highvae", "chvae")
KL_TERMS = {"pchvae": 2, "highvae": 1, "chvae": 2}  # the last weights are theirs
FACTORS_OF_C = {"c_third": 1 / 3, "c": 1.0, "c_triple": 3.0}
KL_WEIGHTS = {"kl_third": 1 / 3, "kl_triple": 3.0}


def get_config(variant: str = "") -> ConfigDict:
    check_variant("studies/pchvae_sensitivity", variant)
    suffix = f":{variant}" if variant else ""
    experiments = {}
    for name in SYSTEMS:
        for label, factor in FACTORS_OF_C.items():
            experiments[f"{name}_{label}"] = experiment(name + suffix)
            experiments[f"{name}_{label}"].model.variance *= factor
        for label, weight in KL_WEIGHTS.items():
            one = experiment(name + suffix)
            others = one.model.weights[: -KL_TERMS[name]]
            one.model.weights = (*others, *(weight for _ in range(KL_TERMS[name])))
            experiments[f"{name}_{label}"] = one
    config = study(experiments, seeds=(0,))
    if variant == "demo":
        config.num_epochs = 6.0
    elif variant == "smoke":
        config.bootstrap_resamples, config.num_slices = 50, 1
    return config
