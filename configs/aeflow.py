"""AE-FLOW: frozen ImageNet encoder, normalising flow and decoder (Zhao, Ding and Zhang 2023).

    python launch.py --config=aeflow:demo --workdir=runs/aeflow

takes 5 min on two cores. Expect an AUROC of .938 on `test_objects` and .760 on `test_lesions`.
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
    config.model.strides, config.model.num_blocks = (16, 32), 4  # a flow of 4 blocks for each
    config.model.whitening = "place"  # first step of each flow: PaDiM's Gaussians; or "none"
    config.model.subnet = "conv"  # or "resnet"
    config.model.permutation, config.model.moves = "random", "second"  # order; moved half
    config.model.output_scale = config.model.global_scale = 0.1  # of subnets and actnorm
    config.model.decoder_widths = (128, 64, 32)  # (): 1/2, 1/4 and 1/16 of the features' channels
    config.model.alpha, config.model.beta = 0.5, 0.9  # weights of the flow in loss and score
    config.model.reconstruction_loss, config.model.flow_loss = "mse", "per_dimension"
    config.model.flow_score = "top_tenth"  # or "feature_nll", "exp_mean" (the paper), ...
    config.model.pixel_map = "flow"  # or "residual" (the paper), "ssim"
    if variant in ("", "demo"):
        config.optim.learning_rate, config.optim.schedule = 1e-3, "cosine"
        config.train.num_epochs = 2.5 if variant == "demo" else 12.0
    elif variant in ("paper", "chest"):
        config.model.backbone, config.model.strides = "wide_resnet50_2", (16,)
        config.model.num_blocks, config.model.decoder_widths = 8, ()
        config.model.whitening, config.model.flow_score = "none", "exp_mean"
        config.model.pixel_map = "residual"
        config.model.subnet = "conv" if variant == "chest" else "resnet"
        config.model.reconstruction_loss = "ssim" if variant == "chest" else "mse"
    return config
