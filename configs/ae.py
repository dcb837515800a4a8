"""AE: a convolutional autoencoder (Kramer 1991), the simplest system of AE-FLOW's Table 1.

    python launch.py --config=ae:demo --workdir=runs/ae

trains for at most 75 s on two cores. Expect a position-corrected AUROC of .743 on `test_objects`
and .638 on `test_lesions` (docs/results.md, means of three seeds).
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant
from jaxad.config.protocols import aeflow_protocol, autoencoder_sizes


def get_config(variant: str = "") -> ConfigDict:
    check_variant("ae", variant)
    config = aeflow_protocol(variant)
    config.model.name = "ae"
    config.optim.learning_rate, config.optim.weight_decay = 1e-3, 0.0
    autoencoder_sizes(config, variant)
    if variant == "demo":
        config.train.num_epochs = 3.0
    return config
