"""AE: a convolutional autoencoder (Kramer 1991), the simplest system of AE-FLOW's Table 1.

    python launch.py --config=ae:demo --workdir=runs/ae

takes minutes on two cores. Expect an AUROC of .673 on `test_objects` and .588 on `test_lesions`, or
.744 and .640 corrected for slice position (means of three seeds).
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
