"""Table 1 of the pchVAE paper (Zimmerer et al.): five systems, five seeds."""

from ml_collections import ConfigDict

from jaxad.config import check_variant, study
from jaxad.config import get_config as experiment

SYSTEMS = ("vqvae2", "lowvae", "highvae", "chvae", "pchvae")

#: Mean and standard deviation over five runs; MSE on HCP, the anomalies' data set is not said.
PUBLISHED = {
    "vqvae2": {
        "mse": (0.02823, 0.0001),
        "auroc": (0.6965, 0.0036),
        "average_precision": (0.4585, 0.0058),
    },
    "lowvae": {
        "mse": (0.01169, 0.0002),
        "auroc": (0.7101, 0.0010),
        "average_precision": (0.4922, 0.0025),
    },
    "highvae": {
        "mse": (0.07036, 0.0007),
        "auroc": (0.7207, 0.0005),
        "average_precision": (0.5154, 0.0010),
    },
    "chvae": {
        "mse": (0.02124, 0.0040),
        "auroc": (0.6716, 0.0009),
        "average_precision": (0.4341, 0.0008),
    },
    "pchvae": {
        "mse": (0.03224, 0.0017),
        "auroc": (0.7277, 0.0002),
        "average_precision": (0.5321, 0.0017),
    },
}


def get_config(variant: str = "") -> ConfigDict:
    check_variant("studies/pchvae_table1", variant)
    suffix = f":{variant}" if variant else ""
    config = study({name: experiment(f"{name}{suffix}") for name in SYSTEMS}, seeds=range(5))
    config.published = ConfigDict(PUBLISHED)
    if variant == "demo":
        config.num_epochs = 6.0  # under 100 minutes on two cores
    elif variant == "smoke":
        config.seeds, config.bootstrap_resamples, config.num_slices = (0, 1), 50, 1
    return config
