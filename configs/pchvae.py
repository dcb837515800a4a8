"""pchVAE: high-level and low-level image component decomposition (Zimmerer et al.)."""

from ml_collections import ConfigDict

from jaxad.config import base, check_variant, smoke


def get_config(variant: str = "") -> ConfigDict:
    check_variant("pchvae", variant)
    config = base()
    config.model.name = "pchvae"
    config.model.widths = (16, 24, 48, 64)  # channels at H/2, H/4, H/8, H/16
    config.model.depths = (0, 0, 1, 1)  # residual 3x3 convolutions per block, same levels
    config.model.latent_channels_high = 16  # z1 at H/16
    config.model.latent_channels_low = 1  # z2 at H/4
    config.model.variance = 0.0056  # c, in squared units of the [0, 1] image
    config.model.weights = (1.0, 1.0, 1.0, 1.0, 1.0)  # lambda 1 to 5
    config.model.norm = "none"
    config.data.batch_size = 16  # at equal time, many small steps detect better than few large
    config.cpu_devices = 2
    config.optim.learning_rate = 5e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 100
    # Without it the first, very large gradients fill Adam's second moment for long.
    config.optim.clip_norm = 1.0
    config.train.num_epochs = 40.0
    config.train.checkpoint_every_steps = 1000
    if variant == "demo":
        config.train.num_epochs = 11.0
    elif variant == "smoke":
        smoke(config).model.widths = (8, 8, 8, 8)
    elif variant == "paper":
        # Its training; the paper gives neither widths nor c, and its data are not here yet.
        config.data.augment.mirror = False
        config.data.batch_size = 64
        config.optim.learning_rate = 1e-4
        config.optim.schedule = "constant"
        config.optim.warmup_steps, config.optim.clip_norm = 0, 0.0
        config.train.num_epochs = 10.0
    return config
