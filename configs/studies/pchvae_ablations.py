"""pchVAE without one of its ideas at a time, and with other latent sizes.

python launch.py --mode=study --config=studies/pchvae_ablations:demo --workdir=runs/ablations
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment

#: Experiment -> changes to pchVAE's `config.model`.
CHANGES = {
    "pchvae": {},
    "no_third_term": {"weights": (1.0, 1.0, 0.0, 1.0, 1.0)},
    "z2_without_z1": {"condition_z2": False},
    "z1_of_4_channels": {"latent_channels": (4, 1)},
    "z1_of_64_channels": {"latent_channels": (64, 1)},
    "z2_of_4_channels": {"latent_channels": (16, 4)},
}


def get_config(variant: str = "") -> ConfigDict:
    check_variant("studies/pchvae_ablations", variant)
    experiments = {}
    for name, changes in CHANGES.items():
        experiments[name] = experiment(f"pchvae:{variant}" if variant else "pchvae")
        experiments[name].model.update(changes)
    config = study(experiments, seeds=range(3))
    config.reference = "pchvae"
    if variant == "demo":
        config.num_epochs, config.seeds = 6.0, (0,)
    elif variant == "smoke":
        config.seeds, config.bootstrap_resamples, config.num_slices = (0,), 50, 1
    return config
