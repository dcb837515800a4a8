"""The pchVAE paper's systems over c, the KL weights, codes and length of training.

    python launch.py --mode=study --config=studies/pchvae_sensitivity:demo --workdir=runs/c

For the optimum of the loss, three times c equals three times every
KL weight; the score depends on c alone. So c, all KL weights and each KL weight are varied.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment

SCALES = {"third": 1 / 3, "triple": 3.0}
C, KL = ("c_third", "c_triple"), ("kl_third", "kl_triple")
KL_1, KL_2 = ("kl_z1_third", "kl_z1_triple"), ("kl_z2_third", "kl_z2_triple")
CHANGES = {
    "pchvae": ("as_is", *C, *KL_1, *KL_2),
    "highvae": ("as_is", *C, *KL),
    "chvae": ("as_is", *C, "kl_z1_third", "kl_z2_triple", "long"),
    "vqvae2": ("as_is", "few_codes"),
}


def get_config(variant: str = "") -> ConfigDict:
    check_variant("studies/pchvae_sensitivity", variant)
    experiments = {}
    for name, change in [(name, change) for name, all_ in CHANGES.items() for change in all_]:
        model = (one := experiment(f"{name}:{variant}" if variant else name)).model
        model.update({} if name == "vqvae2" else {"score_samples": 4})
        if change == "few_codes":
            model.num_codes //= 8
        elif change in C:
            model.variance *= SCALES[change[2:]]
        elif change.startswith("kl_"):  # the last weights
            place = -2 if change in KL_1 else -1
            weights = list(model.weights)
            weights[place] *= SCALES[change.rpartition("_")[2]]
            model.weights = tuple(weights)
        experiments[f"{name}_{change}"] = one
    config = study(experiments, seeds=(0,))
    config.lengths.update({name: 3.0 for name in experiments if name.endswith("long")})
    if variant == "demo":
        config.num_epochs = 6.0
    elif variant == "smoke":
        config.bootstrap_resamples, config.num_slices = 50, 1
    return config
