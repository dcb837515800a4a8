"""pchVAE and High VAE trained for long, three seeds: the margin over the linear baseline.

    python launch.py --mode=study --config=studies/pchvae_long:demo --workdir=runs/long

takes half an hour on two cores.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment


def get_config(variant: str = "") -> ConfigDict:
    check_variant("studies/pchvae_long", variant)
    suffix = f":{variant}" if variant else ""
    config = study({name: experiment(name + suffix) for name in ("pchvae", "highvae")}, range(3))
    config.reference = "pca_64"
    if variant == "demo":
        config.num_epochs = 20.0  # 6,000 steps on the embedded data
    elif variant == "smoke":
        config.seeds, config.bootstrap_resamples, config.num_slices = (0,), 50, 1
    return config
