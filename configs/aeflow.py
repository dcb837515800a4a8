"""AE-FLOW: frozen ImageNet encoder, normalising flow and decoder (Zhao, Ding and Zhang 2023).

    python launch.py --config=aeflow:demo --workdir=runs/aeflow

takes 5 min on two cores. Expect an AUROC of .903 on `test_objects` and .712 on `test_lesions`.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant
from jaxad.config.protocols import aeflow_protocol


def get_config(variant: str = "") -> ConfigDict:
    check_variant("aeflow", variant, more=("chest",))
    config = aeflow_protocol(variant)
    config.model.name = "aeflow"
    config.model.backbone = "efficientnet_lite0"  # or ..._lite1, ..._lite2, wide_resnet50_2
    config.model.weights = ""  # installed ones; or a file, hub:<owner>/<repository>, "random"
    config.model.strides = (16, 32)  # of the features; each has a flow
    config.model.whitening = "place"  # first step of each flow: PaDiM's Gaussians; or "none"
    config.model.num_blocks = 8
    config.model.subnet = "conv"  # or "resnet"
    config.model.permutation = "random"  # or "reverse", "orthogonal"
    config.model.moves = "second"  # half that a coupling changes; or "first"
    config.model.output_scale = config.model.global_scale = 0.1  # of subnets and actnorm
    config.model.decoder_widths = ()  # empty: 1/2, 1/4 and 1/16 of the features' channels
    config.model.alpha, config.model.beta = 0.5, 0.9  # weights of the flow in loss and score
    config.model.reconstruction_loss = "mse"  # or "ssim"
    config.model.flow_loss = "per_dimension"  # or "sum"
    config.model.flow_score = "feature_nll"  # or "exp_mean" (the paper), "nll_mean", "literal"
    config.model.pixel_map = "residual"  # or "ssim", "flow"
    if variant == "smoke":
        config.model.num_blocks = 2
    elif variant in ("paper", "chest"):
        config.model.backbone, config.model.strides = "wide_resnet50_2", (16,)
        config.model.whitening, config.model.flow_score = "none", "exp_mean"
        config.model.subnet = "conv" if variant == "chest" else "resnet"
        config.model.reconstruction_loss = "ssim" if variant == "chest" else "mse"
    return config
