"""chVAE: a conditional hierarchical VAE, pchVAE without x_high and third term (Zimmerer et al.).

    python launch.py --config=chvae:demo --workdir=runs/chvae

takes minutes on two cores. Expect an AUROC of .711 on `test_objects` and .566 on `test_lesions`, or
.789 and .615 corrected for slice position.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant
from jaxad.config.protocols import pchvae_protocol


def get_config(variant: str = "") -> ConfigDict:
    check_variant("chvae", variant)
    config = pchvae_protocol(variant)
    config.model.name = "chvae"
    # Slightly more parameters than pchVAE, the same number of latents.
    config.model.widths = (16, 24, 49, 66)  # channels at H/2, H/4, H/8, H/16
    config.model.depths = (0, 0, 1, 1)  # residual 3x3 convolutions per block at these levels
    config.model.latent_channels = (16, 1)  # z1 at H/16, z2 at H/4
    config.model.variance = 0.0056  # c, in squared units of the [0, 1] image
    config.model.weights = (1.0, 1.0, 1.0)  # lambda 2, 4 and 5: nll, kl_high, kl_low
    config.model.condition_z2 = True  # z2's posterior sees z1
    config.model.image_score = "elbo"  # the paper's; or "reconstruction", "low_level"
    config.model.score_samples = 4  # z1 collapses; at its mean the decoder is biased
    config.model.norm = "none"
    if variant == "smoke":
        config.model.widths = (8, 8, 8, 8)
    return config
