"""The systems of the pchVAE paper over c, the KL weights, the size and the length of training.

To the optimum of a loss, c times three is every KL weight times three; the score of a slice knows
c alone. So both are varied, and where there are two KL terms, each by itself.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment

#: What is changed in each system, one at a time, beside `as_is`.
CHANGES = {
    "pchvae": (
        "c_third", "c_triple", "kl_z1_third", "kl_z1_triple", "kl_z2_third", "kl_z2_triple", "long",
    ),
    "highvae": ("c_third", "c_triple", "kl_third", "kl_triple", "long"),
    "chvae": ("c_third", "c_triple", "kl_z1_third", "kl_z2_triple", "long"),
    "lowvae": ("c_third", "c_triple"),
    "vqvae2": ("few_codes", "long"),
}  # fmt: skip
#: Place of a KL term in `config.model.weights`, from the end.
KL_TERMS = {"kl": -1, "kl_z1": -2, "kl_z2": -1}


def _changed(name: str, change: str, variant: str) -> ConfigDict:
    config = experiment(f"{name}:{variant}" if variant else name)
    if name != "vqvae2":
        config.model.score_samples = 4
    what, _, amount = change.rpartition("_")
    factor = {"third": 1 / 3, "triple": 3.0}.get(amount)
    if what == "c":
        config.model.variance *= factor
    elif what in KL_TERMS:
        weights = list(config.model.weights)
        weights[KL_TERMS[what]] *= factor
        config.model.weights = tuple(weights)
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
