"""Low VAE: the low-level branch of pchVAE alone, with latents at H/4 (Zimmerer et al.).

    python launch.py --config=lowvae:demo --workdir=runs/lowvae

takes minutes on two cores. Expect an AUROC of .752 on `test_objects` and .592 on `test_lesions`, or
.830 and .655 corrected for slice position.
"""

from ml_collections import ConfigDict

from jaxad.config import check_variant
from jaxad.config.protocols import pchvae_protocol


def get_config(variant: str = "") -> ConfigDict:
    check_variant("lowvae", variant)
    config = pchvae_protocol(variant)
    config.model.name = "lowvae"
    # Slightly more parameters than pchVAE, the same number of latents.
    config.model.widths = (24, 77)  # channels at H/2 and H/4
    config.model.depths = (0, 1)  # residual 3x3 convolutions per block at these levels
    config.model.latent_channels = (2,)  # z at H/4
    config.model.variance = 0.0056  # c, in squared units of the [0, 1] image
    config.model.weights = (1.0, 1.0)  # lambda 2 and 5: nll, kl_low
    config.model.image_score = "elbo"  # the paper's; or "reconstruction", "low_level"
    config.model.score_samples = 0  # latents at their means
    config.model.norm = "none"
    if variant == "paper":
        config.model.score_samples = 4  # estimates the expectation of Eq. 8
    elif variant == "smoke":
        config.model.widths = (8, 8)
    return config
