"""What the systems of one paper share in their configs: data, training and some sizes."""

from ml_collections import ConfigDict

from jaxad.config import base, smoke


def pchvae_protocol(variant: str) -> ConfigDict:
    """Data and training of all systems of the pchVAE paper; the caller sets `config.model`."""
    config = base()
    config.data.batch_size = 16  # in equal time, many small steps detect better than few large ones
    config.cpu_devices = 2
    config.optim.learning_rate = 5e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 100
    # The first gradients are very large; unclipped they stay in Adam's second moment for long.
    config.optim.clip_norm = 1.0
    config.train.num_epochs = 40.0
    config.train.checkpoint_every_steps = 1000
    if variant == "demo":
        config.train.num_epochs = 11.0
    elif variant == "smoke":
        smoke(config)
    elif variant == "paper":
        # The paper also tests on BraTS 2017: config.data.test.name=brats2017.
        config.data.name = "hcp"
        config.data.augment.mirror = False
        config.data.batch_size = 64
        config.optim.learning_rate = 1e-4
        config.optim.schedule = "constant"
        config.optim.warmup_steps, config.optim.clip_norm = 0, 0.0
        config.train.num_epochs = 10.0
    return config


def aeflow_data(variant: str) -> ConfigDict:
    """Returns a config with the data of AE-FLOW, for it and the systems compared with it."""
    config = base()
    config.data.image_size = 128
    config.data.batch_size = 32
    config.data.augment.mirror = False  # features of a frozen encoder are then computed once
    config.cpu_devices = 2
    if variant == "demo":
        config.data.num_subjects = (160, 60, 60, 60)
    elif variant == "smoke":
        smoke(config, is_trained=False)
        config.data.image_size = 32
    elif variant in ("paper", "chest"):
        # The paper's other data: isic2018, brats2021, miic.
        config.data.name = "chestxray" if variant == "chest" else "oct2017"
        config.data.image_size, config.data.batch_size = 256, 64
        config.data.preprocess.square = "stretch"  # the paper resizes; bars would be anomalies
    return config


def aeflow_protocol(variant: str) -> ConfigDict:
    """Data and training of AE-FLOW; config files of other systems override what differs.

    The caller sets `config.model`.
    """
    config = aeflow_data(variant)
    # The paper's optimiser; its weight decay is L2 in the gradient.
    config.optim.learning_rate, config.optim.weight_decay = 2e-4, 1e-5
    if variant == "chest":
        config.optim.learning_rate, config.optim.weight_decay = 1e-3, 0.0
    config.train.num_epochs = 2.5 if variant == "demo" else 100.0
    return smoke(config) if variant == "smoke" else config


def autoencoder_sizes(config: ConfigDict, variant: str) -> None:
    """Sets the sizes that AE, f-AnoGAN and GANomaly share."""
    config.model.widths = (16, 32, 64, 64, 64)  # channels after each halving, to 4 x 4
    config.model.depth = 1  # residual 3x3 convolutions at each resolution
    config.model.latents = 128
    config.model.norm = "group"  # or "layer", "batch", "none"
    if variant == "demo":
        config.model.norm = "none"  # updates take less time
    elif variant == "smoke":
        config.model.widths, config.model.latents = (8, 8, 8), 8
    elif variant == "paper":
        config.model.widths = (64, 64, 128, 256, 512, 512)
        config.model.norm = "batch"
