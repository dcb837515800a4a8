"""High VAE: the high-level branch of pchVAE alone, a plain convolutional VAE (Zimmerer et al.).

    python launch.py --config=highvae:demo --workdir=runs/highvae

takes minutes on two cores. Expect an AUROC of .755 on `test_objects` and .662 on `test_lesions`, or
.821 and .733 corrected for slice position.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant
from jaxad.config.protocols import pchvae_protocol


def get_config(variant: str = "") -> ConfigDict:
    check_variant("highvae", variant)
    config = pchvae_protocol(variant)
    config.model.name = "highvae"
    # Slightly more parameters than pchVAE, the same number of latents.
    config.model.widths = (16, 26, 51, 68)  # channels at H/2, H/4, H/8, H/16
    config.model.depths = (0, 0, 1, 1)  # residual 3x3 convolutions per block at these levels
    config.model.latent_channels = (32,)  # z at H/16
    config.model.variance = 0.0056  # c, in squared units of the [0, 1] image
    config.model.weights = (1.0, 1.0)  # lambda 2 and 4: nll, kl_high
    config.model.image_score = "elbo"  # the paper's; or "reconstruction"
    config.model.score_samples = 0  # latents at their means
    config.model.norm = "none"
    if variant == "paper":
        config.model.score_samples = 4  # estimates the expectation of Eq. 8
    elif variant == "smoke":
        config.model.widths = (8, 8, 8, 8)
    return config
