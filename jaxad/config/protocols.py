"""Configs that the systems of one paper share: data, training and sizes, without the model."""

from ml_collections import ConfigDict

from jaxad.config import base, smoke


def pchvae_protocol(variant: str) -> ConfigDict:
    """Returns data and training of the systems of the pchVAE paper; callers set the model."""
    config = base()
    config.data.batch_size = 16  # in equal time, many small steps detect better than few large
    config.cpu_devices = 2
    config.optim.learning_rate = 5e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 100
    # Otherwise the first, very large gradients dominate Adam's second moment for long.
    config.optim.clip_norm = 1.0
    config.train.num_epochs = 40.0
    config.train.checkpoint_every_steps = 1000
    if variant == "demo":
        config.train.num_epochs = 11.0
    elif variant == "smoke":
        smoke(config)
    elif variant == "paper":
        # The paper's training; it also tests on BraTS 2017 (config.data.test.name=brats2017).
        config.data.name = "hcp"
        config.data.augment.mirror = False
        config.data.batch_size = 64
        config.optim.learning_rate = 1e-4
        config.optim.schedule = "constant"
        config.optim.warmup_steps, config.optim.clip_norm = 0, 0.0
        config.train.num_epochs = 10.0
    return config


def aeflow_protocol(variant: str) -> ConfigDict:
    """Returns data and training of AE-FLOW and the systems of its Table 1; callers set the model.

    A system's config file has its differences from AE-FLOW.
    """
    config = base()
    config.data.image_size = 128
    config.data.batch_size = 32
    config.data.augment.mirror = False  # a frozen encoder's features are then computed once
    config.cpu_devices = 2
    # The paper's optimiser; its weight decay is L2 in the gradient.
    config.optim.learning_rate, config.optim.weight_decay = 2e-4, 1e-5
    config.train.num_epochs = 100.0
    if variant == "demo":
        config.data.num_subjects = (160, 60, 60, 60)
        config.train.num_epochs = 2.5
    elif variant == "smoke":
        smoke(config)
        config.data.image_size = 32
    elif variant in ("paper", "chest"):
        # The paper also uses isic2018 (config.data.channels=3), brats2021 and miic.
        config.data.name = "chestxray" if variant == "chest" else "oct2017"
        config.data.image_size, config.data.batch_size = 256, 64
        if variant == "chest":
            config.optim.learning_rate, config.optim.weight_decay = 1e-3, 0.0
    return config


def autoencoder_sizes(config: ConfigDict, variant: str) -> None:
    """Sets the sizes that AE and the GANs of AE-FLOW's Table 1 share."""
    config.model.widths = (16, 32, 64, 64, 64)  # channels after each halving, to 4 x 4
    config.model.depth = 1  # residual 3x3 convolutions at each resolution
    config.model.latents = 128
    config.model.norm = "group"  # or "batch", "none"
    if variant == "demo":
        config.model.norm = "none"  # updates take less time
    elif variant == "smoke":
        config.model.widths, config.model.latents = (8, 8, 8), 8
    elif variant == "paper":
        config.model.widths = (64, 64, 128, 256, 512, 512)
        config.model.norm = "batch"
