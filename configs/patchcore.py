"""PatchCore: distances from a memory of normal patches (Roth et al. 2022).

    python launch.py --config=patchcore:demo --workdir=runs/patchcore

fits in one pass, without gradients. Expect an AUROC of .951 on `test_objects` and .813 on
`test_lesions` (means of three seeds).
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant
from jaxad.config.protocols import aeflow_data


def get_config(variant: str = "") -> ConfigDict:
    check_variant("patchcore", variant)
    config = aeflow_data(variant)
    config.model.name = "patchcore"
    config.model.backbone = "efficientnet_lite0"  # or ..._lite1, ..._lite2, wide_resnet50_2
    config.model.weights = ""  # installed ones; or a file, hub:<owner>/<repository>, "random"
    config.model.strides = (8, 16)  # of the features, at the resolution of the finest
    config.model.memory_size = 4096  # patches
    config.model.candidates = 100_000  # training patches that the memory is chosen from
    config.model.projection = 128  # dimensions in which it is chosen
    config.model.neighbours = 9  # b of the paper's Eq. 7; 1: unweighted distance
    if variant == "demo":
        config.model.memory_size, config.model.candidates = 1024, 50_000
    elif variant == "smoke":
        config.model.memory_size, config.model.candidates = 64, 500
    elif variant == "paper":
        config.model.backbone = "wide_resnet50_2"
        config.model.memory_size, config.model.candidates = 16_384, 200_000
    return config
