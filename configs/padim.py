"""PaDiM: a Gaussian of the encoder's features at every place (Defard et al. 2021).

    python launch.py --config=padim:demo --workdir=runs/padim

fits in one pass, without gradients. Expect an AUROC of .796 on `test_objects` and .727 on
`test_lesions` (means of three seeds).
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant
from jaxad.config.protocols import aeflow_data


def get_config(variant: str = "") -> ConfigDict:
    check_variant("padim", variant)
    config = aeflow_data(variant)
    config.model.name = "padim"
    config.model.backbone = "efficientnet_lite0"  # or ..._lite1, ..._lite2, wide_resnet50_2
    config.model.weights = ""  # installed ones; or a file, hub:<owner>/<repository>, "random"
    config.model.strides = (4, 8, 16)  # of the features, at the resolution of the finest
    config.model.num_channels = 100  # random choice of the features' channels
    if variant == "demo":
        config.model.num_channels = 50
    elif variant == "smoke":
        config.model.num_channels = 10
    elif variant == "paper":
        config.model.backbone = "wide_resnet50_2"
        config.model.num_channels = 550  # 5 GB of Gaussians at 256 pixels
    return config
