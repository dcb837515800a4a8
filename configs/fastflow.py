"""FastFlow: a two-dimensional flow for each level of a frozen encoder (Yu et al. 2021).

    python launch.py --config=fastflow:demo --workdir=runs/fastflow

takes 3 min on two cores. Expect an AUROC of .937 on `test_objects` and .753 on `test_lesions`.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant
from jaxad.config.protocols import aeflow_protocol


def get_config(variant: str = "") -> ConfigDict:
    check_variant("fastflow", variant)
    config = aeflow_protocol(variant)
    config.model.name = "fastflow"
    config.model.backbone = "efficientnet_lite0"  # or ..._lite1, ..._lite2, wide_resnet50_2
    config.model.weights = ""  # installed ones; or a file, hub:<owner>/<repository>, "random"
    config.model.strides = (16, 32)  # of the levels
    config.model.whitening = "place"  # first step of each flow: PaDiM's Gaussians; or "none"
    config.model.num_blocks = 4
    config.model.subnet = "conv"  # or "resnet", "dense"
    config.model.image_score = "top_tenth"  # or "max" (the paper), "mean" of the map
    config.cpu_devices = 1  # two are as fast: docs/performance.md
    config.optim.learning_rate = 1e-3
    config.train.num_epochs = 5.0
    if variant == "demo":
        config.train.num_epochs = 2.0
    elif variant == "smoke":
        config.train.num_epochs = 2.0
        config.model.strides, config.model.num_blocks = (8, 16), 2
    elif variant == "paper":
        config.model.backbone, config.model.strides = "wide_resnet50_2", (4, 8, 16)
        config.model.whitening, config.model.image_score = "none", "max"
        config.model.num_blocks = 8
        config.data.batch_size, config.train.num_epochs = 32, 500.0
    return config
