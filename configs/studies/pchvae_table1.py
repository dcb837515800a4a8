"""Table 1 of the pchVAE paper (Zimmerer et al.): five systems, five seeds.

    python launch.py --mode=study --config=studies/pchvae_table1:demo --workdir=runs/table1

takes more than an hour on two cores. docs/results.md has the same systems at 128 px.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment

SYSTEMS = ("vqvae2", "lowvae", "highvae", "chvae", "pchvae")

METRICS = ("mse", "auroc", "average_precision")
#: Mean and standard deviation over five runs. MSE is on HCP; the paper does not say on which data
#: the other metrics are.
PUBLISHED = {
    "vqvae2": ((0.02823, 0.0001), (0.6965, 0.0036), (0.4585, 0.0058)),
    "lowvae": ((0.01169, 0.0002), (0.7101, 0.0010), (0.4922, 0.0025)),
    "highvae": ((0.07036, 0.0007), (0.7207, 0.0005), (0.5154, 0.0010)),
    "chvae": ((0.02124, 0.0040), (0.6716, 0.0009), (0.4341, 0.0008)),
    "pchvae": ((0.03224, 0.0017), (0.7277, 0.0002), (0.5321, 0.0017)),
}


def get_config(variant: str = "") -> ConfigDict:
    check_variant("studies/pchvae_table1", variant)
    suffix = f":{variant}" if variant else ""
    experiments = {name: experiment(f"{name}{suffix}") for name in SYSTEMS}
    config = study(experiments, seeds=range(5))
    config.published = {
        name: dict(zip(METRICS, row, strict=True)) for name, row in PUBLISHED.items()
    }
    config.reference = "pchvae"
    if variant == "demo":
        config.num_epochs = 6.0  # under 100 minutes on two cores
    elif variant == "smoke":
        config.seeds, config.bootstrap_resamples, config.num_slices = (0, 1), 50, 1
    return config
